"""A database that is away for a while costs time and nothing else, and whoever waits can be stopped."""

import itertools
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from nas.errors import StudyError
from nas.interrupts import Stop
from nas.paths import StudyPaths
from nas.study import outcomes, retry
from nas.study.optuna_private import overwrite_value
from nas.study.owned import OwnedStorage
from nas.study.retry import FULL, LOCKED, UNREACHABLE, DatabaseUnavailable, Retry, find_unavailable
from nas.study.samplers import SAMPLERS, ask
from nas.study.storage import open_study, owned_study
from tests.conftest import unpooled
from tests.study.conftest import fill, led


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []
        self.alarms: dict[float, Callable[[], None]] = {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
        for at in [at for at in self.alarms if at <= self.now]:
            self.alarms.pop(at)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    return clock


# --------------------------------------------------------------------------------------------------------------- waiting


def test_it_says_so_once_again_every_minute_and_once_when_it_goes_on(clock: Clock) -> None:
    notes: list[tuple[float, str]] = []
    attempts: list[float] = []

    def attempt(again: bool) -> str:
        assert again == bool(attempts)
        attempts.append(clock.now)
        if clock.now < 1150:
            raise DatabaseUnavailable(UNREACHABLE, "connection refused")
        return "done"

    wait = Retry("mine", lambda text: notes.append((clock.now, text)), lambda: False)
    assert wait(attempt) == "done"
    away = "the study's database is not reachable (connection refused); waiting; the workers continue"
    assert [text for _, text in notes] == [away, away, away, "the study's database is available again; the search continues"]
    at = [moment - 1000 for moment, _ in notes]
    assert at[0] == 0
    assert 60 <= at[1] <= 66
    assert 60 <= at[2] - at[1] <= 66
    pauses = [round(later - earlier, 3) for earlier, later in itertools.pairwise(attempts)]
    assert pauses[:5] == [0.5, 1, 2, 4, 5]
    assert set(pauses[5:]) == {5}
    assert max(clock.naps) <= 0.2


def test_what_works_at_once_is_not_spoken_of(clock: Clock) -> None:
    notes: list[str] = []
    assert Retry("mine", notes.append, lambda: False)(lambda again: again) is False
    assert notes == []
    assert clock.naps == []


def test_another_error_is_not_waited_for(clock: Clock) -> None:
    def attempt(again: bool) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Retry("mine", pytest.fail, lambda: False)(attempt)
    assert clock.naps == []


def test_a_stop_ends_the_waiting_and_says_how_to_go_on(clock: Clock) -> None:
    stop = Stop()

    def attempt(again: bool) -> None:
        raise DatabaseUnavailable(FULL, "No space left on device")

    clock.alarms[1033.0] = stop.request
    with pytest.raises(StudyError) as caught:
        Retry("mine", lambda text: None, lambda: stop.requested)(attempt)
    assert clock.now < 1033.3
    assert "has no free disk space (No space left on device)" in caught.value.message
    assert "Nothing is lost" in caught.value.message
    assert str(caught.value.hint).startswith("nas search --study mine ")
    assert caught.value.__cause__ is None
    clock.naps.clear()
    with pytest.raises(StudyError):
        Retry("mine", lambda text: None, lambda: stop.requested)(attempt)
    assert clock.naps == [], "a stop that was asked for before does not wait at all"


# --------------------------------------------------------------------------------------------------------------- judging


class PostgresError(Exception):
    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("password=geheim of\n a server")
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("kind", "state", "lost", "trouble"),
    [
        ("OperationalError", None, False, UNREACHABLE),  # connection refused, a host that is not found, "starting up"
        ("InterfaceError", None, False, UNREACHABLE),
        ("OperationalError", "57P01", True, UNREACHABLE),  # an administrator ended it
        ("OperationalError", "57P03", False, UNREACHABLE),  # starting up
        ("OperationalError", "08006", True, UNREACHABLE),
        ("OperationalError", "53300", False, UNREACHABLE),  # too many connections
        ("OperationalError", "53100", False, FULL),
        ("InternalError", "XX000", True, UNREACHABLE),
        ("OperationalError", "57P04", False, None),  # the database was dropped
        ("ProgrammingError", "42P01", False, None),  # no such table
        ("ProgrammingError", None, False, None),
        ("IntegrityError", "23505", False, None),
    ],
)
def test_what_postgresql_says(kind: str, state: str | None, lost: bool, trouble: str | None) -> None:
    error = getattr(sqlalchemy.exc, kind)("SELECT 1", {}, PostgresError(state), connection_invalidated=lost)
    away = find_unavailable(error)
    if trouble is None:
        assert away is None
    else:
        assert str(away) == f"{trouble} (password=***)", "in one line, and hiding rather too much than too little"


