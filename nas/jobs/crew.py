"""The workers: who is ready, who is idle, and what becomes of one that cannot start, hangs or dies. Knows nothing of trials."""

import time
from collections import Counter
from collections.abc import Callable

from nas.errors import NasError, StudyError
from nas.jobs.executor import Executor
from nas.jobs.messages import Alive, Died, Epoch, FromWorker, Pause, Paused, Ready, Resume, ToWorker, Unfit
from nas.jobs.silence import Silence

MAX_DEATHS_AT_THE_START = 3
"""Of a worker, in a row, before it is ready."""
PAUSE_SECONDS = 30.0
"""Before a worker that has worked before, and cannot start now, tries again."""


class Crew:
    def __init__(self, executor: Executor, note: Callable[[str], None]) -> None:
        self.executor, self.note = executor, note
        self.devices: dict[int, str] = {}
        """What each worker that is ready computes on, and in which precision."""
        self.idle: set[int] = set()
        self.blind: set[int] = set()
        """Those that do not see the study's folder."""
        self.replacing = True
        """Whether another takes the place of one that died."""
        self.lost: NasError | None = None
        """Why no worker is left."""
        self._started = False
        self._hushed: set[int] = set()
        """Who was asked to pause, and …"""
        self._paused: set[int] = set()
        """… who does."""
        self._pause = 0
        self._unfit: dict[int, NasError] = {}
        self._refused: dict[int, NasError] = {}
        self._worked: set[int] = set()
        self._restarts: dict[int, float] = {}
        """When, by `time.monotonic`, another takes the place of each."""
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

    def hush(self) -> bool:
        """Asks those who are busy to pause. Returns whether nobody works, so that something can be timed; `wake` ends it."""
        absent = self.executor.awaited | self._unfit.keys() | self._restarts.keys()
        busy = set(self.executor.workers) - absent - self.idle
        for worker in busy & self.devices.keys() - self._hushed:
            self.occupy(worker, Pause(self._pause))
            self._hushed.add(worker)
        return busy <= self._paused

    def wake(self) -> None:
        for worker in self._hushed:
            self.executor.send(worker, Resume())
            if worker not in self.idle:
                self._silence.expect(worker)
        self._pause += 1
        self._hushed.clear()
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
                (self.blind.discard if sees_study else self.blind.add)(worker)
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
        self._hushed.discard(worker)
        self._paused.discard(worker)
        was_ready = self.devices.pop(worker, None) is not None
        self.idle.discard(worker)
        self._silence.expect_nothing(worker)
        refused = self._refused.pop(worker, None)
        if not was_ready and worker not in self._unfit:
            self._deaths_at_the_start[worker] += 1
            if self._deaths_at_the_start[worker] >= MAX_DEATHS_AT_THE_START:
                self._unfit[worker] = refused or StudyError(
                    f"worker {worker} died {MAX_DEATHS_AT_THE_START} times before it could train anything ({death.reason})",
                    hint="nas doctor shows what this machine has; nothing of the study is lost",
                )
        if worker not in self._unfit:
            self._restarts[worker] = time.monotonic() + (PAUSE_SECONDS if refused else 0)
            if refused:
                self.note(f"worker {worker} tries again in {PAUSE_SECONDS:.0f} s: {refused.message}")
            self._restart_who_is_due()
        elif set(self.executor.workers) | self._restarts.keys() <= self._unfit.keys():
            self.lost = self._unfit[worker]
        else:
            self.note(f"worker {worker} cannot start, the others go on: {self._unfit[worker].message}")

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
            self.note(f"worker {worker} has said nothing for {silent:.0f} s: it hangs and is ended")
            self._silence.judged(worker)
            self.executor.kill(worker)
