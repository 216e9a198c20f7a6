"""Which actors the driver asks for, and who of them gets a job: against stand-ins for Ray and for time, without a cluster."""

from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from nas.errors import NasError
from nas.jobs.messages import Died
from nas.jobs.ray import driver
from nas.jobs.ray.actor import Collected
from nas.jobs.ray.driver import AHEAD, VACANT_SECONDS, _Driver
from nas.jobs.ray.executor import RayExecutor
from nas.jobs.ray.link import Gone, Order, Placed, Replace, Room
from tests.jobs.ray_clusters import needs_ray

pytestmark = needs_ray


class Actor:
    """Its calls wait for the test's answer."""

    def __init__(self) -> None:
        self.node: str | None = None
        self.delivered: list[bytes] = []
        self.hello = SimpleNamespace(remote=self._call)
        self.collect = SimpleNamespace(remote=lambda received: self._call())
        self.deliver = SimpleNamespace(remote=self._deliver)

    def _call(self) -> Any:
        self.answer: Future[Any] = Future()
        return SimpleNamespace(future=lambda: self.answer)

    def _deliver(self, number: int, packed: bytes) -> Any:
        self.delivered.append(packed)
        return SimpleNamespace(future=Future)


class Cluster:
    """Nodes with room for so many workers each; gives what is asked for its place, wherever there is one."""

    def __init__(self, nodes: dict[str, int]) -> None:
        self.now = 0.0
        self.nodes = {"head": 0} | nodes
        self.asked: list[Actor] = []

    def begin(self, most: int | None) -> None:
        self.driver = _Driver(None, Order("auto", 0, 1, most, b"job", "", ""))  # type: ignore[arg-type]
        self.go_on()

    def new(self) -> Actor:
        self.asked.append(Actor())
        return self.asked[-1]

    def kill(self, actor: Actor) -> None:
        if actor in self.asked:
            self.asked.remove(actor)

    def on(self, node: str | None) -> list[Actor]:
        return [actor for actor in self.asked if actor.node == node]

    def go_on(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.driver._see(
            [{"NodeID": node, "Alive": True, "Resources": {"CPU": float(count)}} for node, count in self.nodes.items()]
        )
        self.settle()

    def settle(self) -> None:
        while True:
            while not self.driver._events.empty():
                self.driver._events.get()()
            free = [node for node, count in self.nodes.items() if len(self.on(node)) < count]
            if not free or not self.on(None):
                return
            actor = self.on(None)[0]
            actor.node = free[0]
            actor.answer.set_result(actor.node)

    def end(self, worker: int) -> None:
        """It says that it is over."""
        seat = self.driver._seat_of(worker)
        seat.actor.answer.set_result(Collected([], 1, "it ended itself"))
        self.settle()

    def remove(self, node: str) -> None:
        del self.nodes[node]
        for actor in self.on(node):
            actor.answer.set_exception(RuntimeError("its node has died"))
        self.go_on()

    def replace(self, worker: int) -> None:
        self.driver._heed(Replace(worker))
        self.settle()

    @property
    def workers(self) -> dict[int, str]:
        """Where those are that have a job."""
        working = {seat.worker: seat.actor for seat in self.driver._seats if seat.worker is not None}
        assert all(actor.delivered == [b"job"] for actor in working.values())
        assert sum(len(actor.delivered) for actor in self.asked) == len(working), "who is no worker has no job"
        return {worker: actor.node for worker, actor in sorted(working.items())}

    @property
    def gone(self) -> list[int]:
        said = [self.driver._outbox.get() for _ in range(self.driver._outbox.qsize())]
        return [message.worker for message in said if isinstance(message, Gone)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    import ray

    def make(most: int | None = None, **nodes: int) -> Cluster:
        it = Cluster(nodes)
        actors = SimpleNamespace(remote=it.new)
        monkeypatch.setattr(ray, "remote", lambda kind: SimpleNamespace(options=lambda **options: actors))
        monkeypatch.setattr(ray, "kill", it.kill)
        monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "head"))
        monkeypatch.setattr(driver, "time", SimpleNamespace(monotonic=lambda: it.now))
        it.begin(most)
        return it

    return make


