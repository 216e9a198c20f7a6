"""Workers on a real Ray cluster, of several nodes on this machine: who is started where, what is heard of them, how they end."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.errors import ConfigError, NasError
from nas.jobs.messages import Died
from nas.jobs.ray.actor import Line
from nas.jobs.ray.driver import room_for
from nas.jobs.ray.executor import RayExecutor, workers_a_gpu
from tests.jobs import ray_standins
from tests.jobs.ray_clusters import ENVIRONMENT, PATIENCE, needs_ray, new_cluster, wait_until
from tests.jobs.working import alive

pytestmark = needs_ray

PLAN: Any = ray_standins.Plan(Path("/nowhere/mine"))


class Ear:
    """Remembers all that an executor says."""

    def __init__(self, executor: RayExecutor) -> None:
        self.executor = executor
        self.heard: list[tuple[int, Any]] = []
        self.most = 0
        """Workers there ever were at a time."""

    def listen(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (remaining := until - time.monotonic()) > 0:
            self.heard += self.executor.receive(min(remaining, 0.2))
            self.most = max(self.most, len(self.executor.workers))

    def until(self, is_so: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < deadline, self.heard
            self.listen(0.1)

    def of(self, worker: int) -> list[Any]:
        return [message for who, message in self.heard if who == worker]

    @property
    def ready(self) -> dict[int, dict[str, Any]]:
        """What the last one of each number said of itself."""
        return {who: message[1] for who, message in self.heard if isinstance(message, tuple) and message[0] == "ready"}

    @property
    def dead(self) -> dict[int, Died]:
        return {who: message for who, message in self.heard if isinstance(message, Died)}


@pytest.fixture(scope="module")
def head() -> Iterator[Any]:
    with new_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(head: Any) -> Iterator[Any]:
    """The head, and what the test adds."""
    yield head
    for node in list(head.worker_nodes):
        head.remove_node(node)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Ear]]:
    """`start(cluster, gpus, cpus)`: an executor whose workers echo."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    executors = []

    def make(where: Any, gpus: float = 0, cpus: float = 1, most: int | None = None, **options: Any) -> Ear:
        address = where if isinstance(where, str) else where.address
        executor = RayExecutor(PLAN, address, gpus, cpus, most, **({"run": ray_standins.echo} | options))
        executors.append(executor)
        executor.start()
        return Ear(executor)

    yield make
    for executor in executors:
        executor.close(force=True)


@pytest.mark.parametrize(
    ("nodes", "gpus", "cpus", "workers"),
    [
        ([(0, 8)], 0, 1, 8),
        ([(0, 8)], 0, 3, 2),
        ([(0, 8)], 1, 1, 0),
        ([(1, 2), (4, 3), (0, 64)], 1, 1, 4),
        ([(1, 8), (1, 8)], 0.5, 1, 4),
        ([(1, 8)], 1 / 3, 0.1, 3),
        ([(0.5, 1), (0.5, 1)], 1, 1, 0),
        ([], 0, 1, 0),
    ],
)
def test_a_worker_takes_its_share_of_one_node(nodes: list[tuple[float, float]], gpus: float, cpus: float, workers: int) -> None:
    assert room_for(nodes, gpus, cpus) == workers


@pytest.mark.parametrize(
    ("gpus", "workers"), [(0, 1), (1, 1), (0.6, 1), (0.5, 2), (0.34, 2), (0.3333, 3), (0.25, 4), (0.1, 10), (1 / 99, 99)]
)
def test_how_many_workers_share_a_gpu_follows_from_their_shares(gpus: float, workers: int) -> None:
    assert workers_a_gpu(gpus) == workers


def test_a_line_keeps_the_order_whatever_the_order_of_calls() -> None:
    line = Line()
    for number in (2, 0, 0, 1):
        line.deliver(number, pickle.dumps(number))
    assert [line.recv() for _ in range(3)] == [0, 1, 2]
    line.deliver(1, pickle.dumps(1))
    assert not line.poll(), "it has been taken before"


def test_a_line_repeats_what_is_not_known_to_have_arrived() -> None:
    line = Line()
    line.send("a")
    line.send("b")
    first = line.collect(0)
    assert len(first.messages) == 2
    line.send("c")
    line.end("it ended itself")
    assert line.collect(0).messages[:2] == first.messages
    rest = line.collect(1)
    assert [pickle.loads(message) for message in rest.messages] == ["b", "c"]
    assert rest.over == "it ended itself"
    late = line.collect(0)  # a call that was overtaken takes nothing away
    assert late.messages == rest.messages == line.collect(1).messages


def test_a_worker_whose_coordinator_is_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.jobs.ray.actor.LEASE_SECONDS", 0.05)
    line = Line()
    time.sleep(0.1)
    assert not line.poll(), "nobody has called yet: an actor may have its place long before its job"
    line.deliver(0, pickle.dumps("job"))
    assert line.recv() == "job"
    time.sleep(0.1)
    for use in (line.poll, line.recv, lambda: line.send("hello")):
        with pytest.raises(EOFError, match="not answered"):
            use()


