"""What the coordinator and a worker say to each other. Plain data, so that any executor can carry it."""

from dataclasses import dataclass
from pathlib import Path

from nas.config import Candidate, DataConfig
from nas.train.loop import EpochMetrics, Status


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker is told once, when it starts."""

    data: DataConfig
    device: str
    threads: int
    """CPU threads it may use."""


# ------------------------------------------------------------------------------------------ coordinator → worker


@dataclass(frozen=True)
class Train:
    number: int
    """The trial's number in the study."""
    candidate: Candidate
    folder: Path
    """The trial's, where its checkpoint and metrics are kept."""
    seed: int


@dataclass(frozen=True)
class Verdict:
    """The answer to an `Epoch`; the worker waits for it."""

    go_on: bool


@dataclass(frozen=True)
class Suspend:
    """Write a checkpoint where you are and end the training."""


@dataclass(frozen=True)
class Shutdown:
    pass


ToWorker = Train | Verdict | Suspend | Shutdown

# ------------------------------------------------------------------------------------------ worker → coordinator


@dataclass(frozen=True)
class Ready:
    """The data is loaded; trainings may come."""

    device: str
    precision: str


@dataclass(frozen=True)
class Epoch:
    number: int
    metrics: EpochMetrics


@dataclass(frozen=True)
class Ended:
    number: int
    status: Status


@dataclass(frozen=True)
class Failed:
    number: int
    reason: str
    """The exception in one line."""
    traceback: str


@dataclass(frozen=True)
class Unfit:
    """The worker could not even start, by a mistake that its user can mend."""

    message: str
    hint: str | None


@dataclass(frozen=True)
class Died:
    """Sent by the executor in a worker's stead."""

    exitcode: int | None


FromWorker = Ready | Epoch | Ended | Failed | Unfit | Died
