"""Scores of several trainings, by different seeds: their mean, how far they lie apart, and the differences of pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

CONFIDENCE = 0.95
NO_DEVIATION = 1e-9
"""Of values that are the same but for their rounding."""


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


def spread(values: Sequence[float]) -> Spread | None:
    """None of no values."""
    return Spread(tuple(values)) if values else None


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Spread | None:
    """Ours less theirs, for each seed that both have."""
    return spread([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])
