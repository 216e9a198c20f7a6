"""What every pruner is to a search: whom a trial is compared with, and how many epochs pruning leaves."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial

from nas.study.history import is_duplicate


@dataclass(eq=False)
class FairPruner(optuna.pruners.BasePruner):
    """Asked after each epoch but the last, so that no trial is pruned at its very end. A verdict follows from the curves alone
    and writes nothing: asked again after a crash, it is the same."""

    epochs: int  # of each training

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Duplicates would count a curve twice. Where trials have budgets of their own, larger networks are no measure."""
        limit = trial.user_attrs.get("limit")
        peers = [
            other
            for other in study.get_trials(deepcopy=False)
            if not is_duplicate(other) and (limit is None or other.user_attrs.get("params", 0) <= limit)
        ]
        return self.judge(peers, trial)

    @abstractmethod
    def judge(self, peers: Sequence[FrozenTrial], trial: FrozenTrial) -> bool:
        """Whether the trial is pruned; `peers` are those that it is to be compared with, itself among them."""

    def expected_epochs(self, trials: int, before: int = 0) -> float | None:
        """Of a trial on average, of `trials` that follow on `before` others; None where that depends on the curves."""
        return None

    @abstractmethod
    def describe(self) -> str:
        """What it does with trainings of so many epochs, for the plan."""
