"""Statistics of scores: means and deviations over seeds, paired differences, intervals of an accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist, fmean, stdev

import numpy as np

CONFIDENCE = 0.95
NO_DEVIATION = 1e-9  # below it, values differ only by rounding


@dataclass(frozen=True)
class Spread:
    values: tuple[float, ...]

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Of a sample; None for a single value."""
        return stdev(self.values) if self.count > 1 else None

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Of the mean, by Student's t with `CONFIDENCE`. None for a single value, and for equal values: few images allow few
        different scores, so equal ones say nothing about the next."""
        if self.deviation is None or self.deviation < NO_DEVIATION:
            return None
        from scipy.stats import t  # takes most of a second to import

        half = float(t.ppf((1 + CONFIDENCE) / 2, self.count - 1)) * self.deviation / self.count**0.5
        return self.mean - half, self.mean + half

    @property
    def is_not_zero(self) -> bool:
        """Whether the interval excludes 0; False without an interval."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def spread(values: Sequence[float]) -> Spread | None:
    """None without values."""
    return Spread(tuple(values)) if values else None


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Spread | None:
    """Ours minus theirs, for each common seed."""
    return spread([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def pooled_deviation(deviations: Sequence[float]) -> float:
    """Of samples of the same size: the root of their mean variance."""
    return fmean(value**2 for value in deviations) ** 0.5


def accuracy_interval(accuracy: float, images: float) -> tuple[float, float]:
    """Wilson's interval (1927): the accuracy on more such images lies in it with 95 % confidence, as far as the number of images
    decides it. For images in groups, `images` is the result of `effective_images`."""
    z2 = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) ** 2
    middle = accuracy + z2 / (2 * images)
    half = (z2 * (accuracy * (1 - accuracy) + z2 / (4 * images)) / images) ** 0.5
    return max(0.0, (middle - half) / (1 + z2 / images)), min(1.0, (middle + half) / (1 + z2 / images))


@dataclass(frozen=True)
class Expectation:
    """Expected accuracy on other images of a run that was chosen among several."""

    measured: float  # on the images that chose it
    value: float
    interval: tuple[float, float]  # with `CONFIDENCE`
    among: int  # trainings


def after_choice(scores: Sequence[Sequence[float]], network: int, seed: int, images: float) -> Expectation:
    """Expected accuracy of seed number `seed` of network number `network`, which was chosen among all `scores`, accuracies by
    network and seed on the same images. The best of several is partly lucky.

    Empirical Bayes (Efron and Morris 1975) shrinks two differences: that between the network's mean and the mean of all networks,
    and that between the seed and its network's mean. Each keeps the share of its variance that the binomial error of so many
    images does not explain. The interval is Wilson's around the result, at its full width, and is extended to the measured value.
    """
    means = [fmean(of_network) for of_network in scores]
    middle, measured = fmean(means), scores[network][seed]
    error = middle * (1 - middle) / images
    between = stdev(means) ** 2 if len(means) > 1 else 0.0
    within = [stdev(of_network) for of_network in scores if len(of_network) > 1]
    value = middle + _real_share(between, error / len(scores[network])) * (means[network] - middle)
    value += _real_share(pooled_deviation(within) ** 2 if within else 0.0, error) * (measured - means[network])
    low, high = accuracy_interval(value, images)
    return Expectation(measured, value, (min(low, measured), max(high, measured)), sum(map(len, scores)))


def _real_share(variance: float, error: float) -> float:
    return max(0.0, 1 - error / variance) if variance > 0 else 0.0


def effective_images(correct: np.ndarray, groups: np.ndarray) -> float:
    """Number of independent images that would determine the accuracy as well as these, which come in groups: their number divided
    by the design effect (Kish 1965), with the factor of Korn and Graubard (1998) for few groups.

    `correct` bool (N,), `groups` int (N,). From 1 to N. If all or no images are correct, the effect cannot be estimated, and each
    group counts as one image.
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
    # A design effect below 1 is chance, and does not mean more images.
    return max(1.0, images * few * min(1.0, alone / max(variance, alone * 1e-9)))
