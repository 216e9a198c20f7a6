"""What scores say and how surely: means and deviations over seeds, differences of pairs, intervals of an accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist, fmean, stdev

import numpy as np

CONFIDENCE = 0.95
NO_DEVIATION = 1e-9  # of values that are the same but for their rounding


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
        """Of a sample; None of a single value."""
        return stdev(self.values) if self.count > 1 else None

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Of the mean, by Student's t with `CONFIDENCE`; None of a single value, and of values that are all the same, whose
        deviation says nothing of the next one: few images make few different scores."""
        if self.deviation is None or self.deviation < NO_DEVIATION:
            return None
        from scipy.stats import t  # takes most of a second to import

        half = float(t.ppf((1 + CONFIDENCE) / 2, self.count - 1)) * self.deviation / self.count**0.5
        return self.mean - half, self.mean + half

    @property
    def is_not_zero(self) -> bool:
        """Whether the interval leaves 0 out; False where there is none."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def spread(values: Sequence[float]) -> Spread | None:
    """None of no values."""
    return Spread(tuple(values)) if values else None


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Spread | None:
    """Ours less theirs, for each seed that both have."""
    return spread([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def pooled_deviation(deviations: Sequence[float]) -> float:
    """Of samples of the same size, the root of their mean variance."""
    return fmean(value**2 for value in deviations) ** 0.5


def accuracy_interval(accuracy: float, images: float) -> tuple[float, float]:
    """In which the accuracy on more such images lies with 95 % confidence, as far as their number decides it (Wilson 1927). Of
    images that come in groups the number is that of `effective_images`."""
    z2 = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) ** 2
    middle = accuracy + z2 / (2 * images)
    half = (z2 * (accuracy * (1 - accuracy) + z2 / (4 * images)) / images) ** 0.5
    return max(0.0, (middle - half) / (1 + z2 / images)), min(1.0, (middle + half) / (1 + z2 / images))


@dataclass(frozen=True)
class Expectation:
    """Of one that was chosen among several: what its accuracy on other images is expected to be."""

    measured: float  # on the images that chose it
    value: float
    interval: tuple[float, float]  # with `CONFIDENCE`
    among: int  # trainings


def after_choice(scores: Sequence[Sequence[float]], network: int, seed: int, images: float) -> Expectation:
    """Of seed number `seed` of network number `network`, the choice among all `scores`, accuracies by network and seed on the
    same images: the best of several is best by luck, too.

    Empirical Bayes (Efron and Morris 1975): the excess of the network's mean over that of all networks, and that of the seed over
    its network's, are each worth the share of their variance that the binomial error of so many images does not explain. The
    interval is Wilson's around that, at its full width, and reaches the measured value.
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
