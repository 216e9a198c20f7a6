"""Optuna's pruners, with every argument explicit. They compare with completed trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import optuna
from optuna.trial import FrozenTrial
from pydantic import Field

from nas.study.history import history_view
from nas.study.pruners.asha import Asha
from nas.study.pruners.base import FairPruner


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


class Median(Percentile):
    def __init__(
        self,
        epochs: int,
        startup_trials: Annotated[int, Field(ge=1)] = 5,
        warmup_epochs: Annotated[int, Field(ge=0)] | None = None,
        min_trials: Annotated[int, Field(ge=1)] = 5,
    ) -> None:
        super().__init__(epochs, 50.0, startup_trials, warmup_epochs, min_trials)


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


class Never(FairPruner):
    def judge(self, peers: Sequence[FrozenTrial], trial: FrozenTrial) -> bool:
        return False

    def expected_epochs(self, trials: int, before: int = 0) -> float:
        return float(self.epochs)

    def describe(self) -> str:
        return "never"