def sqlite_error(code: str) -> sqlalchemy.exc.DBAPIError:
    error = sqlite3.OperationalError("as it says")
    error.sqlite_errorname = code
    return sqlalchemy.exc.OperationalError("SELECT 1", {}, error)


@pytest.mark.parametrize(
    ("code", "trouble"),
    [
        ("SQLITE_FULL", FULL),
        ("SQLITE_IOERR_SHMSIZE", FULL),
        ("SQLITE_IOERR_WRITE", FULL),
        ("SQLITE_BUSY", LOCKED),
        ("SQLITE_BUSY_SNAPSHOT", LOCKED),
        ("SQLITE_IOERR_READ", None),
        ("SQLITE_CORRUPT", None),
        ("SQLITE_READONLY", None),
        ("SQLITE_ERROR", None),
    ],
)
def test_what_sqlite_says(code: str, trouble: str | None) -> None:
    away = find_unavailable(sqlite_error(code))
    assert (None if away is None else str(away)) == (None if trouble is None else f"{trouble} (as it says)")
    assert find_unavailable(sqlalchemy.exc.OperationalError("SELECT 1", {}, sqlite3.OperationalError("of Python's own"))) is None


# ------------------------------------------------------------------------------------- what is done twice, and done once


def write_all_sorts_of_things(study: optuna.Study) -> None:
    """Every kind of write that a search does, the reads that go with them, and what Optuna does on its own."""
    study.set_user_attr("settings", {"a": 1})
    study.set_user_attr("settings", {"a": 2})
    study.enqueue_trial({"x": 0.25}, user_attrs={"origin": "known"})
    study.add_trial(
        optuna.trial.create_trial(
            value=0.75,
            params={"x": 0.5},
            distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
            intermediate_values={1: 0.7},
            user_attrs={"imported": True},
        )
    )
    for number in range(4):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.suggest_categorical("kind", ["a", "b"])
        trial.set_user_attr("params", number)
        trial.report(0.1 * number, 1)
        trial.report(0.2 * number, 2)
        trial.should_prune()
        if number == 1:
            trial.set_constraint("params", 1.0)
            study.tell(trial, state=TrialState.PRUNED)
        elif number == 2:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, 0.3 * number)
    study.sampler = SAMPLERS["random"]()
    trial = draw(study)  # stays running
    trial.set_user_attr("told", (1, {2: None}))


def content(trials: list[FrozenTrial]) -> list[Any]:
    return [
        (t.number, t.state, t.values, t.params, t.user_attrs, t.system_attrs, t.intermediate_values, t.constraints)
        for t in trials
    ]


def search(database: Path, disturb: Callable[[OwnedStorage], None]) -> tuple[list[Any], list[str]]:
    """What the study holds in the end, and what was said."""
    notes: list[str] = []
    paths = StudyPaths(database.parent)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(database, check_same_thread=False)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    storage = OwnedStorage("sqlite:///study.db", connect, Retry("mine", notes.append, lambda: False))
    disturb(storage)
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=1)
    study = owned_study(storage, paths, sampler, optuna.pruners.SuccessiveHalvingPruner())
    write_all_sorts_of_things(study)
    known = study.get_trials()
    storage.close()
    stored = content(optuna.load_study(study_name=study.study_name, storage=unpooled(database)).get_trials())
    assert content(known) == stored, "what is kept in memory is what is stored"
    return stored, notes


def commits_lost(at: int, committed: bool, counted: list[int]) -> Callable[[OwnedStorage], None]:
    """The connection is lost at one of the commits, before it is carried out or just before its success is heard of."""

    def disturb(storage: OwnedStorage) -> None:
        dialect, real = storage.engine.dialect, storage.engine.dialect.do_commit

        def commit(connection: Any) -> None:
            if not connection.in_transaction:  # nothing was written
                return real(connection)
            counted.append(1)
            if len(counted) == at and not committed:
                raise DatabaseUnavailable(UNREACHABLE, "as the test wants it")
            real(connection)
            if len(counted) == at:
                raise DatabaseUnavailable(UNREACHABLE, "as the test wants it")
            return None

        dialect.do_commit = commit

    return disturb


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("committed", [False, True], ids=["before", "after"])
def test_a_connection_lost_at_any_commit_loses_nothing_and_repeats_nothing(
    tmp_path: Path, committed: bool, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.0)
    empty, database = tmp_path / "empty.db", tmp_path / "study.db"
    optuna.storages.RDBStorage(f"sqlite:///{empty}").engine.dispose()
    commits: list[int] = []
    shutil.copy(empty, database)
    whole, _ = search(database, commits_lost(0, committed, commits))
    assert [row[1].name for row in whole] == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL", "COMPLETE", "RUNNING"]
    assert len(commits) > 40
    for at in range(1 + committed, len(commits) + 1, step):
        shutil.copy(empty, database)
        found, notes = search(database, commits_lost(at, committed, []))
        assert found == whole, f"at commit {at} of {len(commits)}"
        assert len(notes) == 2, notes


