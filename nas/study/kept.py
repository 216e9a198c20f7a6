"""Which checkpoints stay: they serve to go on, and of the trials that have ended only the best keep theirs."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from nas.paths import StudyPaths
from nas.study import outcomes

KEPT_CHECKPOINTS = 3
"""Of the best networks that trained to their end."""


class KeptCheckpoints:
    def __init__(self, paths: StudyPaths) -> None:
        self._paths = paths
        self._kept: list[int] = []
        """Numbers of the trials, best first."""

    def choose(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """Removes those of trials that are not among the best any more. Returns the best."""
        best = outcomes.best_trials(trials, KEPT_CHECKPOINTS)
        before, self._kept = self._kept, [trial.number for trial in best]
        for number in before:
            self.drop(number)
        return best[0] if best else None

    def drop(self, number: int) -> None:
        """The trial has ended; unless it is among the best its checkpoint goes."""
        if number not in self._kept:
            self._paths.trial(number).checkpoint.unlink(missing_ok=True)

    def tidy(self, unfinished: set[int]) -> None:
        """Removes what a crash left behind, but what is needed to go on."""
        for file in self._paths.trials.glob("*/checkpoint.pt*"):
            name = file.parent.name
            if name.isdecimal() and (file.suffix == ".tmp" or int(name) not in unfinished.union(self._kept)):
                file.unlink(missing_ok=True)
