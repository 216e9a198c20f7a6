"""A worker as an actor of Ray: a thread in which it runs, and its line to the coordinator."""

import pickle
import threading
import time
from dataclasses import dataclass
from typing import Any

from nas.errors import one_line

COLLECT_SECONDS = 3.0  # a call that collects messages waits for the first one so long
LEASE_SECONDS = 15.0
"""Without another call for so long, the worker takes its coordinator for gone. Less than Ray needs to give up a node that it
cannot reach, so that the worker there has ended before another one goes on with its trial."""


@dataclass(frozen=True)
class Collected:
    """What a worker has said, and not been known to be received yet."""

    messages: list[bytes]
    taken: int  # how many messages the worker has taken from the coordinator
    over: str | None  # why nothing will follow


class Line:
    """Both directions between a worker and its coordinator. Messages are numbered, since Ray runs the methods of a threaded actor
    in any order, and kept until the other end is known to have them, since a call may fail on its way back.

    `send`, `recv` and `poll` are the worker's `Channel`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inbox: dict[int, bytes] = {}
        self._taken = 0
        self._outbox: list[bytes] = []
        self._first = 0  # number of the first message in the outbox
        self._over: str | None = None
        self._cut_off: str | None = None  # why the worker was told that its coordinator is gone
        self._called: float | None = None
        """When a call began or ended last. Before the first one nothing has been begun that another worker could go on with: an
        actor may have its place long before its job, and Ray ends it with its driver."""

    def send(self, message: Any) -> None:
        packed = pickle.dumps(message)
        with self._changed:
            self._require_coordinator()
            self._outbox.append(packed)
            self._changed.notify_all()

    def recv(self) -> Any:
        with self._changed:
            while self._taken not in self._inbox:
                self._require_coordinator()
                self._changed.wait(1.0)
            packed = self._inbox.pop(self._taken)
            self._taken += 1
        return pickle.loads(packed)

    def poll(self) -> bool:
        with self._changed:
            self._require_coordinator()
            return self._taken in self._inbox

    def _require_coordinator(self) -> None:
        silent = 0.0 if self._called is None else time.monotonic() - self._called
        if silent > LEASE_SECONDS:
            self._cut_off = f"the coordinator has not answered for {silent:.0f} s"
            raise EOFError(self._cut_off)

    def deliver(self, number: int, message: bytes) -> None:
        with self._changed:
            self._called = time.monotonic()
            if number >= self._taken:
                self._inbox[number] = message
                self._changed.notify_all()

    def collect(self, received: int) -> Collected:
        """What follows the first `received` messages, which will not be asked for again."""
        with self._changed:
            self._called = time.monotonic()
            known = max(0, received - self._first)
            del self._outbox[:known]
            self._first += known
            self._changed.wait_for(lambda: self._outbox or self._over is not None, COLLECT_SECONDS)
            self._called = time.monotonic()
            return Collected(list(self._outbox), self._taken, self._over)

    def end(self, reason: str) -> None:
        with self._changed:
            self._over = self._cut_off or reason
            self._changed.notify_all()


class NasWorker(Line):
    """What Ray makes an actor of; its methods run beside the worker's thread, whose function is the first message."""

    def __init__(self) -> None:
        super().__init__()
        threading.Thread(target=self._work, name="nas worker", daemon=True).start()

    def _work(self) -> None:
        try:
            self.recv()(self)
            self.end("it ended itself")
        except BaseException as error:  # nobody else would hear of it
            self.end(one_line(error))

    def hello(self) -> str:
        """Answers as soon as the actor has been given its place: on which node."""
        import ray

        return ray.get_runtime_context().get_node_id()
