"""Workers as spawned processes of this machine, each pinned to its device before it imports torch.

A worker may consist of several processes that train one network together. All of them get every message, the first one speaks for
all, and what one of them fails by ends them all: the others would wait for it.
"""

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from setproctitle import setproctitle

from nas.interrupts import die_with, signals_handled
from nas.jobs.executor import Executor
from nas.jobs.messages import (
    Broken,
    Died,
    Failed,
    FromWorker,
    OutOfMemory,
    Shutdown,
    Timed,
    TimeSteps,
    ToWorker,
    Unfit,
    WorkerPlan,
)
from nas.jobs.worker import run_worker, time_steps, warm_up

_log = logging.getLogger(__name__)
SHUTDOWN_SECONDS = 5.0
KILL_SECONDS = 10.0  # within which a process has to end by SIGKILL
GRACE_SECONDS = 0.5  # in which whatever else is wrong is heard, after the first sign of it in one of several processes


def _main(connection: Connection, title: str, parent: int) -> None:
    setproctitle(title)
    die_with(parent)  # elsewhere than on Linux a worker finds that out before its next step
    warm_up()
    plan = None
    with suppress(EOFError, OSError):  # the runner is gone
        while isinstance(plan := connection.recv(), TimeSteps):
            connection.send(time_steps(plan))
    if isinstance(plan, WorkerPlan):  # and not Shutdown, before it has begun
        run_worker(connection, plan)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # nothing is left to be done, and to take torch's modules down one by one would take a second


def pinned_environment(device: str, threads: int) -> dict[str, str]:
    """The environment that leaves a process a single GPU, out of those this one may see, and its share of threads."""
    environment = {"OMP_NUM_THREADS": str(threads)}
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or 0)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[index].strip() if visible else str(index)
    return environment


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
def of_its_own() -> Iterator[None]:
    """A process that is spawned within imports nothing of the working folder or of the program that runs here, of which a worker
    needs nothing: a file `types.py` would stand in for Python's own, and a user's script would search once more there, unless it
    said `if __name__ == "__main__"`.

    Nor does it hear Ctrl-C and a batch system's SIGTERM, which reach the whole process group: only the runner decides what they
    mean. What is ignored when a process starts stays so, even while it still imports."""
    main, path = sys.modules["__main__"], sys.path[:]
    with signals_handled(signal.SIG_IGN), _environment({"PYTHONSAFEPATH": "1"}):
        sys.modules["__main__"] = ModuleType("__main__")
        if not sys.flags.safe_path:
            sys.path[:] = [*path[1:], *path[:1]]  # the folder of the script, or the working folder: behind what is installed
        try:
            yield
        finally:
            sys.path[:] = path
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


LastWord = Died | Broken | OutOfMemory | Failed  # how one of several processes failed; the gravest first


@dataclass
class _Process:
    process: SpawnProcess
    connection: Connection


@dataclass
class _Worker:
    members: list[_Process]
    kills_before: int  # `out_of_memory_kills` when it was heard of last
    folder: tempfile.TemporaryDirectory | None  # where several processes meet
    killed_at: float | None = None  # when we ended it by force, by `time.monotonic`; so that it was not the system that did
    last_words: dict[int, LastWord] = field(default_factory=dict)  # of its several processes, in the order of their failures
    failed_at: float | None = None  # when the first of them failed

    def kill(self) -> None:
        self.killed_at = self.killed_at or time.monotonic()
        for member in self.members:
            member.process.kill()


