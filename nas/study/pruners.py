"""Pruners by name: they stop weak trials early.

To add one: a class that derives from `FairPruner`, whose keyword arguments have types and limits, and an entry in `PRUNERS`. The
conformance tests then find it.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from nas.study.history import history_view, is_duplicate

REDUCTION = 3
MANY = 10_000  # trials; the mean over them is that over any larger number


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


class Never(FairPruner):
    def judge(self, peers: Sequence[FrozenTrial], trial: FrozenTrial) -> bool:
        return False

    def expected_epochs(self, trials: int, before: int = 0) -> float:
        return float(self.epochs)

    def describe(self) -> str:
        return "never"


# ------------------------------------------------------------------------------------------------------ successive halving


def asha_rungs(epochs: int, reduction: int = REDUCTION, first: int | None = None) -> list[int]:
    """The epochs after which only the best 1/`reduction` continue; the last epoch is not among them. Unless `first` is given,
    they are about 1/`reduction`² and 1/`reduction` of all epochs."""
    # Rounded up: rounded down, a third rung would lie just below the end.
    rung, rungs = first or -(-epochs // reduction**2), []
    while rung < epochs:
        rungs.append(rung)
        rung *= reduction
    return rungs


def is_best(value: float, reached: list[float], reduction: int) -> bool:
    """Whether `value` is among the best 1/`reduction` of the values that have reached a rung so far, including itself."""
    return value >= sorted(reached, reverse=True)[max(1, len(reached) // reduction) - 1]


def survivors(reached: float, reduction: int = REDUCTION, startup: float = 0) -> float:
    """How many of `reached` trials continue that reach a rung of successive halving one after the other, in random order: the nth
    continues if it is among the best n // `reduction` of n, or the best, or one of the first `startup`."""
    whole = int(reached)
    chances = [1.0 if n <= startup else max(1, n // reduction) / n for n in range(1, whole + 2)]
    return sum(chances[:whole]) + (reached - whole) * chances[whole]


def _total_epochs(rungs: Sequence[int], epochs: int, trials: float, continuing: Callable[[float], float]) -> float:
    """Of all `trials`, if `continuing(n)` of n continue after each rung."""
    total, done = 0.0, 0
    for rung in (*rungs, epochs):
        total += trials * (rung - done)
        done, trials = rung, continuing(trials)
    return total


def asha_epochs(
    rungs: Sequence[int], epochs: int, trials: float, before: float = 0, reduction: int = REDUCTION, startup: float = 0
) -> float:
    """Mean number of epochs of `trials` that follow on `before` others. A few trials train longer than many: the first ones have
    few others to be worse than."""
    trials, continuing = min(trials, MANY), partial(survivors, reduction=reduction, startup=startup)
    both, others = (_total_epochs(rungs, epochs, count, continuing) for count in (before + trials, before))
    return (both - others) / trials


@dataclass(eq=False)
class Asha(FairPruner):
    """Asynchronous successive halving, arXiv 1810.05934. Optuna's pruner of this name marks a rung as passed before it judges, so
    a crash in between would spare a trial that should be pruned."""

    reduction: Annotated[int, Field(ge=2)] = REDUCTION
    first_rung: Annotated[int, Field(ge=1)] | None = None
    startup_trials: Annotated[int, Field(ge=0)] = 0  # completed trials before pruning begins

    def __post_init__(self) -> None:
        self.rungs = asha_rungs(self.epochs, self.reduction, self.first_rung)
        self.brackets = [self.rungs]  # the rungs of each part of the trials, which are compared among themselves
        self.shares = [1.0]  # relative share of the trials of each bracket

    def bracket(self, number: int) -> int:
        """Bracket of the trial of that number."""
        return 0

    def may_prune(self, trial: FrozenTrial) -> bool:
        return trial.last_step in self.brackets[self.bracket(trial.number)]

    def judge(self, peers: Sequence[FrozenTrial], trial: FrozenTrial) -> bool:
        if sum(peer.state == TrialState.COMPLETE for peer in peers) < self.startup_trials:
            return False
        rung, bracket = max(trial.intermediate_values), self.bracket(trial.number)
        rivals = (peer for peer in peers if rung in peer.intermediate_values and self.bracket(peer.number) == bracket)
        return not is_best(trial.intermediate_values[rung], [rival.intermediate_values[rung] for rival in rivals], self.reduction)

    def expected_epochs(self, trials: int, before: int = 0) -> float:
        parts = [share / sum(self.shares) for share in self.shares]
        return sum(
            part * asha_epochs(rungs, self.epochs, part * trials, part * before, self.reduction, part * self.startup_trials)
            for part, rungs in zip(parts, self.brackets, strict=True)
        )

    def describe(self) -> str:
        if not self.rungs:
            return f"no trial: {self.epochs} epoch{'s' * (self.epochs != 1)} are too few to compare trials before their end"
        return f"all but the best 1/{self.reduction} after epochs {', '.join(map(str, self.rungs))}{self._once_begun()}"

    def _once_begun(self) -> str:
        return f", once {self.startup_trials} networks have completed" if self.startup_trials else ""


class Hyperband(Asha):
    """Brackets of successive halving (arXiv 1603.06560). Each begins one rung later than the one before, so misleading early
    epochs cost only one bracket. A trial's number decides its bracket, so that each bracket takes about the same number of
    epochs: the fewer epochs a bracket's trials take, the more of them it gets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.brackets = [self.rungs[start:] for start in range(len(self.rungs) + 1)]  # the last one prunes nothing
        self.shares = [1 / _total_epochs(rungs, self.epochs, 1.0, lambda n: n / self.reduction) for rungs in self.brackets]

    def bracket(self, number: int) -> int:
        # Multiples of the golden ratio fill [0, 1) evenly, whatever their number.
        place = (number * 0.6180339887498949) % 1.0 * sum(self.shares)
        for index, share in enumerate(self.shares):
            place -= share
            if place < 0:
                return index
        return len(self.shares) - 1

    def describe(self) -> str:
        rungs = "; ".join(", ".join(map(str, rungs)) or "none" for rungs in self.brackets)
        return f"in {len(self.brackets)} brackets, which compare trials after epochs {rungs}{self._once_begun()}"


# ------------------------------------------------------- Optuna's, with every argument explicit; they compare completed trials


@dataclass(eq=False)
class Percentile(FairPruner):
    """Prunes a trial whose best accuracy so far is not among the best `percentile` % of the completed trials at that epoch."""

    percentile: Annotated[float, Field(gt=0, lt=100)] = 33.0  # a trial must be among the best so many % of the completed trials
    startup_trials: Annotated[int, Field(ge=1)] = 5  # completed trials before pruning begins
    warmup_epochs: Annotated[int, Field(ge=0)] | None = None  # epochs before it may be pruned; by default a ninth of all
    min_trials: Annotated[int, Field(ge=1)] = 5  # trials that must have reached an epoch before it is used

    @property
    def warmup(self) -> int:
        return -(-self.epochs // 9) if self.warmup_epochs is None else self.warmup_epochs

    def judge(self, peers: Sequence[FrozenTrial], trial: FrozenTrial) -> bool:
        pruner = optuna.pruners.PercentilePruner(
            self.percentile,
            n_startup_trials=self.startup_trials,
            n_warmup_steps=self.warmup,
            interval_steps=1,
            n_min_trials=self.min_trials,
        )
        return pruner.prune(history_view(peers).study, trial)

    def describe(self) -> str:
        return f"after epoch {self.warmup} trials below the best {self.percentile:g} % of the completed trials"


@dataclass(eq=False)
class Median(Percentile):
    percentile: float = field(default=50.0, init=False)


@dataclass(eq=False)
class Patient(FairPruner):
    """Lets another pruner judge only trials that have not improved for some epochs."""

    wrapped: Literal["median", "asha", "alone"] = "median"  # the pruner that must agree; `alone`: prune without another one
    patience: Annotated[int, Field(ge=0)] = 2  # epochs without improvement before pruning
    min_delta: Annotated[float, Field(ge=0)] = 0.0  # how far a trial must be below its own best accuracy, as a share

    def __post_init__(self) -> None:
        self._wrapped: FairPruner | None = None
        if self.wrapped != "alone":
            self._wrapped = Median(self.epochs) if self.wrapped == "median" else Asha(self.epochs)
        self._pruner = optuna.pruners.PatientPruner(self._wrapped, self.patience, self.min_delta)

    def judge(self, peers: Sequence[FrozenTrial], trial: FrozenTrial) -> bool:
        return self._pruner.prune(history_view(peers).study, trial)

    def describe(self) -> str:
        who = f"trials that have not improved for {self.patience} epochs"
        return f"{who}; of these, {self._wrapped.describe()}" if self._wrapped else who


PRUNERS: dict[str, type[FairPruner]] = {
    "asha": Asha,
    "hyperband": Hyperband,
    "median": Median,
    "percentile": Percentile,
    "patient": Patient,
    "none": Never,
}
