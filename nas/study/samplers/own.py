"""Samplers of our own: points of a Sobol sequence, and regularised evolution."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from nas.study.history import all_with_values
from nas.study.samplers.base import SeededSampler

ATTEMPTS = 20  # to make a child that is new, and to change a number


@dataclass(eq=False)
class Qmc(SeededSampler):
    """A scrambled Sobol sequence: random search without gaps. A trial's number is the number of its point, so a draw depends only
    on the trial; a candidate over budget uses up its point."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Of the first trial; its order is that of the sequence's dimensions."""
        others = (one for one in study.get_trials(deepcopy=False) if one.number != trial.number and one.distributions)
        found = next((one.distributions for one in others), {})
        return {} if found.keys() <= trial.params.keys() else dict(found)

    def draw(self, study: optuna.Study, trial: FrozenTrial, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        from scipy.stats.qmc import Sobol  # slow to import

        sequence = Sobol(len(space), scramble=True, seed=self.study_seed % 2**32)
        if trial.number:
            sequence.fast_forward(trial.number)
        point = sequence.random(1)[0]
        return {name: from_unit(one, float(place)) for (name, one), place in zip(space.items(), point, strict=True)}


@dataclass(eq=False)
class Evolution(SeededSampler):
    """Regularised evolution (arXiv 1802.01548): changes a little the fittest of a few networks from the population.

    The population consists of the last networks that trained, whatever their accuracy: they leave it by age, not by weakness, so
    a network that was lucky once does not stay for ever. Candidates over budget and duplicates are never part of it.
    """

    population: Annotated[int, Field(ge=2)] = 40  # networks that trained, pruned ones included, at most
    tournament: Annotated[int, Field(ge=1)] = 16  # networks drawn from it; the best becomes the parent
    mutations: Annotated[float, Field(gt=0)] = 4.0  # parameters that a child changes on average, one of them at least
    step: Annotated[float, Field(gt=0, le=1)] = 0.2  # deviation of a number's change, as a share of its range
    startup_trials: Annotated[int, Field(ge=1)] = 16  # networks that trained, before which draws are uniform

    def draw(self, study: optuna.Study, trial: FrozenTrial, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        shown = all_with_values(study, self.limit, over_budget=False)
        known = [t for t in shown if t.state == TrialState.COMPLETE and space.keys() <= t.params.keys()]
        if len(known) < self.startup_trials:
            return {}
        rng = np.random.default_rng(self.next_seed)
        youngest = sorted(known, key=lambda t: t.number)[-self.population :]
        chosen = rng.choice(len(youngest), size=min(self.tournament, len(youngest)), replace=False)
        parent = max((youngest[i] for i in chosen), key=lambda t: t.value or 0.0)
        others = (t for t in study.get_trials(deepcopy=False) if t.number != trial.number)
        there = {_key(t.params, space) for t in others if space.keys() <= t.params.keys()}
        for _ in range(ATTEMPTS):
            child = self._child(parent.params, space, rng)
            if _key(child, space) not in there:
                break
        return child

    def _child(self, parent: dict[str, Any], space: dict[str, BaseDistribution], rng: np.random.Generator) -> dict[str, Any]:
        changed = rng.random(len(space)) < self.mutations / len(space)
        changed[rng.integers(len(space))] = True
        return {
            name: self._changed(parent[name], one, rng) if is_changed else parent[name]
            for (name, one), is_changed in zip(space.items(), changed, strict=True)
        }

    def _changed(self, value: Any, distribution: BaseDistribution, rng: np.random.Generator) -> Any:
        """Another random choice, or a number near by, in the range's own scale."""
        if isinstance(distribution, CategoricalDistribution):
            others = [choice for choice in distribution.choices if choice != value]
            return others[rng.integers(len(others))]
        here = to_unit(distribution, value)
        near = value
        for _ in range(ATTEMPTS):
            there = here + self.step * rng.standard_normal()
            near = from_unit(distribution, 1 - abs(1 - abs(there) % 2))  # reflected at both ends
            if near != value:
                break
        return near


def _key(params: dict[str, Any], names: Iterable[str]) -> tuple[Any, ...]:
    return tuple(params[name] for name in names)


def _bounds(distribution: BaseDistribution) -> tuple[float, float]:
    """Of a number in its range's own scale; all steps have the same width, also those at the ends."""
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    half = 0.5 * (distribution.step or 0.0)
    if distribution.log:
        return math.log(distribution.low - half), math.log(distribution.high + half)
    return distribution.low - half, distribution.high + half


def to_unit(distribution: BaseDistribution, value: float) -> float:
    """A number's place in [0, 1]."""
    low, high = _bounds(distribution)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return ((math.log(value) if distribution.log else value) - low) / (high - low)


def from_unit(distribution: BaseDistribution, place: float) -> Any:
    """The value at a place in [0, 1), as in Optuna's samplers."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(place * len(distribution.choices))]
    low, high = _bounds(distribution)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    value = low + place * (high - low)
    if distribution.log:
        value = math.exp(value)
    if isinstance(distribution, IntDistribution):
        step = distribution.step
        nearest = (
            round(value) if distribution.log else math.floor((value - distribution.low) / step + 0.5) * step + distribution.low
        )
        return min(max(nearest, distribution.low), distribution.high)
    if distribution.step is not None:
        value = round((value - distribution.low) / distribution.step) * distribution.step + distribution.low
        return float(np.clip(value, distribution.low, distribution.high))
    return float(np.clip(value, distribution.low, np.nextafter(distribution.high, distribution.low)))