class LocalExecutor(Executor):
    """One worker for each plan, in order. A process imports what it needs before it hears its plan, which may be that of a study
    that is only being opened meanwhile."""

    def __init__(self, plans: list[WorkerPlan]) -> None:
        self.plans = plans
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, _Worker] = {}

    @property
    def workers(self) -> list[int]:
        return list(range(len(self.plans)))

    def prepare(self) -> None:
        for worker in self.workers:
            if worker not in self._workers:
                self._spawn(worker)

    def start(self) -> None:
        self.prepare()
        for worker in self.workers:
            self._brief(worker)

    def tell(self, **changes: Any) -> None:
        self.plans = [replace(plan, **changes) for plan in self.plans]

    def time_steps(self, order: TimeSteps, workers: int) -> list[Timed]:
        """By so many workers at the same time; before `start`. Raises EOFError or OSError where one of them has died."""
        self.plans += [self.plans[0]] * (workers - len(self.plans))
        self.prepare()
        members = [self._workers[worker].members[0] for worker in range(workers)]
        for member in members:
            member.connection.send(order)
        return [member.connection.recv() for member in members]

    def replan(self, plans: list[WorkerPlan]) -> None:
        """These instead of those before, whose processes stay as far as they are needed; before `start`."""
        self.plans = plans
        self._end([worker for worker in self._workers if worker >= len(plans)], seconds=0)

    def restart(self, worker: int) -> None:
        self._end([worker], seconds=0)
        self._spawn(worker)
        self._brief(worker)

    def _spawn(self, worker: int) -> None:
        plan = self.plans[worker]
        together = plan.processes > 1
        # Processes that work together see all GPUs, for they copy from one to another.
        environment = pinned_environment("cpu" if together else plan.device, plan.threads)
        folder = tempfile.TemporaryDirectory(prefix="nas-group-", ignore_cleanup_errors=True) if together else None
        made = _Worker([], out_of_memory_kills(), folder)
        self._workers[worker] = made
        for rank in range(plan.processes):
            title = f"nas worker {worker} on {plan.device}, study {plan.study.name}"
            if together:
                title = f"nas process {rank + 1} of {plan.processes} on {plan.device}, study {plan.study.name}"
            ours, theirs = self._context.Pipe()
            name = f"nas-worker-{worker}" + f"-{rank}" * together
            process = self._context.Process(target=_main, args=(theirs, title, os.getpid()), name=name, daemon=True)
            with _environment(environment), of_its_own():
                process.start()
            theirs.close()
            made.members.append(_Process(process, ours))
            _log.info("process %d: %s", process.pid, title)

    def _brief(self, worker: int) -> None:
        plan, made = self.plans[worker], self._workers[worker]
        for rank, member in enumerate(made.members):
            device = plan.device
            if made.folder is not None:
                device = f"{device}:{rank}" if device == "cuda" else device
                plan = replace(plan, rank=rank, init_method=f"file://{made.folder.name}/meeting")
            elif device.startswith("cuda:"):
                device = "cuda"  # the only one that it sees
            self._send(member, replace(plan, device=device))

    def send(self, worker: int, message: WorkerPlan | ToWorker) -> None:
        for member in self._workers[worker].members if worker in self._workers else []:
            self._send(member, message)

    def _send(self, member: _Process, message: WorkerPlan | ToWorker) -> None:
        with suppress(OSError):  # it is gone, and receive() says so
            member.connection.send(message)

    def receive(self, timeout: float) -> list[tuple[int, FromWorker]]:
        by_connection = {
            member.connection: (worker, rank)
            for worker, made in self._workers.items()
            for rank, member in enumerate(made.members)
            if not isinstance(made.last_words.get(rank), Died)
        }
        if any(made.failed_at for made in self._workers.values()):
            timeout = min(timeout, GRACE_SECONDS / 5)
        arrived: list[tuple[int, FromWorker]] = []
        for connection in wait(list(by_connection), timeout):
            assert isinstance(connection, Connection)
            worker, rank = by_connection[connection]
            if worker not in self._workers:
                continue  # another of its processes has just ended it
            try:
                message = connection.recv()
                self._workers[worker].kills_before = out_of_memory_kills()
            except (EOFError, OSError):
                message = self._died(worker, rank)
            if len(self._workers[worker].members) == 1:
                if isinstance(message, Died):
                    self._end([worker], seconds=1.0)
                arrived.append((worker, message))
            else:
                arrived += self._hear_member(worker, rank, message)
        for worker, made in list(self._workers.items()):
            if made.killed_at is not None and time.monotonic() - made.killed_at > KILL_SECONDS:
                self._end([worker], seconds=0)
                arrived.append((worker, Died("it cannot be stopped, even by force")))
            elif made.failed_at is not None and time.monotonic() - made.failed_at > GRACE_SECONDS:
                arrived += self._end_group(worker)
        return arrived

    def _died(self, worker: int, rank: int) -> Died:
        made = self._workers[worker]
        process = made.members[rank].process
        process.join(1.0)
        code = process.exitcode
        by_the_system = code == -signal.SIGKILL and made.killed_at is None
        return Died(describe_exit(code), by_the_system and out_of_memory_kills() > made.kills_before)

    # ------------------------------------------------------------------------------------ workers of several processes

    def _hear_member(self, worker: int, rank: int, message: FromWorker) -> list[tuple[int, FromWorker]]:
        made = self._workers[worker]
        if isinstance(message, LastWord):
            if isinstance(made.last_words.get(rank), Broken | None):
                made.last_words[rank] = message
            made.failed_at = made.failed_at or time.monotonic()
            return []
        return [(worker, message)] if rank == 0 or isinstance(message, Unfit) else []

    def _end_group(self, worker: int) -> list[tuple[int, FromWorker]]:
        """Ends all of them; returns what caused it: the death of a process, or its error, is an error to all others, too, which
        may be heard before a death. Of errors of one kind it is the first."""
        made = self._workers[worker]
        rank, word = min(made.last_words.items(), key=lambda one: get_args(LastWord).index(type(one[1])))
        self._end([worker], seconds=0)
        if isinstance(word, Died):
            return [(worker, Died(f"process {rank + 1} of {len(made.members)}: {word.reason}", word.out_of_memory))]
        if isinstance(word, Broken):
            return [(worker, word), (worker, Died(f"process {rank + 1} of {len(made.members)} can no longer use its device"))]
        self.restart(worker)
        return [(worker, word)]

    # ----------------------------------------------------------------------------------------------------- their end

    def kill(self, worker: int) -> None:
        if worker in self._workers:
            self._workers[worker].kill()

    def close(self, force: bool = False) -> None:
        for worker in self._workers:
            self.send(worker, Shutdown())
        self._end(list(self._workers), 0 if force else SHUTDOWN_SECONDS)

    def _end(self, workers: list[int], seconds: float) -> None:
        """By force those that have not ended by themselves after so many seconds in all."""
        deadline = time.monotonic() + seconds
        ending = [self._workers.pop(worker) for worker in workers if worker in self._workers]
        members = [member for made in ending for member in made.members]
        try:
            for member in members:
                member.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for member in members:
                if member.process.is_alive():
                    member.process.kill()
            for member in members:
                # A process that waits in the kernel for its device, or for a file server, ends no sooner than that answers.
                member.process.join(KILL_SECONDS)
                if member.process.is_alive():
                    multiprocessing.process._children.discard(member.process)  # type: ignore[attr-defined]
                member.connection.close()
            for made in ending:
                if made.folder is not None:
                    made.folder.cleanup()
