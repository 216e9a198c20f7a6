"""How fast a network trains and is evaluated, measured on a few steps of the very loop that a training runs."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch import nn

from nas.config import TrainConfig
from nas.data.loader import Resident, TrainBatches
from nas.device import Precision, wait_for
from nas.paths import TrialPaths
from nas.train.evaluate import evaluate
from nas.train.loop import fit

WARM_UP_STEPS = 2
LEAST_STEPS = 3
STEPS_APART = 10
"""Between two looks at the clock on a device that works while the host goes on, which each look makes it wait for."""
ENDLESS = {"epochs": 100_000, "lr": 1e-6, "adam_lr": None, "muon_lr": 1e-6}
"""Neither the end of the training nor an exploding loss comes before that of the measurement; no step's time depends on them."""


@dataclass(frozen=True)
class Pace:
    """Seconds of a training's parts."""

    start: float
    """Once a training: what goes with the network, and the first steps and evaluation beyond what later ones take, when libraries
    choose their kernels."""
    step: float  # with the preparation of its batch
    image: float  # evaluating one
    checkpoint: float

    def epoch(self, steps: int, images: int) -> float:
        """Of so many steps, and so many validation images."""
        return steps * self.step + images * self.image + self.checkpoint


def measure_pace(
    model: nn.Module, train: TrainBatches, validation: Resident, config: TrainConfig, precision: Precision, seconds: float
) -> Pace:
    """Trains `model` for about `seconds` after its first steps, and evaluates it on `validation`, some hundred images."""
    begun = time.perf_counter()
    clock = _Clock(train.data.device, seconds)
    with tempfile.TemporaryDirectory(prefix="nas-pace-") as folder:
        result = fit(
            model,
            train,
            None,
            config.model_copy(update=ENDLESS),
            lambda metrics: True,
            paths=TrialPaths(Path(folder)),
            precision=precision,
            seed=0,
            identity="",
            should_suspend=clock.has_enough,
            write=clock.write,
        )
    first, later = (_seconds_of(lambda: evaluate(result.model, validation, precision)) for _ in range(2))
    before = clock.looks[0] - begun - WARM_UP_STEPS * clock.step
    return Pace(max(0.0, before) + max(0.0, first - later), clock.step, later / len(validation), clock.writes[-1])


def _seconds_of(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


class _Clock:
    """Asked before every step, and given every write to the disk, whose time is not the steps'."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.seconds = device, seconds
        self.apart = 1 if device.type == "cpu" else STEPS_APART
        self.steps = 0
        self.looks: list[float] = []
        """The time after the first steps, and after every `apart` further ones; without what was written."""
        self.writes: list[float] = []

    def has_enough(self) -> bool:
        """Whether the measurement may end."""
        steps, self.steps = self.steps, self.steps + 1
        if steps < WARM_UP_STEPS or (steps - WARM_UP_STEPS) % self.apart:
            return False
        wait_for(self.device)
        self.looks.append(time.perf_counter() - sum(self.writes))
        return steps >= WARM_UP_STEPS + LEAST_STEPS and self.looks[-1] - self.looks[0] >= self.seconds

    def write(self, action: Callable[[], None]) -> None:
        self.writes.append(_seconds_of(action))

    @property
    def step(self) -> float:
        """In the median: beside other work on the machine single steps take ten times as long."""
        return median(later - before for before, later in pairwise(self.looks)) / self.apart
