"""A worker: trains what it is given, one message an epoch. Knows neither Optuna nor where a study is stored."""

import traceback
from typing import Protocol

from nas.config import DataConfig
from nas.errors import NasError
from nas.search.messages import (
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


class Channel(Protocol):
    """A worker's end of the line to the coordinator; every method raises EOFError or OSError once that is gone."""

    def send(self, message: FromWorker) -> None: ...
    def receive(self) -> ToWorker: ...
    def poll(self) -> bool: ...


def run_worker(channel: Channel, plan: WorkerPlan) -> None:
    """Serves the coordinator until it says Shutdown or is gone."""
    import torch

    torch.set_num_threads(plan.threads)
    try:
        trainer = _Trainer(channel, plan)
    except NasError as error:
        channel.send(Unfit(error.message, error.hint))
        return
    channel.send(Ready(trainer.device_name, trainer.precision.name))
    try:
        while True:
            match channel.receive():
                case Train() as order:
                    trainer.train(order)
                case Shutdown():
                    return
                case Suspend():
                    pass  # nothing is being trained
    except (EOFError, OSError):
        return  # the coordinator is gone; the last checkpoint holds all but the epoch under way


class _Trainer:
    """The data and the device, loaded once for all trainings."""

    def __init__(self, channel: Channel, plan: WorkerPlan) -> None:
        from nas.data.datasets import load_dataset
        from nas.train.device import device_name, pick_device, pick_precision

        self.channel = channel
        self.device = pick_device(plan.device)
        self.device_name = device_name(self.device)
        self.precision = pick_precision(self.device)
        self.dataset = load_dataset(plan.data)
        self._reside(plan.data)
        self._suspended = False

    def _reside(self, config: DataConfig) -> None:
        from nas.data.datasets import split
        from nas.data.loader import Resident

        data = self.dataset
        parts = split(data, config)
        self.train_data = Resident.of(data.train, data.mean, data.std, self.device, parts.train)
        chosen_from = data.validation or data.train
        self.validation = Resident.of(chosen_from, data.mean, data.std, self.device, parts.validation)

    def train(self, order: Train) -> None:
        """Trains one candidate and says how it ended. An exception of ours costs this trial, not the worker."""
        self._suspended = False
        try:
            self.channel.send(self._fit(order))
        except (EOFError, BrokenPipeError, ConnectionError):
            raise
        except Exception as error:  # whatever building or training may raise is the trial's failure
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            self.channel.send(Failed(order.number, reason, traceback.format_exc()))

    def _fit(self, order: Train) -> Ended:
        import torch

        from nas.data.loader import TrainBatches
        from nas.models import build_model
        from nas.paths import TrialPaths
        from nas.train.loop import EpochMetrics, fit

        def on_epoch(metrics: EpochMetrics) -> bool:
            self.channel.send(Epoch(order.number, metrics))
            return self._verdict()

        config = order.candidate.train
        torch.manual_seed(order.seed)
        model = build_model(order.candidate.arch, self.dataset.shape)
        batches = TrainBatches(self.train_data, config.batch_size, config.augment, order.seed, classes=len(self.dataset.classes))
        result = fit(
            model,
            batches,
            self.validation,
            config,
            on_epoch,
            paths=TrialPaths(order.folder),
            precision=self.precision,
            seed=order.seed,
            identity=f"{order.candidate.digest} seed {order.seed}",
            should_suspend=self._should_suspend,
        )
        return Ended(order.number, result.status)

    def _verdict(self) -> bool:
        """Waits for the answer to an epoch; a Suspend may come before it."""
        while True:
            match self.channel.receive():
                case Verdict(go_on=go_on):
                    return go_on
                case Suspend():
                    self._suspended = True
                case Shutdown():
                    raise EOFError("shut down in the middle of a training")

    def _should_suspend(self) -> bool:
        if not self._suspended and self.channel.poll():
            match self.channel.receive():
                case Suspend():
                    self._suspended = True
                case Shutdown():
                    raise EOFError("shut down in the middle of a training")
        return self._suspended
