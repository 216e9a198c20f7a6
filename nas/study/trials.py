"""Everything that is known of a trial, read once from the study into plain types, for reports and displays."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial

from nas.config import Candidate, share_of, training_flop
from nas.errors import StudyError
from nas.paths import StudyPaths
from nas.study.history import is_duplicate, projected_values
from nas.study.outcomes import broken_limits, last_value, outcome_of
from nas.train.checkpoint import read_curve

ROW = (
    "number",
    "outcome",
    "accuracy",
    "epochs",
    "params",
    "macs",
    "architecture",
    "micro_batches",
    "finalist",
    "seed",
    "over",
    "flop",
)
"""Fields that tables and JSON show."""
ATTRIBUTES = ("params", "macs", "architecture", "micro_batches", "finalist", "seed")
"""User attributes of a trial that are fields of the same names."""


@dataclass(frozen=True)
class TrialRecord:
    """A trial of a search, or the training of a finalist."""

    number: int
    outcome: str
    accuracy: float | None  # of the validation images after the last epoch that was trained, by the study's metric, in [0, 1]
    epochs: int
    params: int | None = None
    macs: int | None = None
    architecture: str | None = None
    micro_batches: int = 1  # parts of each batch, after memory ran out
    finalist: int | None = None  # number of the trial whose network it trains again
    seed: int | None = None  # of a finalist's training, from 0
    over: dict[str, float] = field(default_factory=dict, hash=False)  # limits that it exceeds, by which share

    flop: float | None = None  # operations of its training so far (`nas.config.training_flop`); None if unknown

    curve: dict[int, float] = field(default_factory=dict, hash=False)  # validation value by epoch, from 1
    drawn: dict[str, Any] = field(default_factory=dict, hash=False)  # by slot of the space, without stages that it lacks
    began: datetime | None = None
    ended: datetime | None = None
    imported: bool = False  # another study trained it
    projected: float | None = None
    """Expected final value; its own value if it completed. None if it never trained, or if not requested."""
    seconds: float | None = None
    """Of training and evaluation; None if its folder has no readable curve of its own, or if not requested."""

    @classmethod
    def of(cls, trial: FrozenTrial, images: int | None = None) -> "TrialRecord":
        """From the trial alone, of a study with so many `images` per epoch."""
        attributes: dict[str, Any] = trial.user_attrs
        return cls(
            number=trial.number,
            outcome=outcome_of(trial),
            accuracy=last_value(trial),
            epochs=max(trial.intermediate_values, default=0),
            over=broken_limits(trial),
            flop=flop_of(trial, images),
            curve=dict(sorted(trial.intermediate_values.items())),
            drawn=_used(trial.params),
            began=trial.datetime_start,
            ended=trial.datetime_complete,
            imported=bool(attributes.get("imported")),
            **{name: attributes[name] for name in ATTRIBUTES if name in attributes},
        )

    def row(self) -> dict[str, Any]:
        """Plain values, as `nas list --json` prints them."""
        return {name: getattr(self, name) for name in ROW}


def flop_of(trial: FrozenTrial, images: int | None) -> float | None:
    """Operations of its training in this study, with so many `images` per epoch; None if unknown."""
    attributes, macs = trial.user_attrs, trial.user_attrs.get("macs")
    if attributes.get("imported") or is_duplicate(trial) or not trial.intermediate_values:
        return 0.0
    if images is None or macs is None:
        return None
    epoch = attributes.get("epoch_images", share_of(images, attributes.get("hardest", 1.0)))
    seen = epoch * max(trial.intermediate_values)
    return training_flop(macs, seen, attributes.get("sam_rho", 0.0))


def read_trials(trials: Sequence[FrozenTrial], paths: StudyPaths, images: int | None) -> list[TrialRecord]:
    """Also with the expected final value of each trial, and the seconds of its folder's curve."""
    projected = projected_values(trials)
    return [
        replace(
            TrialRecord.of(trial, images),
            projected=projected.get(trial.number),
            seconds=_trained_seconds(trial, paths),
        )
        for trial in trials
    ]


def trial_candidate(paths: StudyPaths, trial: FrozenTrial) -> Candidate:
    """The network of a trial, from its file. Raises NasError if the file is missing or holds another network: nothing else would
    check that network against the study's budget."""
    file, recorded = paths.trial(trial.number).candidate, trial.user_attrs.get("digest")
    candidate = Candidate.from_file(file)
    if recorded not in (None, candidate.digest) or outcome_of(trial) == "over_budget":
        raise StudyError(
            f"{file} is not the network of trial {trial.number}: the study recorded {trial.user_attrs.get('architecture')} "
            f"(digest {recorded}, {outcome_of(trial)}), and the file has {candidate.arch.one_line()} (digest {candidate.digest})",
            hint="restore the file from a copy; use `nas baseline` to train other networks",
        )
    return candidate


def _trained_seconds(trial: FrozenTrial, paths: StudyPaths) -> float | None:
    if not trial.intermediate_values or trial.user_attrs.get("imported") or is_duplicate(trial):
        return None
    with suppress(StudyError):  # the study has the judged values; only the time is missing
        if curve := read_curve(paths.trial(trial.number).metrics):
            return sum(metrics.seconds for metrics in curve)
    return None


def _used(drawn: dict[str, Any]) -> dict[str, Any]:
    """Without the shapes of stages that the network lacks: all are always drawn, so that the sampler sees fixed ranges."""
    stages = drawn.get("stages")
    if stages is None:
        return dict(drawn)

    def is_used(slot: str) -> bool:
        stage = slot.partition(".")[0].removeprefix("stage")
        return not (slot.startswith("stage") and stage.isdecimal()) or int(stage) < stages

    return {slot: value for slot, value in drawn.items() if is_used(slot)}
