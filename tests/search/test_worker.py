"""A worker at the end of a scripted line, in this process."""

import pickle
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from nas.config import ArchConfig, AugmentConfig, Candidate, DataConfig, StageConfig, TrainConfig
from nas.search.messages import (
    Died,
    Ended,
    Epoch,
    Failed,
    FromWorker,
    Ready,
    Shutdown,
    Suspend,
    ToWorker,
    Train,
    Unfit,
    Verdict,
    WorkerPlan,
)
from nas.search.worker import run_worker
from nas.train.loop import read_curve
from tests.search.scripted import metrics

DATA = DataConfig(dataset="digits", subset=100)
GO_ON = Verdict(go_on=True)


class FakeChannel:
    """What the coordinator says is in a queue; `answer` adds to it whenever the worker has spoken."""

    def __init__(self, orders: Iterable[ToWorker], answer: Callable[[FromWorker], Iterable[ToWorker]]) -> None:
        self.queue = deque(orders)
        self.answer = answer
        self.heard: list[FromWorker] = []

    def send(self, message: FromWorker) -> None:
        self.heard.append(message)
        self.queue.extend(self.answer(message))

    def receive(self) -> ToWorker:
        if not self.queue:
            raise EOFError
        return self.queue.popleft()

    def poll(self) -> bool:
        return bool(self.queue)


def always(message: FromWorker) -> list[ToWorker]:
    return [GO_ON] if isinstance(message, Epoch) else []


def work(
    orders: Iterable[ToWorker], answer: Callable[[FromWorker], Iterable[ToWorker]] = always, data: DataConfig = DATA
) -> list[FromWorker]:
    channel = FakeChannel(orders, answer)
    run_worker(channel, WorkerPlan(data, "cpu", 1))
    return channel.heard


def kinds(messages: Iterable[FromWorker]) -> list[str]:
    return [type(message).__name__ for message in messages]


@pytest.fixture
def order(tmp_path: Path) -> Callable[..., Train]:
    def make(number: int = 0, stages: int = 1, epochs: int = 2) -> Train:
        candidate = Candidate(
            arch=ArchConfig(stages=(StageConfig(blocks=1, channels=4),) * stages),
            train=TrainConfig(epochs=epochs, batch_size=25, augment=AugmentConfig(crop_padding=1, flip="none")),
        )
        return Train(number, candidate, tmp_path / str(number), seed=number)

    return make


def test_it_is_ready_then_trains_and_says_each_epoch(order: Callable[..., Train], tmp_path: Path) -> None:
    heard = work([order(0)])
    assert kinds(heard) == ["Ready", "Epoch", "Epoch", "Ended"]
    ready, *epochs, ended = heard
    assert ready.device.startswith("cpu")  # type: ignore[union-attr]
    assert ended == Ended(0, "finished")
    assert [epoch.metrics for epoch in epochs] == read_curve(tmp_path / "0" / "metrics.jsonl")  # type: ignore[union-attr]
    assert all(epoch.metrics.ema_val_accuracy is not None for epoch in epochs)  # type: ignore[union-attr]


def test_it_trains_one_after_another_until_it_is_shut_down(order: Callable[..., Train]) -> None:
    def next_one(message: FromWorker) -> list[ToWorker]:
        if isinstance(message, Ended):
            return [order(message.number + 1)] if message.number < 2 else [Shutdown()]
        return always(message)

    heard = work([order(0)], next_one)
    assert [message.number for message in heard if isinstance(message, Ended)] == [0, 1, 2]


def test_a_no_ends_the_training(order: Callable[..., Train]) -> None:
    heard = work([order(0)], lambda message: [Verdict(go_on=False)] if isinstance(message, Epoch) else [])
    assert heard[1:] == [heard[1], Ended(0, "stopped")]


def test_suspended_within_an_epoch_it_goes_on_later(order: Callable[..., Train], tmp_path: Path) -> None:
    assert work([order(0), Suspend()])[-1] == Ended(0, "suspended")
    assert (tmp_path / "0" / "checkpoint.pt").exists()
    heard = work([order(0)])
    assert kinds(heard) == ["Ready", "Epoch", "Epoch", "Ended"]


