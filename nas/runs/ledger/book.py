"""Reading and writing a study's ledger, a transaction each.

A database of SQLite lies in its study's folder, so that all its rows are that study's, whatever the folder was called when they
were written. A PostgreSQL database holds several studies; rows are told apart by the study's name.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Table

from nas.paths import StudyPaths
from nas.runs.ledger.entries import RunEntry, SubmissionEntry
from nas.runs.ledger.tables import RUNS, SUBMISSIONS, bring_up_to_date, newest_version, require_known
from nas.study.address import study_address
from nas.study.retry import LedgerUnavailable
from nas.study.storage import database_name, ledger_connection

PAUSES = (0.5, 2.0)  # seconds between attempts


@dataclass(frozen=True)
class Ledger:
    runs: list[RunEntry] = field(default_factory=list)  # oldest first, …
    submissions: list[SubmissionEntry] = field(default_factory=list)  # … and so are these

    def run(self, name: str) -> RunEntry | None:
        return next((run for run in self.runs if run.name == name), None)


def read_ledger(paths: StudyPaths) -> Ledger:
    """Empty where nothing was recorded yet; one of an older version is brought up to date. Raises StudyError."""
    database = database_name(paths, study_address(paths, None))
    with ledger_connection(paths, writing=False) as connection:
        version = 0 if connection is None else require_known(connection, database)
        if connection is None or version == 0:
            return Ledger()
        if version == newest_version():
            return _read(connection, paths)
    with ledger_connection(paths, writing=True) as connection:
        assert connection is not None
        bring_up_to_date(connection, database)
        return _read(connection, paths)


def record(paths: StudyPaths, entry: RunEntry | SubmissionEntry) -> None:
    """In place of what has the same name; tries again for a moment where the database is away. Raises StudyError."""
    for pause in (*PAUSES, None):
        try:
            with _written(paths) as connection:
                _put(connection, paths, [entry])
            return
        except LedgerUnavailable:  # may be written nonetheless, and then is again
            if pause is None:
                raise
            time.sleep(pause)


def rewrite(paths: StudyPaths, collect: Callable[[], Ledger]) -> Ledger:
    """Puts what `collect` finds in place of everything that was recorded. Raises StudyError.

    It is called where nobody else can record anything, so that nothing recorded meanwhile is lost; it had better be quick there.
    """
    with _written(paths) as connection:
        found = collect()
        for table in (RUNS, SUBMISSIONS):
            connection.execute(sqlalchemy.delete(table).where(_of(connection, paths, table)))
        _put(connection, paths, [*found.runs, *found.submissions])
    return found


@contextmanager
def _written(paths: StudyPaths) -> Iterator[Connection]:
    with ledger_connection(paths, writing=True) as connection:
        assert connection is not None
        bring_up_to_date(connection, database_name(paths, study_address(paths, None)))
        yield connection


def _of(connection: Connection, paths: StudyPaths, table: Table) -> ColumnElement[bool]:
    """Whose rows are this study's."""
    return sqlalchemy.true() if connection.dialect.name == "sqlite" else table.c.study == paths.name


def _put(connection: Connection, paths: StudyPaths, entries: Iterable[RunEntry | SubmissionEntry]) -> None:
    for entry in entries:
        if isinstance(entry, RunEntry):
            table, same = RUNS, RUNS.c.name == entry.name
        else:
            table, same = SUBMISSIONS, SUBMISSIONS.c.id == entry.id
        connection.execute(sqlalchemy.delete(table).where(_of(connection, paths, table), same))
        connection.execute(sqlalchemy.insert(table).values(study=paths.name, **entry.model_dump()))


def _read(connection: Connection, paths: StudyPaths) -> Ledger:
    def rows(table: Table) -> list[dict[str, Any]]:
        columns = [column for column in table.c if column.name != "study"]
        chosen = sqlalchemy.select(*columns).where(_of(connection, paths, table))
        return [dict(row) for row in connection.execute(chosen).mappings()]

    runs = [RunEntry.model_validate(row) for row in rows(RUNS)]
    submissions = [SubmissionEntry.model_validate(row) for row in rows(SUBMISSIONS)]
    return Ledger(sorted(runs, key=age), sorted(submissions, key=age))


def age(entry: RunEntry | SubmissionEntry) -> datetime:
    return datetime.fromisoformat(entry.created)
