"""Pruners that are Optuna's, every argument of theirs explicit. They compare with trials that ran to their end."""

from typing import Annotated, Literal

import optuna
from optuna.trial import FrozenTrial
from pydantic import Field

from nas.study.pruners.asha import Asha
from nas.study.pruners.base import FairPruner


class Percentile(FairPruner):
    """Prunes whose best accuracy so far lies below what `percentile` per cent of the complete trials had at that epoch."""

    def __init__(
        self,
        epochs: int,
        percentile: Annotated[float, Field(gt=0, lt=100)] = 33.0,
        startup_trials: Annotated[int, Field(ge=1)] = 5,
        warmup_epochs: Annotated[int, Field(ge=0)] | None = None,
        min_trials: Annotated[int, Field(ge=1)] = 5,
    ) -> None:
        """
        Args:
            percentile: of the complete trials, the best so many per cent that a trial must keep up with.
            startup_trials: complete ones, before which nobody is pruned.
            warmup_epochs: in which nobody is pruned; a ninth of the whole unless given.
            min_trials: that must have reached an epoch.
        """
        super().__init__(epochs)
        self.percentile = percentile
        self.warmup = -(-epochs // 9) if warmup_epochs is None else warmup_epochs
        self._pruner = optuna.pruners.PercentilePruner(
            percentile,
            n_startup_trials=startup_trials,
            n_warmup_steps=self.warmup,
            interval_steps=1,
            n_min_trials=min_trials,
        )

    def judge(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return self._pruner.prune(study, trial)

    def describe(self) -> str:
        return f"after epoch {self.warmup} whoever falls behind the best {self.percentile:g} % of those that ran to their end"


class Median(Percentile):
    def __init__(
        self,
        epochs: int,
        startup_trials: Annotated[int, Field(ge=1)] = 5,
        warmup_epochs: Annotated[int, Field(ge=0)] | None = None,
        min_trials: Annotated[int, Field(ge=1)] = 5,
    ) -> None:
        super().__init__(epochs, 50.0, startup_trials, warmup_epochs, min_trials)


class Patient(FairPruner):
    """Lets another pruner judge only who has not improved for some epochs."""

    def __init__(
        self,
        epochs: int,
        wrapped: Literal["median", "asha", "alone"] = "median",
        patience: Annotated[int, Field(ge=0)] = 2,
        min_delta: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        """
        Args:
            wrapped: whose judgement is asked for; `alone`: who has not improved is pruned.
            patience: epochs without improvement that are forgiven.
            min_delta: accuracy, as a share, by which a trial must have fallen behind its own best.
        """
        super().__init__(epochs)
        self.patience = patience
        self._wrapped: FairPruner | None = None
        if wrapped != "alone":
            self._wrapped = Median(epochs) if wrapped == "median" else Asha(epochs)
        self._pruner = optuna.pruners.PatientPruner(self._wrapped, patience, min_delta)

    def judge(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return self._pruner.prune(study, trial)

    def describe(self) -> str:
        who = f"whoever has not improved for {self.patience} epochs"
        return f"{who}, and then {self._wrapped.describe()}" if self._wrapped else who


class Never(FairPruner):
    def judge(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return False

    def expected_epochs(self, trials: int, before: int = 0) -> float:
        return float(self.epochs)

    def describe(self) -> str:
        return "never"