def test_more_is_asked_for_than_there_is_room(cluster: Callable[..., Cluster]) -> None:
    here = cluster(a=2, b=1)
    assert here.workers == {0: "a", 1: "a", 2: "b"}
    assert len(here.on(None)) == AHEAD
    here.nodes["c"] = 1
    here.go_on()
    assert here.workers == {0: "a", 1: "a", 2: "b", 3: "c"}
    assert len(here.on(None)) == AHEAD
    assert len(cluster(most=2, a=2, b=1).asked) == 2


def test_nobody_follows_one_that_died_before_that_is_asked_for(cluster: Callable[..., Cluster]) -> None:
    here = cluster(a=2, b=1)
    here.end(1)
    assert here.gone == [1]
    assert here.workers == {0: "a", 2: "b"}
    here.replace(1)
    assert here.workers == {0: "a", 1: "a", 2: "b"}
    here.replace(1)
    assert (here.driver._numbers, len(here.on(None))) == ([], AHEAD)


def test_where_none_can_start_none_does_and_an_autoscaler_is_asked_for_others(cluster: Callable[..., Cluster]) -> None:
    here = cluster(good=1, bad=1)
    here.end(1)
    for _ in range(10):
        here.go_on(VACANT_SECONDS / 11)
        assert here.workers == {0: "good"}
        assert len(here.on("bad")) == 1, "else the autoscaler takes its place for free"
        assert len(here.on(None)) == AHEAD
    here.nodes["new"] = 1
    here.go_on()
    assert here.workers == {0: "good", 2: "new"}
    here.go_on(VACANT_SECONDS / 10)
    assert here.workers == {0: "good", 2: "new", 3: "bad"}, "it may have been repaired"
    here.end(3)
    here.remove("bad")
    assert here.gone == [1, 3], "who kept the place was nobody"
    assert here.driver._vacant == {}
    here.nodes["other"] = 1
    here.go_on()
    assert here.workers == {0: "good", 2: "new", 4: "other"}
    assert len(here.on(None)) == AHEAD


def test_a_number_may_be_given_again_late(cluster: Callable[..., Cluster]) -> None:
    here = cluster(a=1)
    here.remove("a")
    here.go_on(VACANT_SECONDS * 2)
    here.replace(0)
    here.nodes["b"] = 2
    here.go_on()
    assert here.workers == {0: "b", 1: "b"}


def test_what_dies_before_it_has_a_place_is_not_tried_over_and_over(cluster: Callable[..., Cluster]) -> None:
    here = cluster()
    here.on(None)[0].answer.set_exception(RuntimeError("no module named nas"))
    here.settle()
    assert here.gone == [0]
    assert here.asked == []
    here.go_on(VACANT_SECONDS + 1)
    assert len(here.on(None)) == AHEAD


def test_no_more_than_so_many_even_while_one_is_to_be_replaced(cluster: Callable[..., Cluster]) -> None:
    here = cluster(most=1, a=1, b=1)
    here.end(0)
    assert here.asked == []
    here.replace(0)
    assert list(here.workers) == [0]


def test_who_waits_for_room_counts_as_being_started() -> None:
    executor = RayExecutor(SimpleNamespace(), "auto", 0, 1)  # type: ignore[arg-type]

    def count() -> tuple[list[int], set[int]]:
        return executor.workers, executor.awaited

    for said in (Placed(0), Placed(1), Gone(0, driver.NODE_GONE)):
        executor._heed(said)
    assert count() == ([1], set())
    executor.restart(0)
    assert count() == ([0, 1], {0})
    assert executor._heed(Gone(1, "it ended itself")) == [(1, Died("it ended itself"))]
    assert count() == ([0], {0})
    executor._heed(Placed(0))
    assert count() == ([0], set())


def test_a_local_cluster_without_room_is_not_waited_for() -> None:
    executor = RayExecutor(SimpleNamespace(), "local", 1, 1)  # type: ignore[arg-type]
    with pytest.raises(NasError, match="no node of the Ray cluster 'local' has room for a worker with 1 GPUs") as refused:
        executor._heed(Room(0, ((0.0, 2.0),)))
    assert "--gpus-per-worker 0" in (refused.value.hint or "")
