"""A whole search on digits over a Ray cluster that loses a machine and gains another, and shares no folder with the search."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.jobs.messages import Saved, Train, WorkerPlan
from nas.jobs.ray.executor import RayExecutor
from nas.paths import study_paths
from nas.specs import SearchSpec
from nas.study.outcomes import count_outcomes, count_trained, outcome_of
from nas.study.run import SearchResult, run_search
from nas.study.source import Progress
from nas.study.storage import open_study
from tests.conftest import QuietDisplay
from tests.jobs.ray_clusters import ENVIRONMENT, needs_ray, new_cluster
from tests.study.test_whole_searches import SPACE, check_curves

pytestmark = [needs_ray, pytest.mark.slow]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., SearchResult]:
    """`search(cluster, trials, display)`: on its CPUs."""
    path = tmp_path / "small.yaml"
    path.write_text(SPACE)

    def run(cluster: Any, trials: int, display: QuietDisplay) -> SearchResult:
        request = SearchSpec(
            study="mine",
            space=str(path),
            dataset="digits",
            train_subset=300,
            epochs=36,
            trials=trials,
            ray=cluster.address,
            gpus_per_worker=0,
            cpus_per_worker=1,
        )
        return run_search(request, display)

    return run


def check_study(trials: int) -> None:
    """Exactly so many networks trained, each once, and every epoch of each known once, in its file as in the database."""
    found = open_study(study_paths("mine")).get_trials()
    assert count_trained(count_outcomes(found)) == trials
    assert all(trial.state.is_finished() for trial in found)
    assert [trial.number for trial in found] == list(range(len(found)))
    assert {outcome_of(trial) for trial in found} <= {"trained", "pruned_early", "over_budget", "duplicate"}
    check_curves(study_paths("mine"))


class Stranger(RayExecutor):
    """Its workers are on machines that do not see the study's folder."""

    def __init__(self, plan: WorkerPlan, *arguments: Any, **options: Any) -> None:
        super().__init__(replace(plan, study=Path("/nowhere/mine")), *arguments, **options)
        self.saved: set[int] = set()
        """Trials of which a checkpoint has arrived."""
        self.handed: list[Train] = []
        self.trains: dict[int, int] = {}
        """The trial of each worker."""

    def send(self, worker: int, message: Any) -> None:
        if isinstance(message, Train):
            self.handed.append(message)
            self.trains[worker] = int(message.job.key)
        super().send(worker, message)

    def receive(self, timeout: float) -> list[tuple[int, Any]]:
        arrived = super().receive(timeout)
        self.saved |= {self.trains[worker] for worker, message in arrived if isinstance(message, Saved)}
        return arrived


class Upheaval(QuietDisplay):
    """Takes a node away while both train, and adds another."""

    def __init__(self, cluster: Any, executors: list[Stranger]) -> None:
        super().__init__()
        self.cluster, self.executors = cluster, executors
        self.ready: list[int] = []
        """How many workers were, whenever that changed."""
        self.training: set[int] = set()
        """Trials, when the node was taken away."""

    def update(self, progress: Progress) -> None:
        if self.ready[-1:] != [len(progress.devices)]:
            self.ready.append(len(progress.devices))
        training = {int(running.job.key) for running in progress.running.values() if running.last and not running.stopped}
        if len(training & self.executors[0].saved) == 2 and not self.training:
            self.training = training
            # At once, since what is trained here lasts no longer than a node needs to take leave.
            self.cluster.remove_node(next(iter(self.cluster.worker_nodes)), allow_graceful=False)
            self.cluster.add_node(num_cpus=1)
        if self.training and self.ready[-2:] != [1, 2]:
            time.sleep(0.4)  # so that the other one has not trained everything before the new one is there


@pytest.mark.exhaustive
def test_a_search_survives_a_node_that_goes_and_uses_one_that_comes(
    search: Callable[..., SearchResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    executors: list[Stranger] = []

    def make(*arguments: Any, **options: Any) -> Stranger:
        executors.append(Stranger(*arguments, **options))
        return executors[-1]

    monkeypatch.setattr("nas.jobs.ray.executor.RayExecutor", make)
    with new_cluster() as cluster:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        display = Upheaval(cluster, executors)
        result = search(cluster, 8, display)
    assert (result.interrupted, result.exhausted) == (False, False)
    assert display.ready[-3:] == [2, 1, 2], display.ready
    (executor,) = executors
    (number,) = {int(order.job.key) for order in executor.handed if order.checkpoint is not None}
    assert number in display.training
    assert [order.checkpoint is None for order in executor.handed if order.job.key == str(number)] == [True, False]
    assert any(f"died (its node is gone); trial {number} resumes from its checkpoint" in note for note in display.notes)
    assert any(f"trial {number} resumes after epoch " in note for note in display.notes), display.notes
    check_study(8)
