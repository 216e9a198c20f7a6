"""A job is one training of one network, as data. A source says which jobs there are and what an epoch means; `Runner` does the
rest."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nas.config import ArchConfig, TrainConfig
from nas.errors import NasError
from nas.paths import TrialPaths
from nas.train.checkpoint import EpochMetrics
from nas.train.loop import EpochProgress, Status

if TYPE_CHECKING:
    from nas.foreign.known import KnownNetwork


@dataclass(frozen=True)
class Job:
    key: str  # unique in its source: a trial's number, a run's name
    title: str  # in messages: `trial 7`, or the run's name
    folder: Path  # absolute; holds the checkpoint and metrics.jsonl
    network: "ArchConfig | KnownNetwork"
    train: TrainConfig
    seed: int  # all that is drawn follows from it
    identity: str  # of its checkpoint: one of another identity is not resumed from
    micro_batches: int = 1
    """Parts in which each batch goes through the network; more than 1 where a whole one did not fit in memory."""
    compiled: bool = False  # by torch.compile

    @property
    def paths(self) -> TrialPaths:
        return TrialPaths(self.folder)


@dataclass(frozen=True)
class JobResult:
    status: Status | Literal["failed"]
    reason: str = ""  # of a failure, in one line


@dataclass
class Running:
    """A job that a worker trains, or that waits to be resumed after its worker died or its memory ran out."""

    job: Job
    deaths: int = 0  # of its workers, since it last got beyond the epochs that it had reached before
    reached: int = 0  # epochs that were trained at least once: one that is replayed after a resumption is no progress
    stopped: bool = False  # whether its source has ended it after an epoch
    waiting: bool = False  # whether its worker waits for room on a disk
    progress: EpochProgress | None = None  # within the epoch under way; None at its beginning
    memory: int | None = None  # most bytes that its worker has held on the GPU
    curve: list[EpochMetrics] = field(default_factory=list)  # from the first epoch on

    @property
    def last(self) -> EpochMetrics | None:
        return self.curve[-1] if self.curve else None


class JobSource(ABC):
    """Where jobs come from, and who hears what becomes of them. `Runner` calls every method, from one thread.

    A source with work of its own, such as drawing the next candidates, does it in steps between two looks at what workers say.
    """

    error: NasError | None = None  # why nothing more can be trained; running jobs are suspended before it is raised
    busy = False  # whether `work` has something to do
    needs_idle_machine = False  # whether the next step of `work` measures time, so that no worker may be busy meanwhile

    def attach(self, running: Mapping[int, Running], devices: Mapping[int, str]) -> None:
        """Views of what the runner trains, by worker, and of what each worker that is ready computes on."""
        return

    @abstractmethod
    def next(self) -> Job | None:
        """The next job for an idle worker; None where there is none now."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether `next` will give nothing more, and no decision is left to be carried out. Jobs may still be running."""

    def look_ahead(self, workers: int) -> None:
        """May begin to prepare jobs for so many workers."""
        return

    def work(self) -> None:
        """One step, of some tens of milliseconds."""
        return

    def settle(self) -> None:
        """Before jobs are handed out: carries out what was decided."""
        return

    def on_begin(self, running: Running, epochs_done: int) -> None:
        """It trains, after so many epochs that its checkpoint holds. Their metrics are told again, through `on_epoch`."""
        return

    @abstractmethod
    def on_epoch(self, running: Running, metrics: EpochMetrics) -> bool:
        """False stops it; what is decided is recorded before this returns."""

    def on_progress(self, running: Running) -> None:
        """It is so far within an epoch as `running.progress` says; every second or so of a long one."""
        return

    def on_micro_batches(self, running: Running) -> None:
        """Memory ran out: it starts again with more of them."""
        return

    @abstractmethod
    def on_end(self, running: Running, result: JobResult) -> None:
        """It has ended; a suspended one resumes when the same command runs again."""

    def on_suspend(self) -> None:
        """Nothing more is begun in this run of the command."""
        return

    def show(self) -> None:
        """Something may have changed that a display shows."""
        return


class FixedJobs(JobSource):
    """A list of jobs, known from the start, of which every epoch is trained."""

    def __init__(
        self,
        jobs: Iterable[Job],
        on_epoch: Callable[[Job, EpochMetrics], None],
        on_end: Callable[[Job, JobResult], None],
        on_progress: Callable[[Job, EpochProgress], None],
    ) -> None:
        self._left = deque(jobs)
        self._on_epoch, self._on_end, self._on_progress = on_epoch, on_end, on_progress

    @property
    def done(self) -> bool:
        return not self._left

    def next(self) -> Job | None:
        return self._left.popleft() if self._left else None

    def on_epoch(self, running: Running, metrics: EpochMetrics) -> bool:
        self._on_epoch(running.job, metrics)
        return True

    def on_progress(self, running: Running) -> None:
        if running.progress is not None:
            self._on_progress(running.job, running.progress)

    def on_end(self, running: Running, result: JobResult) -> None:
        self._on_end(running.job, result)
