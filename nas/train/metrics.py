"""What predictions are worth, from how often each class was predicted, there, and both; all in [0, 1]."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nas.config import MetricName


@dataclass(frozen=True)
class ClassCounts:
    """int64 (classes,) each."""

    there: np.ndarray
    predicted: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, predicted: np.ndarray, classes: int) -> "ClassCounts":
        """Of labels and predictions, int64 (N,)."""
        right = labels[labels == predicted]
        return cls(*(np.bincount(found, minlength=classes) for found in (labels, predicted, right)))


def accuracy(counts: ClassCounts) -> float:
    """Share of the images that were recognised."""
    return int(counts.right.sum()) / int(counts.there.sum())


def balanced_accuracy(counts: ClassCounts) -> float:
    """Mean over the classes that are there of each one's share that was recognised: its recall (arXiv 2008.05756)."""
    there = counts.there > 0
    return float(np.mean(counts.right[there] / counts.there[there]))


def macro_f1(counts: ClassCounts) -> float:
    """Mean over the classes that are there or were predicted of each one's F1, the harmonic mean of recall and precision, as in
    scikit-learn."""
    both = counts.there + counts.predicted
    seen = both > 0
    return float(np.mean(2 * counts.right[seen] / both[seen]))


METRICS: dict[MetricName, Callable[[ClassCounts], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
}
