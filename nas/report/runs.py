"""A study's retrained runs and submissions: what the ledger recorded, what only their files say, and whether those are still the
same."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nas.errors import NasError
from nas.paths import StudyPaths, TrialPaths
from nas.runs.card import read_sealed_card
from nas.runs.ledger import Ledger, RunEntry, SubmissionEntry, read_ledger
from nas.runs.ledger.book import age
from nas.runs.recorded import HashedFiles, collect_files

THERE, AS_RECORDED, GONE, WRITTEN_OVER = "there", "as recorded", "gone", "written over"


@dataclass(frozen=True)
class ListedRun:
    entry: RunEntry
    recorded: bool  # whether the ledger has it; what it lacks is told from the files
    files: str  # `there`, `gone`, or what is missing; where that was looked at also `as recorded`, or what was changed


@dataclass(frozen=True)
class ListedSubmission:
    entry: SubmissionEntry
    recorded: bool
    file: str  # `there`, `gone`, or `written over` by a later one; where that was looked at also `as recorded`, `changed`


@dataclass(frozen=True)
class Listing:
    study: str
    runs: list[ListedRun]  # oldest first, …
    submissions: list[ListedSubmission]  # … and so are these
    unreadable: list[str] = field(default_factory=list)
    """A sentence for the ledger, a run or a line that cannot be read or relied on."""

    @property
    def changed(self) -> list[str]:
        """Names of what is not as it was recorded."""
        fine = (THERE, AS_RECORDED, GONE, WRITTEN_OVER)
        runs = [run.entry.name for run in self.runs if run.files not in fine]
        return runs + [one.entry.output for one in self.submissions if one.file not in fine]


def list_runs(paths: StudyPaths, verify: bool = False) -> Listing:
    """`verify` reads every file again and compares its hash with the recorded one."""
    unreadable = []
    try:
        ledger = read_ledger(paths)
    except NasError as error:
        ledger = Ledger()
        unreadable.append(f"{error.message}; what follows is from the files")
    hashed = HashedFiles()
    found, broken = collect_files(paths, hashed, but={run.name for run in ledger.runs})
    recorded = {one.id for one in ledger.submissions}
    submissions = ledger.submissions + [one for one in found.submissions if one.id not in recorded]
    latest = {one.output: one.id for one in sorted(submissions, key=age)}
    runs = [ListedRun(run, True, _files(paths, run, hashed if verify else None)) for run in ledger.runs]
    runs += [ListedRun(run, False, AS_RECORDED if verify else THERE) for run in found.runs]
    return Listing(
        study=paths.name,
        runs=sorted(runs, key=lambda run: age(run.entry)),
        submissions=[
            ListedSubmission(
                one,
                one.id in recorded,
                WRITTEN_OVER if latest[one.output] != one.id else _file(paths, one, hashed if verify else None),
            )
            for one in sorted(submissions, key=age)
        ],
        unreadable=unreadable + broken,
    )


Hashed = Callable[[Path], str | None]


def _files(paths: StudyPaths, entry: RunEntry, hashed: Hashed | None) -> str:
    run = TrialPaths(paths.retrained / entry.name)
    weights, evaluation, card = run.weights, run.evaluation, run.card
    if not run.folder.is_dir():
        return GONE
    wanted = (card, weights, *([evaluation] if entry.evaluation_sha256 else []))
    problems = [f"{file.name} missing" for file in wanted if not file.is_file()]
    if hashed is not None:
        found = {weights: (hashed(weights), entry.weights_sha256), evaluation: (hashed(evaluation), entry.evaluation_sha256)}
        found[card] = (_content(run), entry.card_sha256)
        problems += [f"{file.name} changed" for file in wanted if file.is_file() and found[file][0] != found[file][1]]
    return ", ".join(problems) or (THERE if hashed is None else AS_RECORDED)


def _content(run: TrialPaths) -> str | None:
    try:
        return read_sealed_card(run)[1]
    except NasError:
        return None


def _file(paths: StudyPaths, entry: SubmissionEntry, hashed: Hashed | None) -> str:
    file = paths.folder / entry.output  # an absolute one stays as it is
    if not file.is_file():
        return GONE
    if hashed is None:
        return THERE
    return AS_RECORDED if hashed(file) == entry.csv_sha256 else "changed"
