"""Studies of an earlier build, as `old.tar.xz` keeps them, open here with the values that it printed.

`old` is at rest, with finalists, a retrained network, its submission and an ablation; `halted` was suspended by Ctrl-C in
trial 8, of which it has the checkpoint. `printed.json` is what that build's commands said of them by --json. All were made
at commit cffda16.
"""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.paths import StudyPaths, study_paths
from nas.study.outcomes import outcome_of
from nas.study.storage import open_study
from nas.train.checkpoint import read_curve
from tests.conftest import Done

ARCHIVE = Path(__file__).with_name("old.tar.xz")
RUN = "trial-0010-1-epochs-seed-0-hold-out-10"
READS = (
    "list",
    "list --study old",
    "list --study halted",
    "best --study old",
    "show 10 --study old",
    "runs --study old --verify",
    "compare best 2 --study old",
)


@pytest.fixture
def old(tmp_path: Path) -> StudyPaths:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "studies", filter="data")
    (tmp_path / "studies" / "printed.json").rename(tmp_path / "printed.json")
    return study_paths("old")


@pytest.fixture
def run(nas: Callable[..., Done], old: StudyPaths) -> Callable[[str], Done]:
    def succeed(command: str) -> Done:
        done = nas(*command.split())
        assert done.code == 0, done.err
        return done

    return succeed


def assert_contains(new: Any, old: Any, where: str) -> None:
    """All that `old` has is the same in `new`, whose objects may have further keys."""
    if isinstance(old, dict):
        assert old.keys() <= new.keys(), where
        for key, value in old.items():
            assert_contains(new[key], value, f"{where}, {key}")
    elif isinstance(old, list):
        assert len(new) == len(old), where
        for number, value in enumerate(old):
            assert_contains(new[number], value, f"{where}, {number}")
    else:
        assert new == old, where


def test_reading_prints_what_the_old_build_printed(run: Callable[[str], Done], tmp_path: Path) -> None:
    printed = json.loads((tmp_path / "printed.json").read_text())
    assert tuple(printed) == READS
    for command in READS:
        assert_contains(json.loads(run(f"{command} --json").out), printed[command], command)
    assert printed["best --study old"]["best"]["accuracy"] == pytest.approx(0.2708, abs=1e-4)


def test_report_of_an_old_study(run: Callable[[str], Done], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run(f"report --study old --output {page}")
    text = page.read_text()
    retrained = "Retrained: trial 10, 2,568 parameters, 1 epoch on 1,294 images"
    for told in ("the best, trial 10", "27.08%", "25.00%", "15.97%", retrained, "24.51% of 359 test images", "9.03 ± 0.98"):
        assert told in text, told


def test_an_old_network_predicts_the_same_submission(run: Callable[[str], Done], old: StudyPaths, tmp_path: Path) -> None:
    again = tmp_path / "again.csv"
    run(f"submit --study old --run {RUN} --device cpu --output {again}")
    one, other = (file.read_text().splitlines() for file in (again, old.folder / "submission-digits-test.csv"))
    assert [line.partition(",")[0] for line in one] == [line.partition(",")[0] for line in other]
    # Another processor may break a near tie otherwise; on the one that made it, all are equal.
    assert sum(a == b for a, b in zip(one, other, strict=True)) >= 0.98 * len(other)
    ledger = json.loads(run("runs --study old --verify --json").out)
    assert [(entry["run"], entry["images"], entry["file"]) for entry in ledger["submissions"]] == [(RUN, 359, "as recorded")] * 2


def test_old_runs_are_not_trained_again_and_new_ones_join_them(run: Callable[[str], Done], old: StudyPaths) -> None:
    weights = {path: path.stat().st_mtime_ns for path in old.folder.rglob("model.safetensors")}
    assert len(weights) == 5
    assert "was already trained" in run("retrain best --study old --epochs 1 --hold-out 0.1 --device cpu").err
    run("ablate best --study old --vary activation=relu,gelu --epochs 1 --train-subset 300 --seeds 2 --device cpu")
    run("retrain 2 --study old --epochs 1 --seed 3 --device cpu")
    runs = json.loads(run("runs --study old --verify --json").out)["runs"]
    assert [(entry["name"], entry["files"]) for entry in runs] == [
        (RUN, "as recorded"),
        ("trial-0002-1-epochs-seed-3", "as recorded"),
    ]
    after = {path: path.stat().st_mtime_ns for path in old.folder.rglob("model.safetensors")}
    assert len(after) == 6
    assert after.items() >= weights.items()


def test_an_old_search_goes_on(run: Callable[[str], Done], old: StudyPaths) -> None:
    before = open_study(old).get_trials()
    done = run("search --study old --device cpu --trials 7")
    assert "7 networks trained in study old" in done.out
    assert "Winner  trial 10: 25.00% by one seed, 6 epochs" in done.out
    trials = open_study(old).get_trials()
    assert trials[: len(before)] == before
    assert sum(outcome_of(trial) in ("trained", "pruned_early") for trial in trials[len(before) :]) == 1


def test_an_old_suspended_trial_resumes_and_ends_once(run: Callable[[str], Done]) -> None:
    halted = study_paths("halted")
    (first,) = read_curve(halted.trial(8).metrics)
    before = open_study(halted).get_trials()
    assert [outcome_of(trial) for trial in before] == ["over_budget"] * 8 + ["running"] * 2
    done = run("search --study halted --device cpu --trials 2")
    assert "trial 8 resumes after epoch 1" in done.err
    assert done.out.count("trial    8  completed") + done.err.count("trial    8  completed") == 1
    trials = open_study(halted).get_trials()
    assert trials[:8] == before[:8]
    assert [outcome_of(trial) for trial in trials[8:]] == ["trained"] * 2
    curve = read_curve(halted.trial(8).metrics)
    assert curve[0] == first
    assert [epoch.epoch for epoch in curve] == list(range(1, 17))
