"""Waiting for a database that is unavailable, or for room on a disk: which errors mean that, and what is said meanwhile."""

import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy

from nas.errors import StudyError
from nas.files import is_disk_full
from nas.study.address import redacted

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds between two attempts
LOOK_UP = 0.2  # seconds after which a request to stop is noticed
SAY_AGAIN = 60.0  # seconds between two notes of the same trouble

UNREACHABLE, FULL, LOCKED = "is not reachable", "has no free disk space", "is locked by another process"
# How the codes begin by which SQLite and PostgreSQL name such a trouble; the first that matches counts. A quota that is used
# up, and a full disk where the write-ahead log's index should grow, are I/O errors to SQLite. PostgreSQL's are connection
# exceptions, insufficient resources and an operator's intervention, but not the dropping of the database:
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_CODES = {
    FULL: ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_TRUNCATE", "SQLITE_IOERR_SHM", "53100"),
    LOCKED: ("SQLITE_BUSY", "SQLITE_LOCKED"),
    UNREACHABLE: ("08", "53", "57P01", "57P02", "57P03", "57P05"),
}


class DatabaseUnavailable(Exception):
    """The database cannot do its work now, and will when it is back. No kind of SQLAlchemyError, which Optuna would retry or
    rename in its own ways."""

    def __init__(self, trouble: str, reason: str) -> None:
        super().__init__(f"{trouble} ({reason})")


class LedgerUnavailable(StudyError):
    """The same to somebody who does not wait for long."""


def redacted_line(error: object) -> str:
    """All that an error says, in a line and without passwords."""
    return redacted(" ".join(str(error).split()))


def find_unavailable(error: sqlalchemy.exc.DBAPIError) -> DatabaseUnavailable | None:
    """None for an error that waiting does not mend."""
    code = getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None)
    for trouble, prefixes in _CODES.items():
        if code is not None and code.startswith(prefixes):
            return DatabaseUnavailable(trouble, redacted_line(error.orig))
    # libpq gives no code to what keeps it from connecting.
    nameless = code is None and isinstance(error, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError))
    lost = error.connection_invalidated or (nameless and not isinstance(error.orig, sqlite3.Error))
    return DatabaseUnavailable(UNREACHABLE, redacted_line(error.orig)) if lost else None


def raise_unavailable(context: sqlalchemy.engine.ExceptionContext) -> None:
    """For an engine's event `handle_error`."""
    error = context.sqlalchemy_exception
    if isinstance(error, sqlalchemy.exc.DBAPIError) and (unavailable := find_unavailable(error)):
        raise unavailable


class Retry:
    """Carries out what a database may not be able to do at once."""

    def __init__(
        self,
        study: str,
        note: Callable[[str], None],
        stop_requested: Callable[[], bool],
        what: str = "the study's database",
        doing: str = "search",
        again: str | None = None,
    ) -> None:
        """`what` is unavailable, `doing` waits for it, and `again` is the command that goes on."""
        self._note, self._stop_requested, self._what, self._doing = note, stop_requested, what, doing
        self._again = again or f"nas search --study {study}"

    def __call__(self, attempt: Callable[[bool], T]) -> T:
        """`attempt` is told whether it is not the first one, which may have succeeded without our hearing of it.

        Raises StudyError if a stop is requested while the database is unavailable.
        """
        again, pause, next_note = False, FIRST_PAUSE, time.monotonic()
        while True:
            try:
                result = attempt(again)
            except DatabaseUnavailable as unavailable:
                again = True
                if time.monotonic() >= next_note:
                    meanwhile = "; the workers continue" if self._doing == "search" else ""
                    self._note(f"{self._what} {unavailable}; waiting{meanwhile}")
                    next_note = time.monotonic() + SAY_AGAIN
                self._sleep(pause, unavailable)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if again:
                self._note(f"{self._what} is available again; the {self._doing} continues")
            return result

    def write(self, action: Callable[[], None]) -> None:
        """Carries out a write to a file, which has to be one that may be done twice. Raises OSError for other reasons than a full
        disk."""

        def attempt(again: bool) -> None:
            try:
                action()
            except OSError as error:
                if is_disk_full(error):
                    raise DatabaseUnavailable(FULL, redacted_line(error)) from None
                raise

        self(attempt)

    def _sleep(self, seconds: float, unavailable: DatabaseUnavailable) -> None:
        end = time.monotonic() + seconds
        while True:
            if self._stop_requested():
                raise StudyError(
                    f"{self._what} {unavailable}, and the {self._doing} was stopped while it was waiting. Nothing is "
                    "lost: each training resumes from its checkpoint",
                    hint=f"{self._again}   resumes, once this is repaired",
                ) from None
            if (left := end - time.monotonic()) <= 0:
                return
            time.sleep(min(left, LOOK_UP))
