"""What a command that trains says, and workers that are threads of this process, so that a test can get in their way."""

import queue
import threading
from dataclasses import replace
from typing import Any

import pytest

from nas.interrupts import Stop
from nas.jobs.executor import Executor
from nas.jobs.messages import FromWorker, Shutdown, ToWorker
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


def train_one(spec: RetrainSpec, told: Told | None = None) -> Retrained:
    told = told or Told()
    return retrain(spec, told.on_plan, told, told.stop)


def trained(spec: RetrainSpec, told: Told | None = None) -> tuple[TrialPaths, ModelCard]:
    """Its run and its card."""
    best = train_one(spec, told).best
    assert best is not None
    return best


class Threads(Executor):
    def __init__(self, plans: list[Any]) -> None:
        self.plans = plans
        self.said: queue.Queue[tuple[int, FromWorker]] = queue.Queue()
        self.inboxes = [queue.Queue[ToWorker]() for _ in plans]
        self.threads: list[threading.Thread] = []

    @property
    def workers(self) -> list[int]:
        return list(range(len(self.plans)))

    def tell(self, **changes: Any) -> None:
        self.plans = [replace(plan, **changes) for plan in self.plans]

    def start(self) -> None:
        self.threads = [threading.Thread(target=run_worker, args=(Line(self, n), plan)) for n, plan in enumerate(self.plans)]
        for thread in self.threads:
            thread.start()

    def send(self, worker: int, message: ToWorker) -> None:
        self.inboxes[worker].put(message)

    def receive(self, timeout: float) -> list[tuple[int, FromWorker]]:
        try:
            return [self.said.get(timeout=timeout)]
        except queue.Empty:
            return []

    def kill(self, worker: int) -> None:
        raise NotImplementedError

    def restart(self, worker: int) -> None:
        raise NotImplementedError

    def close(self, force: bool = False) -> None:
        for worker in self.workers:
            self.send(worker, Shutdown())
        for thread in self.threads:
            thread.join(60)


class Line:
    """A worker's end."""

    def __init__(self, executor: Threads, worker: int) -> None:
        self.executor, self.worker, self.inbox = executor, worker, executor.inboxes[worker]

    def send(self, message: FromWorker) -> None:
        self.executor.said.put((self.worker, message))

    def receive(self) -> ToWorker:
        return self.inbox.get()

    def poll(self) -> bool:
        return not self.inbox.empty()


@pytest.fixture
def trained_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.runs.train.LocalExecutor", Threads)
