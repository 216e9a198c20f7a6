"""How fast a training is, measured: what is slow shows in the part that it belongs to, and in no other."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from nas.config import TrainConfig
from nas.data.loader import TrainBatches
from nas.train import loop
from nas.train.pace import LEAST_STEPS, WARM_UP_STEPS, Pace, measure_pace
from tests.train.conftest import FP32, SEED, TRAIN_IMAGES, VALIDATION_IMAGES, Training


class Slowed(nn.Module):
    """Waits before its forward passes, as `seconds` says of how many there were and whether it trains."""

    def __init__(self, inner: nn.Module, seconds: Callable[[int, bool], float]) -> None:
        super().__init__()
        self.inner, self.seconds, self.passes = inner, seconds, 0

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(self.seconds(self.passes, self.training))
        self.passes += 1
        return self.inner(images)


def pace_of(training: Training, seconds: Callable[[int, bool], float] = lambda passes, trains: 0.0, **changes: Any) -> Pace:
    training = training.changed(**{"ema_epochs": 0.0, **changes})
    model = Slowed(training.model(), seconds)
    return measure_pace(
        model, training.batches(), training.resident(TRAIN_IMAGES, VALIDATION_IMAGES), training.candidate.train, FP32, 0.05
    )


def test_epoch_is_its_steps_its_evaluation_and_its_checkpoint() -> None:
    pace = Pace(start=100.0, step=0.5, image=0.001, checkpoint=0.25)
    assert pace.epoch(10, 2000) == pytest.approx(5.0 + 2.0 + 0.25)
    assert pace.epoch(0, 0) == 0.25


def test_every_part_takes_time(training: Training) -> None:
    pace = pace_of(training)
    assert min(pace.step, pace.image, pace.checkpoint) > 0
    assert pace.start >= 0


def test_slow_step_is_the_steps(training: Training) -> None:
    pace = pace_of(training, lambda passes, trains: 0.2 * trains)
    assert pace.step >= 0.2
    assert pace.image * VALIDATION_IMAGES < 0.2


def test_slow_evaluation_is_the_images(training: Training) -> None:
    pace = pace_of(training, lambda passes, trains: 0.0 if trains else 0.5)
    assert pace.image * VALIDATION_IMAGES >= 0.5
    assert pace.step < 0.5


def test_slow_beginning_is_the_start(training: Training) -> None:
    pace = pace_of(training, lambda passes, trains: 1.0 * (passes == 0))
    assert pace.start > 0.9 - WARM_UP_STEPS * pace.step
    assert pace.step < 0.5


def test_single_slow_step_says_little(training: Training) -> None:
    pace = pace_of(training, lambda passes, trains: 1.0 if passes == WARM_UP_STEPS + 1 else 0.1 * trains)
    assert 0.1 <= pace.step < 0.5


def test_writes_are_the_checkpoint_and_no_step(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    save = loop.save_checkpoint

    def slowly(path: Path, state: dict[str, Any]) -> None:
        time.sleep(0.5)
        save(path, state)

    monkeypatch.setattr(loop, "save_checkpoint", slowly)
    pace = pace_of(training, batch_size=TRAIN_IMAGES)  # every step is an epoch, and ends in a checkpoint
    assert pace.checkpoint >= 0.5
    assert pace.step < 0.5


def test_measurement_ends_though_the_training_is_short_or_explodes(training: Training) -> None:
    steps = 0

    def count(passes: int, trains: bool) -> float:
        nonlocal steps
        steps += trains
        return 0.0

    pace_of(training, count, epochs=1, lr=100.0, batch_size=TRAIN_IMAGES)
    assert steps >= WARM_UP_STEPS + LEAST_STEPS


def test_network_that_learns_from_the_data_first_is_measured_too(training: Training) -> None:
    training = training.changed(arch={"stem": {"type": "whitening"}})
    config: TrainConfig = training.candidate.train
    batches = TrainBatches(training.resident(0, TRAIN_IMAGES), config, SEED, 10)
    pace = measure_pace(training.model(), batches, training.resident(0, 50), config, FP32, 0.01)
    assert pace.step > 0
