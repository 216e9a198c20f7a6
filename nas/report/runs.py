"""What was trained in a study, and predicted with it: runs, submissions and known networks, and whether their files are whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from nas.config import METRIC_WORDS, MetricName
from nas.errors import NasError
from nas.files import sha256_of
from nas.paths import StudyPaths, TrialPaths
from nas.report.tables import Table
from nas.report.words import time_text
from nas.runs.card import read_sealed_card
from nas.runs.comparison import BaselineCard, finished_baselines, read_baseline
from nas.runs.ledger import Entry, HashedFiles, Ledger, RunEntry, SubmissionEntry, age, collect_files, read_ledger, write_entries

THERE, AS_RECORDED, GONE, WRITTEN_OVER = "there", "as recorded", "gone", "written over"
T = TypeVar("T", RunEntry, SubmissionEntry, BaselineCard)


@dataclass(frozen=True)
class Listed(Generic[T]):
    name: str
    entry: T
    files: str
    """`there`, `gone`, `written over` by a later submission, or what is missing; where that was looked at also `as recorded`, or
    what was changed."""
    recorded: bool = True  # the ledger has it; what it lacks is told from the files

    @property
    def is_whole(self) -> bool:
        return self.files in (THERE, AS_RECORDED, GONE, WRITTEN_OVER)

    @property
    def files_text(self) -> str:
        return self.files if self.recorded else f"{self.files}, not in the ledger"


@dataclass(frozen=True)
class Listing:
    runs: list[Listed[RunEntry]]  # oldest first, …
    submissions: list[Listed[SubmissionEntry]]  # … and so are these
    unreadable: list[str]  # a sentence for the ledger, a run or a line that cannot be read or relied on

    @property
    def changed(self) -> list[str]:
        """Names of what is not as it was recorded."""
        runs = [run.name for run in self.runs if not run.is_whole]
        return runs + [one.name for one in self.submissions if not one.is_whole]


def list_runs(paths: StudyPaths, verify: bool = False) -> Listing:
    """`verify` reads every file again and compares its hash with the recorded one. What the ledger lacks of the files is added to
    it, as far as it can be written; what it says of a run is never changed."""
    unreadable = []
    try:
        ledger = read_ledger(paths)
    except NasError as error:
        ledger = Ledger()
        unreadable.append(f"{error.message}; the list below is from the files")
    hashed = HashedFiles()
    found, broken = collect_files(paths, hashed, but={run.name for run in ledger.runs})
    recorded, compared = {one.id for one in ledger.submissions}, hashed if verify else None
    new = [one for one in found.submissions if one.id not in recorded]
    missing: list[Entry] = [*found.runs, *new]
    added = not unreadable
    if missing and added:
        try:
            write_entries(paths, missing)
        except NasError:
            added = False
    submissions = sorted([*ledger.submissions, *new], key=age)
    latest = {one.output: one.id for one in submissions}

    def file(one: SubmissionEntry) -> str:
        return WRITTEN_OVER if latest[one.output] != one.id else _file_of(paths, one, compared)

    runs = [Listed(run.name, run, _files_of(paths, run, compared)) for run in ledger.runs]
    runs += [Listed(run.name, run, AS_RECORDED if verify else THERE, added) for run in found.runs]
    return Listing(
        runs=sorted(runs, key=lambda run: age(run.entry)),
        submissions=[Listed(one.output, one, file(one), added or one.id in recorded) for one in submissions],
        unreadable=unreadable + broken,
    )


def list_baselines(paths: StudyPaths, verify: bool = False) -> tuple[list[Listed[BaselineCard]], list[str]]:
    """Oldest first, and a sentence for each that cannot be read. `verify` reads every file again."""
    found, damaged = [], []
    for run in finished_baselines(paths):
        try:
            card = read_baseline(run)
        except (NasError, OSError) as error:
            damaged.append(f"{run.folder.name}: {error}")
        else:
            stated = {run.weights: card.weights_sha256, run.evaluation: card.evaluation_sha256}
            found.append(Listed(run.folder.name, card, _compare(stated, sha256_of if verify else None)))
    return found, damaged


Hashed = Callable[[Path], str | None]


def _compare(stated: dict[Path, str | None], hashed: Hashed | None) -> str:
    """Files with their hashes, None of one that was never there."""
    wanted = {file: sha256 for file, sha256 in stated.items() if sha256 is not None}
    problems = [f"{file.name} missing" for file in wanted if not file.is_file()]
    if hashed is not None:
        problems += [f"{file.name} changed" for file, sha256 in wanted.items() if file.is_file() and hashed(file) != sha256]
    return ", ".join(problems) or (THERE if hashed is None else AS_RECORDED)


def _files_of(paths: StudyPaths, entry: RunEntry, hashed: Hashed | None) -> str:
    run = TrialPaths(paths.retrained / entry.name)
    if not run.folder.is_dir():
        return GONE

    def hash_of(file: Path) -> str | None:
        """Of a card its content's."""
        assert hashed is not None
        try:
            return read_sealed_card(run)[1] if file == run.card else hashed(file)
        except NasError:
            return None

    stated = {run.card: entry.card_sha256, run.weights: entry.weights_sha256, run.evaluation: entry.evaluation_sha256}
    return _compare(stated, None if hashed is None else hash_of)