def test_a_plan_may_be_told_what_was_not_known_before() -> None:
    executor = RayExecutor(PLAN, "local", 0, 1)
    executor.tell(study=Path("/elsewhere"))
    assert executor._plan == ray_standins.Plan(Path("/elsewhere"))


@pytest.mark.parametrize("gpus", [-1, 1.5, 2, float("nan")])
def test_shares_of_a_gpu_that_mean_nothing_are_refused(gpus: float) -> None:
    with pytest.raises(ConfigError, match="--gpus-per-worker must be between 0 and 1"):
        RayExecutor(PLAN, "local", gpus, 1)


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NasError) as refused:
        RayExecutor(PLAN, "local", 1, 1)
    assert refused.value.hint == "pip install 'nas-under-budget[ray]'"


@pytest.mark.parametrize(
    ("address", "reason"), [("127.0.0.1:9", "refused"), ("ray://127.0.0.1:9", "refused"), ("nonsense", "nonsense")]
)
def test_a_cluster_that_is_not_there_is_named_at_once(start: Callable[..., Ear], address: str, reason: str) -> None:
    began = time.monotonic()
    with pytest.raises(NasError) as refused:
        start(address)
    assert time.monotonic() - began < 60
    assert refused.value.message.startswith(f"the Ray cluster '{address}' cannot be reached: ")
    assert reason in refused.value.message
    assert "\n" not in refused.value.message
    assert "ray start --head" in (refused.value.hint or "")


