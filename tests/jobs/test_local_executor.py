"""Processes of this machine: where each is pinned to, what is heard of one that ends, and that none outlives its coordinator."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from nas.config import DataConfig
from nas.jobs import local
from nas.jobs.local import LocalExecutor, _environment, describe_exit, out_of_memory_kills, pinned_environment
from nas.jobs.messages import Began, Died, Ended, Epoch, Failed, FromWorker, OutOfMemory, Ready, Shutdown, Unfit, Verdict
from tests.cgroups import new_cgroup
from tests.jobs.working import DATA, GO_ON, Workplace, alive, assert_same, kinds

PROC = Path("/proc")
pytestmark = pytest.mark.usefixtures("cold_workers")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes as Linux shows them")


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        ("cpu", None, None),
        ("cuda", None, "0"),
        ("cuda:3", None, "3"),
        ("cuda:1", "4,6", "6"),
        ("cuda:0", "GPU-abc, GPU-def", "GPU-abc"),
        ("cuda:1", "MIG-a,MIG-b", "MIG-b"),
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
    with suppress(ZeroDivisionError), _environment({"NAS_TEST_KEPT": "within", "NAS_TEST_NEW": "within"}):
        assert os.environ["NAS_TEST_KEPT"] == os.environ["NAS_TEST_NEW"] == "within"
        raise ZeroDivisionError
    assert os.environ["NAS_TEST_KEPT"] == "before"
    assert "NAS_TEST_NEW" not in os.environ


@pytest.mark.parametrize(
    ("code", "says"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "SIGKILL"), (-11, "SIGSEGV"), (-250, "exit code -250")]
)
def test_how_a_process_ended_is_said_in_words(code: int, says: str) -> None:
    assert describe_exit(code) == says


# ------------------------------------------------------------------------------------- one that ends before it is ready


def until(executor: LocalExecutor, wanted: Callable[[int, FromWorker], bool]) -> list[tuple[int, FromWorker]]:
    """Everything heard up to the first such message."""
    heard: list[tuple[int, FromWorker]] = []
    for _ in range(240):
        heard += executor.receive(timeout=0.5)
        if any(wanted(worker, message) for worker, message in heard):
            return heard
    raise AssertionError(heard)


def is_a(kind: type, worker: int = 0) -> Callable[[int, FromWorker], bool]:
    return lambda who, message: who == worker and isinstance(message, kind)


@pytest.fixture
def unfit_executor(tmp_path: Path) -> Iterator[LocalExecutor]:
    """Its worker says why it cannot start, and ends."""
    executor = LocalExecutor([Workplace.led(tmp_path / "study").plan(DataConfig(dataset="no such data"))])
    yield executor
    executor.close(force=True)


def test_a_worker_that_ends_is_reported_dead_once_and_may_be_spoken_to(unfit_executor: LocalExecutor) -> None:
    unfit_executor.start()
    heard = until(unfit_executor, is_a(Died))
    assert [type(message) for _, message in heard] == [Unfit, Died]
    assert heard[-1] == (0, Died("exit code 0"))
    assert unfit_executor.receive(timeout=0.05) == []
    unfit_executor.send(0, Verdict(go_on=True))  # nobody is there, and that is not an error
    unfit_executor.send(7, Shutdown())
    unfit_executor.kill(0)
    unfit_executor.kill(7)
    unfit_executor.close()
    unfit_executor.close()


def test_a_worker_imports_nothing_of_the_working_folder_nor_of_the_scripts(
    unfit_executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, module in ((tmp_path / "here", "types"), (tmp_path / "script", "statistics")):
        folder.mkdir()
        (folder / f"{module}.py").write_text("raise SystemExit(17)")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "script"), *sys.path])
    unfit_executor.start()
    assert [type(message) for _, message in until(unfit_executor, is_a(Died))] == [Unfit, Died]
    assert sys.path[0] == str(tmp_path / "script")
    assert "PYTHONSAFEPATH" not in os.environ


def test_closing_ends_a_worker_that_does_not_listen(unfit_executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "SHUTDOWN_SECONDS", 0.0)
    unfit_executor.start()
    process = unfit_executor._workers[0].members[0].process
    unfit_executor.close()  # it has hardly been started
    assert not process.is_alive()


def test_closing_by_force_waits_for_nobody(unfit_executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "SHUTDOWN_SECONDS", 3600.0)
    unfit_executor.start()
    process = unfit_executor._workers[0].members[0].process
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)  # it will not listen
    unfit_executor.close(force=True)
    assert not process.is_alive()


def test_a_worker_prepared_ahead_is_the_one_that_starts(unfit_executor: LocalExecutor) -> None:
    unfit_executor.prepare()
    prepared = unfit_executor._workers[0].members[0].process.pid
    assert unfit_executor.receive(timeout=0.05) == []
    unfit_executor.start()
    assert unfit_executor._workers[0].members[0].process.pid == prepared
    assert [type(message) for _, message in until(unfit_executor, is_a(Died))] == [Unfit, Died]


@pytest.mark.parametrize("force", [True, False])
def test_a_worker_prepared_in_vain_ends(unfit_executor: LocalExecutor, force: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "SHUTDOWN_SECONDS", 60.0)  # it listens when it has imported torch
    unfit_executor.prepare()
    process = unfit_executor._workers[0].members[0].process
    unfit_executor.close(force)
    assert not process.is_alive()
    assert process.exitcode == (-signal.SIGKILL if force else 0)


@linux
def test_a_worker_is_deaf_to_ctrl_c_and_sigterm_from_its_first_moment(unfit_executor: LocalExecutor) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    unfit_executor.start()
    status = (PROC / str(unfit_executor._workers[0].members[0].process.pid) / "status").read_text()
    ignored = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn")), 16)
    for number in (signal.SIGINT, signal.SIGTERM):
        assert ignored & 1 << (number - 1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


RESET = Failed("RuntimeError: Connection reset by peer", "")


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ([(2, Failed("ValueError: the first", "")), (0, RESET), (1, RESET)], Failed("ValueError: the first", "")),
        ([(0, RESET), (1, OutOfMemory("the device", "full"))], OutOfMemory("the device", "full")),
        ([(0, RESET), (2, Died("SIGKILL")), (1, Died("SIGABRT"))], Died("process 3 of 3: SIGKILL")),
    ],
    ids=["error", "memory", "death"],
)
def test_of_several_processes_the_first_error_is_reported(
    monkeypatch: pytest.MonkeyPatch, said: list[tuple[int, Any]], what: FromWorker
) -> None:
    executor = LocalExecutor([])
    for name in ("_spawn", "_brief"):
        monkeypatch.setattr(executor, name, lambda worker: None)
    monkeypatch.setattr(executor, "_end", lambda workers, seconds: None)
    executor._workers[0] = local._Worker([local._Process(cast(Any, None), cast(Any, None)) for _ in range(3)], 0, None)
    for member, message in said:
        assert executor._hear_member(0, member, message) == []
    assert executor._end_group(0) == [(0, what)]


# ---------------------------------------------------------------------------------------------------- several that train


@dataclass
class Crew:
    """Two workers that are ready, and one whose GPU this machine does not have."""

    executor: LocalExecutor
    workplace: Workplace
    environments: list[dict[str, str]]
    """As each began with; later its title lies there."""
    heard: list[tuple[int, FromWorker]] = field(default_factory=list)

    def process(self, worker: int) -> Any:
        return self.executor._workers[worker].members[0].process

    def of(self, worker: int) -> list[FromWorker]:
        return [message for who, message in self.heard if who == worker]

    def until(self, wanted: Callable[[int, FromWorker], bool]) -> list[tuple[int, FromWorker]]:
        heard = until(self.executor, wanted)
        self.heard += heard
        return heard

    def revive(self, worker: int) -> None:
        """As a test that ends one leaves it."""
        if worker not in self.executor._workers:
            self.executor.restart(worker)
            self.until(is_a(Ready, worker))


def environment_of(process: Any) -> dict[str, str]:
    folder = PROC / str(process.pid)
    if not folder.exists():
        return {}
    while b"spawn_main" not in (folder / "cmdline").read_bytes():  # it is a copy of this process for a moment
        time.sleep(0.001)
    return dict(entry.split("=", 1) for entry in (folder / "environ").read_text().split("\0") if "=" in entry)


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    workplace = Workplace.led(tmp_path_factory.mktemp("crew") / "study")
    plan = workplace.plan(DATA)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "40,60")
        executor = LocalExecutor([plan, replace(plan, threads=2), replace(plan, device="cuda:1")])
        executor.start()
    crew = Crew(
        executor, workplace, [environment_of(executor._workers[worker].members[0].process) for worker in executor.workers]
    )
    try:
        waited_for = [is_a(Ready, 0), is_a(Ready, 1), is_a(Died, 2)]
        for wanted in waited_for:
            if not any(wanted(*one) for one in crew.heard):
                crew.until(wanted)
        yield crew
    finally:
        executor.close(force=True)


@linux
def test_each_is_pinned_by_its_own_plan(crew: Crew) -> None:
    assert crew.executor.workers == [0, 1, 2]
    pinned = [(each["OMP_NUM_THREADS"], each.get("CUDA_VISIBLE_DEVICES")) for each in crew.environments]
    assert pinned == [("1", "40,60"), ("2", "40,60"), ("1", "60")]
    ready = [message for worker in (0, 1) for message in crew.of(worker) if isinstance(message, Ready)]
    assert [one.device for one in ready[:2]] == ["cpu, 1 thread", "cpu, 2 threads"]
    unfit, died = crew.of(2)
    assert isinstance(unfit, Unfit)
    assert "no device 'cuda'" in unfit.message, "by the name that its own GPU has to it"
    assert died == Died("exit code 0")


@linux
def test_each_says_in_the_list_of_processes_what_it_does(crew: Crew) -> None:
    for worker in (0, 1):
        crew.revive(worker)
        title = (PROC / str(crew.process(worker).pid) / "cmdline").read_bytes().rstrip(b"\0").decode()
        assert title == f"nas worker {worker} on cpu, study study"


def test_they_train_side_by_side(crew: Crew) -> None:
    for worker in (0, 1):
        crew.revive(worker)
        crew.executor.send(worker, crew.workplace.order(worker))
    heard: dict[int, list[FromWorker]] = {0: [], 1: []}
    deadline = time.monotonic() + 120
    while not all(any(isinstance(message, Ended) for message in messages) for messages in heard.values()):
        assert time.monotonic() < deadline, heard
        for worker, message in crew.executor.receive(timeout=0.5):
            heard[worker].append(message)
            if isinstance(message, Epoch):
                crew.executor.send(worker, GO_ON)
    for worker in (0, 1):
        assert kinds(heard[worker]) == ["Began", "Epoch", "Epoch", "Ended"]
        assert heard[worker][-1] == Ended("finished")


def test_killed_within_an_epoch_its_successor_ends_as_it_would_have(crew: Crew, tmp_path: Path) -> None:
    """For real, by the system's own SIGKILL, at a moment that nobody chose."""
    crew.revive(0)
    whole = Workplace.led(tmp_path / "whole")
    whole.work([whole.order(7, epochs=4)])
    order = crew.workplace.order(7, epochs=4)
    crew.executor.send(0, order)
    crew.until(is_a(Epoch))
    crew.executor.send(0, GO_ON)
    crew.until(is_a(Epoch))
    crew.executor.send(0, GO_ON)
    time.sleep(0.02)
    os.kill(crew.process(0).pid, signal.SIGKILL)
    assert crew.until(is_a(Died))[-1] == (0, Died("SIGKILL"))
    crew.revive(0)
    crew.executor.send(0, order)
    heard: list[FromWorker] = []
    while not any(isinstance(message, Ended) for message in heard):
        for _, message in until(crew.executor, lambda worker, message: worker == 0):
            heard.append(message)
            if isinstance(message, Epoch):
                crew.executor.send(0, GO_ON)
    began = heard[0]
    assert isinstance(began, Began)
    assert began.found == "whole"
    assert began.epochs_done >= 2
    assert_same(whole.trial(7), crew.workplace.trial(7))


