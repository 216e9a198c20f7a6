"""What is reported of a study, read once: `StudyRecord` for lists, and `FullRecord` for the report.

Reads only; what follows from it is in `facts`, how it looks in `charts` and `page`.
"""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from nas.budget import Budget, quick_macs
from nas.config import METRIC_WORDS, Candidate
from nas.errors import NasError
from nas.paths import StudyPaths, TrialPaths, known_studies, shipped_names, study_paths
from nas.report.facts import Importance, importance
from nas.runs.ablate import Ablation, find_ablations, read_ablation
from nas.runs.comparison import Comparison, find_comparisons
from nas.runs.record import RunRecord, read_run
from nas.runs.select import CRITERIA, Chosen, expected, find_chosen, finished_runs, group
from nas.runs.statistics import Expectation
from nas.space.space_file import CIFAR10, load_preset
from nas.specs import Criterion
from nas.study.finalists import Finalist, best_of, finalists_of, sibling
from nas.study.outcomes import count_outcomes, count_trained
from nas.study.ownership import is_led
from nas.study.settings import StudySettings, read_settings
from nas.study.storage import open_study
from nas.study.trials import TrialRecord, flop_of, read_trials

P = TypeVar("P")
T = TypeVar("T")
CIFAR10_CLASSES = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}


@dataclass(frozen=True)
class StudyRecord:
    """What its database says."""

    paths: StudyPaths
    settings: StudySettings
    counts: dict[str, int]  # trials of each outcome, `running` ones, and those taken over from another study
    led: bool | None  # whether it was being searched when it was read; None where that could not be told
    best: TrialRecord | None  # what `nas retrain best` trains
    finalists: list[Finalist]  # the best networks, trained again by several seeds; the winner first
    trials: list[TrialRecord]  # every trial of the search, by number
    flop: float | None  # operations of all trainings of the search and its finalists; None where they are not known
    retrained: list[str]  # names of the finished runs, oldest first
    chosen: Chosen | None  # the one of them that is taken where none is named

    @property
    def name(self) -> str:
        return self.paths.name

    @property
    def trained(self) -> int:
        return count_trained(self.counts)

    @property
    def metric(self) -> str:
        """What every validation figure is of, in words."""
        return METRIC_WORDS[self.settings.study.metric]

    @property
    def epochs(self) -> int:
        """Of each training of the search."""
        return int(self.settings.parameters.get("epochs", 0))


@dataclass(frozen=True)
class FullRecord(StudyRecord):
    """With what its files say. A damaged one costs what it belongs to, see `left_out`."""

    read: datetime
    finals: list[TrialRecord]  # every training of a finalist that has begun
    runs: list[RunRecord]  # oldest first, as what follows
    ablations: list[Ablation]
    comparisons: list[Comparison]  # known networks beside the study's, by how they were trained
    references: list["PresetRow"]  # networks that others have reported on the same images
    left_out: list[str]  # a sentence for each retrained network, ablation and comparison of which a file is damaged

    @cached_property
    def importance(self) -> Importance | None:
        """Fitting it takes longer than all else that is reported."""
        return importance(self.trials)

    @property
    def chosen_run(self) -> RunRecord | None:
        """None also where a file of it is damaged."""
        return next((run for run in self.runs if self.chosen is not None and run.name == self.chosen.name), None)

    @property
    def expected(self) -> dict[Criterion, Expectation]:
        """Of the chosen run, of which less is expected than was measured on the images that chose it; empty where none did."""
        choice = None if self.chosen is None else self.chosen.choice
        if choice is None or choice.by not in CRITERIA:
            return {}
        among = [run for run in self.runs if run.name in choice.among]
        return expected(group((TrialPaths(self.paths.retrained / run.name), run.card) for run in among), choice.run)

    @cached_property
    def best_candidate(self) -> Candidate | None:
        """Of the chosen retraining, or else of the search; None where there is none yet, or its file cannot be read."""
        if (run := self.chosen_run) is not None:
            return run.card.candidate
        with suppress(NasError):
            return None if self.best is None else Candidate.from_file(self.paths.trial(self.best.number).candidate)
        return None


