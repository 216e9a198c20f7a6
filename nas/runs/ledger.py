"""The ledger: retrained networks and submissions, as tables in the study's database. The files of the runs are the truth.

studies/<study>/retrained/<run>/
    submissions.jsonl    one `SubmissionEntry` for each line, oldest first

A SQLite database lies in its study's folder, so all its rows belong to that study, even if the folder was renamed. A PostgreSQL
database holds several studies, and each row has the name of its study. Optuna's tables, and its table with their version, are not
changed.
"""

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import sqlalchemy
from sqlalchemy import BigInteger, Boolean, Column, ColumnElement, Connection, Double, Integer, Table, Text

from nas.config import Frozen, MetricName
from nas.errors import NasError, StudyError
from nas.files import sha256_of
from nas.paths import StudyPaths, TrialPaths
from nas.runs.card import IF_INTENDED, ModelCard, read_sealed_card
from nas.runs.select import finished_runs
from nas.study.address import study_address
from nas.study.identity import database_name
from nas.study.retry import LedgerUnavailable
from nas.study.storage import ledger_connection

Note = Callable[[str], None]
PAUSES = (0.5, 2.0)  # seconds between attempts to record


class RunEntry(Frozen):
    """A retrained run. Accuracies are in [0, 1], hashes SHA-256 in hexadecimal."""

    name: str
    subject: str  # `trial 7`, or `preset:resnet-2322`
    candidate: str  # its digest
    architecture: str
    recipe: str
    seed: int
    epochs: int
    params: int
    macs: int
    train_images: int
    includes_test_labels: bool
    search_accuracy: float | None  # by `metric`
    metric: MetricName = "accuracy"  # the study's
    held_out_images: int | None = None
    held_out_accuracy: float | None = None
    held_out_shifted_accuracy: float | None = None  # under a simulated shift, as the one below
    held_out_score: float | None = None  # by `metric`, if that is not accuracy
    held_out_shifted_score: float | None = None
    test_images: int | None
    test_accuracy: float | None
    test_accuracy_tta: float | None
    test_balanced_accuracy: float | None = None
    test_macro_f1: float | None = None
    test_shifted_accuracy: float | None = None
    tta: str
    seconds: float
    device: str
    precision: str
    data_fingerprint: str
    commit: str | None
    created: str  # local time with its zone, ISO 8601
    weights_sha256: str
    card_sha256: str  # of the content of model.json, see `nas.runs.card.content_hash`
    evaluation_sha256: str | None


class SubmissionEntry(Frozen):
    """A CSV file that a run predicted."""

    id: str  # 32 random hexadecimal digits
    run: str
    output: str  # relative to the study's folder if it is inside
    test: str  # what was predicted, in words
    test_sha256: str  # of the images' bytes
    images: int
    tta: str
    adapted: bool  # BatchNorm's statistics were taken from the test set
    commit: str | None
    created: str
    weights_sha256: str  # of the weights that predicted it
    csv_sha256: str


Entry = RunEntry | SubmissionEntry


def age(entry: Entry) -> datetime:
    return datetime.fromisoformat(entry.created)


@dataclass(frozen=True)
class Ledger:
    runs: list[RunEntry] = field(default_factory=list)  # oldest first
    submissions: list[SubmissionEntry] = field(default_factory=list)  # oldest first

    def run(self, name: str) -> RunEntry | None:
        return next((run for run in self.runs if run.name == name), None)


# ------------------------------------------------------------------------------------------------------------ the tables

METADATA = sqlalchemy.MetaData()
NEWEST_VERSION = 2
"""Of the tables. Raise it when you add a field, with a default, to an entry: older databases then get its column."""
VERSION = Table("nas_ledger", METADATA, Column("version", Integer, nullable=False))  # one row


def _table(name: str, entry: type[Entry]) -> Table:
    """One column for each field; the first field is the key."""
    columns = [Column("study", Text, primary_key=True)]
    for field_name, info in entry.model_fields.items():
        kinds = get_args(info.annotation) if NoneType in get_args(info.annotation) else (info.annotation,)
        kind = {int: BigInteger, float: Double, bool: Boolean}.get(kinds[0], Text)
        columns.append(Column(field_name, kind, primary_key=len(columns) == 1, nullable=NoneType in kinds))
    return Table(name, METADATA, *columns)


TABLES: dict[type[Entry], Table] = {
    RunEntry: _table("nas_runs", RunEntry),
    SubmissionEntry: _table("nas_submissions", SubmissionEntry),
}


def _require_known(connection: Connection, database: str) -> int:
    """The version, 0 if there is no ledger yet. Raises StudyError if the ledger needs a newer nas."""
    version = 0
    if sqlalchemy.inspect(connection).has_table(VERSION.name):
        version = connection.execute(sqlalchemy.select(VERSION.c.version)).scalar_one_or_none() or 0
    if version > NEWEST_VERSION:
        raise StudyError(
            f"the ledger in {database} has version {version}, but this version of nas supports versions up to {NEWEST_VERSION}; "
            "nothing was written to it",
            hint="use a newer version of nas; the files of the runs are complete without the ledger",
        )
    return version


