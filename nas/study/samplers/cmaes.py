"""CMA-ES over the numeric parameters, for spaces in which few choices are words."""

from typing import Annotated, Any

import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from pydantic import Field

from nas.study.samplers.base import Informed


class Cmaes(Informed, optuna.samplers.CmaEsSampler):
    """Words are drawn uniformly. What is over budget is drawn again, and a generation is made of networks that trained. The first
    is drawn around the best of those that were drawn uniformly: around the middle of the space few might fit."""

    def __init__(
        self,
        startup_trials: Annotated[int, Field(ge=1)] = 10,
        population: Annotated[int, Field(ge=2)] | None = None,
    ) -> None:
        super().__init__(
            n_startup_trials=startup_trials,
            popsize=population,
            independent_sampler=optuna.samplers.RandomSampler(),
            warn_independent_sampling=False,
        )

    def seed(self, seed: int) -> None:
        self._cma_rng.rng.seed(seed)
        self._independent_sampler._rng.rng.seed(seed)  # type: ignore[attr-defined]

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        first = sorted(completed_trials, key=lambda trial: trial.number)[: self._n_startup_trials]
        self._start = max(first, key=lambda trial: trial.value or 0.0).params
        return super()._restore_optimizer(completed_trials)

    def _init_optimizer(self, trans: _SearchSpaceTransform, direction: StudyDirection) -> Any:
        optimizer = super()._init_optimizer(trans, direction)
        optimizer._mean = trans.transform({name: self._start[name] for name in trans._search_space})
        return optimizer
