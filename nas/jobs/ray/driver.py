"""The process that is connected to a Ray cluster for a search: keeps actors wherever there is room, and carries their messages.

It is not the coordinator's own process, because Ray takes over its driver's signals, prints into its terminal, may wait for
minutes in a call, and ends the process when the head node stays away.
"""

import math
import os
import queue
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from setproctitle import setproctitle

from nas.jobs.ray.actor import Collected, NasWorker
from nas.jobs.ray.link import Close, Gone, Kill, Lost, Order, Placed, Replace, Room, Said, Send, Unreachable

PROBE_SECONDS = 5.0
SPEAK_SECONDS = 5.0  # for last words, should the coordinator not listen
LOOK_SECONDS = 2.0  # between two looks at the cluster's nodes
UNREACHABLE_SECONDS = 60.0  # an actor that cannot be reached for so long is given up; longer than its own lease
AHEAD = 4  # so many more actors are asked for than there is room: what is asked for is what makes an autoscaler add nodes
NODE_GONE = "its node is gone"
REPLACE_SECONDS = 30.0  # within which the coordinator usually lets another take the place of one that died
VACANT_SECONDS = 300.0  # after which a place where one died, and none may follow, is tried again: the node may have been repaired
LOCAL_OBJECT_STORE = 256 * 1024**2  # bytes. Only checkpoints go through it, and on one machine not even those


def room_for(nodes: Iterable[tuple[float, float]], gpus: float, cpus: float) -> int:
    """How many workers fit on nodes of so many GPUs and CPUs, each worker on one node."""
    count = 0
    for node_gpus, node_cpus in nodes:
        fits = [have / need for have, need in ((node_gpus, gpus), (node_cpus, cpus)) if need]
        count += math.floor(min(fits) + 1e-6)  # 1 / (1 / 3) and its like
    return count


def drive(connection: Connection, order: Order) -> None:
    """What the process runs, until it is told to close or the other end of the connection is gone."""
    if hasattr(os, "setsid"):
        os.setsid()  # what Ctrl-C or a batch system sends to the search's whole process group
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray's own processes inherit it, and are ended by it
    setproctitle(order.title)
    with open(order.log, "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    with suppress(OSError):
        os.unlink(order.log)  # the search has it open; so nobody has to remove it
    try:
        connect(order.address)
    except Exception as error:  # whatever Ray raises
        connection.send(Unreachable(first_line(error)))
        os._exit(1)
    import ray

    connected = _Driver(connection, order).run()
    if connected:
        ray.shutdown()
    os._exit(not connected)  # threads may still wait for a cluster that is gone


def connect(address: str) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    named = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, separator, port = named.removeprefix("ray://").rpartition(":")
    if separator and port.isdecimal():  # Ray itself would try for minutes
        socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS).close()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": LOCAL_OBJECT_STORE}
    ray.init(address, **options)


def first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


@dataclass(eq=False)
class _Seat:
    """An actor, from the moment when it is asked for."""

    actor: Any
    node: str | None = None  # none until it has been given its place
    worker: int | None = None  # none until it has been given its job
    received: int = 0
    sent: int = 0
    unconfirmed: dict[int, bytes] = field(default_factory=dict)
    """By their numbers, messages that the worker is not known to have taken."""
    listening: bool = False  # whether a call that collects its messages is under way
    repeat: bool = False  # whether a call that delivered a message has failed
    unreachable_since: float | None = None
    killed: bool = False


@dataclass(eq=False)
class _Vacancy:
    """What one that died has left, and may not have a successor yet. An actor that is given its place there has to wait."""

    node: str | None  # none where it died before it had been given its place
    since: float  # by `time.monotonic`


