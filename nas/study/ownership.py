"""One coordinator for each study, by a lock that is released when its process dies: `flock` in the study's folder for SQLite, an
advisory lock in PostgreSQL.

PostgreSQL releases the lock when the connection that took it ends. So the lock is taken by the connection that writes, and there
is no connection without it. Between a lost connection and the next one another coordinator may have owned the study. The token
that each coordinator leaves in a table shows this; the first one then stops before it writes anything.
"""

import hashlib
import json
import os
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from typing import Any

import filelock
import optuna
import sqlalchemy
from optuna.study import StudyDirection

from nas.errors import StudyError
from nas.paths import StudyPaths, study_paths
from nas.study.address import DRIVER, record_address, study_address
from nas.study.identity import FINALISTS, database_name, name_of_study
from nas.study.owned import Connect, OwnedStorage
from nas.study.retry import UNREACHABLE, DatabaseUnavailable, Retry
from nas.study.storage import make_tables, move_rows, openable, own_sqlite, postgres

FOUNDING_SECONDS = 10.0  # wait for another process that is creating the same study in a database
PROBED_SECONDS = 0.5  # wait for a command that checks whether the lock is free, and holds it for a moment
DYING_SECONDS = 3.0  # wait for the lock of a process that was just killed


@contextmanager
def own_study(
    paths: StudyPaths,
    url: str | None,
    *,
    note: Callable[[str], None],
    stop_requested: Callable[[], bool],
) -> Iterator[optuna.storages.BaseStorage]:
    """Takes the study's lock and yields the storage through which its sole coordinator writes.

    Args:
        url: of a PostgreSQL database; None takes the one that the study began with, or SQLite in its folder.
        note: receives messages when the database becomes unavailable, and when it is available again.
        stop_requested: ends the wait for an unavailable database.

    Raises:
        StudyError: if the lock is held, the database cannot be opened, or it does not belong to the study's folder.
    """
    retry = Retry(paths.name, note, stop_requested)
    in_database = url is not None or paths.storage_url.exists()
    with ExitStack() as held:
        lock = _lock_folder(paths, FOUNDING_SECONDS if in_database else PROBED_SECONDS)
        held.callback(lock.release)
        address = study_address(paths, url)  # under the lock nobody else can create the study elsewhere
        if address is None:
            storage = own_sqlite(paths, retry, note)
        else:
            lease = Lease(paths.name, postgres(address))
            make_tables(paths, address)
            with openable(paths, address):
                storage = OwnedStorage(f"{DRIVER}://", lease.connect, retry)  # type: ignore[abstract]
        held.callback(storage.close)
        with openable(paths, address):
            _found(storage, paths, address)
        if address is not None:
            try:
                record_address(paths, address)
            except OSError as error:
                raise _unwritable(paths, error) from None
            lock.release()  # from here on the database's own lock counts
        yield storage


def is_led(paths: StudyPaths) -> bool | None:
    """Whether a coordinator owns the study at this moment; None if that is unknown."""
    address = study_address(paths, None)
    if address is not None:
        with openable(paths, address), closing(postgres(address)()) as connection:
            connection.read_only = True
            return bool(connection.execute(_HELD, (lock_key(paths.name),)).fetchone()[0])
    lock = filelock.FileLock(paths.lock)
    try:
        if paths.lock.exists():
            lock.acquire(timeout=0.0)
            lock.release()
        return False
    except filelock.Timeout:
        return True
    except OSError:
        return None


def _found(storage: OwnedStorage, paths: StudyPaths, address: sqlalchemy.URL | None) -> None:
    """Creates the study in a database that has none, and makes sure that it is the study of this folder."""
    began = paths.settings.is_file()
    name = name_of_study(storage, paths, address)
    if name is None:
        storage.create_new_study([StudyDirection.MAXIMIZE], paths.name)
        return
    study_id = storage.get_study_id_from_name(name)
    if not began and (trials := storage.get_n_trials(study_id)):
        raise StudyError(
            f"{database_name(paths, address)} holds a study {name!r} with {trials} trials, but the folder {paths.folder} "
            f"has no {paths.settings.name}, which describes them",
            hint="continue in the folder where it was started (NAS_STUDIES=FOLDER), copy that folder here, or use another name "
            "with --study NAME",
        )


@contextmanager
def _at_rest(paths: StudyPaths, note: Callable[[str], None]) -> Iterator[optuna.storages.BaseStorage | None]:
    """Nobody searches or trains anything of the study meanwhile. Yields its storage in PostgreSQL; None for SQLite, which moves
    with its folder. Raises StudyError."""
    with ExitStack() as held:
        storage = None
        if paths.storage_url.exists():
            storage = held.enter_context(own_study(paths, None, note=note, stop_requested=lambda: False))
        else:
            held.callback(_lock_folder(paths, PROBED_SECONDS).release)
        for file in sorted(paths.folder.rglob("*.lock")):
            try:
                if file != paths.lock:
                    held.enter_context(filelock.FileLock(file, timeout=0))
            except filelock.Timeout:
                raise StudyError(
                    f"{file.parent} of study {paths.name!r} is being trained by another process",
                    hint="wait for it, or stop it with Ctrl-C",
                ) from None
        yield storage


def remove_study(paths: StudyPaths, note: Callable[[str], None]) -> None:
    """Removes its rows in PostgreSQL, then its folder. Raises StudyError."""
    with _at_rest(paths, note) as storage:
        if storage is not None and (address := study_address(paths, None)) is not None:
            move_rows(storage, paths, address, None)
        shutil.rmtree(paths.folder)


