"""What every sampler is to a search, and how one that reads complete trials only is made to learn from all."""

from abc import abstractmethod
from typing import Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from nas.study.history import all_with_values, told


class SeededSampler(optuna.samplers.BaseSampler):
    study_seed: int = 0
    """What draws follow from that belong together, such as the points of one sequence."""
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

    most_told: ClassVar[int | None] = None
    """Of the finished trials, half of them the best and half the newest, where more would take too long."""
    _last_told: tuple[int, optuna.Study] | None = None
    """By the number of the trial that is being drawn."""

    def _told(self, study: optuna.Study, trial: FrozenTrial) -> optuna.Study:
        if self._last_told is None or self._last_told[0] != trial.number or self._last_told[1]._storage is not study._storage:
            trials = all_with_values(study, self.limit, self.constrained)
            self._last_told = trial.number, told(study, _most_telling(trials, self.most_told))
        return self._last_told[1]

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return super().infer_relative_search_space(self._told(study, trial), trial)  # type: ignore[safe-super]

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        as_told, self._last_told = self._told(study, trial), None
        return super().sample_relative(as_told, trial, search_space)  # type: ignore[safe-super]

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Nothing is to be done; Optuna's would warn of constraints that it cannot use."""


def _most_telling(trials: list[FrozenTrial], most: int | None) -> list[FrozenTrial]:
    finished = [trial for trial in trials if trial.state.is_finished()]
    if most is None or len(finished) <= most:
        return trials
    fitting = [trial for trial in finished if all(value <= 0 for value in trial.constraints.values())]
    kept = {trial.number for trial in sorted(fitting, key=lambda trial: trial.value or 0.0)[-most // 2 :]}
    newest = [trial.number for trial in finished if trial.number not in kept]
    kept.update(newest[len(kept) - most :])
    return [trial for trial in trials if trial.number in kept or not trial.state.is_finished()]
