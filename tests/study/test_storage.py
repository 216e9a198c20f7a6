"""The database in the study's folder: how it is kept, and what becomes of one that is damaged."""

import json
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import optuna
import pytest
import sqlalchemy

import nas.study.storage
from nas.errors import StudyError
from nas.paths import StudyPaths
from nas.study.finalists import sibling
from nas.study.optuna_private import overwrite_value, stored_trial
from nas.study.pruners import Asha
from nas.study.samplers import SAMPLERS, ask
from nas.study.storage import create_other_study, open_study
from tests.study.conftest import led


@pytest.fixture(autouse=True)
def folder(paths: StudyPaths) -> None:
    paths.folder.mkdir(parents=True)


def filled(paths: StudyPaths, trials: int = 30) -> optuna.Study:
    study = open_study(paths, optuna.samplers.RandomSampler(seed=0))
    for _ in range(trials):
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0)
        trial.report(0.5, 1)
        study.tell(trial, 0.5)
    return study


def pragma(study: optuna.Study, name: str) -> object:
    engine = getattr(study._storage, "engine", None) or study._storage._backend.engine
    with engine.connect() as connection:
        return connection.execute(sqlalchemy.text(f"PRAGMA {name}")).scalar()


def test_it_writes_ahead_and_does_not_wait_for_the_disk_at_every_commit(paths: StudyPaths) -> None:
    with led(paths) as study:
        assert pragma(study, "journal_mode") == "wal"
        assert pragma(study, "synchronous") == 1, "NORMAL"
        reader = open_study(paths)
        assert (pragma(reader, "journal_mode"), pragma(reader, "synchronous")) == ("wal", 1)
        assert pragma(reader, "busy_timeout") == 60_000


