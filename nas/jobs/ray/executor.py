"""Workers as actors on a Ray cluster: several machines, whole GPUs or parts of one, nodes that come and go."""

import importlib.util
import math
import multiprocessing
import os
import pickle
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import IO, Any

from nas.errors import ConfigError, NasError
from nas.jobs.executor import Executor
from nas.jobs.local import SHUTDOWN_SECONDS, describe_exit, of_its_own
from nas.jobs.messages import Died, FromWorker, Shutdown, ToWorker, WorkerPlan
from nas.jobs.ray.driver import drive
from nas.jobs.ray.link import Close, Gone, Kill, Lost, Order, Placed, Replace, Room, Said, Send, Unreachable
from nas.jobs.worker import run_worker

CONNECT_SECONDS = 60.0
LEAVE_SECONDS = 20.0  # for taking leave of a cluster, or ending a local one
NO_ROOM_SECONDS = 600.0  # an autoscaler may need minutes to add the first node


def workers_a_gpu(gpus_per_worker: float) -> int:
    return int(1 / gpus_per_worker + 1e-6) if gpus_per_worker else 1  # 1 / (1 / 99) is a little less than 99


class RayExecutor(Executor):
    """As many workers as the cluster has room for, each in an actor of its own; `nas.jobs.ray` has the process between.

    Args:
        plan: Of every worker; its `device` is `cuda` where workers take GPUs, since each sees its own ones only.
        address: `auto`, `local`, or where a cluster's head listens.
        most: Workers at any time.
        note: Told what is worth a line.
        run: What an actor runs, with a `Channel` and the `plan`.
    """

    def __init__(
        self,
        plan: WorkerPlan,
        address: str,
        gpus_per_worker: float,
        cpus_per_worker: float,
        most: int | None = None,
        *,
        note: Callable[[str], None] = lambda text: None,
        run: Callable[..., None] = run_worker,
    ) -> None:
        """Raises ConfigError where Ray is missing or a share makes no sense."""
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("--ray needs Ray, which is not installed here", hint="pip install 'nas-under-budget[ray]'")
        if not 0 <= gpus_per_worker <= 1:
            raise ConfigError(
                f"--gpus-per-worker must be between 0 and 1, but is {gpus_per_worker:g}: a worker trains on one GPU",
                hint="1: one GPU for each worker; 0.5: two workers share a GPU; 0: the CPU",
            )
        if not (0 < cpus_per_worker < math.inf) or (cpus_per_worker > 1 and cpus_per_worker % 1):
            raise ConfigError(f"--cpus-per-worker must be a fraction below 1 or a whole number, but is {cpus_per_worker:g}")
        self._plan, self._address, self._note, self._run = plan, address, note, run
        self._gpus, self._cpus, self._most = gpus_per_worker, cpus_per_worker, most
        self._placed: set[int] = set()
        self._awaited: set[int] = set()
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._log: IO[str] | None = None
        self._no_room_since: float | None = None
        self._seen = Room(0, ())

    @property
    def workers(self) -> list[int]:
        return sorted(self._placed | self._awaited)

    @property
    def awaited(self) -> set[int]:
        """Of `workers`, those that start as soon as there is room, be it after hours; nothing is heard of them until then."""
        return set(self._awaited)

    def tell(self, **changes: Any) -> None:
        self._plan = replace(self._plan, **changes)

    def start(self) -> None:
        """Raises NasError for a cluster that cannot be reached."""
        handle, name = tempfile.mkstemp(prefix="nas-ray-", suffix=".log")
        self._log = os.fdopen(handle, errors="replace")
        order = Order(
            self._address,
            self._gpus,
            self._cpus,
            self._most,
            pickle.dumps(partial(self._run, plan=replace(self._plan, sharing=workers_a_gpu(self._gpus)))),
            f"nas, connected to Ray for study {self._plan.study.name}",
            name,
        )
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=drive, args=(theirs, order), name="nas-ray", daemon=True)
        with of_its_own():
            self._process.start()
        theirs.close()
        try:
            self._heed(self._first_word(self._connection))
        except BaseException:
            self._process.kill()  # it may be in the middle of a call to Ray
            self.close(force=True)
            raise

    def _first_word(self, connection: Connection) -> object:
        reason = f"no answer within {CONNECT_SECONDS:.0f} s"
        if connection.poll(CONNECT_SECONDS):
            try:
                said = connection.recv()
            except (EOFError, OSError):
                reason = self._last_words()
            else:
                if not isinstance(said, Unreachable):
                    return said
                reason = said.reason
        raise self._unreachable(reason)

    def _unreachable(self, reason: str) -> NasError:
        return NasError(
            f"the Ray cluster {self._address!r} cannot be reached: {reason}. Choices: auto (the cluster this machine belongs "
            "to), local (one on this machine, for this search), HOST:PORT or ray://HOST:PORT (the address of a head node)",
            hint="ray start --head starts a cluster, and prints how other machines join it; if the cluster asks for a token, set "
            "RAY_AUTH_MODE=token",
        )

    def _lost(self, reason: str) -> NasError:
        return NasError(
            f"the connection to the Ray cluster {self._address!r} is lost: {reason}. Nothing is lost: "
            "each training resumes from its last checkpoint",
            hint="run the same command again, when the cluster is back or with another --ray",
        )

    def _last_words(self) -> str:
        """The reason that Ray printed last, in a sentence."""
        assert self._process is not None
        assert self._log is not None
        self._process.join(1.0)
        lines = [line for line in self._log.read().splitlines() if line.strip()]
        said = re.sub(r"^\[.*?\] (\S+:\d+: )?", "", lines[-1]).partition(". ")[0] if lines else ""
        return said[:300] or f"its driver ended with {describe_exit(self._process.exitcode)}"

    def _see(self, room: Room) -> None:
        if room.workers:
            self._no_room_since = None
        elif self._address == "local":
            raise self._no_room(room)
        elif self._no_room_since is None:
            self._no_room_since = time.monotonic()
            self._note(f"{self._no_room(room)}; waiting up to {NO_ROOM_SECONDS / 60:.0f} minutes for a node with enough room")
        self._seen = room

    def _no_room(self, room: Room) -> NasError:
        have = ", ".join(f"{gpus:g} and {cpus:g}" for gpus, cpus in room.nodes)
        return NasError(
            f"no node of the Ray cluster {self._address!r} has room for a worker with {self._gpus:g} GPUs and {self._cpus:g} "
            f"CPUs: its nodes have {have} (GPUs and CPUs)",
            hint="--gpus-per-worker 0 computes on CPUs, 0.5 puts two workers on a GPU; or add nodes, and run the command again",
        )

    def restart(self, worker: int) -> None:
        self._awaited.add(worker)
        self._tell(Replace(worker))

    def send(self, worker: int, message: ToWorker) -> None:
        self._tell(Send(worker, pickle.dumps(message)))

    def kill(self, worker: int) -> None:
        self._tell(Kill(worker))

    def _tell(self, what: Send | Kill | Replace | Close) -> None:
        if self._connection is not None:
            with suppress(OSError):  # receive() says that it is gone
                self._connection.send(what)

    def receive(self, timeout: float) -> list[tuple[int, FromWorker]]:
        """Raises NasError where the cluster is lost, or has had no room for too long."""
        assert self._connection is not None, "it has not been started"
        deadline = time.monotonic() + timeout
        arrived: list[tuple[int, FromWorker]] = []
        while self._connection.poll(0 if arrived else max(0.0, deadline - time.monotonic())):
            try:
                arrived += self._heed(self._connection.recv())
            except (EOFError, OSError):
                raise self._lost(self._last_words()) from None
        if self._no_room_since is not None and time.monotonic() - self._no_room_since > NO_ROOM_SECONDS:
            raise self._no_room(self._seen)
        return arrived

    def _heed(self, said: object) -> list[tuple[int, FromWorker]]:
        match said:
            case Said(worker=worker, message=message):
                return [(worker, pickle.loads(message))]
            case Placed(worker=worker):
                self._awaited.discard(worker)
                self._placed.add(worker)
            case Gone(worker=worker, reason=reason, out_of_memory=out_of_memory):
                self._placed.discard(worker)
                return [(worker, Died(reason, out_of_memory))]
            case Room():
                self._see(said)
            case Lost(reason=reason):
                raise self._lost(reason)
        return []

    def close(self, force: bool = False) -> None:
        if self._process is None or self._connection is None:
            return
        for worker in [] if force else sorted(self._placed):
            self.send(worker, Shutdown())
        seconds = 0.0 if force else SHUTDOWN_SECONDS
        self._tell(Close(seconds))
        deadline = time.monotonic() + seconds + LEAVE_SECONDS
        # What it still says has to be read, or it would wait for that.
        while self._process.is_alive() and time.monotonic() < deadline:
            with suppress(EOFError, OSError):
                if self._connection.poll(0.1):
                    self._connection.recv()
            self._process.join(0.01)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._connection.close()
        if self._log is not None:
            self._log.close()
        self._process = self._connection = None
        self._placed.clear()
        self._awaited.clear()
