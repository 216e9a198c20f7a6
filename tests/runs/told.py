"""What a command that trains says, and a worker that is a thread of this process, so that a test can get in its way."""

import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from nas.errors import NasError
from nas.interrupts import Stop
from nas.jobs.executor import Executor
from nas.jobs.messages import FromWorker, Shutdown, ToWorker, WorkerPlan
from nas.jobs.worker import run_worker
from nas.paths import TrialPaths
from nas.runs.card import ModelCard
from nas.runs.plan import Plan
from nas.runs.retrain import Retrained, retrain
from nas.runs.train import TrainingDisplay
from nas.specs import RetrainSpec
from nas.train.checkpoint import EpochMetrics
from nas.train.loop import EpochProgress


class Told(TrainingDisplay):
    def __init__(self, stop_after: int | None = None) -> None:
        """A stop is requested after so many epochs; after 0 of them once it is planned."""
        self.stop, self.stop_after = Stop(), stop_after
        self.planned: tuple[Any, ...] | None = None
        """None where nothing is to be trained."""
        self.epochs: list[tuple[str, int]] = []
        self.metrics: set[tuple[str, EpochMetrics]] = set()
        self.progress: list[tuple[str, int, int, int]] = []
        self.notes: list[str] = []
        self.printed: list[tuple[str, str]] = []

    def on_plan(self, *planned: Any) -> None:
        self.planned = planned
        if self.stop_after == 0:
            self.stop.request()

    def on_epoch(self, plan: Plan, metrics: EpochMetrics) -> None:
        self.epochs.append((plan.name, metrics.epoch))
        self.metrics.add((plan.name, metrics))
        if len(self.epochs) == self.stop_after:
            self.stop.request()

    def on_progress(self, plan: Plan, progress: EpochProgress) -> None:
        self.progress.append((plan.name, progress.epoch, progress.done, progress.total))

    def on_printed(self, name: str, text: str) -> None:
        self.printed.append((name, text))

    def note(self, text: str) -> None:
        self.notes.append(text)


def refusal(action: Callable[[], object]) -> NasError:
    with pytest.raises(NasError) as refused:
        action()
    return refused.value


def train_one(spec: RetrainSpec, told: Told | None = None) -> Retrained:
    told = told or Told()
    return retrain(spec, told.on_plan, told, told.stop)


def trained(spec: RetrainSpec, told: Told | None = None) -> tuple[TrialPaths, ModelCard]:
    """Its run and its card."""
    best = train_one(spec, told).best
    assert best is not None
    return best


class InThread(Executor):
    """Its one worker is a thread of this process."""

    workers = (0,)

    def __init__(self, plans: list[WorkerPlan]) -> None:
        self.plan = plans[0] if plans else None
        self.said: queue.Queue[FromWorker] = queue.Queue()
        self.inbox: queue.Queue[ToWorker] = queue.Queue()
        line = SimpleNamespace(send=self.said.put, recv=self.inbox.get, poll=lambda: not self.inbox.empty())
        self.thread = threading.Thread(target=lambda: run_worker(line, self.plan))

    def tell(self, **changes: Any) -> None:
        self.plan = replace(self.plan, **changes)

    def start(self) -> None:
        self.thread.start()

    def send(self, worker: int, message: ToWorker) -> None:
        self.inbox.put(message)

    def receive(self, timeout: float) -> list[tuple[int, FromWorker]]:
        try:
            return [(0, self.said.get(timeout=timeout))]
        except queue.Empty:
            return []

    def kill(self, worker: int) -> None:
        raise NotImplementedError

    restart = kill

    def close(self, force: bool = False) -> None:
        self.send(0, Shutdown())
        if self.thread.is_alive():
            self.thread.join(60)


@pytest.fixture
def trained_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.runs.train.LocalExecutor", InThread)
