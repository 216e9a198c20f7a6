"""What the coordinator and a worker say to each other. Plain data, so that any executor can carry it."""

from dataclasses import dataclass
from pathlib import Path

from nas.config import Candidate, DataConfig
from nas.data.splits import DataSelection
from nas.train.checkpoint import EpochMetrics, Found
from nas.train.loop import Status


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker is told once, when it starts."""

    data: DataConfig
    device: str
    threads: int
    """CPU threads it may use."""
    study: Path
    """The study's folder, absolute; a worker on another machine may not see it."""
    token: str
    """What the folder's token file holds as long as this coordinator leads the study."""
    sharing: int = 1
    """Workers on its device, itself included, among which the device's memory is divided."""
    selection: DataSelection | None = None
    """What a retraining trains on; None for a search, whose split of the data also says which images choose."""
    token_file: Path | None = None
    """None for the study's own."""


# ------------------------------------------------------------------------------------------ coordinator → worker


@dataclass(frozen=True)
class Train:
    number: int
    """The trial's number in the study."""
    candidate: Candidate
    folder: Path
    """The trial's, where its checkpoint and metrics are kept."""
    seed: int
    micro_batches: int = 1
    """Parts in which each batch goes through the network, for less memory."""
    checkpoint: bytes | None = None
    """To go on from, for a worker that does not see the folder."""
    identity: str | None = None
    """Of the checkpoint; None for that of a search's training."""
    compiled: bool = False
    """By torch.compile."""


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

    number: int = 0
    """Of the pause, which the answer repeats: one that comes late is no answer to the next."""


@dataclass(frozen=True)
class Resume:
    pass


@dataclass(frozen=True)
class Shutdown:
    pass


ToWorker = Train | Verdict | Suspend | Pause | Resume | Shutdown

# ------------------------------------------------------------------------------------------ worker → coordinator


@dataclass(frozen=True)
class Ready:
    """The data is loaded; trainings may come."""

    device: str
    precision: str
    sees_study: bool = True
    """Whether it reads and writes the study's folder itself; else its checkpoints come as messages."""


@dataclass(frozen=True)
class Began:
    """The first word of every training."""

    number: int
    epochs_done: int
    """Whole epochs that its checkpoint holds; it goes on after them."""
    found: Found


@dataclass(frozen=True)
class Alive:
    """Sent now and then from within a long epoch, so that silence means that the worker hangs."""


@dataclass(frozen=True)
class Paused:
    """The answer to a `Pause`."""

    number: int = 0


@dataclass(frozen=True)
class Saved:
    """The checkpoint of a worker that does not see the study's folder; precedes its `Epoch`, or its end."""

    number: int
    checkpoint: bytes


@dataclass(frozen=True)
class Epoch:
    number: int
    metrics: EpochMetrics
    memory: int | None = None
    """Bytes that the worker has held on its GPU at most, in this training; None elsewhere."""


@dataclass(frozen=True)
class Waiting:
    """The training pauses and tries again, for a reason that somebody has to mend."""

    number: int
    reason: str


@dataclass(frozen=True)
class Ended:
    number: int
    status: Status


@dataclass(frozen=True)
class OutOfMemory:
    """The training ended for want of memory; what it occupied is free again."""

    number: int
    where: str
    """`the device` or `the host`."""
    reason: str


@dataclass(frozen=True)
class Failed:
    number: int
    reason: str
    """The exception in one line."""
    traceback: str


@dataclass(frozen=True)
class Broken:
    """The worker's device answers nothing any more: what it trained is not to blame, and the worker ends."""

    number: int
    reason: str


@dataclass(frozen=True)
class Unfit:
    """The worker could not even start, by a mistake that its user can mend."""

    message: str
    hint: str | None


@dataclass(frozen=True)
class Died:
    """Sent by the executor in a worker's stead."""

    reason: str
    """How it ended: `exit code -9`, `its node is gone`."""
    out_of_memory: bool = False
    """Whether the system ended it because the host's memory ran out."""


FromWorker = Ready | Began | Alive | Paused | Saved | Epoch | Waiting | Ended | OutOfMemory | Failed | Broken | Unfit | Died
