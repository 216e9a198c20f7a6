"""Real searches on digits, with real processes: one whose worker is killed, and one that is interrupted."""

import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nas.cores import WAIT_POLICY
from nas.errors import StudyError
from nas.jobs import crew, worker
from nas.paths import StudyPaths, study_paths
from nas.specs import SearchSpec
from nas.study.outcomes import best_trials, count_outcomes, count_trained, outcome_of
from nas.study.run import run_search
from nas.study.settings import read_settings
from nas.study.source import KEPT_CHECKPOINTS, Progress
from nas.study.storage import open_study
from nas.train.checkpoint import read_curve
from tests.conftest import Done, QuietDisplay
from tests.study.conftest import fill
from tests.study.sabotage import children

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


class Attacker(QuietDisplay):
    """Sends a worker a signal in the middle of its training, once."""

    def __init__(self, sent: signal.Signals) -> None:
        super().__init__()
        self.sent, self.victim = sent, None

    def update(self, progress: Progress) -> None:
        number = next((number for number, r in progress.running.items() if r.last and r.last.epoch == 2), None)
        if self.victim is None and number is not None:
            self.victim = next(child.pid for child in multiprocessing.active_children() if child.name == f"nas-worker-{number}")
            os.kill(self.victim, self.sent)


def test_a_search_survives_the_death_of_its_worker(space: Path) -> None:
    display = Attacker(signal.SIGKILL)
    request = SearchSpec(study="mine", space=str(space), dataset="digits", train_subset=100, trials=2, device="cpu")
    result = run_search(request, display)
    assert display.victim is not None
    assert any("died (SIGKILL); trial 0 resumes from its checkpoint" in note for note in display.notes)
    assert (result.interrupted, result.exhausted) == (False, False)
    paths = study_paths("mine")
    trials = open_study(paths).get_trials()
    assert count_trained(count_outcomes(trials)) == result.progress.trained == 2
    assert outcome_of(trials[0]) == "trained"
    check_curves(paths)
    assert not multiprocessing.active_children()
    assert read_settings(paths).validation_images == 100
    hundredths = [100 * value for trial in trials for value in trial.intermediate_values.values()]
    assert hundredths == pytest.approx([round(value) for value in hundredths]), "workers validate by as many, too"

    again = run_search(SearchSpec(study="mine", trials=2, device="cpu"), QuietDisplay())
    assert (again.progress.trained, again.progress.trained_here) == (2, 0)
    assert len(open_study(paths).get_trials()) == len(trials)
    with pytest.raises(StudyError, match="seed: 0 → 1"):
        run_search(SearchSpec(study="mine", trials=3, seed=1, device="cpu"), QuietDisplay())


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
def test_ctrl_c_suspends_and_the_command_it_prints_goes_on(space: Path, nas: Callable[..., Done]) -> None:
    paths = study_paths("mine")
    arguments = ["search", "--space", str(space), "--dataset", "digits", "--study", "mine", "--trials", "2", "--device", "cpu"]
    with nas_command([*arguments, "--epochs", "12"]) as first:
        wait_for(paths.trial(0).metrics, first)
        first.send_signal(signal.SIGINT)
        output, errors = first.communicate(timeout=120)
    assert first.returncode == 130, errors
    assert "Traceback" not in errors
    assert "the search continues for the remaining time" not in errors
    assert paths.trial(0).checkpoint.exists()
    draws = count_outcomes(open_study(paths).get_trials())
    assert draws["running"]
    assert f" of {draws.total()} candidates " in output
    assert f"not trained; {draws['running']} " in output
    reported = len(read_curve(paths.trial(0).metrics))
    assert 1 <= reported < 12

    suggested = re.search(r"To resume:\s+nas (search .*)", output)
    assert suggested is not None, output
    second = nas(*shlex.split(suggested[1]))
    assert second.code == 0, second.err
    assert f"trial 0 resumes after epoch {reported}" in second.err
    assert "2 networks trained in study mine" in second.out
    trials = open_study(paths).get_trials()
    assert count_trained(count_outcomes(trials)) == 2
    assert all(trial.state.is_finished() for trial in trials)
    check_curves(paths)


