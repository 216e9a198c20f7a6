"""Experiment trackers: each receives, epoch by epoch, what `metrics.jsonl` receives. One that fails costs its user its curves and
nothing else.
"""

import os
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from nas.config import Candidate
from nas.errors import ConfigError, choices_sentence
from nas.train.checkpoint import EpochMetrics


class Tracker(Protocol):
    """A run is a training, by its name."""

    def epoch(self, run: str, candidate: Candidate, metrics: EpochMetrics) -> None: ...

    def end(self, run: str, outcome: str) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files under `tensorboard/` in the study's folder, one folder a training."""

    def __init__(self, folder: Path, study: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make: Callable[[str], Any] = lambda run: SummaryWriter(str(folder / "tensorboard" / run))
        self._writers: dict[str, Any] = {}

    def epoch(self, run: str, candidate: Candidate, metrics: EpochMetrics) -> None:
        if run not in self._writers:
            self._writers[run] = self._make(run)
            self._writers[run].add_text("candidate", f"{candidate.arch.one_line()}\n\n```\n{candidate.to_json()}\n```")
        for name, value in _values(metrics).items():
            self._writers[run].add_scalar(name, value, metrics.epoch)

    def end(self, run: str, outcome: str) -> None:
        if run in self._writers:
            writer = self._writers.pop(run)
            writer.add_text("outcome", outcome)
            writer.close()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


class WandB:
    """Runs of project `nas`, grouped by study; offline, into `wandb/` in the study's folder, unless WANDB_MODE says otherwise."""

    def __init__(self, folder: Path, study: str) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        def start(run: str, candidate: Candidate) -> Any:
            folder.mkdir(parents=True, exist_ok=True)
            return wandb.init(
                project=os.environ.get("WANDB_PROJECT", "nas"),
                group=study,
                name=f"{study} {run}",
                dir=str(folder),
                config=candidate.model_dump(mode="json"),
                reinit="create_new",
            )

        self._start, self._runs = start, dict[str, Any]()

    def epoch(self, run: str, candidate: Candidate, metrics: EpochMetrics) -> None:
        if run not in self._runs:
            self._runs[run] = self._start(run, candidate)
        self._runs[run].log(_values(metrics), step=metrics.epoch)

    def end(self, run: str, outcome: str) -> None:
        if run in self._runs:
            started = self._runs.pop(run)
            started.summary["outcome"] = outcome
            started.finish()

    def close(self) -> None:
        for run in self._runs.values():
            run.finish()
        self._runs.clear()


TRACKERS: dict[str, Callable[[Path, str], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}
"""Made from a study's folder and its name."""


class Careful:
    """Another tracker, given up at its first failure, which is said."""

    def __init__(self, tracker: Tracker, note: Callable[[str], None]) -> None:
        self._tracker: Tracker | None = tracker
        self._note = note

    def _try(self, action: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            action(self._tracker)
        except Exception as error:  # whatever a tracker may raise, the study goes on
            name = type(self._tracker).__name__
            self._tracker = None
            self._note(f"Warning: {name} failed and is given up: {error}")

    def epoch(self, run: str, candidate: Candidate, metrics: EpochMetrics) -> None:
        self._try(lambda tracker: tracker.epoch(run, candidate, metrics))

    def end(self, run: str, outcome: str) -> None:
        self._try(lambda tracker: tracker.end(run, outcome))

    def close(self) -> None:
        self._try(lambda tracker: tracker.close())


def require_tracker(name: str | None) -> None:
    """Raises ConfigError for an unknown one, or one that is not installed."""
    if name is None:
        return
    if name not in TRACKERS:
        raise ConfigError(f"--log takes a tracker, but got {name!r}.{choices_sentence(name, TRACKERS)}")
    found = find_spec(name)
    if found is None or found.origin is None:  # the latter: a folder of that name, such as wandb writes
        raise ConfigError(
            f"--log {name} needs the package {name}, which is not installed", hint=f"pip install 'nas-under-budget[{name}]'"
        )


def make_tracker(name: str, folder: Path, study: str, note: Callable[[str], None]) -> Tracker:
    """`folder` is the study's. Raises ConfigError as `require_tracker`."""
    require_tracker(name)
    return Careful(TRACKERS[name](folder, study), note)


def _values(metrics: EpochMetrics) -> dict[str, float]:
    return {name: value for name, value in asdict(metrics).items() if name != "epoch" and value is not None}
