"""Waits for an unavailable database, or for room on a disk: which errors mean that, and what is shown meanwhile."""

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
LOOK_UP = 0.2  # seconds until a stop request is noticed
SAY_AGAIN = 60.0  # seconds between two notes about the same problem

UNREACHABLE, FULL, LOCKED = "is not reachable", "has no free disk space", "is locked by another process"
# Prefixes of the codes of such errors in SQLite and PostgreSQL; the first match counts. A used-up quota, and a full disk when the
# write-ahead log's index grows, are I/O errors in SQLite. In PostgreSQL they are connection exceptions, insufficient resources
# and operator interventions, except for the deletion of the database:
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_CODES = {
    FULL: ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_TRUNCATE", "SQLITE_IOERR_SHM", "53100"),
    LOCKED: ("SQLITE_BUSY", "SQLITE_LOCKED"),
    UNREACHABLE: ("08", "53", "57P01", "57P02", "57P03", "57P05"),
}


class DatabaseUnavailable(Exception):
    """The database cannot work now, but will later. It is no SQLAlchemyError, because Optuna would retry or rename that."""

    def __init__(self, trouble: str, reason: str) -> None:
        super().__init__(f"{trouble} ({reason})")


class LedgerUnavailable(StudyError):
    """The same for a caller that does not wait for long."""


def redacted_line(error: object) -> str:
    """The whole text of an error in one line, without passwords."""
    return redacted(" ".join(str(error).split()))


def find_unavailable(error: sqlalchemy.exc.DBAPIError) -> DatabaseUnavailable | None:
    """None for an error that waiting does not solve."""
    code = getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None)
    for trouble, prefixes in _CODES.items():
        if code is not None and code.startswith(prefixes):
            return DatabaseUnavailable(trouble, redacted_line(error.orig))
    # libpq has no code for a failed connection.
    nameless = code is None and isinstance(error, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError))
    lost = error.connection_invalidated or (nameless and not isinstance(error.orig, sqlite3.Error))
    return DatabaseUnavailable(UNREACHABLE, redacted_line(error.orig)) if lost else None


def raise_unavailable(context: sqlalchemy.engine.ExceptionContext) -> None:
    """Handles an engine's event `handle_error`."""
    error = context.sqlalchemy_exception
    if isinstance(error, sqlalchemy.exc.DBAPIError) and (unavailable := find_unavailable(error)):
        raise unavailable


class Retry:
    """Repeats an action until the database or the disk can do it."""

    def __init__(
        self,
        study: str,
        note: Callable[[str], None],
        stop_requested: Callable[[], bool],
        what: str = "the study's database",
        doing: str = "search",
        again: str | None = None,
    ) -> None:
        """`what` is unavailable, `doing` waits for it, and `again` is the command that resumes."""
        self._note, self._stop_requested, self._what, self._doing = note, stop_requested, what, doing
        self._again = again or f"nas search --study {study}"

    def __call__(self, attempt: Callable[[bool], T]) -> T:
        """`attempt` is told whether it is a repetition: the attempt before may have succeeded unnoticed.

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
        """Performs a write to a file that may be done twice. Raises OSError for reasons other than a full disk."""

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
