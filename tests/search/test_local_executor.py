"""Processes of this machine: where each is pinned to, and what is heard of one that ends."""

import os
import signal
from pathlib import Path

import pytest

from nas.config import DataConfig
from nas.search.executors.local import LocalExecutor, _environment, pinned_environment
from nas.search.messages import Died, FromWorker, Shutdown, Unfit, Verdict, WorkerPlan


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        ("cpu", None, None),
        ("cuda", None, "0"),
        ("cuda:3", None, "3"),
        ("cuda:1", "4,6", "6"),
        ("cuda:0", "GPU-abc, GPU-def", "GPU-abc"),
        ("mps", None, None),
    ],
)
def test_a_worker_sees_its_own_gpu_only(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str | None, expected: str | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    environment = pinned_environment(device, threads=3)
    assert environment.get("CUDA_VISIBLE_DEVICES") == expected
    assert environment["OMP_NUM_THREADS"] == "3"


def test_this_processes_own_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_TEST_KEPT", "before")
    monkeypatch.delenv("NAS_TEST_NEW", raising=False)
    seen: list[str | None] = []

    def fail_within() -> None:
        with _environment({"NAS_TEST_KEPT": "within", "NAS_TEST_NEW": "within"}):
            seen.extend([os.environ["NAS_TEST_KEPT"], os.environ["NAS_TEST_NEW"]])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_within()
    assert seen == ["within", "within"]
    assert os.environ["NAS_TEST_KEPT"] == "before"
    assert "NAS_TEST_NEW" not in os.environ


def until(executor: LocalExecutor, wanted: type[FromWorker]) -> list[tuple[int, FromWorker]]:
    """Everything heard up to the first message of this kind."""
    heard: list[tuple[int, FromWorker]] = []
    for _ in range(1000):
        heard += executor.receive(timeout=0.5)
        if any(isinstance(message, wanted) for _, message in heard):
            return heard
    raise AssertionError(heard)


@pytest.fixture
def unfit_executor() -> LocalExecutor:
    """Its worker says why it cannot start, and ends."""
    return LocalExecutor([WorkerPlan(DataConfig(dataset="no such data"), "cpu", 1)])


def test_a_worker_that_ends_is_reported_dead_once_and_may_be_spoken_to(unfit_executor: LocalExecutor) -> None:
    unfit_executor.start()
    try:
        heard = until(unfit_executor, Died)
        assert [type(message) for _, message in heard] == [Unfit, Died]
        assert heard[-1] == (0, Died(0))
        assert unfit_executor.receive(timeout=0.05) == []
        unfit_executor.send(0, Verdict(go_on=True))  # nobody is there, and that is not an error
        unfit_executor.send(7, Shutdown())
    finally:
        unfit_executor.close()
    unfit_executor.close()


def test_closing_ends_a_worker_that_does_not_listen(unfit_executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.search.executors.local.SHUTDOWN_SECONDS", 0.0)
    unfit_executor.start()
    process = unfit_executor._processes[0]
    unfit_executor.close()  # it has hardly been started
    assert not process.is_alive()


def test_workers_are_numbered_by_their_plans(unfit_executor: LocalExecutor) -> None:
    plans = [WorkerPlan(DataConfig(dataset="digits"), "cpu", 1)] * 3
    assert LocalExecutor(plans).workers == [0, 1, 2]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's signals as Linux shows them")
def test_a_worker_is_deaf_to_ctrl_c_and_sigterm_from_its_first_moment(unfit_executor: LocalExecutor) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    unfit_executor.start()
    try:
        status = Path(f"/proc/{unfit_executor._processes[0].pid}/status").read_text()
    finally:
        unfit_executor.close()
    ignored = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn")), 16)
    for number in (signal.SIGINT, signal.SIGTERM):
        assert ignored & 1 << (number - 1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
