"""A worker at the end of a scripted line: what it says, what it heeds, and when it ends."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nas.config import DataConfig
from nas.data.loader import Resident
from nas.data.stream import Streamed
from nas.jobs import worker
from nas.jobs.messages import (
    Alive,
    Began,
    Ended,
    Epoch,
    Failed,
    FromWorker,
    Pause,
    Paused,
    Ready,
    Resume,
    Shutdown,
    Suspend,
    ToWorker,
    Unfit,
    Verdict,
)
from nas.jobs.worker import run_worker
from nas.train.checkpoint import read_curve
from nas.train.threads import ThreadChoice
from tests.jobs.working import DATA, GO_ON, FakeChannel, Workplace, always, assert_same, kinds, one_by_one, said


def test_it_is_ready_then_trains_and_says_each_epoch(workplace: Workplace) -> None:
    heard = workplace.work([workplace.order()])
    assert kinds(heard) == ["Ready", "Began", "Epoch", "Epoch", "Ended"]
    ready, began, *epochs, ended = heard
    assert isinstance(ready, Ready)
    assert ready.device == "cpu, 1 thread"
    assert ready.sees_study
    assert began == Began(0, "none")
    assert ended == Ended("finished")
    assert [epoch.metrics for epoch in epochs] == read_curve(workplace.trial().metrics)  # type: ignore[union-attr]
    assert all(epoch.metrics.ema_val_accuracy is not None for epoch in epochs)  # type: ignore[union-attr]
    assert sorted(workplace.files()) == ["trials/0000/checkpoint.pt", "trials/0000/metrics.jsonl"]
    assert not said(Alive, heard), "an epoch is heard of more often than every two seconds"


def test_it_trains_one_after_another_until_it_is_shut_down(workplace: Workplace) -> None:
    heard = workplace.work([workplace.order(0)], one_by_one(workplace.order(1), workplace.order(2), Shutdown()))
    assert said(Ended, heard) == [Ended("finished")] * 3
    assert all(workplace.trial(number).metrics.is_file() for number in range(3))


def test_a_trial_that_is_pruned_ends(workplace: Workplace) -> None:
    heard = workplace.work([workplace.order()], lambda m: [Verdict(go_on=False)] if isinstance(m, Epoch) else [])
    assert kinds(heard) == ["Ready", "Began", "Epoch", "Ended"]
    assert heard[-1] == Ended("stopped")


def test_a_training_suspended_within_an_epoch_resumes(workplace: Workplace) -> None:
    first = workplace.work([workplace.order(), Suspend()])
    assert kinds(first) == ["Ready", "Began", "Ended"]
    assert first[-1] == Ended("suspended")
    assert workplace.trial().checkpoint.exists()
    heard = workplace.work([Suspend(), workplace.order()])  # a Suspend before it is not meant for it
    assert kinds(heard) == ["Ready", "Began", "Epoch", "Epoch", "Ended"]
    assert heard[1] == Began(0, "whole")

    def next_one(message: FromWorker) -> list[ToWorker]:
        return [workplace.order(2)] if message == Ended("suspended") else always(message)

    assert workplace.work([workplace.order(1), Suspend()], next_one)[-1] == Ended("finished")


def test_suspended_while_it_waits_for_a_verdict_it_says_again_what_it_knows(workplace: Workplace) -> None:
    def suspend_first(message: FromWorker) -> list[ToWorker]:
        return [Suspend(), GO_ON] if isinstance(message, Epoch) else []

    first = workplace.work([workplace.order()], suspend_first)
    assert kinds(first) == ["Ready", "Began", "Epoch", "Ended"]
    assert first[-1] == Ended("suspended")
    second = workplace.work([workplace.order()])
    assert kinds(second) == ["Ready", "Began", "Epoch", "Epoch", "Ended"]
    assert second[1] == Began(1, "whole")
    assert said(Epoch, second)[0] == said(Epoch, first)[0]


def test_suspended_at_every_moment_in_turn_it_ends_the_same(workplace: Workplace, tmp_path: Path) -> None:
    """Each run is suspended at its third look at the line: within epochs, between them and while it evaluates."""
    whole = Workplace.led(tmp_path / "whole")
    whole.work([whole.order()])
    runs = 0
    while True:
        runs += 1
        assert runs < 20, "it does not get on"
        heard = workplace.work([workplace.order()], on_poll=lambda polled: [Suspend()] if polled == 3 else [])
        if heard[-1] == Ended("finished"):
            break
        assert heard[-1] == Ended("suspended")
    assert runs > 4
    assert_same(whole.trial(), workplace.trial())


@pytest.mark.parametrize("found", ["damaged", "mismatched"])
def test_it_says_what_it_found_in_a_checkpoints_place(workplace: Workplace, found: str) -> None:
    workplace.work([workplace.order(seed=0 if found == "damaged" else 9)])
    if found == "damaged":
        workplace.trial().checkpoint.write_bytes(workplace.trial().checkpoint.read_bytes()[:-100])
    heard = workplace.work([workplace.order()])
    assert heard[1] == Began(0, found)  # type: ignore[arg-type]
    assert kinds(heard)[2:] == ["Epoch", "Epoch", "Ended"]


def test_a_training_that_raises_costs_itself_and_not_the_worker(workplace: Workplace) -> None:
    def next_one(message: FromWorker) -> list[ToWorker]:
        return [workplace.order(1)] if isinstance(message, Failed) else always(message)

    heard = workplace.work([workplace.order(0, stages=6)], next_one)
    assert kinds(heard) == ["Ready", "Failed", "Began", "Epoch", "Epoch", "Ended"]
    (failed,) = said(Failed, heard)
    assert failed.reason.startswith("ConfigError: stage 5 of 6 would halve")
    assert "\n" not in failed.reason
    assert "Traceback" in failed.traceback


def test_a_folder_that_may_not_be_written_costs_the_training_too(workplace: Workplace) -> None:
    """As does any other fault of the disk than that it is full."""
    workplace.paths.trials.write_text("a file in the folder's place")
    (failed,) = said(Failed, workplace.work([workplace.order()]))
    assert failed.reason.startswith("NotADirectoryError: ")
    assert str(workplace.trial().folder) in failed.reason


def test_within_a_long_epoch_it_gives_signs_of_life(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ALIVE_SECONDS", 0.0)
    heard = workplace.work([workplace.order()])
    assert kinds(heard) == ["Ready", "Began", "Epoch", "Epoch", "Ended"]
    progress = [message.progress for message in said(Alive, heard)]
    steps = [("training", step, 4) for step in range(4)] + [("validating", 0, 1)]
    assert [(one.epoch, one.phase, one.done, one.total) for one in progress] == [(e, *step) for e in (1, 2) for step in steps]
    rates = [one.images_per_second for one in progress]
    assert rates[0] is None, "nothing has been trained yet"
    assert all(rate > 0 for rate in rates[1:])


def test_an_evaluation_of_many_images_says_how_far_it_is(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ALIVE_SECONDS", 0.0)
    monkeypatch.setattr("nas.train.loop.EVALUATION_BATCH", 50)
    heard = workplace.work([workplace.order(epochs=1)])
    progress = [message.progress for message in said(Alive, heard) if message.progress.phase == "validating"]
    assert [(one.done, one.total) for one in progress] == [(0, 3), (1, 3), (2, 3)], "of 144 images"


@pytest.mark.parametrize("left", [[], [Shutdown()]], ids=["gone", "shut down"])
def test_without_a_coordinator_it_ends_quietly_whatever_it_does(workplace: Workplace, left: list[ToWorker]) -> None:
    heard = workplace.work([workplace.order(0)], lambda message: left if isinstance(message, Epoch) else [])
    assert kinds(heard) == ["Ready", "Began", "Epoch"], "while it waited for a verdict"
    within = workplace.work([workplace.order(1), *left, Shutdown()], lambda message: [])
    assert kinds(within) == ["Ready", "Began"], "within an epoch"
    assert kinds(workplace.work(left)) == ["Ready"], "before it trained anything"


@pytest.mark.parametrize("word", ["Ready", "Unfit", "Began", "Epoch", "Ended"])
@pytest.mark.parametrize("error", [BrokenPipeError, EOFError, OSError])
def test_a_broken_connection_is_not_a_training_failure(workplace: Workplace, word: str, error: type[Exception]) -> None:
    def broken(message: FromWorker) -> Iterable[ToWorker]:
        if type(message).__name__ == word:
            line.answer = broken_for_good
            raise error
        return always(message)

    def broken_for_good(message: FromWorker) -> Iterable[ToWorker]:
        raise error

    line = FakeChannel([workplace.order()], broken)
    run_worker(line, workplace.plan(data=DATA if word != "Unfit" else DataConfig(dataset="didgits")))
    said_before = [name for name in kinds(line.heard) if name != "Failed"]
    assert said_before[-1] == word


@pytest.mark.parametrize(
    ("data", "device", "says"),
    [
        (DataConfig(dataset="didgits"), "cpu", "'didgits' is not a data set"),
        (DATA, "cuda:99", "no device 'cuda:99'"),
        (DataConfig(dataset="digits", subset=10_000), "cpu", "--train-subset"),
    ],
)
def test_user_errors_are_reported_before_the_worker_is_ready(
    workplace: Workplace, data: DataConfig, device: str, says: str
) -> None:
    channel = FakeChannel()
    run_worker(channel, workplace.plan(data, device))
    (unfit,) = channel.heard
    assert isinstance(unfit, Unfit)
    assert says in unfit.message


def test_images_that_do_not_fit_are_its_users_to_mend_and_a_fault_of_ours_is_not(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault: Exception = RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")

    def fail(*_: Any, **__: Any) -> Resident:
        raise fault

    monkeypatch.setattr(Resident, "__init__", fail)
    (unfit,) = workplace.work([])
    assert unfit == Unfit(
        "the images do not fit in the free memory of the device: RuntimeError: CUDA error: out of memory",
        "use fewer workers on it, --train-subset, or a smaller --image-size",
    )
    fault = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        workplace.work([])


def pausing(*meanwhile: ToWorker) -> dict[str, Any]:
    """In the first step it is asked to pause, and then hears this."""
    return {"on_poll": lambda polled: [Pause(), *meanwhile] if polled == 1 else []}


def test_a_pause_within_an_epoch_changes_nothing_but_the_time(workplace: Workplace, tmp_path: Path) -> None:
    workplace.work([workplace.order()])
    other = Workplace.led(tmp_path / "other")
    heard = other.work([other.order()], **pausing(Resume()))
    assert kinds(heard) == ["Ready", "Began", "Paused", "Epoch", "Epoch", "Ended"]
    assert_same(other.trial(), workplace.trial())


def test_a_verdict_that_comes_in_a_pause_is_heeded_after_it(workplace: Workplace) -> None:
    def answer(message: FromWorker) -> list[ToWorker]:
        if not isinstance(message, Epoch):
            return []
        return [Pause(), Verdict(go_on=False), Resume()] if message.metrics.epoch == 1 else [GO_ON]

    heard = workplace.work([workplace.order()], answer)
    assert kinds(heard) == ["Ready", "Began", "Epoch", "Paused", "Ended"]
    assert heard[-1] == Ended("stopped")


def test_a_training_that_pauses_can_be_suspended(workplace: Workplace) -> None:
    heard = workplace.work([workplace.order()], **pausing(Suspend()))
    assert kinds(heard) == ["Ready", "Began", "Paused", "Ended"]
    assert heard[-1] == Ended("suspended")
    assert "trials/0000/checkpoint.pt" in workplace.files()


def test_a_device_is_idle_before_a_pause_is_confirmed(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def confirmed(number: int) -> Paused:
        done.append("confirmed")
        return Paused(number)

    monkeypatch.setattr(worker, "wait_for", lambda waited: done.append(f"waited for {waited}"))
    monkeypatch.setattr(worker, "Paused", confirmed)
    workplace.work([workplace.order(epochs=1)], **pausing(Resume()))
    assert done == ["waited for cpu", "confirmed"]
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("emptied"))
    gpu: Any = SimpleNamespace(device=torch.device("cuda"), _suspended=True, _send=lambda message: None)
    worker._Trainer.pause(gpu, 1)
    assert done[2:] == ["waited for cuda", "emptied", "confirmed"]


def test_an_idle_worker_pauses_too_and_a_late_resume_is_none_of_its_business(workplace: Workplace) -> None:
    heard = workplace.work([Pause(), Resume(), workplace.order(epochs=1), Resume()])
    assert kinds(heard) == ["Ready", "Paused", "Began", "Epoch", "Ended"]


def test_the_next_job_begins_with_all_threads_whatever_the_last_one_chose(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def due(choice: ThreadChoice) -> bool:
        seen.append(torch.get_num_threads())
        return True

    monkeypatch.setattr(ThreadChoice, "is_due", property(due))
    monkeypatch.setattr(ThreadChoice, "choose", lambda choice, step, left, pause: choice.set(1))
    before = torch.get_num_threads()
    try:
        line = FakeChannel([workplace.order(0)], one_by_one(workplace.order(1), Shutdown()))
        run_worker(line, replace(workplace.plan(), threads=2, times_threads=True))
    finally:
        torch.set_num_threads(before)
    assert seen == [2, 1, 2, 1]


@pytest.mark.parametrize("kind", [Resident, Streamed])
def test_a_worker_says_where_its_images_come_from_if_not_from_its_device(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, kind: type[Resident]
) -> None:
    asked: list[tuple[int, str, int]] = []

    def pick(nbytes: int, device: torch.device, sharing: int) -> type[Resident]:
        asked.append((nbytes, device.type, sharing))
        return kind

    monkeypatch.setattr(worker, "pick_storage", pick)
    line = FakeChannel([workplace.order()])
    run_worker(line, replace(workplace.plan(), sharing=3))
    (ready,) = said(Ready, line.heard)
    assert ready.device.endswith(", images streamed from the cache") == (kind is Streamed)
    ((nbytes, device, sharing),) = asked
    assert (nbytes % 64, device, sharing) == (0, "cpu", 3), "digits are 64 bytes each"
    assert line.heard[-1] == Ended("finished")
