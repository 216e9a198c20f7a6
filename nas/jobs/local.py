"""Workers as spawned processes of this machine, each pinned to its device before it imports torch."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import ModuleType

from setproctitle import setproctitle

from nas.interrupts import die_with
from nas.jobs.executor import Executor
from nas.jobs.messages import Died, FromWorker, Shutdown, ToWorker, WorkerPlan
from nas.jobs.worker import run_worker, warm_up

SHUTDOWN_SECONDS = 5.0
KILL_SECONDS = 10.0
"""Within which a process has to end by SIGKILL."""


class _PipeChannel:
    """A worker's end of a pipe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, message: FromWorker) -> None:
        self._connection.send(message)

    def receive(self) -> ToWorker:
        return self._connection.recv()

    def poll(self) -> bool:
        return self._connection.poll()


def _main(connection: Connection, title: str, parent: int) -> None:
    setproctitle(title)
    die_with(parent)  # elsewhere than on Linux a worker finds that out before its next step
    warm_up()
    plan = None
    with suppress(EOFError, OSError):  # the coordinator is gone
        plan = connection.recv()
    if isinstance(plan, WorkerPlan):  # and not Shutdown, before it has begun
        run_worker(_PipeChannel(connection), plan)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # nothing is left to be done, and to take torch's modules down one by one would take a second


def pinned_environment(device: str, threads: int) -> dict[str, str]:
    """The environment that leaves a process a single GPU, out of those this one may see, and its share of threads."""
    environment = {"OMP_NUM_THREADS": str(threads)}
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or 0)
        mine = os.environ.get("CUDA_VISIBLE_DEVICES")
        visible = mine.split(",") if mine else None
        environment["CUDA_VISIBLE_DEVICES"] = visible[index].strip() if visible else str(index)
    return environment


@contextmanager
def deaf_to_signals() -> Iterator[None]:
    """Ctrl-C and a batch system's SIGTERM reach the whole process group; only the coordinator decides what they mean. What is
    ignored when a process starts stays so, even while it still imports."""
    if threading.current_thread() is not threading.main_thread():  # who may not set handlers gets no signals either
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """A spawned process inherits the environment as it is at that moment."""
    before = {key: os.environ.get(key) for key in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


@contextmanager
def _no_main() -> Iterator[None]:
    """A spawned process would import the program that runs here, of which a worker needs nothing: a user's script would search
    once more there, unless it said `if __name__ == "__main__"`."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def out_of_memory_kills() -> int:
    """How many processes Linux has killed for want of memory since it started; 0 where it does not say."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def describe_exit(code: int | None) -> str:
    """`exit code 1`, `SIGKILL`"""
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


@dataclass
class _Running:
    process: SpawnProcess
    connection: Connection
    kills_before: int
    """`out_of_memory_kills` when it was heard of last."""
    killed_at: float | None = None
    """When we ended it by force, by `time.monotonic`; so that it was not the system that did."""

    def kill(self) -> None:
        self.killed_at = self.killed_at or time.monotonic()
        self.process.kill()


class LocalExecutor(Executor):
    """One process for each plan, in order. A process imports what it needs before it hears its plan, which may be that of a study
    that is only being opened meanwhile."""

    def __init__(self, plans: list[WorkerPlan]) -> None:
        self._plans = plans
        self._context = multiprocessing.get_context("spawn")
        self._running: dict[int, _Running] = {}

    @property
    def workers(self) -> list[int]:
        return list(range(len(self._plans)))

    def prepare(self) -> None:
        for worker in self.workers:
            if worker not in self._running:
                self._spawn(worker)

    def start(self) -> None:
        self.prepare()
        for worker in self.workers:
            self._brief(worker)

    def restart(self, worker: int) -> None:
        self._end([worker], seconds=0)
        self._spawn(worker)
        self._brief(worker)

    def _spawn(self, worker: int) -> None:
        plan = self._plans[worker]
        environment = pinned_environment(plan.device, plan.threads)
        title = f"nas worker {worker} on {plan.device}, study {plan.study.name}"
        kills = out_of_memory_kills()
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_main, args=(theirs, title, os.getpid()), name=f"nas-worker-{worker}", daemon=True)
        with _environment(environment), deaf_to_signals(), _no_main():
            process.start()
        theirs.close()
        self._running[worker] = _Running(process, ours, kills)

    def _brief(self, worker: int) -> None:
        plan = self._plans[worker]
        if plan.device.startswith("cuda:"):
            plan = replace(plan, device="cuda")  # the only one that it sees
        self.send(worker, plan)

    def send(self, worker: int, message: WorkerPlan | ToWorker) -> None:
        if worker in self._running:
            with suppress(OSError):  # it is gone, and receive() says so
                self._running[worker].connection.send(message)

    def receive(self, timeout: float) -> list[tuple[int, FromWorker]]:
        by_connection = {running.connection: worker for worker, running in self._running.items()}
        arrived: list[tuple[int, FromWorker]] = []
        for connection in wait(list(by_connection), timeout):
            assert isinstance(connection, Connection)
            worker = by_connection[connection]
            try:
                arrived.append((worker, connection.recv()))
                self._running[worker].kills_before = out_of_memory_kills()
            except (EOFError, OSError):
                arrived.append((worker, self._died(worker)))
        for worker, running in list(self._running.items()):
            if running.killed_at is not None and time.monotonic() - running.killed_at > KILL_SECONDS:
                self._end([worker], seconds=0)
                arrived.append((worker, Died("it cannot be ended, even by force")))
        return arrived

    def _died(self, worker: int) -> Died:
        running = self._running[worker]
        self._end([worker], seconds=1.0)
        code = running.process.exitcode
        by_the_system = code == -signal.SIGKILL and running.killed_at is None
        return Died(describe_exit(code), by_the_system and out_of_memory_kills() > running.kills_before)

    def kill(self, worker: int) -> None:
        if worker in self._running:
            self._running[worker].kill()

    def close(self, force: bool = False) -> None:
        for worker in self._running:
            self.send(worker, Shutdown())
        self._end(list(self._running), 0 if force else SHUTDOWN_SECONDS)

    def _end(self, workers: list[int], seconds: float) -> None:
        """By force those that have not ended by themselves after so many seconds in all."""
        deadline = time.monotonic() + seconds
        ending = [self._running.pop(worker) for worker in workers if worker in self._running]
        try:
            for running in ending:
                running.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for running in ending:
                if running.process.is_alive():
                    running.kill()
            for running in ending:
                # A process that waits in the kernel for its device, or for a file server, ends no sooner than that answers.
                running.process.join(KILL_SECONDS)
                if running.process.is_alive():
                    multiprocessing.process._children.discard(running.process)  # type: ignore[attr-defined]
                running.connection.close()
