"""What the ledger is told of a run, whether a run still is what was recorded, and the ledger made again from the files."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from nas.errors import NasError, StudyError
from nas.files import sha256_of
from nas.paths import StudyPaths, TrialPaths
from nas.runs.card import ModelCard, read_sealed_card
from nas.runs.ledger import Ledger, RunEntry, SubmissionEntry, kept_submissions, read_ledger, record, rewrite
from nas.runs.select import finished_runs

Note = Callable[[str], None]


class HashedFiles:
    """Hashes of files, each computed once as long as the file stays as it is."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int], str] = {}

    def __call__(self, file: Path) -> str | None:
        """None where there is none."""
        try:
            stat = file.stat()
            key = file, stat.st_mtime_ns, stat.st_size
            if key not in self._known:
                self._known[key] = sha256_of(file)
        except FileNotFoundError:
            return None
        return self._known[key]


def entry_of(run: TrialPaths, hashed: Callable[[Path], str | None]) -> RunEntry:
    """From the run's files. Raises NasError where one is missing or was changed."""
    card, content = read_sealed_card(run)
    weights, evaluation = hashed(run.weights), hashed(run.evaluation)
    if weights is None:
        raise StudyError(f"{run.weights.name} is missing", hint="restore it from a copy")
    if card.hashes is not None:
        evaluation = evaluation or card.hashes.evaluation  # predicting does not need it
        for file, found, stated in (
            (run.weights, weights, card.hashes.weights),
            (run.evaluation, evaluation, card.hashes.evaluation),
        ):
            if found != stated:
                raise StudyError(f"{file.name} was changed after the training", hint="restore it from a copy")
    return _entry(run, card, content, weights, evaluation)


def _entry(run: TrialPaths, card: ModelCard, content: str, weights: str, evaluation: str | None) -> RunEntry:
    told = dict(card) | ({} if card.held_out is None else {f"held_out_{key}": value for key, value in card.held_out})
    same = {name: told[name] for name in RunEntry.model_fields.keys() & told.keys()}
    return RunEntry(
        **same | {"candidate": card.candidate.digest},
        name=run.folder.name,
        architecture=card.candidate.arch.one_line(),
        epochs=card.candidate.train.epochs,
        commit=card.environment.git,
        created=card.environment.created,
        weights_sha256=weights,
        card_sha256=content,
        evaluation_sha256=evaluation,
    )


def record_run(paths: StudyPaths, run: TrialPaths, note: Note) -> None:
    """What cannot be recorded is a note: the run is complete without it."""
    try:
        entry = entry_of(run, HashedFiles())
    except (NasError, OSError) as error:
        note(f"{run.folder.name} is not recorded in the ledger: {error}")
        return
    try_to_record(paths, entry, note)


def try_to_record(paths: StudyPaths, entry: RunEntry | SubmissionEntry, note: Note) -> None:
    """What was trained or written is not lost for want of a database: its files say the same."""
    try:
        record(paths, entry)
    except NasError as error:
        note(
            f"{error.message}. The files are complete without it; once that is mended,  nas runs --rebuild --study {paths.name}"
            "   makes the ledger from them"
        )


def require_as_recorded(paths: StudyPaths | None, run: TrialPaths, card: ModelCard, note: Note) -> None:
    """Raises StudyError where the ledger knows another network, or another card, under the run's name.

    A ledger that cannot be read says nothing of a run; its own hashes have been looked at before.
    """
    entry = None
    if paths is not None:
        try:
            entry = read_ledger(paths).run(run.folder.name)
        except NasError:
            entry = None
    if entry is None:
        if card.hashes is None:
            note(
                f"{run.folder.name} is from before hashes were kept, so that nobody can tell whether its files have changed"
                + ("" if paths is None else f"; nas runs --rebuild --study {paths.name}   records them as they are now")
            )
        return
    assert paths is not None
    _, content = read_sealed_card(run)
    weights = sha256_of(run.weights) if card.hashes is None else card.hashes.weights
    changed = [
        name
        for name, found, recorded in (
            ("model.safetensors", weights, entry.weights_sha256),
            ("model.json", content, entry.card_sha256),
        )
        if found != recorded
    ]
    if changed:
        raise StudyError(
            f"{' and '.join(changed)} of {run.folder.name} {'is' if len(changed) == 1 else 'are'} not what the ledger of study "
            f"{paths.name!r} recorded on {entry.created[:10]}",
            hint=f"restore the folder from a copy; or, to record it as it is:  nas runs --rebuild --study {paths.name}",
        )


@dataclass(frozen=True)
class Rebuilt:
    ledger: Ledger
    broken: list[str]  # A sentence for each run or submission that was left out


def rebuild(paths: StudyPaths) -> Rebuilt:
    """Makes the ledger again from the files of the study's runs. Raises StudyError where it cannot be written."""
    hashed = HashedFiles()
    collect_files(paths, hashed)  # before anybody waits
    broken: list[str] = []

    def collect() -> Ledger:
        ledger, sentences = collect_files(paths, hashed)
        broken[:] = sentences
        return ledger

    return Rebuilt(rewrite(paths, collect), broken)


def collect_files(paths: StudyPaths, hashed: Callable[[Path], str | None], but: Collection[str] = ()) -> tuple[Ledger, list[str]]:
    """What the files say of all runs but those, and of all submissions; and a sentence for each that cannot be relied on."""
    runs, submissions, broken = [], [], []
    for run in finished_runs(paths):
        try:
            if run.folder.name not in but:
                runs.append(entry_of(run, hashed))
        except (NasError, OSError) as error:
            broken.append(f"{run.folder.name}: {error}")
        lines, sentences = kept_submissions(run)
        submissions += lines
        broken += sentences
    return Ledger(runs, submissions), broken