def test_how_much_optuna_says_stays_as_it_was(paths: StudyPaths, capsys: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    try:
        optuna.logging.set_verbosity(optuna.logging.INFO)
        with led(paths) as study:
            create_other_study(study, "other")
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("system", ["nfs", "cifs", "lustre"])
def test_on_a_network_file_system_it_keeps_a_rollback_journal(
    paths: StudyPaths, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with led(paths):
        pass  # here the study began; then its folder was moved
    monkeypatch.setattr(nas.study.storage, "file_system", lambda path: system)
    notes: list[str] = []
    with led(paths, note=notes.append) as study:
        (note,) = notes
        assert f"{paths.folder} is on a network file system ({system}): the database keeps a rollback journal" in note
        assert pragma(study, "journal_mode") == "delete"
        assert pragma(study, "synchronous") == 2, "FULL"
        monkeypatch.undo()  # somebody reads on the machine whose disk it is
        reader = open_study(paths)
        assert pragma(reader, "journal_mode") == "delete"
        assert pragma(reader, "synchronous") == 2
        study.tell(study.ask(), 0.5)
        assert [trial.value for trial in reader.get_trials()] == [0.5]
        assert not list(paths.folder.glob("*.db-wal"))
    assert len(notes) == 1


def test_a_folder_with_any_name_will_do(tmp_path: Path) -> None:
    strange = StudyPaths(tmp_path / "100% {of} #1, why?" / "mine")
    with led(strange) as study:
        study.tell(study.ask(), 0.5)
        assert len(open_study(strange).get_trials()) == 1
    assert strange.database.is_file()


def test_reading_while_a_coordinator_writes_disturbs_neither(paths: StudyPaths) -> None:
    writer = filled(paths, 1)
    for expected in range(1, 4):
        reader = open_study(paths)
        assert [trial.value for trial in reader.get_trials()] == [0.5] * expected
        writer.tell(writer.ask(), 0.5)
    assert (reader.study_name, reader.direction) == ("mine", optuna.study.StudyDirection.MAXIMIZE)


@pytest.mark.parametrize(("trials", "parameters"), [(2, 1), (20, 30)])
def test_what_a_trial_costs_in_statements_grows_neither_with_the_trials_nor_with_the_parameters(
    paths: StudyPaths, trials: int, parameters: int
) -> None:
    distributions = {f"x{number}": optuna.distributions.FloatDistribution(0, 1) for number in range(parameters)}
    counts: list[int] = []
    with led(paths, sampler=SAMPLERS["random"]()) as study:
        sqlalchemy.event.listen(study._storage.engine, "before_cursor_execute", lambda *_: counts.append(1))
        for number in range(trials):
            ask(study, distributions, study.get_trials(deepcopy=False))  # stays running
            counts.clear()
            trial = ask(study, distributions, study.get_trials(deepcopy=False))
            for epoch in (1, 2):
                overwrite_value(trial, 0.5, epoch)
                Asha(9).prune(study, stored_trial(trial))
            study.tell(trial, 0.5)
            assert len(counts) == 7 + 5 + 3 + 4, f"{number}: of the draw, an epoch at a rung, one at none, and the end"


def damage(paths: StudyPaths, how: str) -> None:
    filled(paths)
    with closing(sqlite3.connect(paths.database)) as database, database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    content = bytearray(paths.database.read_bytes())
    if how == "garbage":
        content = bytearray(b"this is no database" * 1000)
    elif how == "truncated":
        del content[len(content) // 3 :]
    elif how == "overwritten":
        content[4096:] = b"\xff" * (len(content) - 4096)
    elif how == "one page":
        page = len(content) // 4096 - 2
        content[page * 4096 : (page + 1) * 4096] = b"\xff" * 4096
    elif how == "foreign":
        paths.database.unlink()
        with closing(sqlite3.connect(paths.database)) as database, database:
            database.execute("CREATE TABLE studies (something INTEGER)")
        database.close()
        return
    paths.database.write_bytes(content)


@pytest.mark.parametrize("how", ["garbage", "truncated", "overwritten", "one page", "foreign"])
def test_a_damaged_database_is_a_mistake_that_can_be_mended(paths: StudyPaths, how: str) -> None:
    damage(paths, how)
    for use in (lambda: open_study(paths).get_trials(), led(paths).__enter__):
        with pytest.raises(StudyError) as caught:
            use()
        assert str(paths.database) in caught.value.message
        assert "--study" in str(caught.value.hint)


def test_a_folder_that_cannot_be_written_is_a_mistake_that_can_be_mended(paths: StudyPaths) -> None:
    paths.database.mkdir()
    with pytest.raises(StudyError, match=r"study\.db"):
        open_study(paths)


def test_trials_of_unknown_meaning_are_not_gone_on_with(paths: StudyPaths) -> None:
    filled(paths, 3)
    with pytest.raises(StudyError) as caught, led(paths):
        pass
    assert f"{paths.database} holds a study 'mine' with 3 trials, but the folder {paths.folder} has no study.json" in str(
        caught.value
    )
    assert "--study NAME" in str(caught.value.hint)
    paths.settings.write_text("{}")
    with led(paths) as study:
        assert len(study.get_trials()) == 3


def began(paths: StudyPaths, identity: str | None, **settings: object) -> optuna.Study:
    """A study of three trials, as a search leaves it."""
    study = filled(paths, 3)
    if identity is not None:
        study.set_user_attr("identity", identity)
    if settings:
        study.set_user_attr("settings", settings)
    paths.settings.write_text(json.dumps({"identity": identity} | settings))
    return study


@pytest.mark.parametrize("identity", ["a", None], ids=["with an identity", "from before there was one"])
def test_a_folder_that_was_renamed_keeps_its_trials(paths: StudyPaths, identity: str | None) -> None:
    create_other_study(began(paths, identity), "mine finalists")
    renamed = StudyPaths(paths.folder.rename(paths.folder.with_name("renamed")))
    assert len(open_study(renamed).get_trials()) == 3
    with led(renamed) as study:
        assert len(study.get_trials()) == 3
        assert sibling(study) is not None
    with closing(sqlite3.connect(renamed.database)) as database, database:
        assert sorted(database.execute("SELECT study_name FROM studies")) == [("mine",), ("mine finalists",)]


def test_of_two_studies_in_one_database_the_identity_tells_and_then_the_name(paths: StudyPaths) -> None:
    create_other_study(began(paths, "a"), "other")
    renamed = StudyPaths(paths.folder.rename(paths.folder.with_name("other")))
    assert open_study(renamed).study_name == "mine"
    renamed.settings.write_text("{}")
    assert open_study(renamed).study_name == "other"
    nameless = StudyPaths(renamed.folder.rename(paths.folder.with_name("third")))
    with pytest.raises(StudyError, match="holds 2 studies, and it is unclear which is 'third': 'mine', 'other'"):
        open_study(nameless)


@pytest.mark.parametrize(
    ("theirs", "differ"),
    [
        (("b", {}), "identity"),
        ((None, {"seed": 1}), "seed"),
        ((None, {"seed": 0, "data_fingerprint": "x"}), "data fingerprint"),
        (("a", {"study": {"metric": "macro_f1"}}), "metric"),  # somebody has edited study.json
    ],
)
def test_a_database_of_another_study_is_refused(
    paths: StudyPaths, tmp_path: Path, theirs: tuple[str | None, dict[str, object]], differ: str
) -> None:
    other = StudyPaths(tmp_path / "other")
    other.folder.mkdir()
    began(other, theirs[0], **theirs[1])
    paths.settings.write_text(json.dumps({"identity": "a", "seed": 0, "data_fingerprint": "y", "study": {"metric": "accuracy"}}))
    shutil.copy(other.database, paths.database)
    for opened in (partial(open_study, paths), led(paths).__enter__):
        with pytest.raises(StudyError, match="belongs to another study") as caught:
            opened()
        assert f"they differ in {differ}" in caught.value.message


def test_trials_whose_database_is_gone_are_not_begun_anew(paths: StudyPaths) -> None:
    began(paths, "a")
    paths.trial(0).folder.mkdir(parents=True)
    paths.database.unlink()
    for opened in (partial(open_study, paths), led(paths).__enter__):
        with pytest.raises(StudyError, match=r"has a folder, .*, but is not in .*study\.db"):
            opened()


def test_nobody_writes_who_is_not_the_owner_any_more(paths: StudyPaths) -> None:
    with led(paths) as study:
        study.tell(study.ask(), 0.5)
    with pytest.raises(AssertionError, match="no longer owned"):
        study.ask()
    assert len(open_study(paths).get_trials()) == 1
