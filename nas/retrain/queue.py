"""Several retrainings, over the workers of a search: each on one device, whoever is idle takes the next."""

import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nas.errors import NasError
from nas.files import write_whole
from nas.interrupts import Stop
from nas.retrain.order import Order
from nas.retrain.run import Workshop
from nas.search.crew import Crew
from nas.search.executors import Executor
from nas.search.executors.local import LocalExecutor
from nas.search.messages import (
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
from nas.search.placement import Placement, plan_workers
from nas.train.loop import EpochMetrics
from nas.train.memory import more_parts

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


@dataclass
class Queue:
    """`failures` says, by run, what went wrong; every run that is neither there nor in `suspended` is trained to its end."""

    executor: Executor
    compiled: bool
    on_epoch: Heard
    note: Callable[[str], None]
    stop: Stop
    failures: dict[str, str] = field(default_factory=dict)
    suspended: list[Order] = field(default_factory=list)
    diverged: list[Order] = field(default_factory=list)
    """Of the failures, those that would come again."""

    def run(self, orders: Sequence[Order]) -> None:
        """Until all are trained, or the stop is requested and every worker has written its checkpoint. Raises NasError where no
        worker is left."""
        self.crew = Crew(self.executor, self.note)
        self.waiting = deque(_Run(number, order, order.subject.micro_batches) for number, order in enumerate(orders))
        self.running: dict[int, _Run] = {}
        self.stopped_at: float | None = None
        self.error: NasError | None = None
        try:
            self.crew.start()
            while self.running or (self.waiting and not self.stop.requested):
                self._turn()
        except BaseException:
            self.executor.close(force=True)
            raise
        self.executor.close()
        self.suspended += [run.order for run in self.waiting]
        if self.error is not None:
            raise self.error

    def _turn(self) -> None:
        if self.stop.requested:
            self._suspend()
        else:
            for worker in sorted(self.crew.idle):
                if self.waiting:
                    self._submit(worker, self.waiting.popleft())
        for worker, message in self.crew.receive(timeout=0.5):
            self._handle(worker, message)
        if self.crew.lost is not None:
            self.error = self.crew.lost
            self.stop.requested = True

    def _suspend(self) -> None:
        if self.stopped_at is None:
            self.stopped_at = time.monotonic()
            self.crew.replacing = False
            for worker in self.running:
                self.executor.send(worker, Suspend())
        elif time.monotonic() - self.stopped_at > SUSPEND_SECONDS:
            for worker, run in self.running.items():
                self.note(f"{name_of(run.order)} wrote no checkpoint within {SUSPEND_SECONDS:.0f} s; the last one stays")
                self.executor.kill(worker)
            self.stopped_at = float("inf")  # once is enough

    def _submit(self, worker: int, run: _Run) -> None:
        self.running[worker] = run
        order = run.order
        self.crew.occupy(
            worker,
            Train(
                run.number,
                order.candidate,
                order.run.folder.absolute(),
                order.mixed_seed,
                run.parts,
                identity=order.identity,
                compiled=self.compiled,
            ),
        )

    def _handle(self, worker: int, message: FromWorker) -> None:
        self.crew.hear(worker, message)
        match message:
            case Began(found=found) if found in ("damaged", "foreign"):
                self.note(f"{name_of(self.running[worker].order)} starts again: its checkpoint is {found}")
            case Epoch(metrics=metrics):
                self.running[worker].deaths = 0
                self.on_epoch(self.running[worker].order, metrics)
                self.crew.occupy(worker, Verdict(go_on=True))
            case Waiting(reason=reason):
                self.note(f"{name_of(self.running[worker].order)} pauses and tries again every few seconds: {reason}")
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
                self.note(f"the device of worker {worker} fails: {reason}")

    def _release(self, worker: int) -> _Run:
        self.crew.release(worker)
        return self.running.pop(worker)

    def _ended(self, run: _Run, status: str) -> None:
        if status == "suspended":
            self.suspended.append(run.order)
        elif status == "diverged":
            self.diverged.append(run.order)
            self._fail(run, f"its loss became infinite or NaN, at a peak learning rate of {run.order.candidate.train.peak_lr:g}")

    def _again_in_parts(self, run: _Run, where: str, reason: str) -> None:
        batch = run.order.candidate.train.batch_size
        parts = more_parts(batch, run.parts)
        if parts is None:
            self._fail(run, f"the memory of {where} does not suffice, even in the smallest micro-batches ({reason})")
            return
        run.parts = parts
        self.note(f"{name_of(run.order)}: the memory of {where} ran out; again, in micro-batches of {batch // parts} images")
        self.waiting.appendleft(run)

    def _died(self, worker: int, death: Died) -> None:
        run = self.running.pop(worker, None)
        if run is None:
            return
        if self.stop.requested:
            self.suspended.append(run.order)
        elif death.out_of_memory:
            self._again_in_parts(run, "the host", death.reason)
        elif run.deaths + 1 >= MOST_DEATHS:
            self._fail(run, f"its worker died {MOST_DEATHS} times, last with {death.reason}")
        else:
            run.deaths += 1
            self.note(f"worker {worker} died ({death.reason}); {name_of(run.order)} goes on from its checkpoint")
            self.waiting.appendleft(run)

    def _fail(self, run: _Run, reason: str) -> None:
        self.failures[name_of(run.order)] = reason
        self.note(f"{name_of(run.order)} failed: {reason}")


def name_of(order: Order) -> str:
    return order.run.folder.name


def make_executor(shop: Workshop, placement: Placement, orders: Sequence[Order]) -> LocalExecutor:
    """Workers on the devices that were asked for, no more than there are orders. Raises NasError."""
    token, token_file = uuid.uuid4().hex, orders[0].run.folder / "queue.token"
    write_whole(token_file, token.encode())
    plan = WorkerPlan(
        shop.data,
        "cpu",
        1,
        shop.paths.folder.absolute(),
        token,
        material=orders[0].material,
        token_file=token_file.absolute(),
    )
    return LocalExecutor(plan_workers(placement, plan)[: len(orders)])