def test_suspended_while_it_waits_for_a_verdict_it_says_again_what_it_knows(order: Callable[..., Train]) -> None:
    def suspend_first(message: FromWorker) -> list[ToWorker]:
        return [Suspend(), GO_ON] if isinstance(message, Epoch) else []

    first = work([order(0)], suspend_first)
    assert kinds(first) == ["Ready", "Epoch", "Ended"]
    assert first[-1] == Ended(0, "suspended")
    second = work([order(0)])
    assert kinds(second) == ["Ready", "Epoch", "Epoch", "Ended"]
    assert second[1] == first[1]


def test_after_a_suspended_training_the_next_one_trains(order: Callable[..., Train]) -> None:
    def next_one(message: FromWorker) -> list[ToWorker]:
        return [order(1)] if message == Ended(0, "suspended") else always(message)

    assert work([order(0), Suspend()], next_one)[-1] == Ended(1, "finished")


def test_a_suspend_between_trainings_is_not_taken_for_the_next_one(order: Callable[..., Train]) -> None:
    assert work([Suspend(), order(0)])[-1] == Ended(0, "finished")


def test_a_training_that_raises_costs_itself_and_not_the_worker(order: Callable[..., Train]) -> None:
    def next_one(message: FromWorker) -> list[ToWorker]:
        return [order(1)] if isinstance(message, Failed) else always(message)

    heard = work([order(0, stages=6)], next_one)
    assert kinds(heard) == ["Ready", "Failed", "Epoch", "Epoch", "Ended"]
    failed = heard[1]
    assert isinstance(failed, Failed)
    assert failed.number == 0
    assert failed.reason.startswith("ConfigError: stage 5 of 6 would halve")
    assert "\n" not in failed.reason
    assert "Traceback" in failed.traceback


@pytest.mark.parametrize("left", [[], [Shutdown()]], ids=["gone", "shut down"])
def test_without_a_coordinator_it_ends_quietly_whatever_it_does(order: Callable[..., Train], left: list[ToWorker]) -> None:
    heard = work([order(0)], lambda message: left if isinstance(message, Epoch) else [])
    assert kinds(heard) == ["Ready", "Epoch"], "while it waited for a verdict"
    assert kinds(work([order(1), *left, Shutdown()], lambda message: [])) == ["Ready"], "within an epoch"
    assert kinds(work(left)) == ["Ready"], "before it trained anything"


def test_a_broken_line_is_no_failure_of_the_training(order: Callable[..., Train]) -> None:
    def broken(message: FromWorker) -> list[ToWorker]:
        if isinstance(message, Epoch):
            raise BrokenPipeError
        return []

    assert kinds(work([order(0)], broken)) == ["Ready", "Epoch"]


@pytest.mark.parametrize(
    ("data", "device", "says"),
    [
        (DataConfig(dataset="didgits"), "cpu", "'didgits' is no data set"),
        (DATA, "cuda:99", "no device 'cuda:99'"),
        (DataConfig(dataset="digits", subset=10_000), "cpu", "--train-subset"),
    ],
)
def test_what_its_user_can_mend_is_said_before_it_is_ready(data: DataConfig, device: str, says: str) -> None:
    channel = FakeChannel([], always)
    run_worker(channel, WorkerPlan(data, device, 1))
    (unfit,) = channel.heard
    assert isinstance(unfit, Unfit)
    assert says in unfit.message


def test_every_message_can_be_sent_to_another_process(order: Callable[..., Train]) -> None:
    messages: list[Any] = [
        order(0),
        GO_ON,
        Suspend(),
        Shutdown(),
        Ready("cpu", "fp32"),
        Epoch(0, metrics(1, 0.5)),
        Ended(0, "finished"),
        Failed(0, "reason", "traceback"),
        Unfit("message", None),
        Died(None),
        WorkerPlan(DATA, "cpu", 1),
    ]
    assert pickle.loads(pickle.dumps(messages)) == messages
