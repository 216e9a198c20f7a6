"""A worker at the end of a scripted line, in this process."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nas.config import ArchConfig, AugmentConfig, Candidate, DataConfig, StageConfig, TrainConfig
from nas.jobs.job import Job
from nas.jobs.messages import Alive, Ended, Epoch, FromWorker, ToWorker, Train, Verdict, WorkerPlan
from nas.jobs.worker import run_worker
from nas.paths import StudyPaths, TrialPaths

DATA = DataConfig(dataset="digits", subset=100)
GO_ON = Verdict(go_on=True)
TOKEN = "the runner of this test"

Answer = Callable[[FromWorker], Iterable[ToWorker]]


def always(message: FromWorker) -> list[ToWorker]:
    """Every epoch may go on."""
    return [GO_ON] if isinstance(message, Epoch) else []


@dataclass
class FakeChannel:
    """What the runner says is in a queue; `answer` adds to it whenever the worker has spoken."""

    orders: Iterable[ToWorker] = ()
    answer: Answer = always
    on_poll: Callable[[int], Iterable[ToWorker]] = lambda polled: ()
    """Told how often the worker has asked for news; adds to the queue, too."""
    heard: list[FromWorker] = field(default_factory=list)
    polled: int = 0

    def __post_init__(self) -> None:
        self.queue = deque(self.orders)

    def send(self, message: FromWorker) -> None:
        self.heard.append(message)
        self.queue.extend(self.answer(message))

    def recv(self) -> ToWorker:
        if not self.queue:
            raise EOFError
        return self.queue.popleft()

    def poll(self) -> bool:
        self.polled += 1
        self.queue.extend(self.on_poll(self.polled))
        return bool(self.queue)


@dataclass(frozen=True)
class Workplace:
    """A study's folder, trainings in it, and workers that carry them out."""

    paths: StudyPaths

    @classmethod
    def led(cls, study: Path) -> "Workplace":
        """One whose runner is that of the test."""
        workplace = cls(StudyPaths(study))
        workplace.lead()
        return workplace

    def lead(self, token: str = TOKEN) -> None:
        self.paths.folder.mkdir(parents=True, exist_ok=True)
        self.paths.token.write_text(token)

    def trial(self, number: int = 0) -> TrialPaths:
        return self.paths.trial(number)

    def order(self, number: int = 0, *, stages: int = 1, blocks: int = 1, channels: int = 4, **changes: Any) -> Train:
        """`changes` are fields of Train, of its job, or else of the training's configuration."""
        checkpoint, seed, parts = changes.pop("checkpoint", None), changes.pop("seed", number), changes.pop("micro_batches", 1)
        recipe = {"epochs": 2, "batch_size": 25, "augment": AugmentConfig(crop_padding=1, flip="none"), **changes}
        arch = ArchConfig(stages=(StageConfig(blocks=blocks, channels=channels),) * stages, dropout=0.1)
        candidate = Candidate(arch=arch, train=TrainConfig(**recipe))
        identity, folder = f"{candidate.digest} seed {seed}", self.trial(number).folder
        job = Job(str(number), f"trial {number}", folder, candidate.arch, candidate.train, seed, identity, micro_batches=parts)
        return Train(job, checkpoint)

    def plan(self, data: DataConfig = DATA, device: str = "cpu") -> WorkerPlan:
        return WorkerPlan(data, device, 1, self.paths.folder, TOKEN)

    def work(self, orders: Iterable[ToWorker], answer: Answer = always, **channel: Any) -> list[FromWorker]:
        """Everything that a worker says until it ends."""
        line = FakeChannel(orders, answer, **channel)
        run_worker(line, self.plan())
        return line.heard

    def files(self) -> dict[str, bytes]:
        """All that lies in the study's folder, but the token."""
        found = (file for file in self.paths.folder.rglob("*") if file.is_file() and file != self.paths.token)
        return {str(file.relative_to(self.paths.folder)): file.read_bytes() for file in found}


def one_by_one(*orders: ToWorker) -> Answer:
    """Every epoch may go on, and each end is answered by the next order."""
    left = deque(orders)
    return lambda message: [left.popleft()] if isinstance(message, Ended) and left else always(message)


def kinds(messages: Iterable[FromWorker]) -> list[str]:
    """Without signs of life, which come when they like."""
    return [type(message).__name__ for message in messages if not isinstance(message, Alive)]


def said(kind: type, messages: Iterable[FromWorker]) -> list[Any]:
    return [message for message in messages if isinstance(message, kind)]


CLOCK = ("seconds", "images_per_second")


def curve_of(trial: TrialPaths) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on how fast the machine was."""
    lines = [json.loads(line) for line in trial.metrics.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]


def state_of(trial: TrialPaths) -> dict[str, Any]:
    """The checkpoint's, flat, and without what depends on how fast the machine was; tensors as lists of exact numbers."""
    state = torch.load(trial.checkpoint, weights_only=True)
    del state["seconds"]
    state["curve"] = [{key: value for key, value in line.items() if key not in CLOCK} for line in state["curve"]]
    return _plain(state)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), list(value.shape), value.tolist()]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def assert_same(one: TrialPaths, other: TrialPaths) -> None:
    """Weights, averaged weights, optimiser, random numbers and curve, bit by bit; each epoch once."""
    assert state_of(one) == state_of(other)
    assert curve_of(one) == curve_of(other) == state_of(one)["curve"]
    assert [line["epoch"] for line in curve_of(one)] == list(range(1, len(curve_of(one)) + 1))


def alive(pid: int) -> bool:
    """Whether the process has not ended; one that has ended and was not waited for has."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