def test_what_has_ended_otherwise_is_not_taken_for_what_was_wanted(paths: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.0)
    with led(paths) as study:
        trial = study.ask()
        study.tell(trial, 0.5)
        with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
            study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])  # this is no second attempt
        calls: list[int] = []
        real = optuna.storages.RDBStorage.set_trial_state_values

        def lost(*arguments: Any, **named: Any) -> bool:
            calls.append(1)
            if len(calls) % 2:
                raise DatabaseUnavailable(UNREACHABLE, "as the test wants it")
            return real(*arguments, **named)

        monkeypatch.setattr(optuna.storages.RDBStorage, "set_trial_state_values", lost)
        assert study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])
        for state, values in ((TrialState.COMPLETE, [0.6]), (TrialState.PRUNED, [0.5]), (TrialState.FAIL, None)):
            with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
                study._storage.set_trial_state_values(trial._trial_id, state, values)


def test_the_parameters_of_a_new_trial_are_stored_together(paths: StudyPaths) -> None:
    with led(paths, note=pytest.fail, sampler=SAMPLERS["random"]()) as study:
        distributions: dict[str, Any] = {name: optuna.distributions.FloatDistribution(0, 1) for name in "abc"}
        trial = ask(study, distributions, study.get_trials())
        written = [t.params for t in open_study(paths).get_trials()]
        assert written == [trial.params]
        assert trial.params.keys() == distributions.keys()
        assert trial.suggest_float("a", 0, 1) == trial.params["a"]
        study.tell(trial, 0.5)
    (stored,) = open_study(paths).get_trials()
    assert (stored.params, stored.value) == (trial.params, 0.5)


