"""Workers that start slowly, hang, or find what they need occupied."""

import time
from typing import Any

import pytest

from nas.errors import NasError
from nas.jobs import crew
from nas.jobs.crew import Crew, Silence
from nas.jobs.messages import Died, Epoch, Paused, Ready, Unfit
from tests.study.scripted import FakeExecutor, World, metrics


@pytest.fixture
def executor() -> FakeExecutor:
    return FakeExecutor(lambda order: None, World(), None, 2)  # type: ignore[arg-type, return-value]


def busy(executor: FakeExecutor, workers: int = 2) -> Crew:
    """So many that train."""
    executor.count = workers
    crew = Crew(executor, lambda note: None)
    for worker in executor.workers:
        crew.hear(worker, Ready("fake", "fp32"))
        crew.occupy(worker, None)  # type: ignore[arg-type]
    return crew


def test_a_silence_is_too_long_by_what_was_learned_and_not_while_a_worker_starts() -> None:
    it = Silence()
    it.expect(0)
    it.passed(1e6)  # this process was stopped, or waited for a database: that does not count
    assert not it.too_long()
    it = Silence()
    it.expect(0)
    it.expect(1, starting=True)
    it.passed(4.0)
    it.heard(0, in_training=True)
    assert it.limit == max(crew.LEAST_SECONDS, 4.0 * crew.FACTOR)
    for _ in range(1 + int(it.limit / crew.MOST_AT_ONCE)):
        it.passed(crew.MOST_AT_ONCE)
    assert list(it.too_long()) == [0]
    for _ in range(int(crew.UNLEARNED_SECONDS / crew.MOST_AT_ONCE)):
        it.passed(crew.MOST_AT_ONCE)
    assert set(it.too_long()) == {0, 1}
    limit = it.limit
    it.judged(1)
    assert it.limit == limit, "who starts slowly says nothing of how long a training may be silent"
    it.judged(0)
    assert it.limit == 2 * limit
    assert not it.too_long()


def test_what_a_worker_needs_may_be_occupied_for_a_while(executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "PAUSE_SECONDS", 0.1)
    notes: list[str] = []
    it = Crew(executor, notes.append)
    refusal: list[Any] = [Unfit("no room on the GPU", "fewer workers"), Died("exit code 0")]
    for message in (Ready("fake", "fp32"), Died("SIGKILL"), *refusal):
        it.hear(0, message)
    assert executor.restarted == [0]
    assert it.lost is None
    time.sleep(0.15)
    it.receive(0)
    assert executor.restarted == [0, 0]
    assert notes == ["worker 0 tries again in 0 s: no room on the GPU"]
    for message in (*refusal, *refusal):
        it.hear(0, message)
    assert notes[-1] == "worker 0 cannot start; the others continue: no room on the GPU"
    for message in refusal:
        it.hear(1, message)  # this one has never worked
    assert isinstance(it.lost, NasError)
    assert it.lost.message == "no room on the GPU"


def test_nobody_is_replaced_once_the_search_ends(executor: FakeExecutor) -> None:
    it = Crew(executor, lambda note: None)
    it.hear(0, Ready("fake", "fp32"))
    it.replacing = False
    it.hear(0, Died("SIGKILL"))
    it.receive(0)
    assert executor.restarted == []
    assert not it.idle


def test_who_is_heard_of_in_the_same_breath_does_not_hang(executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "UNLEARNED_SECONDS", 0.01)
    it = busy(executor)
    executor._outbox.append((0, Epoch(metrics(1, 0.5))))
    time.sleep(0.02)
    it.receive(0)
    assert executor.killed == [1]


def test_the_search_is_not_lost_while_another_worker_is_awaited(executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeExecutor, "awaited", {1}, raising=False)
    monkeypatch.setattr(crew, "UNLEARNED_SECONDS", 0.01)
    it = Crew(executor, lambda note: None)
    it.receive(0)
    time.sleep(0.02)
    it.receive(0)
    assert executor.killed == [0], "of the one that is awaited nothing can be heard"
    for message in (Unfit("no such data", None), Died("exit code 0")):
        it.hear(0, message)
    assert it.lost is None


def test_nobody_works_once_all_who_do_have_paused(executor: FakeExecutor) -> None:
    it = busy(executor)
    assert not it.pause_all()
    it.hear(0, Paused(0))
    assert not it.pause_all()
    it.release(1)
    assert it.pause_all(), "one pauses, the other has nothing to do"
    it.resume_all()
    assert not executor.paused


def test_a_worker_that_is_starting_is_waited_for_and_one_that_cannot_start_is_not(
    executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "PAUSE_SECONDS", 100.0)
    it = Crew(executor, lambda note: None)
    it.hear(0, Ready("fake", "fp32"))
    assert not it.pause_all()
    for message in (Unfit("no such data", None), Died("exit code 0")):
        it.hear(1, message)
    assert it.pause_all()
    for message in (Died("SIGKILL"), Unfit("no room on the GPU", None), Died("exit code 0")):
        it.hear(0, message)
    assert it.pause_all(), "it tries again in a while"


def test_an_answer_to_an_earlier_pause_is_none_to_this_one(executor: FakeExecutor) -> None:
    it = busy(executor, 1)
    assert not it.pause_all()
    it.release(0)  # its training had just ended
    assert it.pause_all()
    it.resume_all()
    it.hear(0, Paused(0))
    it.occupy(0, None)  # type: ignore[arg-type]
    assert not it.pause_all()
    it.hear(0, Paused(0))
    assert not it.pause_all()
    it.hear(0, Paused(1))
    assert it.pause_all()


def test_who_pauses_does_not_hang(executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "UNLEARNED_SECONDS", 0.01)
    it = busy(executor)
    it.pause_all()
    executor._outbox.clear()
    it.hear(0, Paused(0))
    time.sleep(0.02)
    it.receive(0)
    assert executor.killed == [1]