@pytest.mark.slow
@pytest.mark.usefixtures("all_cores")
def test_the_same_seed_gives_the_same_study_however_threads_wait(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As nas has it, and as long as the runtime's own."""
    arguments = ["search", "--space", str(space), "--dataset", "digits", "--trials", "2", "--epochs", "2", "--finalists", "0"]
    for variable in (*WAIT_POLICY, "OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    found = []
    for study in ("ours", "spins"):
        if study == "spins":
            monkeypatch.setenv("GOMP_SPINCOUNT", "300000")
        with nas_command([*arguments, "--seed", "3", "--device", "cpu", "--study", study]) as process:
            _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        paths = study_paths(study)
        trials = [trial for trial in open_study(paths).get_trials() if outcome_of(trial) in ("trained", "pruned_early")]
        curves = [read_curve(paths.trial(trial.number).metrics) for trial in trials]
        losses = [[(one.train_loss, one.ema_val_loss, one.ema_val_accuracy) for one in curve] for curve in curves]
        found.append(([trial.params for trial in trials], losses))
    assert found[0] == found[1]


@pytest.mark.usefixtures("all_cores")
def test_a_worker_that_hangs_is_replaced(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "LEAST_SECONDS", 2.0)
    monkeypatch.setattr(crew, "FACTOR", 2.0)
    display = Attacker(signal.SIGSTOP)  # as by a driver that hangs
    request = SearchSpec(study="mine", space=str(space), dataset="digits", train_subset=300, trials=3, device="cpu", workers=2)
    result = run_search(request, display)
    assert display.victim is not None
    assert any(re.search(r"worker \d has not answered for \d+ s; it seems to hang and is killed", note) for note in display.notes)
    assert any(re.search(r"worker \d died \(SIGKILL\); trial \d resumes from its checkpoint", note) for note in display.notes)
    assert result.progress.trained == 3
    check_curves(study_paths("mine"))


class Filler(QuietDisplay):
    """Fills the disk after the first epoch, and makes room again when the search says that it waits."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.ballast = folder / "ballast"
        self.filled = self.freed = False

    def update(self, progress: Progress) -> None:
        if not self.filled and any(r.last for r in progress.running.values()):
            self.filled = True
            fill(self.ballast)

    def note(self, text: str) -> None:
        super().note(text)
        if "No space left on device" in text or "no free disk space" in text:
            self.freed = True
            self.ballast.unlink(missing_ok=True)


def test_a_full_disk_makes_the_search_wait(space: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "DISK_FULL_SECONDS", 0.5)
    monkeypatch.setenv("NAS_STUDIES", str(small_disk / "studies"))
    display = Filler(small_disk)
    request = SearchSpec(study="mine", space=str(space), dataset="digits", train_subset=300, trials=2, device="cpu")
    result = run_search(request, display)
    assert (display.filled, display.freed) == (True, True), display.notes
    assert result.progress.trained == 2
    assert result.progress.counts["failed"] == 0
    check_curves(study_paths("mine"))


@pytest.mark.slow
def test_a_second_ctrl_c_ends_it_at_once_and_nothing_is_lost(space: Path, nas: Callable[..., Done]) -> None:
    paths = study_paths("mine")
    arguments = ["search", "--space", str(space), "--dataset", "digits", "--study", "mine", "--trials", "2", "--device", "cpu"]
    with nas_command([*arguments, "--epochs", "30"]) as first:
        wait_for(paths.trial(0).metrics, first)
        for child in children(first.pid):
            os.kill(child, signal.SIGSTOP)  # it will not heed the first one
        first.send_signal(signal.SIGINT)
        time.sleep(1.0)
        assert first.poll() is None, "it waits for the checkpoint"
        first.send_signal(signal.SIGINT)
        output, errors = first.communicate(timeout=120)  # who waits for a checkpoint waits for ever
    assert first.returncode == 130, errors
    assert "Traceback" not in errors, errors
    assert "stopped at once: each training will resume from its last checkpoint" in errors
    assert "To resume:  nas search --study mine --device cpu --trials 2" in output
    second = nas(*arguments, "--epochs", "30")
    assert second.code == 0, second.err
    assert "trial 0 resumes after epoch" in second.err
    check_curves(paths)