def test_every_method_of_a_storage_is_patient(paths: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that Optuna may add: each is called while no statement can be carried out."""
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.0)
    stop = Stop()
    arguments: dict[str, tuple[Any, ...]] = {
        "create_new_study": ([optuna.study.StudyDirection.MAXIMIZE], "another"),
        "get_study_id_from_name": ("mine",),
        "set_study_user_attr": (1, "key", 1),
        "set_study_system_attr": (1, "key", 1),
        "get_trial_id_from_study_id_trial_number": (1, 0),
        "set_trial_param": (1, "x", 0.5, optuna.distributions.FloatDistribution(0, 1)),
        "get_trial_param": (1, "x"),
        "set_trial_state_values": (1, TrialState.COMPLETE, [0.5]),
        "set_trial_intermediate_value": (1, 1, 0.5),
        "set_trial_user_attr": (1, "key", 1),
        "set_trial_system_attr": (1, "key", 1),
        "get_all_studies": (),
    }
    parts = ("number_from_id", "param", "params", "user_attrs", "system_attrs")
    asks_nobody = {"get_trial", *(f"get_trial_{part}" for part in parts), "remove_session", "check_trial_is_updatable"}
    with led(paths, stop=stop) as study:
        study.ask().suggest_float("x", 0, 1)
        study.get_trials()

        @sqlalchemy.event.listens_for(study._storage.engine, "before_cursor_execute")
        def fail(*_: Any) -> None:
            raise DatabaseUnavailable(UNREACHABLE, "as the test wants it")

        stop.request()
        methods = [name for name in dir(optuna.storages.BaseStorage) if not name.startswith("_")]
        for name in sorted(methods, key=lambda name: name == "delete_study"):  # which forgets what it remembers
            if name not in asks_nobody:
                with pytest.raises(StudyError, match="as the test wants it"):
                    getattr(study._storage, name)(*arguments.get(name, (1,)))
        sqlalchemy.event.remove(study._storage.engine, "before_cursor_execute", fail)
        assert len(study.get_trials()) == 1, "afterwards it works as before"


# ----------------------------------------------------------------------------------------------------------- for real


def draw(study: optuna.Study) -> optuna.Trial:
    return ask(study, {"x": optuna.distributions.FloatDistribution(0, 1)}, study.get_trials(deepcopy=False))


STEPS: dict[str, Callable[[optuna.Study, optuna.Trial], object]] = {
    "ask": lambda study, trial: draw(study),
    "report": lambda study, trial: overwrite_value(trial, 0.5, 2),
    "tell": lambda study, trial: outcomes.finish(study, trial),
}


def check_done_once(paths: StudyPaths, step: str) -> None:
    trial, *others = open_study(paths).get_trials()
    assert trial.intermediate_values == ({1: 0.4, 2: 0.5} if step == "report" else {1: 0.4})
    assert (trial.state, trial.value) == ((TrialState.COMPLETE, 0.4) if step == "tell" else (TrialState.RUNNING, None))
    assert [(t.state, t.params.keys()) for t in others] == ([(TrialState.RUNNING, {"x"})] if step == "ask" else [])


@pytest.mark.parametrize("step", STEPS)
def test_a_database_locked_by_another_process_is_waited_for(paths: StudyPaths, step: str) -> None:
    """Optuna's own loop would hide that reason behind an error of its own."""
    notes: list[str] = []
    noted = threading.Event()

    def note(text: str) -> None:
        notes.append(text)
        noted.set()

    with led(paths, note=note, sampler=SAMPLERS["random"]()) as study:
        trial = draw(study)
        overwrite_value(trial, 0.4, 1)
        outcomes.decide(trial, "trained")
        with closing(sqlite3.connect(paths.database, check_same_thread=False)) as other:
            other.execute("BEGIN EXCLUSIVE")
            release = threading.Thread(target=lambda: (noted.wait(60), other.rollback()))
            release.start()
            STEPS[step](study, trial)
            release.join()
        assert content(study.get_trials()) == content(open_study(paths).get_trials())
    check_done_once(paths, step)
    assert notes[0] == "the study's database is locked by another process (database is locked); waiting; the workers continue"
    assert len(notes) == 2


def test_a_trial_that_somebody_adds_meanwhile_is_seen_and_nobodys_number_is_taken(paths: StudyPaths) -> None:
    with led(paths, note=pytest.fail, sampler=SAMPLERS["random"]()) as study:
        mine, others = draw(study), open_study(paths)
        others.enqueue_trial({"x": 0.25})
        assert [trial.state for trial in study.get_trials()] == [TrialState.RUNNING, TrialState.WAITING]
        known = study.get_trials(deepcopy=False)
        assert draw(study).number == 1
        assert [trial.state for trial in known] == [TrialState.RUNNING, TrialState.WAITING], "a list stays as it was"
        others.enqueue_trial({"x": 0.75})
        late = ask(study, {"x": optuna.distributions.FloatDistribution(0, 1)}, study.get_trials(states=(TrialState.RUNNING,)))
        assert [mine.number, late.number] == [0, 3]
        assert content(study.get_trials()) == content(others.get_trials())
        assert len(others.get_trials()) == 4


@pytest.mark.parametrize("network", [False, True], ids=["write-ahead log", "rollback journal"])
def test_a_full_disk_is_waited_for(small_disk: Path, network: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.study.storage.file_system", lambda path: "nfs" if network else "tmpfs")
    paths = StudyPaths(small_disk / "mine")
    notes: list[str] = []
    with led(paths, note=notes.append, sampler=optuna.samplers.RandomSampler(seed=0)) as study:
        filling = fill(small_disk / "filling")
        notes.clear()
        release = threading.Timer(1.5, filling.unlink)
        release.start()
        began = time.monotonic()
        for number in range(20):
            trial = study.ask()
            trial.set_user_attr("text", "x" * 500)
            trial.report(number, 1)
            study.tell(trial, number)
        assert time.monotonic() - began > 1
        release.join()
    first, last = notes[0], notes[-1]
    assert first == ("the study's database has no free disk space (database or disk is full); waiting; the workers continue")
    assert last == "the study's database is available again; the search continues"
    trials = open_study(paths).get_trials()
    assert [t.value for t in trials] == list(range(20))
    assert all(t.intermediate_values == {1: t.value} and len(t.user_attrs["text"]) == 500 for t in trials)


def test_a_search_that_waits_for_a_full_disk_can_be_stopped(small_disk: Path) -> None:
    paths, stop = StudyPaths(small_disk / "mine"), Stop()
    with led(paths, stop=stop, sampler=optuna.samplers.RandomSampler(seed=0)) as study:
        trial = study.ask()
        filling = fill(small_disk / "filling")
        timer = threading.Timer(1.0, stop.request)
        timer.start()
        # The database's file may still have some room inside.
        texts = (trial.set_user_attr(f"text {number}", "x" * 10_000) for number in itertools.count())
        with pytest.raises(StudyError, match="was stopped while it was waiting"):
            list(texts)
        timer.join()
    filling.unlink()
    with led(paths, note=pytest.fail) as study:
        (left,) = study.get_trials()
        assert left.state == TrialState.RUNNING
