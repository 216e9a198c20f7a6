"""One network over two CPU processes, as `nas retrain` starts them: cut off, killed, failing, and orphaned."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nas.cores import usable_cores
from nas.errors import StudyError
from nas.paths import StudyPaths, TrialPaths
from nas.runs.retrain import Retrained, retrain
from nas.runs.select import find_subject
from nas.specs import RetrainSpec
from nas.train.checkpoint import EpochMetrics, read_curve
from nas.train.rank import portable
from tests.conftest import CORES

TWO_CORES = pytest.mark.skipif(len(CORES or range(usable_cores())) < 2, reason="two processes need two cores")
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
EPOCHS = 30
"""Of some hundredths of a second, in which the death of a process has to come."""
SECONDS = 120.0
"""The most that anything is waited for."""


def together(paths: StudyPaths, on_epoch: Callable[[EpochMetrics], None] = lambda metrics: None) -> Retrained:
    asked = RetrainSpec(paths, epochs=EPOCHS, seed=5, train_subset=200, device="cpu", gpus=2)
    return retrain(asked, lambda plan: None, on_epoch)


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


# ------------------------------------------------------------------------------------------- cut off, and started again


@TWO_CORES
@ON_LINUX
@pytest.mark.usefixtures("all_cores")
def test_killed_and_started_again_it_ends_with_the_weights_of_an_uninterrupted_run(study: StudyPaths) -> None:
    heard: list[int] = []
    whole = together(study, lambda metrics: heard.append(metrics.epoch))
    assert heard == list(range(1, EPOCHS + 1))
    assert whole.card is not None
    assert whole.card.processes == 2
    assert whole.card.device.startswith("2 processes on the cpu, ")
    weights, curve = load_file(whole.run.folder / "model.safetensors"), read_curve(whole.run.metrics)
    whole.run.folder.rename(study.folder / "whole")

    def kill_the_second(metrics: EpochMetrics) -> None:
        for pid, title in children(os.getpid()).items():
            if title.startswith("nas process 2 of 2"):
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(StudyError, match=r"process 2 of 2 ended by SIGKILL in epoch \d+, and with it the training") as died:
        together(study, kill_the_second)
    assert died.value.hint == "the same command goes on from the last checkpoint"
    assert not children(os.getpid())
    assert 0 < len(read_curve(whole.run.metrics)) < EPOCHS

    again = together(study)
    assert again.card is not None
    found = load_file(again.run.folder / "model.safetensors")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights), "bit by bit"
    assert [m.train_loss for m in read_curve(again.run.metrics)] == [m.train_loss for m in curve]


@TWO_CORES
@pytest.mark.slow
@pytest.mark.usefixtures("all_cores")
def test_what_fails_in_a_process_is_raised_here(study: StudyPaths) -> None:
    run = TrialPaths(study.retrained / f"{find_subject(study, 'best').slug}-{EPOCHS}-epochs-seed-5-subset-200")
    run.checkpoint.mkdir(parents=True)
    with pytest.raises(OSError, match=r"checkpoint\.pt") as failed:
        together(study)
    assert "save_checkpoint" in str(failed.value.__cause__), "with the trace of the process"


@pytest.fixture
def command(study: StudyPaths) -> Iterator[Callable[[], subprocess.Popen]]:
    """Starts `nas retrain` in a process group of its own, as a shell does."""
    started: list[subprocess.Popen] = []

    def start() -> subprocess.Popen:
        typed = ["retrain", "best", "--study", "tiny", "--epochs", "5000", "--device", "cpu", "--gpus", "2"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen(
            [sys.executable, "-m", "nas", *typed],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
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
    assert "Suspended, 1 training is left. To go on:  nas retrain best --study tiny" in err
    assert "Traceback" not in err
    assert not any(map(is_running, pids))

    done = len(read_curve(run.metrics))
    second = command()
    until(lambda: len(read_curve(run.metrics)) > done, "an epoch of the second")
    pids = children(second.pid)
    assert len(pids) == 2
    second.kill()
    until(lambda: not any(map(is_running, pids)), "the end of processes whose command is dead")


def test_an_error_that_cannot_travel_is_told_in_words() -> None:
    class LocalError(Exception):
        pass

    assert str(portable(LocalError("why"))) == "LocalError: why"
    error = StudyError("what", hint="what next")
    assert portable(error) is error
