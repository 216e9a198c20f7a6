"""A study in PostgreSQL, with a real server: whose lock it is, what becomes of it while the server is away, who may write."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from nas.errors import StudyError
from nas.interrupts import Stop
from nas.paths import StudyPaths
from nas.study import outcomes
from nas.study.optuna_private import overwrite_value
from nas.study.ownership import SESSION, lock_key
from nas.study.samplers import SAMPLERS
from nas.study.storage import open_study, owned_study
from tests.conftest import TINY_SPACE
from tests.postgres import ENCODED_PASSWORD, PASSWORD, Cluster
from tests.study.conftest import led, own
from tests.study.test_ownership import Process, heard, race, say, start
from tests.study.test_retry import STEPS, check_done_once, draw

NUMBERS = itertools.count()
THERE_AGAIN = "the study's database is available again; the search continues"


@pytest.fixture
def url(server: Cluster) -> str:
    """Of a database of the test's own, password and all."""
    return server.create_database(f"test{next(NUMBERS)}")


def add_trial(study: optuna.Study, value: float = 0.5) -> int:
    trial = study.ask()
    trial.suggest_float("x", 0.0, 1.0)
    trial.report(value, 1)
    trial.set_user_attr("value", value)
    study.tell(trial, value)
    return trial.number


def database_of(url: str) -> str:
    return url.rpartition("/")[2]


def execute(server: Cluster, url: str, statement: str, *values: object) -> list[Any]:
    """The rows of its result."""
    with server.connect(database_of(url)) as connection:
        done = connection.execute(statement, values)
        return done.fetchall() if done.description else []


