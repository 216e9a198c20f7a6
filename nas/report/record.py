"""Everything that is reported of a study, read once: its trials with their curves, its finalists, its retrained networks.

Reads only; what follows from it is in `facts`, how it looks in `figures` and `page`.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from nas.ablate import Ablation, find_ablations, read_ablation
from nas.baseline import Comparison, find_comparisons
from nas.config import METRIC_WORDS
from nas.paths import StudyPaths, TrialPaths
from nas.report.facts import Importance, importance
from nas.report.reference import Reference, reference_points
from nas.retrain import Evaluation, ModelCard, finished_runs, read_card, read_evaluation
from nas.search.finalists import Finalist, best_of, finalists_of
from nas.search.outcomes import TrialRow, count_outcomes
from nas.search.ownership import is_led
from nas.search.settings import StudySettings, read_settings
from nas.search.storage import open_study
from nas.search.trainings import Training, read_final_trainings, read_trainings
from nas.train.loop import EpochMetrics, read_curve


@dataclass(frozen=True)
class Run:
    """A retrained network."""

    name: str
    card: ModelCard
    curve: list[EpochMetrics]
    evaluation: Evaluation | None
    """What it says of labelled images on which it was not trained; None where there were none."""

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
    counts: dict[str, int]
    """Trials of each outcome, `running` ones, and those taken over from another study."""
    trainings: list[Training]
    """Every trial of the search, by number."""
    finals: list[Training]
    """Every training of a finalist that has begun."""
    finalists: list[Finalist]
    """The winner first; empty where there were none."""
    led: bool | None
    """Whether it was being searched when it was read; None where that could not be told."""
    best: TrialRow | None
    runs: list[Run]
    """Oldest first."""
    references: list[Reference]
    """Networks that others have reported on the same images."""
    ablations: list[Ablation] = field(default_factory=list)
    """Oldest first."""
    comparisons: list[Comparison] = field(default_factory=list)
    """Known networks beside the study's, by how they were trained; likewise."""

    @property
    def name(self) -> str:
        return self.paths.name

    @property
    def metric(self) -> str:
        """What every validation figure is of, in words."""
        return METRIC_WORDS[self.settings.study.metric]

    @property
    def counter(self) -> Counter[str]:
        return Counter(self.counts)

    @cached_property
    def importance(self) -> Importance | None:
        """Fitting it takes longer than all else that is reported."""
        return importance(self.trainings)

    @property
    def epochs(self) -> int:
        """Of each training of the search."""
        return int(self.settings.parameters.get("epochs", 0))


def read_record(paths: StudyPaths) -> StudyRecord:
    """Raises NasError where the study cannot be read."""
    study = open_study(paths)
    settings = read_settings(paths)
    best, _ = best_of(study)
    return StudyRecord(
        paths=paths,
        settings=settings,
        read=datetime.now().astimezone(),
        counts=dict(count_outcomes(study.get_trials(deepcopy=False))),
        trainings=read_trainings(study, paths),
        finals=read_final_trainings(study, paths),
        finalists=finalists_of(study),
        led=is_led(paths),
        best=None if best is None else TrialRow.of(best),
        runs=[_read_run(run) for run in finished_runs(paths)],
        references=reference_points(settings),
        ablations=[read_ablation(folder) for folder in find_ablations(paths)],
        comparisons=find_comparisons(paths),
    )


def _read_run(run: TrialPaths) -> Run:
    return Run(run.folder.name, read_card(run), read_curve(run.metrics), read_evaluation(run))
