"""What every pruner is to a search: whom a trial is compared with, and how many epochs pruning leaves."""

from abc import abstractmethod

import optuna
from optuna.trial import FrozenTrial

from nas.study.history import is_duplicate, told


class FairPruner(optuna.pruners.BasePruner):
    """Asked after each epoch but the last, so that no trial is pruned at its very end. A verdict follows from the curves alone
    and writes nothing: asked again after a crash, it is the same."""

    def __init__(self, epochs: int) -> None:
        """`epochs` of each training."""
        self.epochs = epochs

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Duplicates would count a curve twice. Where trials have budgets of their own, larger networks are no measure."""
        peers = [other for other in study.get_trials(deepcopy=False) if not is_duplicate(other)]
        if (limit := trial.user_attrs.get("limit")) is not None:
            peers = [other for other in peers if other.user_attrs.get("params", 0) <= limit]
        return self.judge(told(study, peers), trial)

    @abstractmethod
    def judge(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial is pruned, `study` holding only those that it is to be compared with."""

    def expected_epochs(self, trials: int, before: int = 0) -> float | None:
        """Of a trial on average, of `trials` that follow on `before` others; None where that depends on the curves."""
        return None

    @abstractmethod
    def describe(self) -> str:
        """What it does with trainings of so many epochs, for the plan."""
