"""Asynchronous successive halving, alone and in brackets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from nas.study.pruners.base import FairPruner

REDUCTION = 3
MANY = 10_000  # trials; the mean over them is that over any larger number


def asha_rungs(epochs: int, reduction: int = REDUCTION, first: int | None = None) -> list[int]:
    """The epochs after which only the best 1/`reduction` continue; the last epoch is not among them. Unless `first` is given,
    they are about 1/`reduction`² and 1/`reduction` of all epochs."""
    # Rounded up: rounded down, a third rung would lie just below the end.
    rung, rungs = first or -(-epochs // reduction**2), []
    while rung < epochs:
        rungs.append(rung)
        rung *= reduction
    return rungs


def count_complete(trials: Iterable[FrozenTrial]) -> int:
    return sum(trial.state == TrialState.COMPLETE for trial in trials)


def once_begun(startup: int) -> str:
    return f", once {startup} networks have completed" if startup else ""


def is_best(value: float, reached: list[float], reduction: int) -> bool:
    """Whether `value` is among the best 1/`reduction` of the values that have reached a rung so far, including itself."""
    return value >= sorted(reached, reverse=True)[max(1, len(reached) // reduction) - 1]


def falls_behind(trial: FrozenTrial, peers: Iterable[FrozenTrial], reduction: int) -> bool:
    """Whether a trial is not promoted from its rung; `peers` include it."""
    rung = trial.last_step
    assert rung is not None
    reached = [other.intermediate_values[rung] for other in peers if rung in other.intermediate_values]
    return not is_best(trial.intermediate_values[rung], reached, reduction)


def survivors(reached: float, reduction: int = REDUCTION, startup: float = 0) -> float:
    """How many of `reached` trials continue that reach a rung of successive halving one after the other, in random order: the nth
    continues if it is among the best n // `reduction` of n, or the best, or one of the first `startup`."""
    whole = int(reached)
    chances = [1.0 if n <= startup else max(1, n // reduction) / n for n in range(1, whole + 2)]
    return sum(chances[:whole]) + (reached - whole) * chances[whole]


def asha_epochs(
    rungs: Sequence[int], epochs: int, trials: float, before: float = 0, reduction: int = REDUCTION, startup: float = 0
) -> float:
    """Mean number of epochs of `trials` that follow on `before` others. A few trials train longer than many: the first ones have
    few others to be worse than."""

    def of_all(count: float) -> float:
        total, done, reached = 0.0, 0, count
        for rung in (*rungs, epochs):
            total += reached * (rung - done)
            done, reached = rung, survivors(reached, reduction, startup)
        return total

    trials = min(trials, MANY)
    return (of_all(before + trials) - of_all(before)) / trials


@dataclass(eq=False)
class Asha(FairPruner):
    """arXiv 1810.05934. Optuna's pruner of this name marks a rung as passed before it judges, so a crash in between would spare a
    trial that should be pruned."""

    reduction: Annotated[int, Field(ge=2)] = REDUCTION
    first_rung: Annotated[int, Field(ge=1)] | None = None
    startup_trials: Annotated[int, Field(ge=0)] = 0  # completed trials before pruning begins

    @property
    def rungs(self) -> list[int]:
        return asha_rungs(self.epochs, self.reduction, self.first_rung)

    def may_prune(self, trial: FrozenTrial) -> bool:
        return trial.last_step in self.rungs

    def judge(self, peers: Sequence[FrozenTrial], trial: FrozenTrial) -> bool:
        return count_complete(peers) >= self.startup_trials and falls_behind(trial, peers, self.reduction)

    def expected_epochs(self, trials: int, before: int = 0) -> float:
        return asha_epochs(self.rungs, self.epochs, trials, before, self.reduction, self.startup_trials)

    def describe(self) -> str:
        if not self.rungs:
            return f"no trial: {self.epochs} epoch{'s' * (self.epochs != 1)} are too few to compare trials before their end"
        what = f"all but the best 1/{self.reduction} after epochs {', '.join(map(str, self.rungs))}"
        return what + once_begun(self.startup_trials)


@dataclass(eq=False)
class Hyperband(FairPruner):
    """Brackets of successive halving (arXiv 1603.06560). Each begins one rung later than the one before, so misleading early
    epochs cost only one bracket. A trial's number decides its bracket, so that each bracket takes about the same number of
    epochs."""

    reduction: Annotated[int, Field(ge=2)] = REDUCTION
    first_rung: Annotated[int, Field(ge=1)] | None = None
    startup_trials: Annotated[int, Field(ge=0)] = 0  # completed trials before pruning begins

    def __post_init__(self) -> None:
        rungs = asha_rungs(self.epochs, self.reduction, self.first_rung)
        self.brackets = [rungs[start:] for start in range(len(rungs) + 1)]  # the rungs of each; the last one prunes nothing
        self.shares = [1 / _epochs_of_endless(rungs, self.epochs, self.reduction) for rungs in self.brackets]
        """Relative share of the trials of each bracket."""

    def bracket(self, number: int) -> int:
        """Bracket of the trial of that number: the fewer epochs a bracket's trials take, the more of them it gets."""
        # Multiples of the golden ratio fill [0, 1) evenly, whatever their number.
        place = (number * 0.6180339887498949) % 1.0 * sum(self.shares)
        for index, share in enumerate(self.shares):
            place -= share
            if place < 0:
                return index
        return len(self.shares) - 1

    def may_prune(self, trial: FrozenTrial) -> bool:
        return trial.last_step in self.brackets[self.bracket(trial.number)]

    def judge(self, peers: Sequence[FrozenTrial], trial: FrozenTrial) -> bool:
        bracket = self.bracket(trial.number)
        rivals = (other for other in peers if self.bracket(other.number) == bracket)
        return count_complete(peers) >= self.startup_trials and falls_behind(trial, rivals, self.reduction)

    def expected_epochs(self, trials: int, before: int = 0) -> float:
        parts = [share / sum(self.shares) for share in self.shares]
        return sum(
            part * asha_epochs(rungs, self.epochs, part * trials, part * before, self.reduction, part * self.startup_trials)
            for part, rungs in zip(parts, self.brackets, strict=True)
        )

    def describe(self) -> str:
        rungs = "; ".join(", ".join(map(str, rungs)) or "none" for rungs in self.brackets)
        return f"in {len(self.brackets)} brackets, which compare trials after epochs {rungs}{once_begun(self.startup_trials)}"


def _epochs_of_endless(rungs: list[int], epochs: int, reduction: int) -> float:
    """The limit of `asha_epochs` for many trials: each rung lets the best 1/`reduction` continue."""
    total, share, before = 0.0, 1.0, 0
    for rung in [*rungs, epochs]:
        total += share * (rung - before)
        share, before = share / reduction, rung
    return total
