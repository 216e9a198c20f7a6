"""One network over two CPU processes, as `nas retrain` starts them: cut off, killed, failing, and orphaned."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nas.cores import usable_cores
from nas.paths import StudyPaths, TrialPaths
from nas.runs.plan import Plan
from nas.runs.select import find_subject
from nas.specs import RetrainSpec
from nas.train.checkpoint import EpochMetrics, read_curve
from tests.conftest import CORES
from tests.runs.told import Told, trained

TWO_CORES = pytest.mark.skipif(len(CORES or range(usable_cores())) < 2, reason="two processes need two cores")
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
EPOCHS = 6
SECONDS = 120.0
"""The most that anything is waited for."""


pytestmark = pytest.mark.usefixtures("cold_workers")


def children(parent: int) -> dict[int, str]:
    """Processes that train for this one: what they call themselves by their number."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            told = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
            title = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
        except OSError:
            continue
        if int(told["PPid"]) == parent and title.startswith("nas process"):
            found[int(folder.name)] = title
    return found


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@TWO_CORES
@ON_LINUX
@pytest.mark.usefixtures("all_cores")
def test_one_process_that_is_killed_takes_the_others_along_and_all_resume(study: StudyPaths) -> None:
    spec = RetrainSpec(study, epochs=EPOCHS, seed=5, train_subset=200, device="cpu", gpus=2)
    told = Told()
    run, card = trained(spec, told)
    assert [epoch for _, epoch in told.epochs] == list(range(1, EPOCHS + 1))
    assert card.processes == 2
    assert card.device.startswith("2 processes on the cpu, ")
    weights, curve = load_file(run.weights), read_curve(run.metrics)
    run.folder.rename(study.folder / "whole")

    class Killing(Told):
        def on_epoch(self, plan: Plan, metrics: EpochMetrics) -> None:
            for pid, title in children(os.getpid()).items() if metrics.epoch == 2 and len(self.epochs) == 1 else ():
                if title.startswith("nas process 2 of 2"):
                    os.kill(pid, signal.SIGKILL)
            super().on_epoch(plan, metrics)

    told = Killing()
    run, _ = trained(spec, told)
    assert any("process 2 of 2" in note and "resumes from its checkpoint" in note for note in told.notes), told.notes
    assert not children(os.getpid())
    found = load_file(run.weights)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights), "bit by bit"
    assert [m.train_loss for m in read_curve(run.metrics)] == [m.train_loss for m in curve]


@pytest.fixture
def command(study: StudyPaths) -> Iterator[Callable[[], subprocess.Popen]]:
    """Starts `nas retrain` in a process group of its own, as a shell does."""
    started: list[subprocess.Popen] = []

    def start() -> subprocess.Popen:
        typed = ["retrain", "best", "--study", "tiny", "--epochs", "5000", "--device", "cpu", "--gpus", "2"]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen([sys.executable, "-m", "nas", *typed], env=environment, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        for pid in children(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()


@TWO_CORES
@ON_LINUX
@pytest.mark.exhaustive
@pytest.mark.usefixtures("all_cores")
def test_neither_ctrl_c_nor_the_death_of_the_command_leaves_a_process_behind(
    study: StudyPaths, command: Callable[[], subprocess.Popen]
) -> None:
    run = TrialPaths(study.retrained / f"{find_subject(study, 'best').slug}-5000-epochs-seed-0")

    first = command()
    until(lambda: read_curve(run.metrics), "an epoch of the first")
    pids = children(first.pid)
    assert len(pids) == 2
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does: to everybody
    out, err = first.communicate(timeout=SECONDS)
    assert first.returncode == 130, err
    assert out == ""
    assert "Suspended, 1 training is left. To resume:  nas retrain best --study tiny" in err
    assert "Traceback" not in err
    assert not any(map(is_running, pids))

    done = len(read_curve(run.metrics))
    second = command()
    until(lambda: len(read_curve(run.metrics)) > done, "an epoch of the second")
    pids = children(second.pid)
    assert len(pids) == 2
    second.kill()
    until(lambda: not any(map(is_running, pids)), "the end of processes whose command is dead")
