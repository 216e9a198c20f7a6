"""A Gaussian process: the most from few trials, at a second and more for each draw."""

import logging
from typing import Annotated, Any, ClassVar

import numpy as np
import optuna
from pydantic import Field

from nas.study.samplers.base import Informed

# It would warn each time that one point is better than all others.
logging.getLogger("optuna._gp.optim_mixed").setLevel(logging.ERROR)


class Gp(Informed, optuna.samplers.GPSampler):
    """A second process models by how much a network is over the limits, so that draws keep off. Fitting takes the cube of the
    trials' number: the best and the newest have to do."""

    constrained: ClassVar[bool] = True
    wants_margins: ClassVar[bool] = True
    most_told: ClassVar[int] = 100

    def __init__(self, startup_trials: Annotated[int, Field(ge=1)] = 10) -> None:
        super().__init__(
            n_startup_trials=startup_trials,
            deterministic_objective=False,
            independent_sampler=optuna.samplers.RandomSampler(),
            warn_independent_sampling=False,
        )

    def seed(self, seed: int) -> None:
        self._rng.rng.seed(seed)
        self._independent_sampler._rng.rng.seed(seed)  # type: ignore[attr-defined]
        # A fit that began where the last one ended would make a draw depend on those before it.
        self._gprs_cache_list = self._constraints_gprs_cache_list = None

    def _optimize_acqf(self, acqf: Any, best_params: np.ndarray | None) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # where one point is better than any other by more than a float holds
            return super()._optimize_acqf(acqf, best_params)
