"""Pruners that are Optuna's, every argument of theirs explicit. They compare with trials that ran to their end."""

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
    """Prunes whose best accuracy so far lies below what `percentile` per cent of the complete trials had at that epoch."""

    percentile: Annotated[float, Field(gt=0, lt=100)] = 33.0  # of the complete trials, those that a trial must keep up with
    startup_trials: Annotated[int, Field(ge=1)] = 5  # complete ones, before which nobody is pruned
    warmup_epochs: Annotated[int, Field(ge=0)] | None = None  # in which nobody is pruned; a ninth of the whole unless given
    min_trials: Annotated[int, Field(ge=1)] = 5  # that must have reached an epoch

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
    """Lets another pruner judge only who has not improved for some epochs."""

    wrapped: Literal["median", "asha", "alone"] = "median"  # whose judgement is asked for; `alone`: who stands still is pruned
    patience: Annotated[int, Field(ge=0)] = 2  # epochs without improvement that are forgiven
    min_delta: Annotated[float, Field(ge=0)] = 0.0  # accuracy, as a share, by which a trial must have fallen behind its own best

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