def read_study(paths: StudyPaths) -> StudyRecord:
    """Raises NasError where the study cannot be read."""
    study, settings = open_study(paths), read_settings(paths)
    trials, finals, images = study.get_trials(deepcopy=False), sibling(study), settings.train_images
    best, _ = best_of(study)
    spent = [flop_of(trial, images) for trial in (*trials, *(finals.get_trials(deepcopy=False) if finals else ()))]
    return StudyRecord(
        paths=paths,
        settings=settings,
        flop=None if None in spent else sum(flop for flop in spent if flop is not None),
        counts=dict(count_outcomes(trials)),
        led=is_led(paths),
        best=None if best is None else TrialRecord.of(best, images),
        finalists=finalists_of(study),
        trials=[TrialRecord.of(trial, images) for trial in trials],
        retrained=[run.folder.name for run in finished_runs(paths)],
        chosen=find_chosen(paths),
    )


def read_studies() -> tuple[list[StudyRecord], list[str]]:
    """Every study under the studies folder, and a sentence for each that cannot be read."""
    records, broken = [], []
    for name in known_studies():
        try:
            records.append(read_study(study_paths(name)))
        except (NasError, OSError, sqlite3.Error) as error:
            broken.append(f"{name}: {error}")
    return records, broken


def read_record(paths: StudyPaths) -> FullRecord:
    """Raises NasError where the study cannot be read."""
    left_out: list[str] = []

    def kept(what: str, read: Callable[[P], T], place: P) -> Iterable[T]:
        """What was read, or nothing."""
        try:
            return [read(place)]
        except (NasError, OSError) as error:
            left_out.append(f"{what} left out: {error}")
            return []

    known, study, folders = read_study(paths), open_study(paths), find_ablations(paths)
    images, finals = known.settings.train_images, sibling(study)
    begun = [] if finals is None else [t for t in finals.get_trials(deepcopy=False) if t.datetime_start is not None]
    return FullRecord(
        **vars(known) | {"trials": read_trials(study.get_trials(deepcopy=False), paths, images)},
        read=datetime.now().astimezone(),
        finals=read_trials(begun, paths.finalists, images),
        runs=[one for run in finished_runs(paths) for one in kept(f"The retrained network {run.folder.name} is", read_run, run)],
        ablations=[one for folder in folders for one in kept(f"Ablation {folder.name} is", read_ablation, folder)],
        comparisons=[one for found in kept("Known networks are", find_comparisons, paths) for one in found],
        references=report_presets() if _is_cifar10(known.settings) else [],
        left_out=left_out,
    )


# ------------------------------------------------------------------------------------------------------- what others reported


@dataclass(frozen=True)
class PresetRow:
    """A network that others have reported on CIFAR-10."""

    name: str
    blocks: list[int]
    channels: list[int]
    block: str
    params: int
    macs: int
    fits: bool  # the budget that the report's authors had to keep to
    accuracy: float  # as reported, in [0, 1] …
    measured_on: str  # … and on which images


def report_presets() -> list[PresetRow]:
    def row(name: str) -> PresetRow:
        preset = load_preset(name)
        arch, reported = preset.candidate.arch, preset.reported
        stages = [stage.blocks for stage in arch.stages], [stage.channels for stage in arch.stages]
        cost = Budget(preset.budget, CIFAR10).check(arch)
        what = name, *stages, arch.block, cost.params, quick_macs(arch, CIFAR10), cost.fits
        return PresetRow(*what, reported.accuracy, reported.measured_on)

    return [row(name) for name in shipped_names("preset")]


def _is_cifar10(settings: StudySettings) -> bool:
    """By its name, or as a folder of those classes at that size."""
    if settings.data.dataset == "cifar10":
        return True
    if settings.shape != CIFAR10 or settings.data.folder is None:
        return False
    folder = Path(settings.data.folder)
    found = [path for path in (folder / "train", folder) if path.is_dir()]
    return bool(found) and {path.name for path in found[0].iterdir() if path.is_dir()} >= CIFAR10_CLASSES