def backend_of(server: Cluster, url: str, study: str = "mine") -> int | None:
    """The server's process that holds the study's lock."""
    key = lock_key(study) % 2**64
    query = (
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = %s AND objsubid = 1 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return next((pid for (pid,) in execute(server, url, query, key >> 32, key % 2**32)), None)


def check_free(server: Cluster, url: str) -> None:
    """Nobody holds the lock: not a moment after its connection was closed, when the server's process has ended too."""
    deadline = time.monotonic() + 60
    while (backend := backend_of(server, url)) is not None:
        assert time.monotonic() < deadline, f"the lock is kept by {backend}"
        time.sleep(0.05)


def terminate(server: Cluster, url: str) -> None:
    assert execute(server, url, "SELECT pg_terminate_backend(%s, 10000)", backend_of(server, url)) == [(True,)]
    check_free(server, url)


def values(study: optuna.Study) -> list[float | None]:
    return [trial.value for trial in study.get_trials()]


# --------------------------------------------------------------------------------------------------------------- opening


def test_a_study_is_found_again_by_its_folder(
    server: Cluster, url: str, paths: StudyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    with led(paths, url, sampler=optuna.samplers.TPESampler(seed=0), pruner=optuna.pruners.SuccessiveHalvingPruner()) as study:
        for number in range(12):
            add_trial(study, number / 12)
    assert not paths.database.exists()
    monkeypatch.setenv("NAS_STORAGE", url)
    study = open_study(paths)
    assert values(study) == [number / 12 for number in range(12)]
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    with led(paths) as study:
        assert add_trial(study) == 12
    monkeypatch.delenv("NAS_STORAGE")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)  # libpq's own
    assert len(open_study(paths).get_trials()) == 13


def test_readers_do_not_disturb_and_cannot_write(url: str, paths: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_STORAGE", url)
    with led(paths, url) as study:
        for expected in range(1, 4):
            add_trial(study)
            reader = open_study(paths)
            assert len(reader.get_trials()) == expected
            with pytest.raises(optuna.exceptions.StorageInternalError) as caught:
                reader.set_user_attr("key", 1)
            assert "read-only" in str(caught.value.__cause__)
        assert study.user_attrs == {}


def test_what_keeps_it_from_being_opened_is_said_without_the_password(server: Cluster, url: str, paths: StudyPaths) -> None:
    cases = {
        "no server": (url.replace(f":{server.port}/", ":1/"), "Connection refused"),
        "no such database": (url + "x", r'database "test\d+x" does not exist'),
        "another password": (url.replace(ENCODED_PASSWORD, "wrong"), "password authentication failed"),
        "an unknown option": (url + "?colour=red", 'invalid connection option "colour"'),
    }
    for given, reason in cases.values():
        with pytest.raises(StudyError, match=reason) as caught, own(paths, given):
            pass
        said = f"{caught.value.message} {caught.value.hint}"
        assert "postgresql://searcher@127.0.0.1:" in caught.value.message
        assert "psql" in str(caught.value.hint)
        assert "NAS_STORAGE" in str(caught.value.hint)
        assert PASSWORD not in said
        assert ENCODED_PASSWORD not in said
        assert "\n" not in said
        assert not paths.storage_url.exists(), "what was never opened is not remembered"


def test_without_psycopg_it_says_what_to_install(url: str, paths: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StudyError, match="which needs the package psycopg") as caught, own(paths, url):
        pass
    assert caught.value.hint == "pip install 'nas-under-budget[postgres]'"


def test_a_database_that_has_lost_the_study_is_not_begun_anew(
    server: Cluster, url: str, paths: StudyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    with led(paths, url):
        pass
    execute(server, url, "TRUNCATE studies CASCADE")
    lost = "the study 'mine' has a folder, .*, but is not in the database postgresql://.*"
    with pytest.raises(StudyError, match=lost), own(paths, url):
        pass
    monkeypatch.setenv("NAS_STORAGE", url)
    with pytest.raises(StudyError, match=lost):
        open_study(paths)
    execute(server, url, "DROP TABLE studies, version_info CASCADE")
    with pytest.raises(StudyError, match=lost):
        open_study(paths)
    assert execute(server, url, "SELECT 1 FROM pg_tables WHERE tablename = 'studies'") == [], "a reader makes none"


def test_two_studies_may_be_founded_in_a_new_database_at_once(url: str, tmp_path: Path) -> None:
    several = [StudyPaths(tmp_path / "studies" / f"study{number}") for number in range(4)]
    faults: list[BaseException] = []

    def found(paths: StudyPaths) -> None:
        try:
            with own(paths, url) as storage:
                add_trial(owned_study(storage, paths))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=found, args=(paths,)) for paths in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


# --------------------------------------------------------------------------------------------------------------- the lock


@pytest.fixture
def holder(paths: StudyPaths, url: str) -> Iterator[Process]:
    with start(paths, url) as process:
        say(process)
        assert heard(process) == "held"
        yield process
        process.kill()


def test_a_second_coordinator_is_refused_and_a_dead_one_is_none(
    paths: StudyPaths, url: str, holder: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.study.ownership.DYING_SECONDS", 0.3)
    for folder in (paths, StudyPaths(tmp_path / "another machine" / "mine")):
        with pytest.raises(StudyError) as caught, own(folder, url):
            pass
        assert f"the study 'mine' is being searched by process {holder.pid} on " in caught.value.message
        assert "since 20" in caught.value.message
        assert "--study NAME" in str(caught.value.hint)
        assert "about a minute" in str(caught.value.hint)
    with own(StudyPaths(tmp_path / "another"), url):
        pass  # other studies are not concerned
    monkeypatch.undo()
    os.kill(holder.pid, signal.SIGKILL)
    with own(paths, url):  # at once: it waits the moment that the server needs
        holder.wait()


def test_of_two_that_found_a_study_at_once_one_wins_and_the_other_is_told(url: str, tmp_path: Path) -> None:
    here, there = (StudyPaths(tmp_path / name / "mine") for name in ("here", "there"))
    with start(here, url) as one, start(there, url) as other:
        winner, told = race(one, other)
        assert told.startswith(f"the study 'mine' is being searched by process {winner.pid} on ")


def test_of_two_in_one_folder_for_different_databases_one_is_told(
    server: Cluster, url: str, paths: StudyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.study.ownership.DYING_SECONDS", 0.3)
    monkeypatch.setenv("NAS_STORAGE", url)
    with own(paths, url):  # and killed before it has written more than that
        with pytest.raises(StudyError, match="cannot continue in"), own(paths, server.url("elsewhere")):
            pass
        with pytest.raises(StudyError, match="is being searched by"), own(paths, None):
            pass


def test_the_lock_is_free_again_after_use_and_after_an_error(server: Cluster, url: str, paths: StudyPaths) -> None:
    with pytest.raises(ZeroDivisionError), own(paths, url):
        raise ZeroDivisionError
    with own(paths, url):
        assert backend_of(server, url) is not None
    check_free(server, url)


def test_there_is_one_connection_and_it_is_watched(server: Cluster, url: str, paths: StudyPaths) -> None:
    with led(paths, url) as study:
        add_trial(study)
        others = "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        mine = execute(server, url, f"SELECT pid, application_name FROM pg_stat_activity {others}")
        assert mine == [(backend_of(server, url), "nas")]
        with study._storage.engine.connect() as connection:
            show = {name: connection.execute(sqlalchemy.text(f"SHOW {name}")).scalar() for name in SESSION}
        assert show == SESSION


def test_a_pooler_in_between_is_refused(url: str, paths: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    # Each client of pgbouncer is told random numbers instead of the process that serves it at the moment.
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", 12345)
    with pytest.raises(StudyError, match="is behind a connection pooler"), own(paths, url):
        pass


# ------------------------------------------------------------------------------------------------- the connection is lost


def test_it_goes_on_where_nobody_took_over(server: Cluster, url: str, paths: StudyPaths) -> None:
    notes: list[str] = []
    with led(paths, url, note=notes.append) as study:
        add_trial(study, 0.1)
        terminate(server, url)
        add_trial(study, 0.2)
        assert backend_of(server, url) is not None, "with the lock"
        assert values(study) == [0.1, 0.2]
    assert notes[0].startswith("the study's database is not reachable (")
    assert notes[1:] == [THERE_AGAIN]


def test_it_stops_before_it_writes_where_another_took_over(server: Cluster, url: str, paths: StudyPaths) -> None:
    with led(paths, url) as study:
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        terminate(server, url)
        with start(paths, url) as other:
            say(other)
            assert heard(other) == "held"
            for write in (
                lambda: study.tell(trial, 0.5),
                lambda: trial.set_user_attr("key", 1),
                lambda: trial.report(0.5, 1),
                lambda: study.set_user_attr("key", 1),
                lambda: study.ask(),
            ):
                with pytest.raises(StudyError) as caught:
                    write()
                assert (
                    f"another coordinator took over the study 'mine' while the database was unavailable: process {other.pid} on "
                    in str(caught.value)
                )
                assert "This coordinator wrote nothing after that" in str(caught.value)
                assert "nas search --study mine" in str(caught.value.hint)
            say(other)
            assert other.wait() == 0
        with pytest.raises(StudyError, match="another coordinator took over"):  # nor now that the lock is free again
            study.tell(trial, 0.5)
        check_free(server, url)
    with led(paths, url) as study:
        (left,) = study.get_trials()
        assert (left.state, left.user_attrs, left.intermediate_values) == (TrialState.RUNNING, {}, {})
        assert study.user_attrs == {}


def test_it_stops_where_the_record_of_who_leads_is_gone(server: Cluster, url: str, paths: StudyPaths) -> None:
    """As after the database was restored from a copy."""
    with led(paths, url) as study:
        execute(server, url, "DELETE FROM nas_coordinators")
        terminate(server, url)
        with pytest.raises(StudyError, match=r"another coordinator took over .*: an unknown process"):
            study.ask()


def test_it_waits_for_its_own_lock_that_the_server_still_keeps_for_the_lost_connection(
    server: Cluster, url: str, paths: StudyPaths
) -> None:
    notes: list[str] = []
    with led(paths, url, note=notes.append) as study:
        backend = backend_of(server, url)
        with study._storage.engine.connect() as connection:
            number = connection.connection.driver_connection.fileno()
        os.kill(backend, signal.SIGSTOP)  # it will not notice
        try:
            with socket.socket(fileno=os.dup(number)) as lost:
                lost.shutdown(socket.SHUT_RDWR)
            release = threading.Timer(2.0, os.kill, (backend, signal.SIGCONT))
            release.start()
            began = time.monotonic()
            add_trial(study)
            assert time.monotonic() - began > 1.5
            release.join()
        finally:
            os.kill(backend_of(server, url) or backend, signal.SIGCONT)
        assert backend_of(server, url) not in (None, backend)
        assert values(study) == [0.5]
    assert notes[-1] == THERE_AGAIN


@pytest.mark.exhaustive
def test_a_connection_lost_again_and_again_loses_nothing_and_repeats_nothing(
    server: Cluster, url: str, paths: StudyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.study.retry.FIRST_PAUSE", 0.01)
    done = threading.Event()
    cuts: list[int] = []

    def cut() -> None:
        with server.connect(database_of(url)) as connection:
            while not done.wait(0.03):
                if backend := backend_of(server, url):
                    connection.execute("SELECT pg_terminate_backend(%s)", (backend,))
                    cuts.append(backend)

    with led(paths, url, sampler=optuna.samplers.RandomSampler(seed=0)) as study:
        thread = threading.Thread(target=cut)
        thread.start()
        try:
            numbers = [add_trial(study, number / 60) for number in range(60)]
        finally:
            done.set()
            thread.join()
        assert len(set(cuts)) > 10
        assert numbers == list(range(60))
        for number, trial in enumerate(study.get_trials()):
            assert (trial.number, trial.state, trial.value) == (number, TrialState.COMPLETE, number / 60)
            assert trial.intermediate_values == {1: number / 60}
            assert trial.user_attrs == {"value": number / 60}
            assert trial.params.keys() == {"x"}


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGINT], ids=["at once", "in order"])
def test_a_server_that_is_away_for_seconds_is_waited_for(
    server: Cluster, url: str, paths: StudyPaths, how: signal.Signals
) -> None:
    notes: list[str] = []

    def outage() -> None:
        time.sleep(0.3)
        server.stop(how)
        time.sleep(2.5)
        server.start()

    thread = threading.Thread(target=outage)
    with led(paths, url, note=notes.append, sampler=optuna.samplers.RandomSampler(seed=0)) as study:
        thread.start()
        written: list[float] = []
        while thread.is_alive() or len(written) < 30:
            add_trial(study, len(written) / 1000)
            written.append(len(written) / 1000)
        thread.join()
        assert values(study) == written
    away = [note for note in notes if note != THERE_AGAIN]
    assert away
    assert all(note.startswith("the study's database is not reachable (") for note in away)
    assert all("waiting; the workers continue" in note and "\n" not in note and PASSWORD not in note for note in away)
    assert len(notes) == 2 * len(away), "once when it goes, once when it comes"


@pytest.mark.parametrize("step", STEPS)
def test_a_server_that_restarts_in_the_middle_of_a_step_delays_it(
    server: Cluster, url: str, paths: StudyPaths, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_STORAGE", url)
    notes: list[str] = []
    with led(paths, url, note=notes.append, sampler=SAMPLERS["random"]()) as study:
        trial = draw(study)
        overwrite_value(trial, 0.4, 1)
        outcomes.decide(trial, "trained")

        @sqlalchemy.event.listens_for(study._storage.engine, "before_cursor_execute", once=True)
        def write_begins(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            server.stop()
            thread.start()

        thread = threading.Timer(1.0, server.start)
        STEPS[step](study, trial)
        thread.join()
    check_done_once(paths, step)
    assert notes[0].startswith("the study's database is not reachable (")
    assert notes[-1] == THERE_AGAIN


def test_a_search_that_waits_for_its_server_can_be_stopped(server: Cluster, url: str, paths: StudyPaths) -> None:
    stop = Stop()
    with led(paths, url, stop=stop) as study:
        trial = study.ask()
        server.stop()
        try:
            timer = threading.Timer(1.0, stop.request)
            timer.start()
            with pytest.raises(StudyError, match="was stopped while it was waiting") as caught:
                study.tell(trial, 0.5)
        finally:
            timer.join()
            server.start()
    assert "nas search --study mine" in str(caught.value.hint)
    assert PASSWORD not in str(caught.value)
    with led(paths, url) as study:
        (left,) = study.get_trials()
        assert left.state == TrialState.RUNNING


# ----------------------------------------------------------------------------------------------------------- the password


def text_of_database(server: Cluster, url: str) -> str:
    """Every row of every table."""
    tables = execute(server, url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    rows = {name: execute(server, url, f'SELECT t::text FROM "{name}" t') for (name,) in tables}
    assert rows["nas_coordinators"]
    assert rows["trials"]
    return json.dumps(rows)


def test_the_password_is_nowhere(
    server: Cluster, url: str, tmp_path: Path, nas: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY_SPACE)
    plain = url.replace(f":{ENCODED_PASSWORD}@", "@")
    said = []
    search = ("search", "--study", "mine", "--space", "tiny.yaml", "--dataset", "digits", "--device", "cpu")
    said += [nas(*search, "--trials", "1", "--storage", url)]
    said += [nas(*search, "--trials", "2", f"--storage={url}")]
    said += [nas("search", "--study", "mine", "--trials", "2", "--storage", f"{plain}?password={ENCODED_PASSWORD}")]
    assert [done.code for done in said] == [0, 0, 0], said
    monkeypatch.setenv("NAS_STORAGE", url)
    said += [nas("list", "--json"), nas("show", "best", "--study", "mine", "--json"), nas("doctor", "--json")]
    monkeypatch.delenv("NAS_STORAGE")
    said += [nas("list", "--study", "mine"), nas("search", "--study", "mine", "--storage", url.replace("/test", "/other"))]
    assert [done.code for done in said[-2:]] == [1, 1]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert StudyPaths(tmp_path / "studies" / "mine").storage_url in files
    texts = {str(path): path.read_bytes() for path in files}
    texts |= {f"output {number}": f"{done.out}{done.err}".encode() for number, done in enumerate(said)}
    texts["database"] = text_of_database(server, url).encode()
    texts["server's log"] = server.log.read_bytes()
    for part in (PASSWORD, ENCODED_PASSWORD, "battery"):
        assert [where for where, content in texts.items() if part.encode() in content] == []
    assert "searcher:***@" in (tmp_path / "studies" / "mine" / "study.json").read_text()


RUN_AND_HANG = """
import time
import tests.postgres
for cluster in tests.postgres.postgres.__wrapped__():
    print(cluster.data.parent, flush=True)
    time.sleep(60)
"""


def test_a_killed_test_run_leaves_no_server_behind(server: Cluster) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN_AND_HANG], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as run:
        folder = Path(heard(run))
        process = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        run.kill()
    deadline = time.monotonic() + 60
    while folder.exists() or Path(f"/proc/{process}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
