"""Samplers by name, with every argument explicit, so that a study does not change when a library's defaults do."""

from abc import abstractmethod
from collections.abc import Callable

import optuna

# Over-budget draws count as start-up trials too; twice Optuna's ten leaves about ten that train.
STARTUP_TRIALS = 20


class SeededSampler(optuna.samplers.BaseSampler):
    @abstractmethod
    def seed(self, seed: int) -> None:
        """The next draw follows from this and the study alone, so that a search that was cut off draws what it would have."""


class Tpe(optuna.samplers.TPESampler, SeededSampler):
    """Multivariate TPE; candidates that are being trained count as bad (constant liar), so that parallel draws differ."""

    def __init__(self) -> None:
        super().__init__(
            n_startup_trials=STARTUP_TRIALS,
            n_ei_candidates=24,
            multivariate=True,
            group=False,
            constant_liar=True,
        )

    def seed(self, seed: int) -> None:
        # A new sampler for every draw would be the public way, but it reads every trial again: 0.1 s of 2,000.
        self._rng.rng.seed(seed)
        self._random_sampler._rng.rng.seed(seed)


SAMPLERS: dict[str, Callable[[], SeededSampler]] = {"tpe": Tpe}