def _bring_up_to_date(connection: Connection, database: str) -> None:
    """Creates the tables, or adds missing columns, in one transaction. Raises StudyError."""
    if _require_known(connection, database) == NEWEST_VERSION:
        return
    METADATA.create_all(connection)
    for entry, table in TABLES.items():
        _add_missing_columns(connection, entry, table)
    connection.execute(sqlalchemy.delete(VERSION))
    connection.execute(sqlalchemy.insert(VERSION).values(version=NEWEST_VERSION))


def _add_missing_columns(connection: Connection, entry: type[Entry], table: Table) -> None:
    there = {column["name"] for column in sqlalchemy.inspect(connection).get_columns(table.name)}
    for column in table.c:
        if column.name not in there:
            kind = column.type.compile(connection.dialect)
            default = "" if column.nullable else f" NOT NULL DEFAULT '{entry.model_fields[column.name].default}'"
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}{default}")


# --------------------------------------------------------------------------------------- read and written, a transaction each


def read_ledger(paths: StudyPaths) -> Ledger:
    """Empty if nothing was recorded yet. Brings an older ledger up to date. Raises StudyError."""
    with ledger_connection(paths, writing=False) as connection:
        version = 0 if connection is None else _require_known(connection, _database(paths))
        if connection is None or version == 0:
            return Ledger()
        if version == NEWEST_VERSION:
            return _read(connection, paths)
    with _written(paths) as connection:
        return _read(connection, paths)


def write_entries(paths: StudyPaths, entries: Iterable[Entry]) -> None:
    """Replaces entries with the same names. Raises StudyError."""
    with _written(paths) as connection:
        _put(connection, paths, entries)


def record(paths: StudyPaths, entry: Entry) -> None:
    """Replaces an entry with the same name; tries again for a moment if the database is unavailable. Raises StudyError."""
    for pause in (*PAUSES, None):
        try:
            write_entries(paths, [entry])
            return
        except LedgerUnavailable:  # may have been written nevertheless; then it is written again
            if pause is None:
                raise
            time.sleep(pause)


def rewrite(paths: StudyPaths, collect: Callable[[], Ledger]) -> Ledger:
    """Replaces everything that was recorded by what `collect` finds. Raises StudyError.

    Nobody else can record anything while `collect` runs, so nothing is lost; `collect` should be quick.
    """
    with _written(paths) as connection:
        found = collect()
        for table in TABLES.values():
            connection.execute(sqlalchemy.delete(table).where(_of(connection, paths, table)))
        _put(connection, paths, [*found.runs, *found.submissions])
    return found


def _database(paths: StudyPaths) -> str:
    return database_name(paths, study_address(paths, None))


@contextmanager
def _written(paths: StudyPaths) -> Iterator[Connection]:
    with ledger_connection(paths, writing=True) as connection:
        assert connection is not None
        _bring_up_to_date(connection, _database(paths))
        yield connection


def _of(connection: Connection, paths: StudyPaths, table: Table) -> ColumnElement[bool]:
    """The condition for the rows of this study."""
    return sqlalchemy.true() if connection.dialect.name == "sqlite" else table.c.study == paths.name


def _put(connection: Connection, paths: StudyPaths, entries: Iterable[Entry]) -> None:
    for entry in entries:
        table, values = TABLES[type(entry)], entry.model_dump()
        key = next(iter(values))
        connection.execute(sqlalchemy.delete(table).where(_of(connection, paths, table), table.c[key] == values[key]))
        connection.execute(sqlalchemy.insert(table).values(study=paths.name, **values))


def _read(connection: Connection, paths: StudyPaths) -> Ledger:
    def rows(entry: type[Any]) -> list[Any]:
        table = TABLES[entry]
        chosen = sqlalchemy.select(*list(table.c)[1:]).where(_of(connection, paths, table))
        return sorted((entry.model_validate(dict(row)) for row in connection.execute(chosen).mappings()), key=age)

    return Ledger(rows(RunEntry), rows(SubmissionEntry))


# -------------------------------------------------------------------------------------------------- what the files say


