"""What a trained network says of labelled images that it was not trained on: kept beside it, so that whoever reports need neither
the network nor the images.
"""

import io
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from zipfile import BadZipFile

import numpy as np
import torch
from torch import nn

from nas.config import MetricName
from nas.data.images import ImageSet
from nas.data.loader import Resident
from nas.errors import StudyError
from nas.files import write_whole
from nas.paths import TrialPaths
from nas.runs.spread import CONFIDENCE
from nas.train.device import FULL_PRECISION
from nas.train.evaluate import predict_logits
from nas.train.metrics import METRICS, ClassCounts

KEPT_MISTAKES = 24


@dataclass(frozen=True)
class Evaluation:
    labels: np.ndarray
    """int64 (N,)"""
    probabilities: np.ndarray
    """float32 (N, classes)"""
    wrong: np.ndarray
    """int64 (M,): indices of the most confident mistakes, the most confident first, …"""
    wrong_images: np.ndarray
    """… and their images, uint8 (M, H, W, C)."""

    @property
    def predicted(self) -> np.ndarray:
        """int64 (N,)"""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        return float((self.predicted == self.labels).mean())

    def score(self, metric: MetricName) -> float:
        return METRICS[metric](ClassCounts.of(self.labels, self.predicted, self.probabilities.shape[1]))


def judge(model: nn.Module, data: Resident, images: ImageSet, tta: str) -> Evaluation:
    """As a submission would be predicted. `data` holds `images` where the network is."""
    logits = predict_logits(model, data, FULL_PRECISION, tta)
    predicted = logits.argmax(1).cpu().numpy()
    probabilities = torch.softmax(logits, 1).cpu().numpy()
    labels = np.asarray(images.labels, dtype=np.int64)
    mistakes = np.flatnonzero(predicted != labels)
    confidence = probabilities[mistakes, predicted[mistakes]]
    wrong = mistakes[np.argsort(-confidence, kind="stable")[:KEPT_MISTAKES]]
    return Evaluation(labels, probabilities, wrong, np.ascontiguousarray(images.images[wrong]))


def interval(accuracy: float, images: float) -> tuple[float, float]:
    """In which the accuracy on more such images lies with 95 % confidence, as far as their number decides it (Wilson 1927). Of
    images that come in groups the number is that of `effective_images`."""
    z2 = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) ** 2
    middle = accuracy + z2 / (2 * images)
    half = (z2 * (accuracy * (1 - accuracy) + z2 / (4 * images)) / images) ** 0.5
    return max(0.0, (middle - half) / (1 + z2 / images)), min(1.0, (middle + half) / (1 + z2 / images))


def effective_images(correct: np.ndarray, groups: np.ndarray) -> float:
    """How many images, each taken by itself, would tell the accuracy as surely as these, whose groups are alike: their number
    over the design effect (Kish 1965) of the groups, with the factor of Korn and Graubard (1998) where the groups are few.

    `correct` bool (N,), `groups` int (N,). From 1 to N. Where all or none are correct, groups cannot be told to differ less than
    wholly: as many as there are groups.
    """
    from scipy.stats import t  # takes most of a second to import

    images, members = len(correct), np.unique(groups, return_inverse=True)[1]
    count = int(members.max()) + 1
    accuracy = float(correct.mean())
    if count < 2 or accuracy in (0.0, 1.0):
        return float(count)
    of_groups = np.bincount(members, correct - accuracy)
    variance = count / (count - 1) * float((of_groups**2).sum()) / images**2
    alone = accuracy * (1 - accuracy) / (images - 1)
    few = float(t.ppf((1 + CONFIDENCE) / 2, images - 1) / t.ppf((1 + CONFIDENCE) / 2, count - 1)) ** 2
    # Groups that lie nearer to one another than lots would make them are an accident, not more images.
    return max(1.0, images * few * min(1.0, alone / max(variance, alone * 1e-9)))


def evaluation_file(run: TrialPaths) -> Path:
    return run.folder / "evaluation.npz"


def write_evaluation(run: TrialPaths, evaluation: Evaluation) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **asdict(evaluation))
    write_whole(evaluation_file(run), buffer.getbuffer())


def read_evaluation(run: TrialPaths) -> Evaluation | None:
    """None where there is none: nothing labelled was kept from the training, or the run is from before evaluations were kept.
    Raises StudyError where the file is damaged."""
    file = evaluation_file(run)
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return Evaluation(**{name: arrays[name] for name in ("labels", "probabilities", "wrong", "wrong_images")})
    except (ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        raise StudyError(f"{file} is damaged", hint="restore it from a copy") from None
