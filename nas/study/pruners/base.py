"""The base of every pruner: which trials are compared, and how many epochs pruning leaves."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial

from nas.study.history import is_duplicate


@dataclass(eq=False)
class FairPruner(optuna.pruners.BasePruner):
    """Called after each epoch except the last, so that no trial is pruned at its very end. A verdict depends only on the curves
    and writes nothing, so it is the same after a crash."""

    epochs: int  # of each training

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Compares with all trials except duplicates, whose curves would count twice, and, if trials have their own limits,
        except larger networks."""
        if not self.may_prune(trial):
            return False
        limit = trial.user_attrs.get("limit")
        peers = [
            other
            for other in study.get_trials(deepcopy=False)
            if not is_duplicate(other) and (limit is None or other.user_attrs.get("params", 0) <= limit)
        ]
        return self.judge(peers, trial)

    def may_prune(self, trial: FrozenTrial) -> bool:
        """Whether the trial can be pruned after its last epoch at all. If not, the other trials are not read."""
        return True

    @abstractmethod
    def judge(self, peers: Sequence[FrozenTrial], trial: FrozenTrial) -> bool:
        """Whether the trial is pruned; `peers` are the trials to compare with, including itself."""

    def expected_epochs(self, trials: int, before: int = 0) -> float | None:
        """Mean number of epochs of `trials` that follow on `before` others; None if that depends on the curves."""
        return None

    @abstractmethod
    def describe(self) -> str:
        """What it does with trainings of so many epochs, for the plan."""
