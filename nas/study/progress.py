"""A search at a glance: what is being trained, what has come of the rest, and how a display is told of it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

import optuna

from nas.config import Candidate, MetricName
from nas.study import outcomes
from nas.study.trials import TrialRecord
from nas.train.checkpoint import EpochMetrics


@dataclass
class Running:
    """A trial that has been drawn, fits, and is being trained or waits for a worker."""

    trial: optuna.Trial
    candidate: Candidate
    params: int
    micro_batches: int = 1
    """More than 1 where a whole batch did not fit in memory."""
    deaths: int = 0
    """Of its workers."""
    decided: bool = False
    """Whether its outcome is recorded."""
    troubled: bool = False
    """Whether it was said that it waits for something, since its last epoch."""
    known: dict[int, float] = field(default_factory=dict)
    """By epoch, the values that the study holds."""
    judged: int = 0
    """Up to this epoch it was decided before that it goes on."""
    memory: int | None = None
    """Bytes that its worker has held on the GPU at most."""
    curve: list[EpochMetrics] = field(default_factory=list)
    """What its worker has told, from the first epoch on."""

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def last(self) -> EpochMetrics | None:
        return self.curve[-1] if self.curve else None


@dataclass
class Progress:
    """The search at a glance, for whoever displays it."""

    goal: int
    epochs: int
    counts: Counter[str] = field(default_factory=Counter)
    running: dict[int, Running] = field(default_factory=dict)
    """By worker."""
    best: TrialRecord | None = None
    history: list[float] = field(default_factory=list)
    """Value of the best so far after each network that trained, once one got to its end."""
    trained_here: int = 0
    """In this run of the command."""
    devices: dict[int, str] = field(default_factory=dict)
    """What each worker that is ready computes on, and in which precision."""
    metric: MetricName = "accuracy"
    """What all values are of."""

    @property
    def trained(self) -> int:
        return outcomes.count_trained(self.counts)


class Display(Protocol):
    def update(self, progress: Progress) -> None:
        """Something changed: an epoch, a draw, an outcome."""

    def epoch(self, running: Running) -> None:
        """A training has ended an epoch: the last of its curve. One that goes on repeats those of its checkpoint."""

    def ended(self, row: TrialRecord, progress: Progress) -> None:
        """A trial that trained, or failed, has ended."""

    def note(self, text: str) -> None:
        """Something worth a line."""
