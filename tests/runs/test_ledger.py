"""The ledger in SQLite: beside Optuna's tables, by several writers, through its versions."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Connection

from nas.errors import StudyError
from nas.paths import StudyPaths, TrialPaths
from nas.runs.ledger import TABLES, Ledger, append_submission, kept_submissions, read_ledger, record, rewrite, submissions_file
from nas.study.ownership import own_study
from nas.study.storage import open_study, owned_study
from tests.runs.entries import make_version_1, run_at_once, run_entry, submission_entry


@pytest.fixture
def paths(tmp_path: Path) -> StudyPaths:
    (tmp_path / "mine").mkdir()
    return StudyPaths(tmp_path / "mine")


def contents(paths: StudyPaths, ours: bool) -> dict[str, Any]:
    """Definition and rows of every table, either of ours or of the others."""
    with closing(sqlite3.connect(paths.database)) as database:
        found = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        return {
            name: (sql, database.execute(f'SELECT * FROM "{name}"').fetchall())
            for name, sql in found
            if name.startswith("nas_") == ours
        }


def test_a_row_has_what_an_entry_has() -> None:
    for entry, table in TABLES.items():
        fields = entry.model_fields
        assert [column.name for column in table.c] == ["study", *fields]
        optional = {name for name, field in fields.items() if type(None) in getattr(field.annotation, "__args__", ())}
        assert {column.name for column in table.c if column.nullable} == optional
        assert [column.name for column in table.primary_key] == ["study", next(iter(fields))]


def test_what_is_recorded_is_read_again_oldest_first(paths: StudyPaths) -> None:
    assert read_ledger(paths) == Ledger()
    assert not paths.database.exists(), "reading has made a database"
    late = run_entry("late", created="2026-03-29T03:30:00+02:00", commit="0123456789ab")
    early = run_entry("early", created="2026-03-29T01:00:00+00:00", test_accuracy=None, test_images=None)
    for entry in (late, early, submission_entry()):
        record(paths, entry)
    assert read_ledger(paths) == Ledger([early, late], [submission_entry()])
    again = run_entry("early", created="2026-03-29T01:00:00+00:00", seconds=1.0)
    record(paths, again)
    assert read_ledger(paths).runs == [again, late]
    assert read_ledger(paths).run("late") == late
    assert read_ledger(paths).run("none") is None


def test_tables_of_optuna_are_not_touched(paths: StudyPaths) -> None:
    with own_study(paths, None, note=lambda text: None, stop_requested=lambda: False) as storage:
        study = owned_study(storage, paths)
        study.tell(study.ask(), 0.5)
        before = contents(paths, ours=False)
        record(paths, run_entry())  # in the middle of a search
        assert contents(paths, ours=False) == before
        study.tell(study.ask(), 0.7)
    assert contents(paths, ours=True).keys() == {"nas_ledger", "nas_runs", "nas_submissions"}
    assert [trial.value for trial in open_study(paths).trials] == [0.5, 0.7]
    assert read_ledger(paths).runs == [run_entry()]


def test_a_study_may_begin_in_a_database_that_has_but_a_ledger(paths: StudyPaths) -> None:
    record(paths, run_entry())
    assert contents(paths, ours=True)["nas_ledger"][1] == [(2,)], "a new one has the newest version"
    with own_study(paths, None, note=lambda text: None, stop_requested=lambda: False) as storage:
        study = owned_study(storage, paths)
        study.tell(study.ask(), 0.5)
    assert len(open_study(paths).trials) == 1
    assert read_ledger(paths).runs == [run_entry()]


def test_of_many_who_record_at_once_in_a_new_database_each_is_recorded(paths: StudyPaths) -> None:
    def write(writer: int) -> None:
        for i in range(3):
            record(paths, run_entry(f"{writer}-{i}"))
            record(paths, run_entry("shared", seed=writer))

    assert run_at_once([partial(write, writer) for writer in range(4)]) == []
    found = [run.name for run in read_ledger(paths).runs]
    assert sorted(found) == sorted([f"{writer}-{i}" for writer in range(4) for i in range(3)] + ["shared"])


def test_what_is_recorded_while_the_ledger_is_made_again_is_not_lost(paths: StudyPaths) -> None:
    record(paths, run_entry("gone"))
    other = threading.Thread(target=record, args=(paths, run_entry("new")))

    def collect() -> Ledger:
        other.start()
        other.join(0.2)
        assert other.is_alive(), "somebody could record in between"
        return Ledger([run_entry("found")], [submission_entry()])

    assert rewrite(paths, collect).runs == [run_entry("found")]
    other.join()
    assert {run.name for run in read_ledger(paths).runs} == {"found", "new"}
    assert read_ledger(paths).submissions == [submission_entry()]


def test_making_it_again_that_fails_changes_nothing(paths: StudyPaths) -> None:
    record(paths, run_entry())

    def fails() -> Ledger:
        raise OSError("a disk has gone")

    with pytest.raises(OSError, match="a disk has gone"):
        rewrite(paths, fails)
    assert read_ledger(paths).runs == [run_entry()]


def test_study_whose_folder_was_renamed_keeps_its_ledger(paths: StudyPaths) -> None:
    record(paths, run_entry("kept"))
    renamed = StudyPaths(paths.folder.rename(paths.folder.with_name("yours")))
    record(renamed, run_entry("kept", seed=3))
    assert read_ledger(renamed).runs == [run_entry("kept", seed=3)]


@pytest.mark.parametrize("writing", [True, False])
def test_database_that_is_none_is_refused(paths: StudyPaths, writing: bool) -> None:
    paths.database.write_bytes(b"no database, but long enough to be taken for one" * 20)
    attempt = (lambda: record(paths, run_entry())) if writing else (lambda: read_ledger(paths))
    with pytest.raises(StudyError) as refused:
        attempt()
    what = "written" if writing else "read"
    assert refused.value.message == f"the ledger in {paths.database} cannot be {what}: file is not a database"
    assert "nas runs --rebuild --study mine" in refused.value.hint


@pytest.mark.parametrize("stays", [True, False])
def test_database_that_is_locked_is_written_once_it_is_back(
    paths: StudyPaths, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.study.storage.READER_SECONDS", 0.1)
    monkeypatch.setattr("nas.runs.ledger.PAUSES", (0.01,))
    record(paths, run_entry())
    with closing(sqlite3.connect(paths.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        if stays:
            with pytest.raises(StudyError, match="cannot be written: database is locked"):
                record(paths, run_entry("another"))
        else:
            monkeypatch.setattr("nas.runs.ledger.time.sleep", lambda seconds: other.execute("ROLLBACK"))
            record(paths, run_entry("another"))
    assert {run.name for run in read_ledger(paths).runs} == {run_entry().name, *([] if stays else ["another"])}


def test_ledger_of_a_newer_version_is_refused_and_not_written(paths: StudyPaths) -> None:
    record(paths, run_entry())
    with closing(sqlite3.connect(paths.database)) as database, database:
        database.execute("UPDATE nas_ledger SET version = 4")
    database.close()
    before = paths.database.read_bytes()
    attempts: list[Callable[[], object]] = [
        lambda: read_ledger(paths),
        lambda: record(paths, run_entry("another")),
        lambda: rewrite(paths, Ledger),
    ]
    for attempt in attempts:
        with pytest.raises(StudyError) as refused:
            attempt()
        assert refused.value.message == (
            f"the ledger in {paths.database} has version 4, but this version of nas supports versions up to 2; "
            "nothing was written to it"
        )
        assert refused.value.hint == "use a newer version of nas; the files of the runs are complete without the ledger"
    assert paths.database.read_bytes() == before


@pytest.fixture
def old(paths: StudyPaths) -> StudyPaths:
    """With a ledger as it was first made."""
    engine = sqlalchemy.create_engine(f"sqlite:///{paths.database}")
    with engine.begin() as connection:
        make_version_1(connection, [run_entry("before")], paths.name)
    engine.dispose()
    return paths


@pytest.mark.parametrize("by", ["reading", "writing"])
def test_ledger_from_before_metrics_is_of_accuracy(old: StudyPaths, by: str) -> None:
    new = run_entry("new", metric="macro_f1", held_out_score=0.25, test_macro_f1=0.5)
    for _ in range(2):
        if by == "writing":
            record(old, new)
        assert read_ledger(old).run("before") == run_entry("before")
    assert run_entry("before").metric == "accuracy"
    record(old, new)
    assert read_ledger(old).run("new") == new
    assert contents(old, ours=True)["nas_ledger"][1] == [(2,)]


def test_update_that_fails_leaves_the_older_ledger_whole(old: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(connection: Connection, entry: object, table: sqlalchemy.Table) -> None:
        connection.exec_driver_sql("DROP TABLE nas_submissions")
        connection.exec_driver_sql("SELECT * FROM what_is_not_there")

    before = contents(old, ours=True)
    monkeypatch.setattr("nas.runs.ledger._add_missing_columns", fail)
    for attempt in (lambda: record(old, run_entry("another")), lambda: read_ledger(old)):
        with pytest.raises(StudyError, match="no such table: what_is_not_there"):
            attempt()
    assert contents(old, ours=True) == before


def test_submissions_are_kept_beside_their_run(tmp_path: Path) -> None:
    run = TrialPaths(tmp_path)
    assert kept_submissions(run) == ([], [])
    first, second = submission_entry("1" * 32), submission_entry("2" * 32, test="Zürich\nline two")
    append_submission(run, first)
    append_submission(run, second)
    assert kept_submissions(run) == ([first, second], [])
    with open(submissions_file(run), "a") as file:
        file.write('{"id": "cut of')
    found, broken = kept_submissions(run)
    assert found == [first, second]
    (sentence,) = broken
    assert sentence.startswith(f"{submissions_file(run)}, line 3: invalid JSON: ")
