"""The only file that opens a study's storage: SQLite in the study's folder, one coordinator at a time."""

import json
import os
import platform
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import filelock
import optuna
import sqlalchemy

from nas.errors import StudyError
from nas.paths import StudyPaths

optuna.logging.set_verbosity(optuna.logging.WARNING)


def _open(paths: StudyPaths) -> optuna.storages.RDBStorage:
    with sqlite3.connect(paths.database) as database:
        database.execute("PRAGMA journal_mode=WAL")
        # Damage in a page that is not read yet would otherwise end the search in its middle.
        if (found := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found.splitlines()[-1])
    database.close()
    storage = optuna.storages.RDBStorage(f"sqlite:///{paths.database}", engine_kwargs={"connect_args": {"timeout": 60}})

    # In WAL mode NORMAL loses nothing when the process dies, and at most the last commits when the machine does; it makes
    # an ask with its tell 2 to 5 times faster.
    def relax(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")

    sqlalchemy.event.listen(storage.engine, "connect", relax)
    storage.engine.dispose()  # connections from before the hook
    return storage


def open_study(
    paths: StudyPaths,
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> optuna.Study:
    """The study, made where there is none. Only whoever holds the lock may pass a sampler and write."""
    try:
        return optuna.create_study(
            storage=_open(paths),
            study_name=paths.name,
            direction="maximize",
            load_if_exists=True,
            sampler=sampler,
            pruner=pruner,
        )
    except (sqlite3.DatabaseError, sqlalchemy.exc.DatabaseError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        reason = str(getattr(cause, "orig", None) or cause)
        raise StudyError(
            f"{paths.database} cannot be opened as a study's database: {reason}",
            hint="restore it from a copy, or start anew under another name with --study NAME",
        ) from None


@contextmanager
def sole_coordinator(paths: StudyPaths) -> Iterator[None]:
    """Holds the study's lock; the operating system releases it when this process dies. Raises StudyError where it is held."""
    try:
        paths.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"the study's folder {paths.folder.absolute()} cannot be made: {error.strerror}",
            hint="work in another folder, or name one for all studies with NAS_STUDIES=FOLDER",
        ) from None
    holder_file = paths.lock.with_suffix(".holder.json")
    lock = filelock.FileLock(paths.lock)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        try:
            holder = json.loads(holder_file.read_text())
            who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError):
            who = "another process"
        raise StudyError(
            f"the study {paths.name!r} is being searched by {who}",
            hint="wait for it, stop it with Ctrl-C, or take another name with --study NAME",
        ) from None
    try:
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        holder_file.write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}))
        yield
    finally:
        lock.release()
