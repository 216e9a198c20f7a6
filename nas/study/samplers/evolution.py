"""Regularised evolution (arXiv 1802.01548): the fittest of a few drawn from the youngest networks is changed a little."""

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from nas.study.history import all_with_values
from nas.study.samplers.base import SeededSampler

ATTEMPTS = 20
"""To make a child that there has not been."""


class Evolution(SeededSampler):
    """The population is the last networks that trained, whatever they reached: age removes, not weakness, so that a network which
    was lucky once does not stay for ever. What is over budget is never part of it, nor are duplicates."""

    def __init__(
        self,
        population: Annotated[int, Field(ge=2)] = 40,
        tournament: Annotated[int, Field(ge=1)] = 16,
        mutations: Annotated[float, Field(gt=0)] = 4.0,
        step: Annotated[float, Field(gt=0, le=1)] = 0.2,
        startup_trials: Annotated[int, Field(ge=1)] = 16,
    ) -> None:
        """
        Args:
            population: of networks that trained, pruned ones among them, at most.
            tournament: of which the best becomes the parent.
            mutations: parameters that a child changes on average, one of them at least.
            step: deviation of a number's change, as a share of its range.
            startup_trials: networks that trained, before which draws are uniform.
        """
        self.population, self.tournament, self.mutations, self.step = population, tournament, mutations, step
        self.startup_trials = startup_trials
        self._rng = np.random.default_rng()
        self._uniform = optuna.samplers.RandomSampler()

    def seed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._uniform._rng.rng.seed(seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        found = optuna.search_space.intersection_search_space(study._get_trials(deepcopy=False), include_pruned=True)
        return {name: distribution for name, distribution in found.items() if not distribution.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        told = all_with_values(study, self.limit, over_budget=False)
        known = [t for t in told if t.state == TrialState.COMPLETE and search_space.keys() <= t.params.keys()]
        if len(known) < self.startup_trials or not search_space:
            return {}
        youngest = sorted(known, key=lambda t: t.number)[-self.population :]
        chosen = self._rng.choice(len(youngest), size=min(self.tournament, len(youngest)), replace=False)
        parent = max((youngest[i] for i in chosen), key=lambda t: t.value or 0.0)
        others = (t for t in study._get_trials(deepcopy=False, use_cache=False) if t.number != trial.number)
        there = {_key(t.params, search_space) for t in others if search_space.keys() <= t.params.keys()}
        for _ in range(ATTEMPTS):
            child = self._child(parent.params, search_space)
            if _key(child, search_space) not in there:
                break
        return child

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._uniform.sample_independent(study, trial, param_name, param_distribution)

    def _child(self, parent: dict[str, Any], space: dict[str, BaseDistribution]) -> dict[str, Any]:
        names = list(space)
        changed = self._rng.random(len(names)) < self.mutations / len(names)
        changed[self._rng.integers(len(names))] = True
        return {
            name: self._changed(parent[name], space[name]) if is_changed else parent[name]
            for name, is_changed in zip(names, changed, strict=True)
        }

    def _changed(self, value: Any, distribution: BaseDistribution) -> Any:
        """Another choice by lot, or a number near by, in the range's own scale."""
        if isinstance(distribution, CategoricalDistribution):
            others = [choice for choice in distribution.choices if choice != value]
            return others[self._rng.integers(len(others))]
        transform = _SearchSpaceTransform({"x": distribution}, transform_0_1=True)
        here = transform.transform({"x": value})[0]
        near = value
        for _ in range(ATTEMPTS):
            there = here + self.step * self._rng.standard_normal()
            near = transform.untransform(np.array([1 - abs(1 - abs(there) % 2)]))["x"]  # reflected at both ends
            if near != value:
                break
        return near


def _key(params: dict[str, Any], names: Iterable[str]) -> tuple[Any, ...]:
    return tuple(params[name] for name in names)