def rename_study(paths: StudyPaths, name: str, note: Callable[[str], None]) -> StudyPaths:
    """Renames its rows in PostgreSQL, then its folder. Raises StudyError."""
    new = study_paths(name)
    if new.folder.exists():
        raise StudyError(f"{new.folder} already exists", hint="use another name")
    with _at_rest(paths, note) as storage:
        if storage is not None and (address := study_address(paths, None)) is not None:
            if {name, name + FINALISTS} & {study.study_name for study in storage.get_all_studies()}:
                raise StudyError(f"{database_name(paths, address)} already has a study {name!r}", hint="use another name")
            move_rows(storage, paths, address, name)
        os.rename(paths.folder, new.folder)
    return new


def _lock_folder(paths: StudyPaths, seconds: float) -> filelock.BaseFileLock:
    """The operating system releases it when this process dies."""
    holder_file = paths.lock.with_suffix(".holder.json")
    lock = filelock.FileLock(paths.lock)
    try:
        paths.folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=seconds)
        holder_file.write_text(json.dumps(_holder()))
    except filelock.Timeout:
        try:
            who = _sentence(json.loads(holder_file.read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"
        raise _held(paths.name, who) from None
    except OSError as error:
        lock.release()
        raise _unwritable(paths, error) from None
    return lock


def _unwritable(paths: StudyPaths, error: OSError) -> StudyError:
    return StudyError(
        f"the study's folder {paths.folder.absolute()} cannot be written: {error.strerror}",
        hint="work in another folder, or set a folder for studies with NAS_STUDIES=FOLDER",
    )


def _holder() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": platform.node(), "since": datetime.now().astimezone().isoformat(timespec="seconds")}


def _sentence(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']} since {holder['since']}"


def _held(study: str, who: str, more: str = "") -> StudyError:
    return StudyError(
        f"the study {study!r} is being searched by {who}",
        hint=f"wait for it, stop it with Ctrl-C, or use another name with --study NAME{more}",
    )


# A machine that is gone is noticed after a minute; an administrator's limit for idle sessions does not apply to this one.
SESSION = {
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "4",
    "tcp_user_timeout": "60000",
    "idle_session_timeout": "0",
}


# A key of 64 bits stands there in two halves.
_HELD = """
    SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND datname = current_database()
    AND (classid::bigint << 32) | objid::bigint = %s
"""


def lock_key(study: str) -> int:
    """A signed 64-bit number, as PostgreSQL takes it."""
    return int.from_bytes(hashlib.sha256(f"nas study {study}".encode()).digest()[:8], "big", signed=True)


class Lease:
    """A study's lock, taken by each new connection; there may be one connection at a time."""

    def __init__(self, study: str, connect: Connect) -> None:
        self._study, self._connect = study, connect
        self._token = uuid.uuid4().hex
        self._held_before = False

    def connect(self) -> Any:
        """A connection that holds the lock.

        Raises StudyError if another coordinator holds the lock, or held it after this one, and DatabaseUnavailable if this one's
        lost connection still holds it.
        """
        connection = self._connect()
        try:
            connection.autocommit = True
            self._require_session(connection)
            for name, value in SESSION.items():  # older servers lack some
                connection.execute("SELECT set_config(name, %s, false) FROM pg_settings WHERE name = %s", (value, name))
            if self._held_before:
                self._take_again(connection)
            else:
                self._take(connection)
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        return connection

    def _require_session(self, connection: Any) -> None:
        """Raises StudyError behind a connection pooler such as pgbouncer, which may give the server's process that holds the lock
        to another client. A pooler shows by the number of that process: it gives its clients numbers of its own."""
        if connection.execute("SELECT pg_backend_pid()").fetchone()[0] != connection.info.backend_pid:
            raise StudyError(
                f"the database of the study {self._study!r} is behind a connection pooler, which cannot hold "
                "a lock for one coordinator",
                hint="use the host and port of the PostgreSQL server itself in --storage",
            )

    def _take(self, connection: Any) -> None:
        deadline = time.monotonic() + DYING_SECONDS
        while not self._try(connection):
            if time.monotonic() > deadline:
                holder = self._read(connection)
                who = "another process" if holder is None else _sentence(holder)
                raise _held(
                    self._study, who, "; if that machine crashed or lost its connection, the lock ends after about a minute"
                )
            time.sleep(0.1)
        connection.execute(
            "INSERT INTO nas_coordinators (study, token, pid, host, since) VALUES (%(study)s, %(token)s, %(pid)s, %(host)s, "
            "%(since)s) ON CONFLICT (study) DO UPDATE SET token = EXCLUDED.token, pid = EXCLUDED.pid, host = EXCLUDED.host, "
            "since = EXCLUDED.since",
            {"study": self._study, "token": self._token} | {name: str(value) for name, value in _holder().items()},
        )
        self._held_before = True

    def _take_again(self, connection: Any) -> None:
        locked = self._try(connection)
        holder = self._read(connection)
        if holder is None or holder["token"] != self._token:
            who = "an unknown process" if holder is None else _sentence(holder)
            raise StudyError(
                f"another coordinator took over the study {self._study!r} while the database was unavailable: {who}. "
                "This coordinator wrote nothing after that",
                hint=f"let it continue; or stop it with Ctrl-C, and run:  nas search --study {self._study}",
            )
        if not locked:
            raise DatabaseUnavailable(UNREACHABLE, "its server still holds the study's lock for the lost connection")

    def _try(self, connection: Any) -> bool:
        return connection.execute("SELECT pg_try_advisory_lock(%s)", (lock_key(self._study),)).fetchone()[0]

    def _read(self, connection: Any) -> dict[str, Any] | None:
        found = connection.execute("SELECT to_json(c) FROM nas_coordinators c WHERE study = %s", (self._study,)).fetchone()
        return None if found is None else found[0]
