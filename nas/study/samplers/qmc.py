"""A scrambled Sobol sequence: random search that leaves no gaps."""

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from nas.study.samplers.base import SeededSampler


class Qmc(optuna.samplers.QMCSampler, SeededSampler):
    """Optuna's counts the points that it has given in the study; here a trial's number is its point's, so that a draw follows
    from the trial alone, and what is over budget leaves its place to nobody."""

    def __init__(self) -> None:
        super().__init__(
            qmc_type="sobol",
            scramble=True,
            seed=0,
            independent_sampler=optuna.samplers.RandomSampler(),
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
        )
        self._number = 0

    def seed(self, seed: int) -> None:
        self._independent_sampler._rng.rng.seed(seed)  # type: ignore[attr-defined]

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._seed, self._number = self.study_seed % 2**32, trial.number
        return super().sample_relative(study, trial, search_space)

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._number
