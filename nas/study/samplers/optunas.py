"""Optuna's samplers, with every argument explicit, so that a study does not change when a library's defaults do."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from nas.study.optuna_private import RememberingTPESampler
from nas.study.samplers.base import Informed, SeededSampler, experiments_allowed

# Over-budget draws count as start-up trials too; twice Optuna's ten leaves about ten that train.
STARTUP_TRIALS = 20
MOST_GOOD = 25  # trials that may count as good, as in Optuna


@dataclass(eq=False)
class Random(SeededSampler):
    """Uniform draws in each range's own scale: the baseline of all other samplers."""

    def draw(self, study: optuna.Study, trial: FrozenTrial, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return {}


@dataclass(eq=False)
class Tpe(Informed):
    """Multivariate tree-structured Parzen estimator. Running candidates count as bad (constant liar), so that parallel draws
    differ.

    It differs in two ways from Optuna's, with which a search with pruning got stuck (scripts/bench/README.md). It sees the
    expected final values of pruned trials: Optuna ranks every completed trial before every pruned one, so the first trials, which
    could not be pruned, stay good for ever. And it takes the better of few candidates: the best of 24 follows the estimate even
    where it is wrong, and in so many dimensions the estimate is a guess.
    """

    constrained: ClassVar[bool] = True

    startup_trials: Annotated[int, Field(ge=0)] = STARTUP_TRIALS  # drawn uniformly first, those over budget included
    candidates: Annotated[int, Field(ge=1)] = 2  # drawn from the density of the good trials; the one with the best ratio is taken
    good: Annotated[float, Field(gt=0, lt=1)] = 0.06  # share of the trials that count as good

    def __post_init__(self) -> None:
        super().__post_init__()
        self._rows: tuple[list[str], dict[int, list[float]]] = ([], {})

    def seed(self, seed: int) -> None:
        super().seed(seed)
        with experiments_allowed():
            # Not uniform if the study has enough trials, but the view of it does not.
            self.independent = self._sampler()

    def make(self, trials: Sequence[FrozenTrial], space: dict[str, BaseDistribution]) -> optuna.samplers.BaseSampler:
        if self._rows[0] != list(space):
            self._rows = (list(space), {})
        sampler = self._sampler()
        sampler.rows = self._rows[1]
        return sampler

    def _sampler(self) -> RememberingTPESampler:
        return RememberingTPESampler(
            n_startup_trials=self.startup_trials,
            n_ei_candidates=self.candidates,
            gamma=lambda count: min(math.ceil(self.good * count), MOST_GOOD),
            multivariate=True,
            group=False,
            constant_liar=True,
            warn_independent_sampling=False,
            seed=self.next_seed,
        )


@dataclass(eq=False)
class Gp(Informed):
    """A Gaussian process: it learns most from few trials, and takes a second or more for each draw. A second process models by
    how much a network exceeds the limits, so that draws avoid them. Fitting takes the cube of the number of trials, so it sees
    only the best and the newest."""

    constrained: ClassVar[bool] = True
    wants_margins: ClassVar[bool] = True
    most_shown: ClassVar[int | None] = 100

    startup_trials: Annotated[int, Field(ge=1)] = 10

    def make(self, trials: Sequence[FrozenTrial], space: dict[str, BaseDistribution]) -> optuna.samplers.BaseSampler:
        return optuna.samplers.GPSampler(n_startup_trials=self.startup_trials, deterministic_objective=False, seed=self.next_seed)

    def draw(self, study: optuna.Study, trial: FrozenTrial, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        with np.errstate(invalid="ignore"):  # where one point is better than any other by more than a float holds
            return super().draw(study, trial, space)


@dataclass(eq=False)
class Cmaes(Informed):
    """CMA-ES over the numeric parameters, for spaces with few categorical ones, which are drawn uniformly.

    A candidate over budget is drawn again, and a generation consists of networks that trained. The first generation is drawn
    around the best uniform draw, because around the middle of the space few networks might fit.
    """

    startup_trials: Annotated[int, Field(ge=1)] = 10
    population: Annotated[int, Field(ge=2)] | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        found = super().infer_relative_search_space(study, trial)
        return {name: one for name, one in found.items() if not isinstance(one, CategoricalDistribution)}

    def make(self, trials: Sequence[FrozenTrial], space: dict[str, BaseDistribution]) -> optuna.samplers.BaseSampler:
        first = [trial for trial in trials if trial.state == TrialState.COMPLETE][: self.startup_trials]
        best = max(first, key=lambda trial: trial.value or 0.0).params if first else {}
        return optuna.samplers.CmaEsSampler(
            x0={name: best[name] for name in space} if best else None,
            n_startup_trials=self.startup_trials,
            popsize=self.population,
            seed=self.next_seed,
        )
