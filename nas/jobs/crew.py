"""The workers: which are ready, which are idle, and what follows when one cannot start, hangs or dies. Knows nothing of jobs."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from nas.errors import NasError, StudyError
from nas.jobs.executor import Executor
from nas.jobs.messages import Alive, Died, Epoch, FromWorker, Pause, Paused, Ready, Resume, ToWorker, Unfit

MAX_DEATHS_AT_THE_START = 3  # of a worker, in a row, before it is ready
PAUSE_SECONDS = 30.0  # before a worker that has worked before, and cannot start now, tries again
UNLEARNED_SECONDS = 1800.0
"""Allowed before anything was learned of how long workers are usually silent, and for starting: a cache may have to be built."""
LEAST_SECONDS = 120.0
FACTOR = 20.0  # so many times the longest silence that was seen to end
MOST_AT_ONCE = 5.0
"""Seconds that may count between two looks: while this process itself was stopped, or waited for a database, it heard nobody."""


class Crew:
    def __init__(self, executor: Executor, note: Callable[[str], None]) -> None:
        self.executor, self.note = executor, note
        self.devices: dict[int, str] = {}  # what each worker that is ready computes on, and in which precision
        self.idle: set[int] = set()
        self.no_shared_filesystem: set[int] = set()  # those that do not see the study's folder: on another machine
        self.replacing = True  # whether one that died is replaced
        self.lost: NasError | None = None  # why no worker is left
        self._started = False
        self._pausing: set[int] = set()  # who was asked to pause, and …
        self._paused: set[int] = set()  # … who does
        self._pause = 0
        self._unfit: dict[int, NasError] = {}
        self._refused: dict[int, NasError] = {}
        self._worked: set[int] = set()
        self._restarts: dict[int, float] = {}  # when, by `time.monotonic`, another takes the place of each
        self._deaths_at_the_start: Counter[int] = Counter()
        self._silence = Silence()
        self._listened = time.monotonic()

    def start(self) -> None:
        """Starts the workers, unless an earlier task has."""
        if not self._started:
            self.executor.start()
        self._started = self.replacing = True

    @property
    def size(self) -> int:
        """At least 1: where none has started yet, one will."""
        return max(1, len(self.executor.workers))

    def occupy(self, worker: int, message: ToWorker) -> None:
        """Sends what the worker has to answer."""
        self.idle.discard(worker)
        self._silence.expect(worker)
        self.executor.send(worker, message)

    def release(self, worker: int) -> None:
        self.idle.add(worker)
        self._silence.expect_nothing(worker)

    def pause_all(self) -> bool:
        """Asks those that are busy to pause. Returns whether none works, so that something can be timed, until `resume_all`."""
        absent = self.executor.awaited | self._unfit.keys() | self._restarts.keys()
        busy = set(self.executor.workers) - absent - self.idle
        for worker in busy & self.devices.keys() - self._pausing:
            self.occupy(worker, Pause(self._pause))
            self._pausing.add(worker)
        return busy <= self._paused

    def resume_all(self) -> None:
        for worker in self._pausing:
            self.executor.send(worker, Resume())
            if worker not in self.idle:
                self._silence.expect(worker)
        self._pause += 1
        self._pausing.clear()
        self._paused.clear()

    def receive(self, timeout: float) -> list[tuple[int, FromWorker]]:
        """What has arrived within so many seconds, each to be passed to `hear`; also ends who hangs."""
        arrived = self.executor.receive(timeout)
        self._listen({worker for worker, _ in arrived})
        return arrived

    def hear(self, worker: int, message: FromWorker) -> None:
        self._silence.heard(worker, in_training=isinstance(message, (Alive, Epoch)))
        match message:
            case Ready(device=device, precision=precision, sees_study=sees_study):
                self.devices[worker] = f"{device}, {precision}"
                self._deaths_at_the_start[worker] = 0
                self._worked.add(worker)
                (self.no_shared_filesystem.discard if sees_study else self.no_shared_filesystem.add)(worker)
                self.release(worker)
            case Paused(number=number) if number == self._pause:
                self._paused.add(worker)
                self._silence.expect_nothing(worker)
            case Unfit(message=text, hint=hint):
                # One that has worked before finds what it needs occupied, which may pass.
                (self._refused if worker in self._worked else self._unfit)[worker] = NasError(text, hint=hint)
            case Died():
                self._bury(worker, message)

    def _bury(self, worker: int, death: Died) -> None:
        self._pausing.discard(worker)
        self._paused.discard(worker)
        was_ready = self.devices.pop(worker, None) is not None
        self.idle.discard(worker)
        self._silence.expect_nothing(worker)
        refused = self._refused.pop(worker, None)
        if not was_ready and worker not in self._unfit:
            self._deaths_at_the_start[worker] += 1
            if self._deaths_at_the_start[worker] >= MAX_DEATHS_AT_THE_START:
                self._unfit[worker] = refused or StudyError(
                    f"worker {worker} died {MAX_DEATHS_AT_THE_START} times before it trained anything ({death.reason})",
                    hint="nas doctor shows the devices; nothing of the study is lost",
                )
        if worker not in self._unfit:
            self._restarts[worker] = time.monotonic() + (PAUSE_SECONDS if refused else 0)
            if refused:
                self.note(f"worker {worker} tries again in {PAUSE_SECONDS:.0f} s: {refused.message}")
            self._restart_who_is_due()
        elif set(self.executor.workers) | self._restarts.keys() <= self._unfit.keys():
            self.lost = self._unfit[worker]
        else:
            self.note(f"worker {worker} cannot start; the others continue: {self._unfit[worker].message}")

    def _restart_who_is_due(self) -> None:
        for worker, when in list(self._restarts.items()):
            if self.replacing and time.monotonic() >= when:
                del self._restarts[worker]
                self.executor.restart(worker)

    def _listen(self, heard: set[int]) -> None:
        """Ends those that have been silent for too long."""
        self._restart_who_is_due()
        now = time.monotonic()
        self._silence.passed(now - self._listened)
        self._listened = now
        for worker in set(self.executor.workers) - self.executor.awaited:
            if self.replacing and not (worker in self.devices or worker in self._unfit or worker in self._silence):
                self._silence.expect(worker, starting=True)
        for worker, silent in self._silence.too_long().items():
            if worker in heard:
                continue
            self.note(f"worker {worker} has not answered for {silent:.0f} s; it seems to hang and is killed")
            self._silence.judged(worker)
            self.executor.kill(worker)


@dataclass
class Silence:
    """Silences of the workers that are expected to speak, in seconds in which somebody listened."""

    limit: float = field(default_factory=lambda: UNLEARNED_SECONDS)
    _silent: dict[int, float] = field(default_factory=dict)
    _starting: set[int] = field(default_factory=set)
    _longest: float = 0.0
    _leniency: float = 1.0

    def __contains__(self, worker: int) -> bool:
        return worker in self._silent

    def expect(self, worker: int, starting: bool = False) -> None:
        """It has something to do, and should be heard of before long; one that is starting within `UNLEARNED_SECONDS`."""
        self._silent[worker] = 0.0
        (self._starting.add if starting else self._starting.discard)(worker)

    def expect_nothing(self, worker: int) -> None:
        self._silent.pop(worker, None)
        self._starting.discard(worker)

    def heard(self, worker: int, in_training: bool) -> None:
        """From what is said in a training, `in_training`, the usual silence is learned."""
        if worker in self._silent:
            if in_training:
                self._longest = max(self._longest, self._silent[worker])
                self._learn()
            self._silent[worker] = 0.0

    def passed(self, seconds: float) -> None:
        for worker in self._silent:
            self._silent[worker] += min(seconds, MOST_AT_ONCE)

    def too_long(self) -> dict[int, float]:
        """The seconds that each worker which hangs has been silent."""
        limits = {worker: UNLEARNED_SECONDS if worker in self._starting else self.limit for worker in self._silent}
        return {worker: seconds for worker, seconds in self._silent.items() if seconds > limits[worker]}

    def judged(self, worker: int) -> None:
        """It is ended. The next one is given twice as long, in case this one was only slow."""
        if worker not in self._starting:
            self._leniency *= 2
            self._learn()
        self.expect_nothing(worker)

    def _learn(self) -> None:
        if self._longest:
            self.limit = self._leniency * max(LEAST_SECONDS, FACTOR * self._longest)
