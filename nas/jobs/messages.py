"""What the runner and a worker tell each other. Plain data, so that any executor can carry it.

A worker trains one job at a time, so that what it says is about that one.
"""

from dataclasses import dataclass
from pathlib import Path

from nas.config import Candidate, DataConfig, ImageShape
from nas.data.splits import DataSelection
from nas.jobs.job import Job
from nas.train.checkpoint import EpochMetrics, Found
from nas.train.loop import EpochProgress, Status


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker is told once, when it starts."""

    data: DataConfig
    device: str
    threads: int  # CPU threads of each of its processes, at most
    study: Path  # the study's folder, absolute; a worker on another machine may not see it
    token: str  # what the token file holds as long as this runner leads
    sharing: int = 1  # workers on its device, itself included, among which the device's memory is divided
    selection: DataSelection | None = None
    """What a run trains on; None for a search, whose split of the data also gives the validation images."""
    token_file: Path | None = None  # none for the study's own
    processes: int = 1  # of this one worker, which train one network together, each on a part of every batch
    rank: int = 0  # of these, the one that is told this; the first leads
    init_method: str = ""  # where they meet, as torch.distributed has it
    times_threads: bool = False  # whether long trainings on the CPU choose between `threads` and fewer by timing


# ------------------------------------------------------------------------------------- before a worker has its plan


@dataclass(frozen=True)
class TimeSteps:
    """Train this network on images of noise, and say how fast that is."""

    candidate: Candidate
    shape: ImageShape
    threads: int
    seconds: float


@dataclass(frozen=True)
class Timed:
    images_per_second: float
    peak_bytes: int | None  # of the process, at most, so far; None where the system does not say


# ------------------------------------------------------------------------------------------ runner → worker


@dataclass(frozen=True)
class Train:
    job: Job
    checkpoint: bytes | None = None  # to resume from, for a worker that does not see the job's folder


@dataclass(frozen=True)
class Verdict:
    """The answer to an `Epoch`; the worker waits for it."""

    go_on: bool


@dataclass(frozen=True)
class Suspend:
    """Write a checkpoint where you are and end the training."""


@dataclass(frozen=True)
class Pause:
    """Say Paused, and do nothing until Resume or anything that ends the training: something is being timed."""

    number: int = 0  # of the pause, which the answer repeats: one that comes late is no answer to the next


@dataclass(frozen=True)
class Resume:
    pass


@dataclass(frozen=True)
class Shutdown:
    pass


ToWorker = Train | Verdict | Suspend | Pause | Resume | Shutdown

# ------------------------------------------------------------------------------------------ worker → runner


@dataclass(frozen=True)
class Ready:
    """The data is loaded; jobs may come."""

    device: str
    precision: str
    sees_study: bool = True  # whether it reads and writes the study's folder itself; else its checkpoints come as messages


@dataclass(frozen=True)
class Began:
    """The first message of every job."""

    epochs_done: int  # whole epochs that its checkpoint holds; it resumes after them
    found: Found


@dataclass(frozen=True)
class Alive:
    """Sent now and then from within a long epoch, so that silence means that the worker hangs. No epoch has ended by it."""

    progress: EpochProgress | None = None  # None before the first step of a job


@dataclass(frozen=True)
class Paused:
    """The answer to a `Pause`."""

    number: int = 0


@dataclass(frozen=True)
class Saved:
    """The checkpoint of a worker that does not see the study's folder; precedes its `Epoch`, or its end."""

    checkpoint: bytes


@dataclass(frozen=True)
class Epoch:
    metrics: EpochMetrics
    memory: int | None = None  # most bytes that the worker has held on its GPU in this job; None elsewhere


@dataclass(frozen=True)
class Waiting:
    """The job pauses and tries again, for a reason that somebody has to mend."""

    reason: str


@dataclass(frozen=True)
class Note:
    """Something worth a line, such as that the network is being compiled."""

    text: str


@dataclass(frozen=True)
class Ended:
    status: Status


@dataclass(frozen=True)
class OutOfMemory:
    """The job ended for want of memory; what it occupied is free again."""

    where: str  # `the device` or `the host`
    reason: str


@dataclass(frozen=True)
class Failed:
    reason: str  # the exception in one line
    traceback: str


@dataclass(frozen=True)
class Broken:
    """The worker's device answers nothing any more: what it trained is not to blame, and the worker ends."""

    reason: str


@dataclass(frozen=True)
class Unfit:
    """The worker could not even start, by a mistake that its user can mend."""

    message: str
    hint: str | None


@dataclass(frozen=True)
class Died:
    """Sent by the executor in a worker's stead."""

    reason: str  # how it ended: `exit code -9`, `its node is gone`
    out_of_memory: bool = False  # whether the system ended it because the host's memory ran out


FromWorker = (
    Ready | Began | Alive | Paused | Saved | Epoch | Waiting | Note | Ended | OutOfMemory | Failed | Broken | Unfit | Died
)
