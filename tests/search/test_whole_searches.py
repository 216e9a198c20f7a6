"""Real searches on digits, with real processes: one whose worker is killed, and one that is interrupted."""

import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nas.errors import StudyError
from nas.paths import StudyPaths, study_paths
from nas.search.coordinator import KEPT_CHECKPOINTS
from nas.search.outcomes import best_trials, count_outcomes, count_trained, outcome_of
from nas.search.progress import Progress
from nas.search.run import SearchRequest, run_search
from nas.search.storage import open_study
from nas.train.loop import read_curve
from tests.conftest import QuietDisplay

SPACE = """
version: 1
budget: {params: 4k}
arch:
  stages: 1
  stage: {blocks: 1, channels: {type: int, low: 4, high: 8}}
train:
  epochs: 6
  batch_size: 64
  lr: {type: float, low: 0.05, high: 0.2, log: true}
  augment: {crop_padding: 1, flip: none}
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SPACE)
    return path


def check_curves(paths: StudyPaths) -> None:
    """Each trained network's epochs, once each, in its file as in the database."""
    for trial in open_study(paths).get_trials():
        if outcome_of(trial) in ("trained", "pruned_early"):
            curve = read_curve(paths.trial(trial.number).metrics)
            assert [metrics.epoch for metrics in curve] == list(range(1, len(curve) + 1))
            assert trial.intermediate_values == {metrics.epoch: metrics.ema_val_accuracy for metrics in curve}
    kept = {trial.number for trial in best_trials(open_study(paths).get_trials(), KEPT_CHECKPOINTS)}
    assert {int(file.parent.name) for file in paths.trials.glob("*/checkpoint.pt*")} == kept


class Killer(QuietDisplay):
    """Kills the worker in the middle of its first training."""

    def __init__(self) -> None:
        super().__init__()
        self.victim: int | None = None

    def update(self, progress: Progress) -> None:
        if self.victim is None and any(r.last and r.last.epoch == 2 for r in progress.running.values()):
            (worker,) = multiprocessing.active_children()
            assert worker.pid is not None
            self.victim = worker.pid
            os.kill(self.victim, signal.SIGKILL)


def test_a_search_survives_the_death_of_its_worker(space: Path) -> None:
    display = Killer()
    request = SearchRequest(study="mine", space=str(space), dataset="digits", train_subset=300, trials=2, device="cpu")
    result = run_search(request, display)
    assert display.victim is not None
    assert any("died (SIGKILL); trial 0 goes on from its checkpoint" in note for note in display.notes)
    assert (result.interrupted, result.exhausted) == (False, False)
    paths = study_paths("mine")
    trials = open_study(paths).get_trials()
    assert count_trained(count_outcomes(trials)) == result.progress.trained == 2
    assert outcome_of(trials[0]) == "trained"
    check_curves(paths)
    assert not multiprocessing.active_children()

    again = run_search(SearchRequest(study="mine", trials=2, device="cpu"), QuietDisplay())
    assert (again.progress.trained, again.progress.trained_here) == (2, 0)
    assert len(open_study(paths).get_trials()) == len(trials)
    with pytest.raises(StudyError, match="seed: 0 → 1"):
        run_search(SearchRequest(study="mine", trials=3, seed=1, device="cpu"), QuietDisplay())


@contextmanager
def nas_command(arguments: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """The command in a process of its own, which does not outlive the test."""
    command = [sys.executable, "-m", "nas", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 240
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path} was not written in time"
        time.sleep(0.02)


@pytest.mark.slow
def test_ctrl_c_suspends_and_the_command_it_prints_goes_on(space: Path) -> None:
    paths = study_paths("mine")
    arguments = ["search", "--space", str(space), "--dataset", "digits", "--study", "mine", "--trials", "2", "--device", "cpu"]
    with nas_command([*arguments, "--epochs", "12"]) as first:
        wait_for(paths.trial(0).metrics, first)
        first.send_signal(signal.SIGINT)
        output, errors = first.communicate(timeout=120)
    assert first.returncode == 130, errors
    assert "Traceback" not in errors
    assert paths.trial(0).checkpoint.exists()
    assert outcome_of(open_study(paths).get_trials()[0]) == "running"
    reported = len(read_curve(paths.trial(0).metrics))
    assert 1 <= reported < 12

    suggested = re.search(r"To go on:\s+nas (search .*)", output)
    assert suggested is not None, output
    with nas_command(shlex.split(suggested[1])) as second:
        output, errors = second.communicate(timeout=240)
    assert second.returncode == 0, errors
    assert f"trial 0 goes on after epoch {reported}" in errors
    assert "2 networks trained in study mine" in output
    trials = open_study(paths).get_trials()
    assert count_trained(count_outcomes(trials)) == 2
    assert all(trial.state.is_finished() for trial in trials)
    check_curves(paths)
