"""Opens a study's storage: SQLite in the study's folder, or a PostgreSQL database.

Everybody may read. Only the coordinator writes, through the `OwnedStorage` that `ownership` yields with the study's lock. The
ledger's tables, which Optuna does not know, are written by every command that records something.
"""

import atexit
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from nas.errors import ConfigError, StudyError, choices_sentence, one_line
from nas.paths import NETWORK_FILE_SYSTEMS, StudyPaths, file_system
from nas.study.address import DRIVER, redacted, shown, study_address
from nas.study.identity import FINALISTS, database_name, missing, name_of_study
from nas.study.optuna_private import storage_of
from nas.study.owned import Connect, OwnedStorage, unsaid
from nas.study.retry import LedgerUnavailable, Retry, find_unavailable, redacted_line

READER_SECONDS, OWNER_SECONDS = 60.0, 1.0
"""SQLite's own wait for a lock, during which a process does not react; the owner tries again after it."""
SCHEMA_LOCK = 0x6E6173 << 32
"""PostgreSQL's advisory lock for the creation of tables; a study's own lock is derived from its name."""
LEDGER_LOCK = SCHEMA_LOCK + 1  # the lock for writing a ledger
# A machine that is gone is noticed after a minute by either side: 20 s of silence, then four probes, or as long without an
# acknowledgement of what was sent.
_CONNECTION = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 4,
    "tcp_user_timeout": 60_000,
    "application_name": "nas",
}

COORDINATORS = sqlalchemy.Table(
    "nas_coordinators",
    sqlalchemy.MetaData(),
    sqlalchemy.Column("study", sqlalchemy.Text, primary_key=True),
    *(sqlalchemy.Column(name, sqlalchemy.Text, nullable=False) for name in ("token", "pid", "host", "since")),
)
"""The current or last owner of each study's lock."""


# ---------------------------------------------------------------------------------------------------------------- studies


def open_study(
    paths: StudyPaths,
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> optuna.Study:
    """For reading. Creates a missing database in the study's folder if that is writable. Raises StudyError."""
    address = study_address(paths, None)
    if address is None:
        writable = os.access(paths.folder, os.W_OK) and (not paths.database.exists() or os.access(paths.database, os.W_OK))
        if not writable and not paths.database.exists():
            return owned_study(optuna.storages.InMemoryStorage(), paths, sampler, pruner)
        with openable(paths, None):
            file = str(paths.database) if writable else _readable(paths)
            _check_file(file)
            creator = _sqlite(file, READER_SECONDS)
            storage = optuna.storages.RDBStorage("sqlite:///study.db", {"creator": creator, "poolclass": sqlalchemy.NullPool})
            return owned_study(storage, paths, sampler, pruner)
    connect = postgres(address)

    def connect_to_read() -> Any:
        connection = connect()
        connection.read_only = True
        return connection

    with openable(paths, address):
        try:
            storage = optuna.storages.RDBStorage(
                f"{DRIVER}://", {"creator": connect_to_read, "poolclass": sqlalchemy.NullPool}, skip_table_creation=True
            )
            name = name_of_study(storage, paths, address)
            if name is None:
                raise missing(paths, address)
            return optuna.load_study(study_name=name, storage=storage, sampler=sampler, pruner=pruner)
        except (KeyError, optuna.exceptions.StorageInternalError) as error:
            if isinstance(error.__cause__, sqlalchemy.exc.ProgrammingError) or isinstance(error, KeyError):
                raise missing(paths, address) from None
            raise


def plain_study(url: str, name: str) -> optuna.Study:
    """A user's own study, in any database that Optuna reads. Writes nothing there. Raises ConfigError."""
    public, example = redacted(url), "for example --warm-start optuna:sqlite:///old.db/my-study"
    try:
        database = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise ConfigError(f"--warm-start optuna:URL/NAME needs the URL of a database, not {public!r}", hint=example) from None
    if database.drivername.startswith("sqlite") and not Path(database.database or "").is_file():
        raise ConfigError(f"the Optuna database {database.database} of --warm-start does not exist", hint=example)
    try:
        storage = optuna.storages.RDBStorage(url, {"poolclass": sqlalchemy.NullPool}, skip_table_creation=True)
        names = optuna.get_all_study_names(storage)
        if name in names:
            return optuna.load_study(study_name=name, storage=storage)
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError, ImportError) as error:
        raise ConfigError(
            f"{public} cannot be read as a storage of Optuna: {redacted(one_line(error.__cause__ or error))}",
            hint="a study of an older Optuna has to be upgraded first: optuna storage upgrade --storage URL",
        ) from None
    raise ConfigError(
        f"{public} has no study {name!r}.{choices_sentence(name, names)}", hint=f"--warm-start optuna:{public}/STUDY"
    )


