"""Several retrainings, over the workers of a search: each on one device, whoever is idle takes the next."""

import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.errors import NasError
from nas.files import write_whole
from nas.interrupts import Stop
from nas.jobs.crew import Crew
from nas.jobs.job import Job
from nas.jobs.local import LocalExecutor
from nas.jobs.messages import (
    Began,
    Broken,
    Died,
    Ended,
    Epoch,
    Failed,
    FromWorker,
    OutOfMemory,
    Suspend,
    Train,
    Verdict,
    Waiting,
    WorkerPlan,
)
from nas.jobs.placement import Placement, plan_workers
from nas.runs.context import TrainingContext
from nas.runs.finish import divergence
from nas.runs.plan import Order
from nas.train.checkpoint import EpochMetrics
from nas.train.device import more_parts

SUSPEND_SECONDS = 30.0
"""Within which a worker has to write its checkpoint."""
MOST_DEATHS = 3
"""Of the workers of one run, without an epoch between."""

Heard = Callable[[Order, EpochMetrics], None]


@dataclass
class _Run:
    number: int
    order: Order
    parts: int
    deaths: int = 0


class Queue:
    def __init__(
        self,
        orders: Sequence[Order],
        ctx: TrainingContext,
        placement: Placement,
        on_epoch: Heard,
        stop: Stop,
        note: Callable[[str], None],
    ) -> None:
        """Raises NasError where there is no such placement."""
        self.failures: dict[str, str] = {}
        """By run, what went wrong."""
        self.diverged: list[Order] = []
        """Of the failures, those that would come again."""
        self.suspended: list[Order] = []
        self._orders = orders
        self._compiled = ctx.compiled
        self._on_epoch, self._stop, self._note = on_epoch, stop, note
        self._token_file = orders[0].run.folder / "queue.token"
        self._executor = _make_executor(ctx, placement, orders, self._token_file)
        self._crew = Crew(self._executor, note)
        self._waiting = deque(_Run(number, order, order.subject.micro_batches) for number, order in enumerate(orders))
        self._running: dict[int, _Run] = {}
        self._stopped_at: float | None = None
        self._error: NasError | None = None

    def run(self) -> list[Order]:
        """Until all are trained, or the stop is requested and every worker has written its checkpoint. Returns those that are
        trained to their end. Raises NasError where no worker is left."""
        try:
            self._crew.start()
            while self._running or (self._waiting and not self._stop.requested):
                self._turn()
        except BaseException:
            self._executor.close(force=True)
            raise
        self._executor.close()
        self._token_file.unlink(missing_ok=True)
        self.suspended += [run.order for run in self._waiting]
        if self._error is not None:
            raise self._error
        return [order for order in self._orders if order.name not in self.failures and order not in self.suspended]

    def _turn(self) -> None:
        if self._stop.requested:
            self._suspend()
        else:
            for worker in sorted(self._crew.idle):
                if self._waiting:
                    self._submit(worker, self._waiting.popleft())
        for worker, message in self._crew.receive(timeout=0.5):
            self._handle(worker, message)
        if self._crew.lost is not None:
            self._error = self._crew.lost
            self._stop.requested = True

    def _suspend(self) -> None:
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
            self._crew.replacing = False
            for worker in self._running:
                self._executor.send(worker, Suspend())
        elif time.monotonic() - self._stopped_at > SUSPEND_SECONDS:
            for worker, run in self._running.items():
                self._note(f"{run.order.name} wrote no checkpoint within {SUSPEND_SECONDS:.0f} s; the last one stays")
                self._executor.kill(worker)
            self._stopped_at = float("inf")  # once is enough

    def _submit(self, worker: int, run: _Run) -> None:
        self._running[worker] = run
        order = run.order
        job = Job(
            key=order.name,
            title=order.name,
            folder=order.run.folder.absolute(),
            network=order.candidate.arch,
            train=order.candidate.train,
            seed=order.mixed_seed,
            identity=order.identity,
            micro_batches=run.parts,
            compiled=self._compiled,
        )
        self._crew.occupy(worker, Train(job))

    def _handle(self, worker: int, message: FromWorker) -> None:
        self._crew.hear(worker, message)
        match message:
            case Began(found=found) if found in ("damaged", "mismatched"):
                self._note(f"{self._running[worker].order.name} starts again: its checkpoint is {found}")
            case Epoch(metrics=metrics):
                self._running[worker].deaths = 0
                self._on_epoch(self._running[worker].order, metrics)
                self._crew.occupy(worker, Verdict(go_on=True))
            case Waiting(reason=reason):
                self._note(f"{self._running[worker].order.name} pauses and tries again every few seconds: {reason}")
            case Ended(status=status):
                self._ended(self._release(worker), status)
            case OutOfMemory(where=where, reason=reason):
                self._again_in_parts(self._release(worker), where, reason)
            case Failed(reason=reason, traceback=traceback):
                run = self._release(worker)
                write_whole(run.order.run.error, f"{reason}\n\n{traceback}".encode())
                self._fail(run, f"{reason} (traceback in {run.order.run.error})")
            case Died():
                self._died(worker, message)
            case Broken(reason=reason):
                self._note(f"the device of worker {worker} fails: {reason}")

    def _release(self, worker: int) -> _Run:
        self._crew.release(worker)
        return self._running.pop(worker)

    def _ended(self, run: _Run, status: str) -> None:
        if status == "suspended":
            self.suspended.append(run.order)
        elif status == "diverged":
            self.diverged.append(run.order)
            self._fail(run, f"its {divergence(run.order.run, run.order.candidate.train)}")

    def _again_in_parts(self, run: _Run, where: str, reason: str) -> None:
        batch = run.order.candidate.train.batch_size
        parts = more_parts(batch, run.parts)
        if parts is None:
            self._fail(run, f"the memory of {where} does not suffice, even in the smallest micro-batches ({reason})")
            return
        run.parts = parts
        self._note(f"{run.order.name}: the memory of {where} ran out; again, in micro-batches of {batch // parts} images")
        self._waiting.appendleft(run)

    def _died(self, worker: int, death: Died) -> None:
        run = self._running.pop(worker, None)
        if run is None:
            return
        if self._stop.requested:
            self.suspended.append(run.order)
        elif death.out_of_memory:
            self._again_in_parts(run, "the host", death.reason)
        elif run.deaths + 1 >= MOST_DEATHS:
            self._fail(run, f"its worker died {MOST_DEATHS} times, last with {death.reason}")
        else:
            run.deaths += 1
            self._note(f"worker {worker} died ({death.reason}); {run.order.name} goes on from its checkpoint")
            self._waiting.appendleft(run)

    def _fail(self, run: _Run, reason: str) -> None:
        self.failures[run.order.name] = reason
        self._note(f"{run.order.name} failed: {reason}")


def _make_executor(ctx: TrainingContext, placement: Placement, orders: Sequence[Order], token_file: Path) -> LocalExecutor:
    """Workers on the devices that were asked for, no more than there are orders; those of this queue are known by the token.
    Raises NasError."""
    token = uuid.uuid4().hex
    write_whole(token_file, token.encode())
    plan = WorkerPlan(  # device and threads are each worker's
        data=ctx.data,
        device="cpu",
        threads=1,
        study=ctx.paths.folder.absolute(),
        token=token,
        selection=orders[0].selection,
        token_file=token_file.absolute(),
    )
    return LocalExecutor(plan_workers(placement, plan)[: len(orders)])
