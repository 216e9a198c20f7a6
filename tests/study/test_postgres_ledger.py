"""The ledger in a PostgreSQL database, with a real server: several studies in one, several writers, a server that is away."""

import itertools
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy
from optuna.study import StudyDirection

from nas.errors import StudyError
from nas.paths import StudyPaths
from nas.runs.ledger import Ledger, read_ledger, record, rewrite, try_to_record
from nas.study.address import parse_address, record_address
from nas.study.ownership import remove_study, rename_study
from nas.study.storage import open_study
from tests.postgres import ENCODED_PASSWORD, PASSWORD, Cluster
from tests.runs.entries import make_version_1, run_at_once, run_entry, submission_entry
from tests.study.conftest import led

NUMBERS = itertools.count()


@pytest.fixture
def database(server: Cluster) -> str:
    """Its name."""
    name = f"ledger{next(NUMBERS)}"
    server.create_database(name)
    return name


@pytest.fixture
def studies(server: Cluster, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[StudyPaths]:
    """Two whose folders name one database."""
    monkeypatch.setenv("NAS_STORAGE", server.url(database))
    found = [StudyPaths(tmp_path / "studies" / name) for name in ("one", "two")]
    for paths in found:
        record_address(paths, parse_address(server.url(database)))
    return found


def test_studies_of_one_database_keep_their_ledgers_apart(studies: list[StudyPaths]) -> None:
    one, two = studies
    assert read_ledger(one) == Ledger()

    def write(writer: int) -> None:
        record(studies[writer % 2], run_entry(f"run-{writer}"))
        record(studies[writer % 2], run_entry("shared"))

    assert run_at_once([partial(write, writer) for writer in range(4)]) == []
    assert {run.name for run in read_ledger(one).runs} == {"run-0", "run-2", "shared"}
    record(one, submission_entry())
    rewrite(one, lambda: Ledger([run_entry("found")], []))
    assert read_ledger(one) == Ledger([run_entry("found")])
    assert {run.name for run in read_ledger(two).runs} == {"run-1", "run-3", "shared"}


def test_a_study_is_renamed_and_removed_with_all_its_rows(
    studies: list[StudyPaths], server: Cluster, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_STUDIES", str(tmp_path / "studies"))
    for paths in studies:
        with led(paths) as study:
            study.tell(study.ask(), 0.5)
            study._storage.create_new_study([StudyDirection.MAXIMIZE], f"{paths.name} finalists")
        record(paths, run_entry(f"of {paths.name}"))
    one, two = studies
    with pytest.raises(StudyError, match="already has a study 'two finalists'"):
        rename_study(one, "two finalists", print)
    renamed = rename_study(one, "three", print)
    assert [trial.value for trial in open_study(renamed).trials] == [0.5]
    assert [run.name for run in read_ledger(renamed).runs] == ["of one"]
    remove_study(renamed, print)
    assert not renamed.folder.exists()
    with server.connect(database) as onlooker:
        for query in ("SELECT study_name FROM studies", "SELECT study FROM nas_runs", "SELECT study FROM nas_coordinators"):
            assert {name.removesuffix(" finalists") for (name,) in onlooker.execute(query)} == {"two"}, query
    assert [trial.value for trial in open_study(two).trials] == [0.5]


def test_ledger_is_written_while_its_study_is_searched(studies: list[StudyPaths]) -> None:
    (paths, _) = studies
    with led(paths) as study:
        study.tell(study.ask(), 0.5)
        record(paths, run_entry())
        study.tell(study.ask(), 0.7)
    assert read_ledger(paths).runs == [run_entry()]
    assert [trial.value for trial in open_study(paths).trials] == [0.5, 0.7]


def test_newer_version_is_refused(studies: list[StudyPaths], server: Cluster, database: str) -> None:
    (paths, _) = studies
    record(paths, run_entry())
    with server.connect(database) as newer:
        newer.execute("UPDATE nas_ledger SET version = 3")
        newer.commit()
    with pytest.raises(
        StudyError, match="has version 3, but this version of nas supports versions up to 2; nothing was written to it"
    ):
        record(paths, run_entry("another"))
    with server.connect(database) as onlooker:
        assert onlooker.execute("SELECT name FROM nas_runs").fetchall() == [(run_entry().name,)]


def test_ledger_from_before_metrics_is_of_accuracy(studies: list[StudyPaths], server: Cluster, database: str) -> None:
    (paths, other) = studies
    engine = sqlalchemy.create_engine(parse_address(server.url(database)))
    with engine.begin() as connection:
        make_version_1(connection, [run_entry("before")], paths.name)
    engine.dispose()
    assert read_ledger(paths).runs == [run_entry("before")]
    new = run_entry("new", metric="macro_f1", held_out_score=0.25)
    record(other, new)
    assert read_ledger(other).runs == [new]


def test_server_that_is_away_is_a_note_without_its_password(
    studies: list[StudyPaths], server: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (paths, _) = studies
    monkeypatch.setattr("nas.runs.ledger.PAUSES", ())
    notes: list[str] = []
    server.stop()
    try:
        try_to_record(paths, run_entry(), notes.append)
    finally:
        server.start()
    (note,) = notes
    assert note.startswith(f"the ledger in the database {server.url('', password=None)}")
    assert note.endswith("nas runs --rebuild --study one   recreates the ledger from them")
    assert PASSWORD not in note
    assert ENCODED_PASSWORD not in note
    try_to_record(paths, run_entry(), notes.append)
    assert read_ledger(paths).runs == [run_entry()]
    assert len(notes) == 1
