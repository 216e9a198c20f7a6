"""The database and its lock, shared with no other coordinator, living or dead."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from nas.errors import StudyError
from nas.paths import StudyPaths
from nas.search.storage import open_study, sole_coordinator


@pytest.fixture
def paths(tmp_path: Path) -> StudyPaths:
    folder = tmp_path / "studies" / "mine"
    folder.mkdir(parents=True)
    return StudyPaths(folder)


def filled(paths: StudyPaths, trials: int = 30) -> optuna.Study:
    study = open_study(paths, optuna.samplers.RandomSampler(seed=0))
    for _ in range(trials):
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0)
        trial.report(0.5, 1)
        study.tell(trial, 0.5)
    return study


def engine_of(study: optuna.Study) -> sqlalchemy.Engine:
    return study._storage._backend.engine  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------------------- the database


def test_it_writes_ahead_and_does_not_wait_for_the_disk_at_every_commit(paths: StudyPaths) -> None:
    study = filled(paths, 1)
    with engine_of(study).connect() as connection:
        assert connection.execute(sqlalchemy.text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(sqlalchemy.text("PRAGMA synchronous")).scalar() == 1, "NORMAL"
        assert connection.execute(sqlalchemy.text("PRAGMA busy_timeout")).scalar() == 60_000
    with engine_of(open_study(paths)).connect() as connection:  # and so does every connection to come
        assert connection.execute(sqlalchemy.text("PRAGMA synchronous")).scalar() == 1


def test_what_was_written_is_there_when_it_is_opened_again(paths: StudyPaths) -> None:
    filled(paths, 3)
    study = open_study(paths)
    assert [trial.value for trial in study.get_trials()] == [0.5] * 3
    assert study.study_name == "mine"
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE


def test_reading_while_a_coordinator_writes_disturbs_neither(paths: StudyPaths) -> None:
    writer, trial = filled(paths, 1), None
    for expected in range(1, 4):
        assert len(open_study(paths).get_trials()) == expected
        trial = writer.ask()
        writer.tell(trial, 0.1)


def damage(paths: StudyPaths, how: str) -> None:
    filled(paths)
    with sqlite3.connect(paths.database) as database:
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
        with sqlite3.connect(paths.database) as database:
            database.execute("CREATE TABLE studies (something INTEGER)")
        database.close()
        return
    paths.database.write_bytes(content)


@pytest.mark.parametrize("how", ["garbage", "truncated", "overwritten", "one page", "foreign"])
def test_a_damaged_database_is_a_mistake_that_can_be_mended(paths: StudyPaths, how: str) -> None:
    damage(paths, how)
    with pytest.raises(StudyError) as caught:
        open_study(paths).get_trials()
    assert str(paths.database) in caught.value.message
    assert "--study" in str(caught.value.hint)


def test_a_folder_that_cannot_be_written_is_a_mistake_that_can_be_mended(paths: StudyPaths) -> None:
    paths.database.mkdir()
    with pytest.raises(StudyError, match=r"study\.db"):
        open_study(paths)


# ---------------------------------------------------------------------------------------------------------------- the lock

HOLD = """
import sys, time
from pathlib import Path
from nas.paths import StudyPaths
from nas.search.storage import sole_coordinator
with sole_coordinator(StudyPaths(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def holder(paths: StudyPaths) -> Iterator[subprocess.Popen[str]]:
    """Another process that is the study's coordinator."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(paths.folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_coordinator_is_refused_and_a_dead_one_is_none(
    paths: StudyPaths, holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(StudyError) as caught, sole_coordinator(paths):
        pass
    assert f"process {holder.pid} on " in caught.value.message
    assert "--study" in str(caught.value.hint)
    with sole_coordinator(StudyPaths(tmp_path / "studies" / "another")):
        pass  # other studies are not concerned
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with sole_coordinator(paths):
        held = json.loads((paths.folder / "study.holder.json").read_text())
        assert held["pid"] == os.getpid()


def test_the_lock_is_free_again_after_use_and_after_an_error(paths: StudyPaths) -> None:
    with pytest.raises(ZeroDivisionError), sole_coordinator(paths):
        raise ZeroDivisionError
    with sole_coordinator(paths):
        with pytest.raises(StudyError), sole_coordinator(paths):
            pass
        with pytest.raises(StudyError), sole_coordinator(paths):
            pass  # a refusal does not open it
    with sole_coordinator(paths):
        pass


def test_who_holds_it_need_not_be_known(paths: StudyPaths) -> None:
    with sole_coordinator(paths):
        (paths.folder / "study.holder.json").write_text("no JSON")
        with pytest.raises(StudyError, match="another process"), sole_coordinator(paths):
            pass
