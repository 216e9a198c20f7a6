"""What every sampler is to a search, and how one that reads complete trials only is made to learn from all."""

from abc import abstractmethod
from typing import Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from nas.search.history import all_with_values, told


class SeededSampler(optuna.samplers.BaseSampler):
    limit: int | None = None
    """Parameters that the next draw may have, where each trial has a budget of its own."""
    wants_margins: ClassVar[bool] = False
    """Whether it needs to know by how much a network that fits stays below its limits."""

    @abstractmethod
    def seed(self, seed: int) -> None:
        """The next draw follows from this and the study alone, so that a search that was cut off draws what it would have."""


class Informed(SeededSampler):
    """Stands before an Optuna sampler among a class's bases, and tells it the study as `history.all_with_values` does."""

    constrained: ClassVar[bool] = False
    """Whether it makes something of constraints; who does not draws again until a draw fits."""

    def _told(self, study: optuna.Study) -> optuna.Study:
        return told(study, all_with_values(study, self.limit, self.constrained))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return super().infer_relative_search_space(self._told(study), trial)  # type: ignore[safe-super]

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return super().sample_relative(self._told(study), trial, search_space)  # type: ignore[safe-super]

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Nothing is to be done; Optuna's would warn of constraints that it cannot use."""