def _file_of(paths: StudyPaths, entry: SubmissionEntry, hashed: Hashed | None) -> str:
    file = paths.folder / entry.output  # an absolute one stays as it is
    if not file.is_file():
        return GONE
    if hashed is None:
        return THERE
    return AS_RECORDED if hashed(file) == entry.csv_sha256 else "changed"


RESULTS = ("recipe", "seed", "epochs", "parameters", "images", "time", "held out", "test accuracy")


def runs_table(runs: Sequence[Listed[RunEntry]], chosen: str | None) -> Table:
    def row(run: Listed[RunEntry]) -> tuple[str, ...]:
        entry = run.entry
        score = {"balanced_accuracy": entry.test_balanced_accuracy, "macro_f1": entry.test_macro_f1}.get(entry.metric)
        return (
            *(entry.name, entry.recipe, str(entry.seed), str(entry.epochs), f"{entry.params:,}"),
            f"{entry.train_images:,}" + (" with test labels" if entry.includes_test_labels else ""),
            time_text(entry.seconds),
            _score_text(entry.metric, entry.held_out_accuracy, entry.held_out_score),
            _score_text(entry.metric, entry.test_accuracy, score, entry.tta, entry.test_accuracy_tta),
            *(entry.commit or "–", run.files_text, "← chosen" if run.name == chosen else ""),
        )

    return Table(("run", *RESULTS, "commit", "files", ""), [row(run) for run in runs])


def submissions_table(submissions: Sequence[Listed[SubmissionEntry]]) -> Table:
    def row(one: Listed[SubmissionEntry]) -> tuple[str, ...]:
        entry = one.entry
        averaged = f"{entry.tta}, adapted norm" if entry.adapted else entry.tta
        what = entry.output, entry.run, entry.test, f"{entry.images:,}", averaged
        return *what, entry.created[:16].replace("T", " "), entry.commit or "–", one.files_text

    columns = ("submission", "run", "test set", "rows", "averaged over", "made", "commit", "file")
    return Table(columns, [row(one) for one in submissions])


def baselines_table(baselines: Sequence[Listed[BaselineCard]]) -> Table:
    def row(one: Listed[BaselineCard]) -> tuple[str, ...]:
        card = one.entry
        held_out, over = card.held_out, card.network.over_text
        return (
            *(one.name, card.like, card.recipe, str(card.seed), str(card.train.epochs), f"{card.network.params:,}"),
            *(f"{card.train_images:,}", time_text(card.seconds)),
            "–" if held_out is None else _score_text(card.metric, held_out.accuracy, held_out.clean),
            _score_text(card.metric, card.test_accuracy, card.test_score, card.tta, card.test_accuracy_tta),
            *("fits" if over is None else f"over by {over}", one.files),
        )

    return Table(("baseline", "like", *RESULTS, "budget", "files"), [row(one) for one in baselines])


def _score_text(
    metric: MetricName, accuracy: float | None, score: float | None, tta: str = "none", with_tta: float | None = None
) -> str:
    """The accuracy, what it is with averaging over `tta`, and the score by another metric."""
    averaged = "" if with_tta is None or tta == "none" else f", {tta} {with_tta:.2%}"
    scored = "" if score is None or metric == "accuracy" else f", {METRIC_WORDS[metric]} {score:.2%}"
    return "–" if accuracy is None else f"{accuracy:.2%}{averaged}{scored}"
