"""Everything that is reported of a study, read once: its trials with their curves, its finalists, its retrained networks.

Reads only; what follows from it is in `facts`, how it looks in `figures` and `page`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from typing import TypeVar

from nas.config import METRIC_WORDS, Candidate
from nas.errors import NasError
from nas.paths import StudyPaths, TrialPaths
from nas.report.facts import Importance, importance
from nas.report.reference import Reference, reference_points
from nas.runs.ablate import Ablation, find_ablations, read_ablation
from nas.runs.baseline import Comparison, find_comparisons
from nas.runs.card import ModelCard, read_card
from nas.runs.evaluation import Evaluation, read_evaluation
from nas.runs.select import finished_runs
from nas.study.finalists import Finalist, best_of, finalists_of, sibling
from nas.study.outcomes import count_outcomes
from nas.study.ownership import is_led
from nas.study.settings import StudySettings, read_settings
from nas.study.storage import open_study
from nas.study.trials import TrialRecord, read_trials
from nas.train.checkpoint import EpochMetrics, read_curve

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A retrained network."""

    name: str
    card: ModelCard
    curve: list[EpochMetrics]
    evaluation: Evaluation | None  # what it says of labelled images on which it was not trained; None where there were none

    @property
    def test_accuracy(self) -> float | None:
        """With the averaging over views that `nas submit` takes, where it has any."""
        averaged = self.card.test_accuracy_tta
        return self.card.test_accuracy if averaged is None else averaged

    @property
    def test_score(self) -> float | None:
        """Likewise, by what the study judges networks by; None also of a run from before that was kept."""
        return self.test_accuracy if self.card.metric == "accuracy" else self.card.test_score


@dataclass(frozen=True)
class StudyRecord:
    paths: StudyPaths
    settings: StudySettings
    read: datetime
    counts: dict[str, int]  # trials of each outcome, `running` ones, and those taken over from another study
    trials: list[TrialRecord]  # every trial of the search, by number
    finals: list[TrialRecord]  # every training of a finalist that has begun
    finalists: list[Finalist]  # the winner first; empty where there were none
    led: bool | None  # whether it was being searched when it was read; None where that could not be told
    best: TrialRecord | None
    runs: list[Run]  # oldest first
    references: list[Reference]  # networks that others have reported on the same images
    ablations: list[Ablation]  # oldest first
    comparisons: list[Comparison]  # known networks beside the study's, by how they were trained; likewise
    left_out: list[str]  # A sentence for each retrained network, ablation and comparison of which a file is damaged

    @property
    def name(self) -> str:
        return self.paths.name

    @property
    def metric(self) -> str:
        """What every validation figure is of, in words."""
        return METRIC_WORDS[self.settings.study.metric]

    @cached_property
    def importance(self) -> Importance | None:
        """Fitting it takes longer than all else that is reported."""
        return importance(self.trials)

    @cached_property
    def best_candidate(self) -> Candidate | None:
        """Of the latest retraining, or else of the search; None where there is none yet, or its file cannot be read."""
        if self.runs:
            return self.runs[-1].card.candidate
        if self.best is None:
            return None
        file = self.paths.trial(self.best.number).candidate
        try:
            return Candidate.from_json(file.read_bytes(), source=str(file))
        except (OSError, NasError):
            return None

    @property
    def epochs(self) -> int:
        """Of each training of the search."""
        return int(self.settings.parameters.get("epochs", 0))


def read_record(paths: StudyPaths) -> StudyRecord:
    """Raises NasError where the study cannot be read. A damaged file beside it costs what it belongs to, see `left_out`."""
    left_out: list[str] = []

    def kept(what: str, read: Callable[[], T]) -> list[T]:
        """What was read, or nothing."""
        try:
            return [read()]
        except (NasError, OSError) as error:
            left_out.append(f"{what} left out: {error}")
            return []

    study = open_study(paths)
    settings = read_settings(paths)
    trials = study.get_trials(deepcopy=False)
    finals = sibling(study)
    begun = [] if finals is None else [t for t in finals.get_trials(deepcopy=False) if t.datetime_start is not None]
    best, _ = best_of(study)
    return StudyRecord(
        paths=paths,
        settings=settings,
        read=datetime.now().astimezone(),
        counts=dict(count_outcomes(trials)),
        trials=read_trials(trials, paths),
        finals=read_trials(begun, paths.finalists),
        finalists=finalists_of(study),
        led=is_led(paths),
        best=None if best is None else TrialRecord.of(best),
        runs=[
            found
            for run in finished_runs(paths)
            for found in kept(f"The retrained network {run.folder.name} is", partial(_read_run, run))
        ],
        references=reference_points(settings),
        ablations=[
            found
            for folder in find_ablations(paths)
            for found in kept(f"Ablation {folder.name} is", partial(read_ablation, folder))
        ],
        comparisons=[one for found in kept("Known networks are", partial(find_comparisons, paths)) for one in found],
        left_out=left_out,
    )


def _read_run(run: TrialPaths) -> Run:
    return Run(run.folder.name, read_card(run), read_curve(run.metrics), read_evaluation(run))
