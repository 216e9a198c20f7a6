"""Workers as spawned processes of this machine, each pinned to its device before it imports torch."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from nas.search.executors import Executor
from nas.search.messages import Died, FromWorker, Shutdown, ToWorker, WorkerPlan
from nas.search.worker import run_worker

SHUTDOWN_SECONDS = 5.0


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


def _main(connection: Connection, plan: WorkerPlan) -> None:
    run_worker(_PipeChannel(connection), plan)


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
def _deaf_to_signals() -> Iterator[None]:
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


class LocalExecutor(Executor):
    """One process for each plan, in order."""

    def __init__(self, plans: list[WorkerPlan]) -> None:
        self._plans = plans
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, SpawnProcess] = {}
        self._connections: dict[int, Connection] = {}

    @property
    def workers(self) -> list[int]:
        return list(range(len(self._plans)))

    def start(self) -> None:
        for worker in self.workers:
            self.restart(worker)

    def restart(self, worker: int) -> None:
        self._end(worker, seconds=0)
        plan = self._plans[worker]
        environment = pinned_environment(plan.device, plan.threads)
        if plan.device.startswith("cuda:"):
            plan = WorkerPlan(plan.data, "cuda", plan.threads)  # the only one that it will see
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_main, args=(theirs, plan), name=f"nas-worker-{worker}", daemon=True)
        with _environment(environment), _deaf_to_signals():
            process.start()
        theirs.close()
        self._processes[worker], self._connections[worker] = process, ours

    def send(self, worker: int, message: ToWorker) -> None:
        connection = self._connections.get(worker)
        if connection is not None:
            with suppress(OSError):  # it is gone, and receive() says so
                connection.send(message)

    def receive(self, timeout: float) -> list[tuple[int, FromWorker]]:
        by_connection = {connection: worker for worker, connection in self._connections.items()}
        arrived: list[tuple[int, FromWorker]] = []
        for connection in wait(list(by_connection), timeout):
            assert isinstance(connection, Connection)
            worker = by_connection[connection]
            try:
                arrived.append((worker, connection.recv()))
            except (EOFError, OSError):
                self._end(worker, seconds=1.0)
                arrived.append((worker, Died(self._processes[worker].exitcode)))
        return arrived

    def close(self) -> None:
        for worker in self.workers:
            self.send(worker, Shutdown())
        for worker in self.workers:
            self._end(worker, SHUTDOWN_SECONDS)

    def _end(self, worker: int, seconds: float) -> None:
        connection = self._connections.pop(worker, None)
        process = self._processes.get(worker)
        if process is not None:
            process.join(seconds)
            if process.is_alive():
                process.kill()
                process.join()
        if connection is not None:
            connection.close()
