"""Entries for tests, and a ledger as it was first made."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy
from sqlalchemy import Connection

from nas.runs.ledger import TABLES, VERSION, RunEntry, SubmissionEntry

SINCE_VERSION_2 = ("metric", "held_out_score", "held_out_shifted_score", "test_balanced_accuracy", "test_macro_f1")


def run_entry(name: str = "trial-0001-4-epochs-seed-0", **changes: Any) -> RunEntry:
    values: dict[str, Any] = {
        "name": name,
        "subject": "trial 1",
        "candidate": "0123456789abcdef",
        "architecture": "basic 1-1 × 4-8 k3-3 relu",
        "recipe": "searched",
        "seed": 0,
        "epochs": 4,
        "params": 1234,
        "macs": 5_000_000_000,
        "train_images": 50_000,
        "includes_test_labels": False,
        "search_accuracy": 0.1 + 0.2,
        "test_images": 10_000,
        "test_accuracy": 0.9312,
        "test_accuracy_tta": None,
        "tta": "flip",
        "seconds": 12.5,
        "device": "cpu",
        "precision": "bf16",
        "data_fingerprint": "ab" * 32,
        "commit": None,
        "created": "2026-01-02T03:04:05+00:00",
        "weights_sha256": "1" * 64,
        "card_sha256": "2" * 64,
        "evaluation_sha256": None,
    }
    return RunEntry(**values | changes)


def make_version_1(connection: Connection, runs: Sequence[RunEntry], study: str) -> None:
    metadata = sqlalchemy.MetaData()
    columns = [
        sqlalchemy.Column(column.name, column.type, primary_key=column.primary_key, nullable=column.nullable)
        for column in TABLES[RunEntry].c
        if column.name not in SINCE_VERSION_2
    ]
    old = sqlalchemy.Table(TABLES[RunEntry].name, metadata, *columns)
    for table in (TABLES[SubmissionEntry], VERSION):
        table.to_metadata(metadata)
    metadata.create_all(connection)
    for run in runs:
        connection.execute(sqlalchemy.insert(old).values(study=study, **run.model_dump(exclude=set(SINCE_VERSION_2))))
    connection.execute(sqlalchemy.insert(VERSION).values(version=1))


def submission_entry(identity: str = "a" * 32, **changes: Any) -> SubmissionEntry:
    values: dict[str, Any] = {
        "id": identity,
        "run": "trial-0001-4-epochs-seed-0",
        "output": "submission-test.csv",
        "test": "test.pkl",
        "test_sha256": "3" * 64,
        "images": 10_000,
        "tta": "flip",
        "adapted": True,
        "commit": "0123456789ab+changes",
        "created": "2026-01-02T04:04:05+00:00",
        "weights_sha256": "1" * 64,
        "csv_sha256": "4" * 64,
    }
    return SubmissionEntry(**values | changes)


def run_at_once(writers: Sequence[Callable[[], None]]) -> list[Exception]:
    """Each in a thread of its own; what they raised."""
    start = threading.Barrier(len(writers))
    faults: list[Exception] = []

    def run(write: Callable[[], None]) -> None:
        start.wait()
        try:
            write()
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(write,)) for write in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return faults