@linux
def test_one_that_hangs_is_killed_and_has_not_run_out_of_memory(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that is stopped, and so cannot end by itself; and though the system killed somebody else meanwhile."""
    crew.revive(1)
    os.kill(crew.process(1).pid, signal.SIGSTOP)
    crew.executor.send(1, crew.workplace.order(8))
    assert crew.executor.receive(timeout=0.2) == []
    monkeypatch.setattr(local, "out_of_memory_kills", lambda: 1_000_000)
    crew.executor.kill(1)
    assert crew.until(is_a(Died, 1))[-1] == (1, Died("SIGKILL", out_of_memory=False))
    assert crew.executor.receive(timeout=0.05) == [], "its Died is its last"


def test_how_many_the_system_killed_is_not_told_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "Path", lambda name: Path("no such file"))
    assert out_of_memory_kills() == 0


def test_one_that_the_system_kills_for_its_memory_is_told_from_others(crew: Crew) -> None:
    """For real: out of a group of 64 MiB the system kills who takes more, beside what it had before it came in."""
    crew.revive(1)
    before, limit = out_of_memory_kills(), str(64 * 2**20)
    with new_cgroup(("memory", {"memory.limit_in_bytes": limit}), ("", {"memory.max": limit})) as processes:
        processes.write_text(str(crew.process(1).pid))
        crew.executor.send(1, crew.workplace.order(9, blocks=6, channels=256, batch_size=100))
        assert crew.until(is_a(Died, 1))[-1] == (1, Died("SIGKILL", out_of_memory=True))
    assert out_of_memory_kills() > before


# --------------------------------------------------------------------------------------------------------- orphans

COORDINATOR = """
import sys, time
from pathlib import Path
from nas.jobs.local import LocalExecutor
from nas.jobs.messages import Ready
from tests.jobs.working import Workplace

if __name__ == "__main__":
    workplace = Workplace.led(Path(sys.argv[1]))
    executor, late = LocalExecutor([workplace.plan()] * 2), LocalExecutor([workplace.plan()])
    executor.start()
    ready = 0
    while ready < 2:
        ready += sum(isinstance(message, Ready) for _, message in executor.receive(timeout=0.5))
    executor.send(0, workplace.order(0, epochs=1000))
    late.start()  # it is still being started when its coordinator dies
    running = [made.members[0] for made in (*executor._workers.values(), *late._workers.values())]
    print(*(worker.process.pid for worker in running), flush=True)
    time.sleep(600)
"""


@linux
@pytest.mark.slow
def test_none_outlives_a_coordinator_that_is_killed(tmp_path: Path) -> None:
    """Neither one that trains, nor one that is stopped, nor one that is still being started."""
    script = tmp_path / "coordinator.py"
    script.write_text(COORDINATOR)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    coordinator = subprocess.Popen(
        [sys.executable, script, tmp_path / "study"], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    )
    workers: list[int] = []
    try:
        workers = [int(pid) for pid in coordinator.stdout.readline().split()]
        assert len(workers) == 3
        assert all(alive(pid) for pid in workers)
        os.kill(workers[1], signal.SIGSTOP)
        coordinator.kill()
        coordinator.wait()
        killed = time.monotonic()
        while alive(workers[0]) or alive(workers[1]):
            assert time.monotonic() - killed < 60.0, "they train on"
            time.sleep(0.02)
        while alive(workers[2]):
            assert time.monotonic() - killed < 60.0, "it has found nobody, and waits"
            time.sleep(0.1)
    finally:
        for pid in (coordinator.pid, *workers):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        coordinator.wait()
        coordinator.stdout.close()


def test_a_process_that_cannot_be_ended_is_given_up(unfit_executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that waits in the kernel for a device which has gone; here its SIGKILL gets lost."""
    monkeypatch.setattr("nas.jobs.local.KILL_SECONDS", 0.3)
    unfit_executor.start()
    process = unfit_executor._workers[0].members[0].process
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        monkeypatch.setattr(process, "kill", lambda: None)
        unfit_executor.kill(0)
        assert until(unfit_executor, Died) == [(0, Died("it cannot be stopped, even by force"))]
        assert process not in multiprocessing.active_children(), "this process would wait for it at its own end"
        unfit_executor.close(force=True)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)