def owned_study(
    storage: optuna.storages.BaseStorage,
    paths: StudyPaths,
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> optuna.Study:
    """The study in a storage of `ownership.own_study`; creates it if necessary."""
    if name := name_of_study(storage, paths, study_address(paths, None)):
        return optuna.load_study(study_name=name, storage=storage, sampler=sampler, pruner=pruner)
    return _create(storage, paths.name, load_if_exists=True, sampler=sampler, pruner=pruner)


def find_other_study(study: optuna.Study, name: str) -> optuna.Study | None:
    """Another study of the same database; None if there is none of that name."""
    try:
        return optuna.load_study(study_name=name, storage=storage_of(study))
    except KeyError:
        return None


def create_other_study(study: optuna.Study, name: str) -> optuna.Study:
    return _create(storage_of(study), name)


def _create(storage: optuna.storages.BaseStorage, name: str, **more: Any) -> optuna.Study:
    with unsaid():
        return optuna.create_study(study_name=name, storage=storage, direction=StudyDirection.MAXIMIZE, **more)


@contextmanager
def openable(paths: StudyPaths, address: sqlalchemy.URL | None) -> Iterator[None]:
    """Turns errors in opening a database into a StudyError."""
    try:
        yield
    except (sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        reason = redacted_line(getattr(cause, "orig", None) or cause)
        hint = "restore it from a copy, or start again under another name with --study NAME"
        if address is not None:
            hint = f"check that `psql {shown(address)!r}` can connect; the password can also be in NAS_STORAGE or ~/.pgpass"
        elif isinstance(cause, sqlalchemy.exc.DBAPIError) and find_unavailable(cause):
            hint = "run the same command when there is disk space or the other process has ended"
        raise StudyError(f"{database_name(paths, address)} cannot be opened as a study's database: {reason}", hint=hint) from None


# ----------------------------------------------------------------------------------------------------------------- SQLite


def _readable(paths: StudyPaths) -> str:
    """The URI of the study's database for a user who may only read it: SQLite needs files beside a write-ahead log, and if it
    cannot create them, a copy is read. Raises StudyError if it cannot be read either."""
    uri = f"{paths.database.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=READER_SECONDS)) as database:
            database.execute("SELECT count(*) FROM sqlite_master")
        return uri
    except sqlite3.OperationalError:
        folder = Path(tempfile.mkdtemp(prefix="nas-study-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        for ending in ("", "-wal", "-journal"):
            if (file := paths.database.with_name(paths.database.name + ending)).exists():
                shutil.copyfile(file, folder / file.name)
    except OSError as error:
        raise StudyError(
            f"{error.filename} cannot be read: {error.strerror}", hint="ask the owner of the study for permission to read it"
        ) from None
    return (folder / paths.database.name).as_uri()


def _sqlite(file: str, seconds: float) -> Connect:
    """`file`: a path, or a URI."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(file, timeout=seconds, check_same_thread=False, uri=file.startswith("file:"))
        # In WAL mode NORMAL loses nothing when the process dies, and at most the last commits when the machine does; it
        # makes an ask with its tell 2 to 5 times faster. A rollback journal may be damaged by it.
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    return connect


def _check_file(file: str, journal: str | None = None) -> None:
    """Raises sqlite3.Error for a damaged file now, because a damaged page would otherwise end the search later."""
    with closing(sqlite3.connect(file, timeout=READER_SECONDS, uri=file.startswith("file:"))) as database:
        if journal is not None:
            database.execute(f"PRAGMA journal_mode={journal}")
        if (found := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found.splitlines()[-1])


def own_sqlite(paths: StudyPaths, retry: Retry, note: Callable[[str], None]) -> OwnedStorage:
    """For the holder of the lock of the study's folder."""
    system = file_system(paths.folder)
    network = system in NETWORK_FILE_SYSTEMS
    if network:
        note(
            f"{paths.folder} is on a network file system ({system}): the database keeps a rollback journal, which is slower, and "
            "nas may not notice that another machine searches the same study, so search it on one machine only; "
            "--storage postgresql://… has neither problem"
        )
    with openable(paths, None):
        # The index of a write-ahead log is memory that processes of one machine share.
        file = str(paths.database)
        _check_file(file, "DELETE" if network else "WAL")
        optuna.storages.RDBStorage("sqlite:///study.db", {"creator": _sqlite(file, OWNER_SECONDS)}).engine.dispose()
        return OwnedStorage("sqlite:///study.db", _sqlite(file, OWNER_SECONDS), retry)  # type: ignore[abstract]


# ------------------------------------------------------------------------------------------------------------- PostgreSQL


def postgres(address: sqlalchemy.URL) -> Connect:
    """Connects with a password that neither the storage nor its engine stores. Raises StudyError without psycopg."""
    try:
        dialect = sqlalchemy.create_engine(address).dialect  # opens nothing
    except ImportError:
        raise StudyError(
            f"the study is in {shown(address)}, which needs the package psycopg",
            hint="pip install 'nas-under-budget[postgres]'",
        ) from None
    positional, named = dialect.create_connect_args(address)
    return lambda: dialect.connect(*positional, **{**_CONNECTION, **named})


def make_tables(paths: StudyPaths, address: sqlalchemy.URL) -> None:
    """Creates the tables of Optuna and of the coordinators if necessary. Writes nothing about any study."""
    how: dict[str, Any] = {"creator": postgres(address), "poolclass": sqlalchemy.NullPool}
    with openable(paths, address), sqlalchemy.create_engine(f"{DRIVER}://", **how).connect() as connection:
        # Two studies may be created in a new database at once, which neither Optuna nor IF NOT EXISTS handles.
        connection.execute(sqlalchemy.text("SET lock_timeout = '60s'"))
        connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_lock(SCHEMA_LOCK)))
        optuna.storages.RDBStorage(f"{DRIVER}://", how)
        COORDINATORS.create(connection, checkfirst=True)
        connection.commit()


def move_rows(storage: BaseStorage, paths: StudyPaths, address: sqlalchemy.URL, name: str | None) -> None:
    """Renames the rows of a study and of its finalists, or removes them if `name` is None. The caller has `storage` with the
    study's lock. Raises StudyError."""
    for study in storage.get_all_studies() if name is None else ():
        if study.study_name in (paths.name, paths.name + FINALISTS):
            storage.delete_study(storage.get_study_id_from_name(study.study_name))
    how: dict[str, Any] = {"creator": postgres(address), "poolclass": sqlalchemy.NullPool}
    with openable(paths, address), sqlalchemy.create_engine(f"{DRIVER}://", **how).begin() as connection:
        tables = sqlalchemy.inspect(connection)
        for table in (one for one in tables.get_table_names() if one.startswith("nas_")):
            if "study" in {column["name"] for column in tables.get_columns(table)}:
                # Rows that another study left under the new name belong to nobody.
                connection.execute(sqlalchemy.text(f"DELETE FROM {table} WHERE study = :name"), {"name": name or paths.name})
                if name is not None:
                    rename = sqlalchemy.text(f"UPDATE {table} SET study = :new WHERE study = :old")
                    connection.execute(rename, {"new": name, "old": paths.name})
        for ending in ("", FINALISTS) if name is not None else ():
            rename = sqlalchemy.text("UPDATE studies SET study_name = :new WHERE study_name = :old")
            connection.execute(rename, {"new": f"{name}{ending}", "old": paths.name + ending})


# ------------------------------------------------------------------------------------------------------------- the ledger


@contextmanager
def ledger_connection(paths: StudyPaths, *, writing: bool) -> Iterator[sqlalchemy.Connection | None]:
    """One transaction in the study's database, committed at the end. A writer has the database alone, and waits up to a minute
    for it.

    None if there is no database to read from yet. Raises StudyError.
    """
    address = study_address(paths, None)
    if address is None and not writing and not paths.database.exists():
        yield None
        return
    url, connect = ("sqlite://", _ledger_file(paths, writing)) if address is None else (f"{DRIVER}://", postgres(address))
    try:
        engine = sqlalchemy.create_engine(url, creator=connect, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            if address is None:
                connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
            elif writing:
                connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LEDGER_LOCK})")
            yield connection
            connection.commit()
    except (sqlite3.Error, sqlalchemy.exc.SQLAlchemyError) as error:
        away = isinstance(error, sqlalchemy.exc.DBAPIError) and find_unavailable(error)
        raise (LedgerUnavailable if away else StudyError)(
            f"the ledger in {database_name(paths, address)} cannot be {'written' if writing else 'read'}: "
            f"{redacted_line(getattr(error, 'orig', None) or error)}",
            hint=f"once this is repaired:  nas runs --rebuild --study {paths.name}   recreates it from the files",
        ) from None


def _ledger_file(paths: StudyPaths, writing: bool) -> Connect:
    def connect() -> sqlite3.Connection:
        file = f"{paths.database.absolute().as_uri()}?mode=rwc" if writing else _readable(paths)
        return sqlite3.connect(file, timeout=READER_SECONDS, isolation_level=None, uri=True)  # transactions begin explicitly

    return connect
