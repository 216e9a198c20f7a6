"""Real searches whose processes are killed: at random, and at each transition on purpose."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.paths import study_paths
from nas.study.storage import open_study
from tests.conftest import Done
from tests.study.sabotage import STUDY, check_study, sabotage, search_command, told

# "coordinator" or "worker" is who dies; tests/study/killed.py knows the transitions.
TRANSITIONS = (
    "coordinator: after the ask",
    "coordinator: after the budget's verdict",
    "worker: before a checkpoint",
    "coordinator: before a checkpoint",
    "worker: after a checkpoint",
    "coordinator: after a checkpoint",
    "coordinator: between the report and the pruner's answer",
    "coordinator: between the pruner's answer and its record",
    "coordinator: between the record and the tell",
    "coordinator: in the middle of the tell",
    "coordinator: after the tell",
    "coordinator: while finishing",
)
SPREAD = (
    "coordinator: after the ask",
    "worker: before a checkpoint",
    "coordinator: after a checkpoint",
    "coordinator: in the middle of the tell",
)
"""One of each kind: a draw, either's checkpoint, a result. test_crashes.py crashes at every write, without processes."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers as Linux lists them"),
]


@pytest.mark.usefixtures("all_cores")
@pytest.mark.exhaustive
def test_killed_at_random_again_and_again_a_search_comes_to_its_end(tmp_path: Path) -> None:
    report = sabotage(tmp_path, trials=8, kills=6, workers=2, seed=0)
    assert sum(report.kills.values()) == 6, "the search was over before"
    assert report.starts == 1 + report.kills["the coordinator"]
    assert "Traceback" not in report.log
    check_study(study_paths(STUDY), 8)


@pytest.mark.parametrize(
    ("transitions", "trials"),
    [
        pytest.param(SPREAD, 3, id="a spread"),
        pytest.param(TRANSITIONS, 6, id="all", marks=[pytest.mark.exhaustive, pytest.mark.timeout(900)]),
    ],
)
def test_killed_at_every_transition_one_worker_makes_the_very_same_study(
    transitions: tuple[str, ...], trials: int, tmp_path: Path, nas: Callable[..., Done]
) -> None:
    arguments = search_command(tmp_path, trials, 1)
    pending = tmp_path / "pending.txt"
    root = Path(__file__).parents[2]

    def run() -> int:
        environment = os.environ | {"PYTHONPATH": str(root), "NAS_TEST_PENDING": str(pending)}
        command = [sys.executable, "-c", "from tests.study.killed import main; main()", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode

    pending.write_text("\n".join(transitions))
    left = []
    while run():
        left.append(len(pending.read_text().splitlines()))
    assert left == sorted(left, reverse=True)
    assert pending.read_text() == ""
    check_study(study_paths(STUDY), trials)
    disturbed = told(open_study(study_paths(STUDY)).get_trials())

    os.environ["NAS_STUDIES"] = str(tmp_path / "undisturbed")  # own_folders puts it back
    assert nas(*arguments).code == 0
    assert told(open_study(study_paths(STUDY)).get_trials()) == disturbed