def test_what_is_no_cluster_is_given_up_in_time(start: Callable[..., Ear], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.jobs.ray.executor.CONNECT_SECONDS", 1.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NasError, match="no answer within 2 s"):
        start(f"127.0.0.1:{silent.getsockname()[1]}")


def test_a_local_cluster_has_a_worker_a_core_and_ends_with_the_search(start: Callable[..., Ear]) -> None:
    signals = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    ear = start("local", most=1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == signals
    ear.until(lambda: ear.ready)
    assert ear.executor.workers == [0]
    ear.executor.close()
    wait_until(lambda: not alive(ear.ready[0]["pid"]), "the worker outlived the search")
    ear.executor.close()


def test_a_cluster_without_room_is_waited_for_but_not_for_ever(
    cluster: Any, start: Callable[..., Ear], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    ear = start(cluster, gpus=0.5, note=notes.append)
    ear.listen(0.5)
    assert ear.executor.workers == []
    node = cluster.add_node(num_cpus=1, num_gpus=1)
    ear.until(lambda: ear.ready)
    (said,) = notes
    assert "no node of the Ray cluster" in said
    assert "a worker with 0.5 GPUs and 1 CPUs: its nodes have 0 and 0 (GPUs and CPUs); waiting up to 10 minutes" in said
    monkeypatch.setattr("nas.jobs.ray.executor.NO_ROOM_SECONDS", 0.5)
    cluster.remove_node(node)
    with pytest.raises(NasError, match="has room for a worker"):
        ear.listen(PATIENCE)


def test_messages_keep_their_order_both_ways(cluster: Any, start: Callable[..., Ear]) -> None:
    cluster.add_node(num_cpus=1)
    ear = start(cluster)
    ear.until(lambda: ear.ready)
    for number in range(500):
        ear.executor.send(0, number)  # type: ignore[arg-type]
    ear.executor.send(0, "shout")  # type: ignore[arg-type]
    ear.until(lambda: ear.of(0)[-1] == "shout")
    assert ear.of(0)[1:-2] == [*range(500), *range(500)]
    assert ear.of(0)[-2] == bytes(5_000_000)


def test_calls_that_fail_lose_no_message(cluster: Any, start: Callable[..., Ear], monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    if tuple(map(int, ray.__version__.split(".")[:2])) < (2, 60):
        pytest.skip("earlier ones are told otherwise which calls shall fail")
    failing = {"num_failures": 6, "req_failure_prob": 20, "resp_failure_prob": 20}
    monkeypatch.setenv("RAY_testing_rpc_failure", json.dumps({"CoreWorkerService.grpc_client.PushTask": failing}))
    cluster.add_node(num_cpus=1)
    ear = start(cluster)
    ear.until(lambda: ear.ready)
    for number in range(50):
        ear.executor.send(0, number)  # type: ignore[arg-type]
    ear.until(lambda: len(ear.of(0)) > 50)
    assert ear.of(0)[1:] == list(range(50))
    assert not ear.dead


def test_a_worker_that_ends_is_dead_and_replaced_when_that_is_asked_for(cluster: Any, start: Callable[..., Ear]) -> None:
    cluster.add_node(num_cpus=1)
    ear = start(cluster)
    for order, reason in (("end", "it ended itself"), ("raise", "ValueError: out of luck"), ("die", "its process ended: ")):
        ear.until(lambda: ear.ready)
        assert ear.executor.workers == [0]
        ear.executor.send(0, order)  # type: ignore[arg-type]
        ear.until(lambda: ear.dead)
        assert ear.dead[0].reason.startswith(reason)
        assert "\n" not in ear.dead[0].reason
        if order == "end":  # nobody could take the place of one whose process is gone before that is known
            ear.listen(0.8)
            assert ear.executor.workers == []
        ear.executor.send(0, "anybody?")  # type: ignore[arg-type]
        ear.executor.kill(0)
        ear.heard.clear()
        ear.executor.restart(0)
    ear.until(lambda: ear.ready)
    ear.executor.send(0, "sleep")  # type: ignore[arg-type]
    ear.executor.kill(0)
    ear.until(lambda: ear.dead)
    assert ear.dead == {0: Died("it was killed")}
    wait_until(lambda: not alive(ear.ready[0]["pid"]), "it goes on")
    assert ear.most == 1


def test_workers_come_and_go_with_the_nodes(cluster: Any, start: Callable[..., Ear]) -> None:
    first = cluster.add_node(num_cpus=1, num_gpus=1)
    ear = start(cluster, gpus=1)
    ear.until(lambda: 0 in ear.ready)
    ear.listen(1.0)
    assert (ear.executor.workers, ear.most) == ([0], 1)
    cluster.add_node(num_cpus=1, num_gpus=1)
    ear.until(lambda: 1 in ear.ready)
    cluster.remove_node(first, allow_graceful=False)  # it falls silent, and is given up
    ear.until(lambda: ear.dead)
    assert ear.dead == {0: Died("its node is gone")}
    assert ear.executor.workers == [1]
    ear.executor.restart(0)
    ear.listen(0.5)
    assert (ear.executor.workers, ear.executor.awaited) == ([0, 1], {0}), "there is no room for another"
    ear.heard.clear()
    third = cluster.add_node(num_cpus=1, num_gpus=1)
    ear.until(lambda: 0 in ear.ready)
    assert (ear.executor.workers, ear.executor.awaited) == ([0, 1], set())
    assert ear.most == 2
    cluster.remove_node(third)  # it takes leave
    ear.until(lambda: ear.dead)
    assert ear.dead == {0: Died("its node is gone")}


def test_each_sees_its_gpu_or_its_part_before_anything_is_imported(cluster: Any, start: Callable[..., Ear]) -> None:
    cluster.add_node(num_cpus=3, num_gpus=2)
    ear = start(cluster, gpus=1, cpus=0.5)
    ear.until(lambda: len(ear.ready) == 2)
    assert sorted(said["gpus"] for said in ear.ready.values()) == ["0", "1"]
    assert not any(said["torch"] for said in ear.ready.values())
    ear.executor.close(force=True)

    halves = start(cluster, gpus=0.5, cpus=0.5, most=3)
    halves.until(lambda: len(halves.ready) == 3)
    halves.listen(0.5)
    assert sorted(said["gpus"] for said in halves.ready.values()) in (["0", "0", "1"], ["0", "1", "1"])
    assert halves.most == 3


def test_a_worker_that_has_no_memory_left_is_told_from_one_that_died(
    start: Callable[..., Ear], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    ear = start("local", most=1, run=ray_standins.waste)
    ear.until(lambda: ear.dead)
    assert ear.dead[0].out_of_memory
    assert "low on memory" in ear.dead[0].reason


def test_a_cluster_whose_head_is_gone_loses_nothing(start: Callable[..., Ear], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "1")
    with new_cluster(num_cpus=1) as cluster:
        ear = start(cluster)
        ear.until(lambda: ear.ready)
        cluster.head_node.kill_gcs_server()
        with pytest.raises(NasError) as lost:
            ear.listen(PATIENCE)
    assert "is lost: Failed to connect to GCS within 1 seconds" in lost.value.message
    assert "Nothing is lost" in lost.value.message
    assert "same command again" in (lost.value.hint or "")
    ear.executor.close()


SCRIPT = """
import signal, sys, time
from tests.jobs.test_ray_executor import Ear, PLAN, ray_standins, RayExecutor

def main():
    marks = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: marks.append(number))
    executor = RayExecutor(PLAN, sys.argv[1], 0, 1, run=ray_standins.echo)
    executor.start()
    ear = Ear(executor)
    ear.until(lambda: ear.ready)
    print(ear.ready[0]["pid"], executor._process.pid, flush=True)
    ear.until(lambda: len(marks) == 2)
    executor.send(0, "still there")
    ear.until(lambda: ear.of(0)[-1] == "still there")
    print("still there", flush=True)
    time.sleep(100)

if __name__ == "__main__":
    main()
"""


def test_the_workers_outlive_ctrl_c_but_not_their_coordinator(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=1)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | ENVIRONMENT
    with subprocess.Popen(
        [sys.executable, str(script), cluster.address], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            worker, driver = map(int, process.stdout.readline().split())
            for number in (signal.SIGINT, signal.SIGTERM):
                os.killpg(process.pid, number)
                time.sleep(0.2)
            assert process.stdout.readline() == "still there\n"
        finally:
            process.kill()
    wait_until(lambda: not alive(worker), "the worker trains for nobody")
    wait_until(lambda: not alive(driver), "the driver drives for nobody")
