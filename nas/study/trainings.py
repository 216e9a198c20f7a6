"""A study's trials with all that is known of each, for whoever reports: without Optuna's types, and without touching anything."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from nas.errors import StudyError
from nas.paths import StudyPaths, TrialPaths
from nas.study.finalists import sibling
from nas.study.history import is_duplicate, projected_values
from nas.study.outcomes import TrialRow
from nas.train.loop import EpochMetrics, read_curve


@dataclass(frozen=True)
class Training:
    """A trial of a search, or the training of a finalist."""

    row: TrialRow
    curve: dict[int, float]
    """Of the validation images, by the study's metric in [0, 1], for each epoch, from 1."""
    drawn: dict[str, Any]
    """What was drawn for it, by slot of the space, without the stages that it has not."""
    projected: float | None
    """Accuracy that it is taken to reach at its end; its own where it got there. None where it was never trained."""
    began: datetime | None
    ended: datetime | None
    seconds: float | None
    """Of training and evaluation; None where its folder holds no curve of its own that can be read."""
    imported: bool = False
    """Whether another study trained it."""


def read_trainings(study: optuna.Study, paths: StudyPaths) -> list[Training]:
    """Every trial of the search, by number."""
    return _read(study.get_trials(deepcopy=False), paths)


def read_final_trainings(study: optuna.Study, paths: StudyPaths) -> list[Training]:
    """Every training of a finalist that has begun; `paths` of the search."""
    finals = sibling(study)
    begun = [] if finals is None else [t for t in finals.get_trials(deepcopy=False) if t.datetime_start is not None]
    return _read(begun, paths.finalists)


def _read(trials: Sequence[FrozenTrial], paths: StudyPaths) -> list[Training]:
    projected = projected_values(trials)
    return [_training(trial, paths.trial(trial.number), projected.get(trial.number)) for trial in trials]


def _training(trial: FrozenTrial, paths: TrialPaths, projected: float | None) -> Training:
    imported = bool(trial.user_attrs.get("imported"))
    own: list[EpochMetrics] = []
    if trial.intermediate_values and not imported and not is_duplicate(trial):
        with suppress(StudyError):  # the study has the values that were judged; only the time is lost
            own = read_curve(paths.metrics)
    return Training(
        row=TrialRow.of(trial),
        curve=dict(sorted(trial.intermediate_values.items())),
        drawn=_used(trial.params),
        projected=projected,
        began=trial.datetime_start,
        ended=trial.datetime_complete,
        seconds=sum(metrics.seconds for metrics in own) if own else None,
        imported=imported,
    )


def _used(drawn: dict[str, Any]) -> dict[str, Any]:
    """Without the shapes of stages that the network has not: all are drawn always, so that the sampler sees fixed ranges."""
    stages = drawn.get("stages")
    if stages is None:
        return dict(drawn)

    def is_used(slot: str) -> bool:
        stage = slot.partition(".")[0].removeprefix("stage")
        return not (slot.startswith("stage") and stage.isdecimal()) or int(stage) < stages

    return {slot: value for slot, value in drawn.items() if is_used(slot)}
