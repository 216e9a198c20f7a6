"""The ledger's tables, which version of them a database has, and how an older one is brought up to date. Opens nothing.

Optuna's tables, and the one in which it keeps its own version, are not touched.
"""

from collections.abc import Callable

import sqlalchemy
from sqlalchemy import BigInteger, Boolean, Column, Connection, Double, Integer, Table, Text

from nas.errors import StudyError

METADATA = sqlalchemy.MetaData()
VERSION = Table("nas_ledger", METADATA, Column("version", Integer, nullable=False))  # one row
RUNS = Table(
    "nas_runs",
    METADATA,
    Column("study", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("candidate", Text, nullable=False),
    Column("architecture", Text, nullable=False),
    Column("recipe", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("params", BigInteger, nullable=False),
    Column("macs", BigInteger, nullable=False),
    Column("train_images", BigInteger, nullable=False),
    Column("includes_test_labels", Boolean, nullable=False),
    Column("search_accuracy", Double),
    Column("metric", Text, nullable=False),
    Column("held_out_images", BigInteger),
    Column("held_out_accuracy", Double),
    Column("held_out_shifted_accuracy", Double),
    Column("held_out_score", Double),
    Column("held_out_shifted_score", Double),
    Column("test_images", BigInteger),
    Column("test_accuracy", Double),
    Column("test_accuracy_tta", Double),
    Column("test_balanced_accuracy", Double),
    Column("test_macro_f1", Double),
    Column("test_shifted_accuracy", Double),
    Column("tta", Text, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("device", Text, nullable=False),
    Column("precision", Text, nullable=False),
    Column("data_fingerprint", Text, nullable=False),
    Column("commit", Text),
    Column("created", Text, nullable=False),
    Column("weights_sha256", Text, nullable=False),
    Column("card_sha256", Text, nullable=False),
    Column("evaluation_sha256", Text),
)
SUBMISSIONS = Table(
    "nas_submissions",
    METADATA,
    Column("study", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("run", Text, nullable=False),
    Column("output", Text, nullable=False),
    Column("test", Text, nullable=False),
    Column("test_sha256", Text, nullable=False),
    Column("images", BigInteger, nullable=False),
    Column("tta", Text, nullable=False),
    Column("adapted", Boolean, nullable=False),
    Column("commit", Text),
    Column("created", Text, nullable=False),
    Column("weights_sha256", Text, nullable=False),
    Column("csv_sha256", Text, nullable=False),
)


def _to_version_2(connection: Connection) -> None:
    """Runs have figures by other metrics than accuracy."""
    connection.exec_driver_sql("ALTER TABLE nas_runs ADD COLUMN metric TEXT NOT NULL DEFAULT 'accuracy'")
    for name in ("held_out_score", "held_out_shifted_score", "test_balanced_accuracy", "test_macro_f1"):
        connection.exec_driver_sql(f"ALTER TABLE nas_runs ADD COLUMN {name} DOUBLE PRECISION")


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_to_version_2,)
"""The first brings tables of version 1 to version 2, and so on. Who changes a table above adds the step, and never changes one
that was released."""


def newest_version() -> int:
    return 1 + len(MIGRATIONS)


def version_of(connection: Connection) -> int:
    """0 where there is no ledger yet."""
    if not sqlalchemy.inspect(connection).has_table(VERSION.name):
        return 0
    return connection.execute(sqlalchemy.select(VERSION.c.version)).scalar_one_or_none() or 0


def require_known(connection: Connection, database: str) -> int:
    """The version. Raises StudyError for one that only a newer nas knows."""
    version = version_of(connection)
    if version > newest_version():
        raise StudyError(
            f"the ledger in {database} has version {version}, and this nas knows versions up to {newest_version()}; "
            "nothing was written to it",
            hint="use the newer nas that made it so: the files of the runs are complete without the ledger",
        )
    return version


def bring_up_to_date(connection: Connection, database: str) -> None:
    """Makes the tables, or carries out the steps that they lack: by the transaction all of it or nothing. Raises StudyError."""
    version = require_known(connection, database)
    if version:
        for step in MIGRATIONS[version - 1 :]:
            step(connection)
    METADATA.create_all(connection)
    if version != newest_version():
        connection.execute(sqlalchemy.delete(VERSION))
        connection.execute(sqlalchemy.insert(VERSION).values(version=newest_version()))