class _Driver:
    """One thread decides; others wait for the cluster and for the coordinator, and put what happens into a queue."""

    def __init__(self, connection: Connection, order: Order) -> None:
        import ray

        self._ray = ray
        self._connection, self._order = connection, order
        self._actor_class = ray.remote(NasWorker).options(
            num_gpus=order.gpus, num_cpus=order.cpus, max_restarts=0, max_task_retries=0, max_concurrency=8
        )
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        """What the coordinator has not taken yet: it may be waiting for a database, and the workers shall not notice."""
        self._node = ray.get_runtime_context().get_node_id()
        self._seats: list[_Seat] = []
        self._room: Room | None = None
        self._numbers: list[int] = []  # of workers that died and may have a successor
        self._next_number = 0
        self._vacant: dict[int, _Vacancy] = {}
        self._closing: float | None = None  # the time of `time.monotonic` at which the workers that are left will be ended
        self._lost = False

    def run(self) -> bool:
        """Whether the connection to the cluster is there to the end."""
        speaker = threading.Thread(target=self._speak, daemon=True)
        speaker.start()
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._look, daemon=True).start()
        while not self._lost:
            remaining = None if self._closing is None else max(0.0, self._closing - time.monotonic())
            try:
                self._events.get(timeout=remaining)()
            except queue.Empty:
                break
            if self._closing is not None and not any(seat.worker is not None for seat in self._seats):
                break
        self._say(None)
        speaker.join(SPEAK_SECONDS)
        return not self._lost

    def _lose(self, reason: str) -> None:
        self._say(Lost(reason))
        self._lost = True

    def _say(self, message: object) -> None:
        self._outbox.put(message)

    def _speak(self) -> None:
        with suppress(OSError):  # `_listen` finds out, too
            while (message := self._outbox.get()) is not None:
                self._connection.send(message)

    def _listen(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                self._events.put(partial(self._close, 0.0))
                return
            self._events.put(partial(self._heed, message))

    def _heed(self, message: object) -> None:
        match message:
            case Send(worker=worker, message=packed):
                if seat := self._seat_of(worker):
                    self._send(seat, packed)
            case Kill(worker=worker):
                if seat := self._seat_of(worker):
                    seat.killed = True
                    self._ray.kill(seat.actor)
            case Replace(worker=worker):
                self._vacant.pop(worker, None)  # or it was too late for that
                if worker not in self._numbers and self._seat_of(worker) is None:
                    self._numbers.append(worker)
                    self._fill()
            case Close(seconds=seconds):
                self._close(seconds)

    def _seat_of(self, worker: int) -> _Seat | None:
        return next((seat for seat in self._seats if seat.worker == worker), None)

    def _close(self, seconds: float) -> None:
        self._closing = time.monotonic() + seconds
        self._fill()

    def _look(self) -> None:
        while True:
            try:
                nodes = [node for node in self._ray.nodes() if node["Alive"]]
            except Exception as error:
                self._events.put(partial(self._lose, first_line(error)))
                return
            self._events.put(partial(self._see, nodes))
            time.sleep(LOOK_SECONDS)

    def _see(self, nodes: list[dict[str, Any]]) -> None:
        alive = {node["NodeID"] for node in nodes}
        if self._node not in alive:
            self._lose("the node that connects the search to it is gone")
            return
        have = tuple(sorted((node["Resources"].get("GPU", 0.0), node["Resources"].get("CPU", 0.0)) for node in nodes))
        room = Room(room_for(have, self._order.gpus, self._order.cpus), have)
        if room != self._room:
            self._room = room
            self._say(room)
        for seat in list(self._seats):
            if seat.worker is None and seat.node is not None and seat.node not in alive:
                self._bury(seat, NODE_GONE)
            if seat.unreachable_since is not None and time.monotonic() - seat.unreachable_since > UNREACHABLE_SECONDS:
                self._bury(seat, f"its node has not been reachable for {UNREACHABLE_SECONDS:.0f} s")
            elif seat.unreachable_since is not None and not seat.listening:
                self._collect(seat)
            if seat.repeat:
                seat.repeat = False
                for number, packed in seat.unconfirmed.items():
                    self._deliver(seat, number, packed)
        now = time.monotonic()
        for worker, vacancy in list(self._vacant.items()):
            if now - vacancy.since > VACANT_SECONDS or (vacancy.node is not None and vacancy.node not in alive):
                del self._vacant[worker]
        self._fill()

    def _fill(self) -> None:
        """Asks for as many actors as there should be, and takes back what was asked for and is not wanted any more."""
        if self._closing is None:
            self._give_jobs()
        idle = [seat for seat in self._seats if seat.worker is None]
        placed = sum(seat.node is not None for seat in self._seats)
        # Nobody knows on which node these died: the next one would be given the same place.
        nowhere = sum(vacancy.node is None for vacancy in self._vacant.values())
        ahead = 0 if nowhere or self._order.address == "local" else AHEAD
        wanted = max(placed, (self._room.workers if self._room else 0) - nowhere) + ahead
        if self._order.most is not None:
            now = time.monotonic()
            awaited = sum(now - vacancy.since < REPLACE_SECONDS for vacancy in self._vacant.values())
            wanted = min(wanted, max(0, self._order.most - awaited))
        missing = (0 if self._closing is not None else wanted) - len(self._seats)
        for _ in range(missing):
            seat = _Seat(self._actor_class.remote())
            self._seats.append(seat)
            self._await(seat, seat.actor.hello.remote(), self._place)
        idle.sort(key=lambda seat: seat.node is not None)
        for seat in idle[: max(0, -missing)]:
            self._seats.remove(seat)
            self._ray.kill(seat.actor)

    def _give_jobs(self) -> None:
        """To those that have a place, less one for each vacancy on its node: it keeps the place, so that of the actors which are
        asked for ahead none starts there, and an autoscaler does not take it for free."""
        vacant = Counter(vacancy.node for vacancy in self._vacant.values())
        for seat in self._seats:
            if seat.worker is None and seat.node is not None:
                if vacant[seat.node]:
                    vacant[seat.node] -= 1
                else:
                    self._number(seat)
                    self._send(seat, self._order.run)

    def _await(self, seat: _Seat, call: Any, then: Callable[[_Seat, Any], None]) -> None:
        call.future().add_done_callback(lambda future: self._events.put(partial(self._answered, seat, future, then)))

    def _answered(self, seat: _Seat, future: Any, then: Callable[[_Seat, Any], None]) -> None:
        from ray.exceptions import ActorUnavailableError

        seat.listening = False
        if seat not in self._seats:
            return
        try:
            result = future.result()
        except ActorUnavailableError as error:
            if seat.killed or seat.worker is None:
                self._bury(seat, error)
            elif seat.unreachable_since is None:  # `_see` tries again
                seat.unreachable_since = time.monotonic()
            return
        except Exception as error:
            self._bury(seat, error)
            return
        then(seat, result)

    def _number(self, seat: _Seat) -> int:
        """The place of one that died, or a new one."""
        if self._numbers:
            seat.worker = self._numbers.pop(0)
        else:
            seat.worker, self._next_number = self._next_number, self._next_number + 1
        self._say(Placed(seat.worker))
        return seat.worker

    def _place(self, seat: _Seat, node: str) -> None:
        seat.node = node
        self._collect(seat)
        self._fill()

    def _collect(self, seat: _Seat) -> None:
        seat.listening = True
        self._await(seat, seat.actor.collect.remote(seat.received), self._hear)

    def _send(self, seat: _Seat, packed: bytes) -> None:
        seat.unconfirmed[seat.sent] = packed
        self._deliver(seat, seat.sent, packed)
        seat.sent += 1

    def _deliver(self, seat: _Seat, number: int, packed: bytes) -> None:
        def done(future: Any) -> None:
            if future.exception() is not None:
                self._events.put(partial(setattr, seat, "repeat", True))

        seat.actor.deliver.remote(number, packed).future().add_done_callback(done)

    def _hear(self, seat: _Seat, said: Collected) -> None:
        seat.unreachable_since = None
        for number in [number for number in seat.unconfirmed if number < said.taken]:
            del seat.unconfirmed[number]
        for packed in said.messages:
            assert seat.worker is not None, "who has no job says nothing"
            self._say(Said(seat.worker, packed))
        seat.received += len(said.messages)
        if said.over is None:
            self._collect(seat)
        else:
            self._bury(seat, said.over)

    def _bury(self, seat: _Seat, why: str | Exception) -> None:
        """Nobody hears from it again; its actor ends, in case it has not."""
        from ray.exceptions import ActorUnavailableError, OutOfMemoryError

        self._seats.remove(seat)
        reason = why if isinstance(why, str) else describe_death(why)
        idle = seat.node is not None or reason == NODE_GONE or isinstance(why, ActorUnavailableError)
        if seat.worker is not None or not idle:
            worker = self._number(seat) if seat.worker is None else seat.worker
            self._vacant[worker] = _Vacancy(seat.node, time.monotonic())
            self._say(Gone(worker, "it was killed" if seat.killed else reason, isinstance(why, OutOfMemoryError)))
        self._ray.kill(seat.actor)
        self._fill()


def describe_death(error: Exception) -> str:
    """In a line, out of the page that Ray says about the end of an actor."""
    text = str(error).strip()
    if "its node has died" in text:
        return NODE_GONE
    _, found, detail = text.partition("Worker exit detail: ")
    if found:
        return f"its process ended: {detail.partition(' Some common causes')[0]}"[:300]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if getattr(error, "actor_init_failed", False):
        return lines[-1][:300]
    return lines[0][:300]
