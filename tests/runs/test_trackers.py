"""Trackers receive what `metrics.jsonl` receives, and cost a study nothing when they fail."""

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from nas.config import Candidate
from nas.errors import ConfigError
from nas.paths import StudyPaths
from nas.runs.trackers import Tracker, make_tracker, require_tracker
from nas.train.checkpoint import EpochMetrics, read_curve
from tests.conftest import Nas

CANDIDATE = Candidate.model_validate({"arch": {"stages": [{"blocks": 1, "channels": 8}]}})


def epoch(number: int) -> EpochMetrics:
    return EpochMetrics(number, 1.5 / number, 0.5, None, None, 1.0, 0.25 * number, 0.1, 2.0, 100.0)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder))
    events.Reload()
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_receives_every_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tracker = make_tracker("tensorboard", tmp_path, "tiny", pytest.fail)
    for number in (1, 2):
        tracker.epoch("trial-0007", CANDIDATE, epoch(number))
    tracker.end("trial-0007", "trained")
    tracker.close()
    found = scalars(tmp_path / "tensorboard" / "trial-0007")
    assert found["ema_val_accuracy"] == [(1, 0.25), (2, 0.5)]
    assert found["train_loss"] == [(1, 1.5), (2, 0.75)]
    assert "val_loss" not in found, "what nobody measured is not there"


@pytest.mark.filterwarnings("ignore")  # of MLflow's storage, about SQLAlchemy
def test_mlflow_receives_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = make_tracker("mlflow", tmp_path, "tiny", pytest.fail)
    for number in (1, 2):
        for run in ("trial-0007", "trial-0008"):
            tracker.epoch(run, CANDIDATE, epoch(number))
    tracker.end("trial-0007", "trained")
    tracker.close()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    killed, trained = client.search_runs([client.get_experiment_by_name("tiny").experiment_id], order_by=["status DESC"])
    assert (trained.info.run_name, trained.info.status, trained.data.tags["outcome"]) == ("trial-0007", "FINISHED", "trained")
    assert (killed.info.run_name, killed.info.status) == ("trial-0008", "KILLED")
    logged = client.get_metric_history(trained.info.run_id, "ema_val_accuracy")
    assert [(one.step, one.value) for one in logged] == [(1, 0.25), (2, 0.5)]
    assert (trained.data.params["architecture"], trained.data.params["lr"]) == (CANDIDATE.arch.one_line(), "0.1")
    assert "val_loss" not in trained.data.metrics
    assert list(tmp_path.glob("mlflow/*/artifacts/candidate.json"))


def test_search_and_retraining_log_what_their_curves_hold(nas: Nas, study: StudyPaths) -> None:
    pytest.importorskip("tensorboard")
    assert (
        nas("retrain", "best", "--study", "tiny", "--epochs", "2", "--seed", "5", "--device", "cpu", "--log", "tensorboard").code
        == 0
    )
    (run,) = study.retrained.glob("*-seed-5")
    curve = read_curve(run / "metrics.jsonl")
    logged = scalars(study.folder / "tensorboard" / f"retrained-{run.name}")["train_loss"]
    assert logged == [(metrics.epoch, pytest.approx(metrics.train_loss)) for metrics in curve]
    done = nas("search", "--study", "tiny", "--trials", "3", "--device", "cpu", "--finalists", "0", "--log", "tensorboard")
    assert done.code == 0
    (trial,) = (study.folder / "tensorboard").glob("trial-*")
    number = int(trial.name.removeprefix("trial-"))
    curve = read_curve(study.trial(number).metrics)
    assert [value for _, value in scalars(trial)["ema_val_accuracy"]] == [pytest.approx(m.ema_val_accuracy) for m in curve]


class Broken:
    def log(self, values: dict[str, float], epoch: int) -> None:
        raise OSError("no room")

    def close(self, outcome: str | None) -> None:
        raise AssertionError("it was given up")


def test_tracker_that_fails_is_given_up_and_named_once() -> None:
    notes: list[str] = []
    tracker = Tracker("Broken", lambda run, candidate: Broken(), notes.append)
    for number in (1, 2):
        tracker.epoch("trial-0001", CANDIDATE, epoch(number))
    tracker.end("trial-0001", "trained")
    tracker.close()
    assert notes == ["Warning: Broken failed and is switched off: no room"]


@pytest.mark.parametrize("found", [None, ModuleSpec("wandb", None)], ids=["nothing", "a folder of that name"])
def test_tracker_that_is_not_installed_names_the_extra(found: ModuleSpec | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.runs.trackers.find_spec", lambda name: found)
    with pytest.raises(ConfigError) as refused:
        require_tracker("wandb")
    assert refused.value.message == "--log wandb needs the package wandb, which is not installed"
    assert refused.value.hint == "pip install 'nas-under-budget[wandb]'"
    with pytest.raises(ConfigError, match=r"unknown tracker for --log: 'tensorbord'\. Did you mean 'tensorboard'"):
        require_tracker("tensorbord")
    require_tracker(None)
