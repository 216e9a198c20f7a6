"""The runner: hands jobs to workers, and owns every fault that can happen to a training.

It alone decides what follows when a worker dies, memory runs out, a disk is full, a stop is requested or the time is up, when
something is to be timed on an idle machine, and when the source can record nothing any more. What is trained, and what an epoch
means, is known to the source alone.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from nas.device import more_parts
from nas.errors import NasError
from nas.files import write_whole
from nas.interrupts import Stop
from nas.jobs.crew import Crew
from nas.jobs.job import JobResult, JobSource, Running
from nas.jobs.messages import (
    Alive,
    Began,
    Broken,
    Died,
    Ended,
    Epoch,
    Failed,
    FromWorker,
    Note,
    OutOfMemory,
    Paused,
    Ready,
    Saved,
    Suspend,
    Train,
    Unfit,
    Verdict,
    Waiting,
)
from nas.train.checkpoint import EpochMetrics, write_curve
from nas.train.loop import carry_out

_log = logging.getLogger(__name__)
MAX_DEATHS = 3  # of the workers of one job, without an epoch between them that it had not reached before
SUSPEND_SECONDS = 30.0  # within which a worker has to write its checkpoint; it looks for messages after every step


class Runner:
    def __init__(
        self,
        source: JobSource,
        crew: Crew,
        *,
        note: Callable[[str], None],
        stop: Stop,
        deadline: float | None = None,
        persist: Callable[[Callable[[], None]], None] = carry_out,
    ) -> None:
        """
        Args:
            crew: the workers, who may work for other runners before and after; whoever made the crew closes its executor.
            stop: may be requested by a signal handler.
            deadline: a time of `time.monotonic`.
            persist: carries out a write to a file, and tries again while a disk is full.
        """
        self.source, self.crew, self.note, self.stop, self.deadline, self.persist = source, crew, note, stop, deadline, persist
        self.running: dict[int, Running] = {}  # by worker
        self.suspended = False  # whether a stop was requested before everything was done
        self._resuming: deque[Running] = deque()  # jobs that wait for a worker to go on with them
        self._suspended_at: float | None = None
        self._error: NasError | None = None
        source.attach(self.running, crew.devices)

    def run(self) -> None:
        """Until the source is done, or a stop is requested and every worker has written its checkpoint.

        Raises NasError where no worker is left, or the source cannot go on.
        """
        if self.source.done:
            return
        self.crew.start()
        try:
            while self._turn():
                pass
        except NasError:
            self._suspend_unrecorded()
            raise
        if self._error is not None:
            raise self._error

    def _turn(self) -> bool:
        """Returns whether there is more to do."""
        source, crew = self.source, self.crew
        if self.deadline is not None and time.monotonic() > self.deadline and not self.stop.requested:
            self.note("the time is up")
            self.stop.requested = True
        if self.stop.requested:
            self._suspend()
        source.settle()
        if not self.stop.requested and not source.needs_idle_machine:
            self._hand_out()
        source.show()
        if not self.running and (self.stop.requested or (source.done and not self._resuming)):
            return False
        pausing = source.needs_idle_machine and not crew.pause_all()
        for worker, message in crew.receive(timeout=0 if source.busy and not pausing else 0.5):
            self._handle(worker, message)
        if crew.lost is not None:
            self._stop_because(crew.lost)
        if source.busy and not pausing and not self.stop.requested:
            source.work()
            if not source.needs_idle_machine:
                crew.resume_all()
        if source.error is not None:
            self._stop_because(source.error)
        return True

    def _hand_out(self) -> None:
        """A job to each idle worker."""
        for worker in sorted(self.crew.idle):
            running = self._resuming.popleft() if self._resuming else None
            if running is None and (job := self.source.next()) is not None:
                running = Running(job)
            if running is None:
                break
            self.running[worker] = running
            _log.info("worker %d trains %s in %s", worker, running.job.title, running.job.paths.folder)
            checkpoint = running.job.paths.checkpoint
            sent = checkpoint.read_bytes() if worker in self.crew.no_shared_filesystem and checkpoint.exists() else None
            self.crew.occupy(worker, Train(running.job, sent))
        self.source.look_ahead(self.crew.size)

    # ---------------------------------------------------------------------------------------------------- suspension

    def _stop_because(self, error: NasError) -> None:
        """The other jobs are suspended before it is raised."""
        self._error = self._error or error
        self.stop.requested = True

    def _suspend(self) -> None:
        """Every job writes a checkpoint where it is. A worker that does not within a time is ended, and its job resumes from its
        last one."""
        if self._suspended_at is None:
            self._suspended_at, self.suspended = time.monotonic(), True
            self.crew.replacing = False
            self.source.on_suspend()
            self.crew.resume_all()
            for worker in self.running:
                self.crew.executor.send(worker, Suspend())
            while self._resuming:
                self.source.on_end(self._resuming.popleft(), JobResult("suspended"))
        elif time.monotonic() - self._suspended_at > SUSPEND_SECONDS:
            for worker, running in self.running.items():
                self.note(
                    f"worker {worker} wrote no checkpoint within {SUSPEND_SECONDS:.0f} s and is killed; "
                    f"{running.job.title} will resume from the last one"
                )
                self.crew.executor.kill(worker)
            self._suspended_at = float("inf")  # once is enough

    def _suspend_unrecorded(self) -> None:
        """As `_suspend`, where the source can record nothing any more."""
        executor, deadline, left = self.crew.executor, time.monotonic() + SUSPEND_SECONDS, set(self.running)
        for worker in left:
            executor.send(worker, Suspend())
            executor.send(worker, Verdict(go_on=True))  # one of them waits for it; the others ignore it
        while left and time.monotonic() < deadline:
            for worker, message in executor.receive(timeout=0.5):
                match message:
                    case Epoch():  # judged at the next start
                        executor.send(worker, Verdict(go_on=True))
                    case Saved(checkpoint=checkpoint):
                        with suppress(OSError):
                            write_whole(self.running[worker].job.paths.checkpoint, checkpoint)
                    case Ended() | Failed() | OutOfMemory() | Died():
                        left.discard(worker)

    # ------------------------------------------------------------------------------------------ what workers report

    def _handle(self, worker: int, message: FromWorker) -> None:
        _log.debug("worker %d: %s", worker, type(message).__name__)
        self.crew.hear(worker, message)
        running = self.running.get(worker)
        if isinstance(message, Died):
            self._on_death(worker, message)
        if running is None:
            return
        title = running.job.title
        match message:
            case Began():
                self._on_begin(running, message)
            case Saved(checkpoint=checkpoint):
                self.persist(lambda: write_whole(running.job.paths.checkpoint, checkpoint))
            case Alive(progress=progress):
                running.progress = progress
                self.source.on_progress(running)
            case Epoch(metrics=metrics, memory=memory):
                running.progress, running.memory = None, memory
                self._on_epoch(worker, running, metrics)
            case Waiting(reason=reason):
                if not running.waiting:
                    self.note(f"{title} pauses and tries again every few seconds: {reason}")
                running.waiting = True
            case Note(text=text):
                self.note(f"{title}: {text}")
            case Ended(status=status):
                _log.info("%s: %s", title, status)
                if status == "suspended":
                    self.note(f"{title} is suspended")
                self.source.on_end(self._release(worker), JobResult(status))
            case OutOfMemory(where=where, reason=reason):
                self._on_out_of_memory(self._release(worker), where, reason)
            case Failed(reason=reason, traceback=traceback):
                self._fail(self._release(worker), reason, traceback)
            case Broken(reason=reason):
                self.note(f"the device of worker {worker} fails in {title}: {reason}")
            case Ready() | Unfit() | Paused() | Died():
                pass  # the crew's business, or done

    def _release(self, worker: int) -> Running:
        self.crew.release(worker)
        return self.running.pop(worker)

    def _on_begin(self, running: Running, began: Began) -> None:
        title, done = running.job.title, began.epochs_done
        running.curve.clear()
        running.progress = None
        self.source.on_begin(running, done)
        if began.found in ("damaged", "mismatched"):
            what = "damaged" if began.found == "damaged" else "of another training or version"
            self.note(f"{title} restarts: its checkpoint is {what}")
        elif began.found == "none" and running.reached:
            self.note(f"{title} restarts: its checkpoint is gone")
        elif began.found == "whole":
            self.note(f"{title} resumes " + (f"after epoch {done}" if done else "within its first epoch"))

    def _on_epoch(self, worker: int, running: Running, metrics: EpochMetrics) -> None:
        if running.waiting:
            self.note(f"{running.job.title} resumes")
            running.waiting = False
        running.curve.append(metrics)
        if worker in self.crew.no_shared_filesystem:
            self.persist(lambda: write_curve(running.job.paths.metrics, running.curve))
        if metrics.epoch > running.reached:
            running.deaths, running.reached = 0, metrics.epoch
        running.stopped = not self.source.on_epoch(running, metrics)
        _log.info("%s, epoch %d: %s%s", running.job.title, metrics.epoch, metrics, "; stopped" * running.stopped)
        self.crew.occupy(worker, Verdict(go_on=not running.stopped))

    # -------------------------------------------------------------------------------------------------------- faults

    def _on_death(self, worker: int, death: Died) -> None:
        running = self.running.pop(worker, None)
        if running is None:
            self.note(f"worker {worker} died ({death.reason}) while it had nothing to train")
        elif running.stopped:
            self.source.on_end(running, JobResult("stopped"))
        elif self._suspended_at is not None:
            self.note(f"worker {worker} died ({death.reason}); {running.job.title} will resume from its checkpoint")
            self.source.on_end(running, JobResult("suspended"))
        elif death.out_of_memory:
            self._on_out_of_memory(running, "the host", f"the system ended its worker ({death.reason})")
        elif running.deaths + 1 >= MAX_DEATHS:
            self._fail(running, f"its worker died {MAX_DEATHS} times, last with {death.reason}", "")
        else:
            running.deaths += 1
            self.note(f"worker {worker} died ({death.reason}); {running.job.title} resumes from its checkpoint")
            self._resuming.appendleft(running)

    def _on_out_of_memory(self, running: Running, where: str, reason: str) -> None:
        """The same job again, each batch in twice as many parts; its source records that, since BatchNorm sees smaller ones."""
        job, batch = running.job, running.job.train.batch_size
        parts = more_parts(batch, job.micro_batches)
        if parts is None:
            last = batch // job.micro_batches
            self._fail(running, f"{where} has too little memory, even for micro-batches of {last} images ({reason})", "")
            return
        running.job = replace(job, micro_batches=parts)
        self.source.on_micro_batches(running)
        self.note(f"{job.title}: the memory of {where} ran out; it resumes with micro-batches of {batch // parts} images")
        self._resuming.appendleft(running)

    def _fail(self, running: Running, reason: str, traceback: str) -> None:
        file = running.job.paths.error
        self.persist(lambda: write_whole(file, f"{reason}\n\n{traceback}".encode()))
        self.note(f"{running.job.title} failed: {reason} (traceback in {file})")
        self.source.on_end(running, JobResult("failed", reason))
