"""Experiment trackers: each receives, epoch by epoch, the content of `metrics.jsonl`. If a tracker fails, only its curves are
lost."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from nas.config import Candidate
from nas.errors import ConfigError, choices_sentence
from nas.train.checkpoint import EpochMetrics


class TrackedRun(Protocol):
    """A training in a tracker."""

    def log(self, values: dict[str, float], epoch: int) -> None: ...

    def close(self, outcome: str | None) -> None:
        """`outcome`: None if it is not known."""


class TensorBoard:
    """Event files under `tensorboard/` in the study's folder, one folder for each training."""

    def __init__(self, folder: Path, study: str, run: str, candidate: Candidate) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard" / run))
        self._writer.add_text("candidate", f"{candidate.arch.one_line()}\n\n```\n{candidate.to_json()}\n```")

    def log(self, values: dict[str, float], epoch: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)

    def close(self, outcome: str | None) -> None:
        if outcome is not None:
            self._writer.add_text("outcome", outcome)
        self._writer.close()


class WandB:
    """Runs of project `nas`, grouped by study; offline, in `wandb/` of the study's folder, unless WANDB_MODE says otherwise."""

    def __init__(self, folder: Path, study: str, run: str, candidate: Candidate) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "nas"),
            group=study,
            name=f"{study} {run}",
            dir=str(folder),
            config=candidate.model_dump(mode="json"),
            reinit="create_new",
        )

    def log(self, values: dict[str, float], epoch: int) -> None:
        self._run.log(values, step=epoch)

    def close(self, outcome: str | None) -> None:
        if outcome is not None:
            self._run.summary["outcome"] = outcome
        self._run.finish()


class MLflow:
    """Runs of the experiment of the study's name; in `mlflow.db` of its folder unless MLFLOW_TRACKING_URI says otherwise."""

    def __init__(self, folder: Path, study: str, run: str, candidate: Candidate) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        folder.mkdir(parents=True, exist_ok=True)
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client: Any = MlflowClient(uri or f"sqlite:///{folder.absolute()}/mlflow.db")
        experiment = self._client.get_experiment_by_name(study)
        artifacts = None if uri else str(folder.absolute() / "mlflow")
        number = experiment.experiment_id if experiment else self._client.create_experiment(study, artifacts)
        self._run, self._metric = self._client.create_run(number, run_name=run).info.run_id, Metric
        recipe = candidate.train.model_dump(mode="json", exclude={"augment"})
        params = {"architecture": candidate.arch.one_line(), **recipe}
        self._client.log_batch(self._run, params=[Param(name, str(value)) for name, value in params.items()])
        self._client.log_dict(self._run, candidate.model_dump(mode="json"), "candidate.json")

    def log(self, values: dict[str, float], epoch: int) -> None:
        now = int(1000 * time.time())
        metrics = [self._metric(name, value, now, epoch) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, outcome: str | None) -> None:
        if outcome is not None:
            self._client.set_tag(self._run, "outcome", outcome)
        self._client.set_terminated(
            self._run, {None: "KILLED", "failed": "FAILED", "diverged": "FAILED"}.get(outcome, "FINISHED")
        )


TRACKERS: dict[str, type[TensorBoard | WandB | MLflow]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}
"""Called with the folder and name of the study, and the name and subject of the run."""


class Tracker:
    """The runs of a study, by name. After its first failure it writes a note and stops."""

    def __init__(self, name: str, start: Callable[[str, Candidate], TrackedRun], note: Callable[[str], None]) -> None:
        self._name, self._start, self._note = name, start, note
        self._runs: dict[str, TrackedRun] = {}
        self._given_up = False

    def _try(self, action: Callable[[], None]) -> None:
        if self._given_up:
            return
        try:
            action()
        except Exception as error:  # whatever a tracker raises, the study continues
            self._given_up = True
            self._note(f"Warning: {self._name} failed and is switched off: {error}")

    def epoch(self, run: str, candidate: Candidate, metrics: EpochMetrics) -> None:
        def log() -> None:
            if run not in self._runs:
                self._runs[run] = self._start(run, candidate)
            values = {name: value for name, value in asdict(metrics).items() if name != "epoch" and value is not None}
            self._runs[run].log(values, metrics.epoch)

        self._try(log)

    def end(self, run: str, outcome: str | None) -> None:
        if run in self._runs:
            self._try(lambda: self._runs.pop(run).close(outcome))

    def close(self) -> None:
        for run in list(self._runs):
            self.end(run, None)


def require_tracker(name: str | None) -> None:
    """Raises ConfigError for an unknown tracker, and for one that is not installed."""
    if name is None:
        return
    if name not in TRACKERS:
        raise ConfigError(f"unknown tracker for --log: {name!r}.{choices_sentence(name, TRACKERS)}")
    found = find_spec(name)
    if found is None or found.origin is None:  # the latter: a folder of that name, such as wandb writes
        raise ConfigError(
            f"--log {name} needs the package {name}, which is not installed", hint=f"pip install 'nas-under-budget[{name}]'"
        )


def make_tracker(name: str, folder: Path, study: str, note: Callable[[str], None]) -> Tracker:
    """`folder` is the study's. Raises ConfigError as `require_tracker`."""
    require_tracker(name)
    kind = TRACKERS[name]
    return Tracker(kind.__name__, lambda run, candidate: kind(folder, study, run, candidate), note)