class HashedFiles:
    """SHA-256 of files, computed once as long as a file does not change."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int], str] = {}

    def __call__(self, file: Path) -> str | None:
        """None if the file does not exist."""
        try:
            stat = file.stat()
            key = file, stat.st_mtime_ns, stat.st_size
            if key not in self._known:
                self._known[key] = sha256_of(file)
        except FileNotFoundError:
            return None
        return self._known[key]


def entry_of(run: TrialPaths, hashed: Callable[[Path], str | None]) -> RunEntry:
    """The entry of a run, from its files. Raises NasError if one is missing or was changed."""
    card, content = read_sealed_card(run)
    weights, evaluation = hashed(run.weights), hashed(run.evaluation)
    if weights is None:
        raise StudyError(f"{run.weights.name} is missing", hint="restore it from a copy")
    if card.hashes is not None:
        evaluation = evaluation or card.hashes.evaluation  # predicting does not need the file
        for file, found, stated in (
            (run.weights, weights, card.hashes.weights),
            (run.evaluation, evaluation, card.hashes.evaluation),
        ):
            if found != stated:
                raise StudyError(f"{file.name} was changed after the training", hint=f"restore it from a copy; {IF_INTENDED}")
    told = dict(card) | ({} if card.held_out is None else {f"held_out_{key}": value for key, value in card.held_out})
    told |= {
        "name": run.folder.name,
        "candidate": card.candidate.digest,
        "architecture": card.candidate.arch.one_line(),
        "epochs": card.candidate.train.epochs,
        "commit": card.environment.git,
        "created": card.environment.created,
        "weights_sha256": weights,
        "card_sha256": content,
        "evaluation_sha256": evaluation,
    }
    return RunEntry(**{name: told[name] for name in RunEntry.model_fields.keys() & told.keys()})


def submissions_file(run: TrialPaths) -> Path:
    return run.folder / "submissions.jsonl"


def append_submission(run: TrialPaths, entry: SubmissionEntry) -> None:
    """Raises OSError."""
    with open(submissions_file(run), "ab", buffering=0) as file:  # each of two writers at once writes its line as a whole
        file.write((entry.model_dump_json() + "\n").encode())
        os.fsync(file.fileno())


def kept_submissions(run: TrialPaths) -> tuple[list[SubmissionEntry], list[str]]:
    """The submissions of a run, and a sentence for each line that cannot be read."""
    file = submissions_file(run)
    found, broken = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines() if file.is_file() else (), 1):
        try:
            found.append(SubmissionEntry.from_json(line, source=f"{file}, line {number}"))
        except NasError as error:
            broken.append(error.message)
    return found, broken


def collect_files(paths: StudyPaths, hashed: Callable[[Path], str | None], but: Collection[str] = ()) -> tuple[Ledger, list[str]]:
    """The ledger according to the files, without the runs in `but`; and a sentence for each file that is damaged or was
    changed."""
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


def rebuild(paths: StudyPaths) -> tuple[Ledger, list[str]]:
    """Creates the ledger again from the files of the runs. Returns it with a sentence for each run or submission that was left
    out. Raises StudyError if it cannot be written."""
    hashed = HashedFiles()
    collect_files(paths, hashed)  # hashes the files before anybody has to wait
    broken: list[str] = []

    def collect() -> Ledger:
        ledger, broken[:] = collect_files(paths, hashed)
        return ledger

    return rewrite(paths, collect), broken


# ----------------------------------------------------------------------------------------------------- who records and compares


def record_run(paths: StudyPaths, run: TrialPaths, note: Note) -> None:
    """Writes a note if the run cannot be recorded: it is complete without the ledger."""
    try:
        entry = entry_of(run, HashedFiles())
    except (NasError, OSError) as error:
        note(f"{run.folder.name} is not recorded in the ledger: {error}")
        return
    try_to_record(paths, entry, note)


def try_to_record(paths: StudyPaths, entry: Entry, note: Note) -> None:
    """Writes a note if the entry cannot be recorded: the files hold the same."""
    try:
        record(paths, entry)
    except NasError as error:
        note(
            f"{error.message}. The files are complete without it; once this is repaired,  nas runs --rebuild --study {paths.name}"
            "   recreates the ledger from them"
        )


def require_as_recorded(paths: StudyPaths | None, run: TrialPaths, card: ModelCard, note: Note) -> None:
    """Raises StudyError if the ledger recorded other weights or another card for this run.

    A ledger that cannot be read is ignored; the run's own hashes were checked before.
    """
    try:
        entry = None if paths is None else read_ledger(paths).run(run.folder.name)
    except NasError:
        entry = None
    if entry is None or paths is None:
        if card.hashes is None:
            note(
                f"{run.folder.name} is from a version of nas that stored no hashes of files, so their changes cannot be detected"
                + ("" if paths is None else f"; nas runs --rebuild --study {paths.name}   records the current files")
            )
        return
    weights = sha256_of(run.weights) if card.hashes is None else card.hashes.weights
    found = {"model.safetensors": (weights, entry.weights_sha256), "model.json": (read_sealed_card(run)[1], entry.card_sha256)}
    changed = [name for name, (now, recorded) in found.items() if now != recorded]
    if changed:
        raise StudyError(
            f"{' and '.join(changed)} of {run.folder.name} {'is' if len(changed) == 1 else 'are'} different from what the ledger "
            f"of study {paths.name!r} recorded on {entry.created[:10]}",
            hint=f"restore the folder from a copy; or record the current files:  nas runs --rebuild --study {paths.name}",
        )
