"""A training small enough to run many times: two hundred digits, a network of a few thousand parameters."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.config import ArchConfig, AugmentConfig, Candidate, DataConfig, StageConfig, TrainConfig
from nas.data.datasets import load_dataset
from nas.data.images import Dataset
from nas.data.loader import Resident, TrainBatches
from nas.device import Precision
from nas.models import ResNet, build_model
from nas.paths import TrialPaths
from nas.train.checkpoint import EpochMetrics, read_curve
from nas.train.loop import FitResult, fit

FP32 = Precision(None, False, "for the test")
TRAIN_IMAGES, VALIDATION_IMAGES = 200, 100
SEED = 11


@dataclass
class Run:
    """One call of `fit`: how it ended, and the network whose weights it trained."""

    result: FitResult
    model: ResNet
    heard: list[EpochMetrics]
    """What `on_epoch` was called with."""
    paths: TrialPaths


@dataclass
class Training:
    """`fit` with everything but a folder decided."""

    dataset: Dataset
    candidate: Candidate
    precision: Precision = FP32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    identity: str = "this one"

    def changed(self, arch: dict[str, Any] | None = None, **train: Any) -> "Training":
        """The same with other fields of the network and of its training."""
        other = copy.copy(self)
        tree = self.candidate.model_dump()
        other.candidate = Candidate.model_validate(
            {"arch": {**tree["arch"], **(arch or {})}, "train": {**tree["train"], **train}}
        )
        return other

    def model(self) -> ResNet:
        torch.manual_seed(SEED)
        return build_model(self.candidate.arch, self.dataset.shape)

    def resident(self, first: int, count: int) -> Resident:
        return Resident(self.dataset.train, self.dataset.mean, self.dataset.std, self.device, np.arange(first, first + count))

    def batches(self) -> TrainBatches:
        config = self.candidate.train
        data, classes = self.resident(0, TRAIN_IMAGES), len(self.dataset.classes)
        return TrainBatches(data, config, SEED, classes)

    def __call__(
        self,
        folder: Path,
        *,
        on_epoch: Callable[[EpochMetrics], bool] = lambda metrics: True,
        should_suspend: Callable[[], bool] = lambda: False,
        validate: bool = True,
        **more: Any,
    ) -> Run:
        heard: list[EpochMetrics] = []

        def listen(metrics: EpochMetrics) -> bool:
            heard.append(metrics)
            return on_epoch(metrics)

        model, paths = self.model(), TrialPaths(folder)
        result = fit(
            model,
            self.batches(),
            self.resident(TRAIN_IMAGES, VALIDATION_IMAGES) if validate else None,
            self.candidate.train,
            listen,
            paths=paths,
            precision=self.precision,
            seed=SEED,
            identity=self.identity,
            should_suspend=should_suspend,
            **more,
        )
        return Run(result, model, heard, paths)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset(DataConfig(dataset="digits"))


@pytest.fixture
def training(digits: Dataset) -> Training:
    """Four epochs with everything random in them: dropout, stochastic depth, shuffling, crops."""
    arch = ArchConfig(
        stages=(StageConfig(blocks=1, channels=8), StageConfig(blocks=1, channels=12)),
        dropout=0.1,
        dropout_place="stem+block",
        stochastic_depth=0.2,
        se_reduction=4,
    )
    train = TrainConfig(
        epochs=4,
        batch_size=32,
        lr=0.1,
        ema_epochs=0.5,
        label_smoothing=0.1,
        augment=AugmentConfig(crop_padding=1, pad_mode="zero", flip="none"),
    )
    return Training(digits, Candidate(arch=arch, train=train))


def says_so_after(times: int) -> Callable[[], bool]:
    """A `should_suspend` that says no so many times. It is asked before each step, and before each batch of an evaluation."""
    asked = 0

    def should_suspend() -> bool:
        nonlocal asked
        asked += 1
        return asked > times

    return should_suspend


@pytest.fixture
def after_asking() -> Callable[[int], Callable[[], bool]]:
    return says_so_after


@pytest.fixture
def equal_states() -> Callable[[Any, Any], bool]:
    """Whether two nested states are the same bit by bit."""

    def equal(one: Any, other: Any) -> bool:
        if isinstance(one, torch.Tensor):
            return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
        if isinstance(one, dict):
            return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
        if isinstance(one, list | tuple):
            return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
        return one == other

    return equal


@pytest.fixture
def without_clock() -> Callable[[list[EpochMetrics]], list[dict[str, Any]]]:
    """A curve without what depends on how fast the machine was."""

    def strip(curve: list[EpochMetrics]) -> list[dict[str, Any]]:
        lines = [json.loads(json.dumps(vars(metrics))) for metrics in curve]
        return [{key: value for key, value in line.items() if key not in ("seconds", "images_per_second")} for line in lines]

    return strip


@pytest.fixture
def same(equal_states: Callable[[Any, Any], bool], without_clock: Callable[[Any], Any]) -> Callable[[Any, Any], None]:
    """Asserts that two trainings left the same behind."""

    def check(one: Any, other: Any) -> None:
        assert one.result.status == other.result.status == "finished"
        assert equal_states(one.model.state_dict(), other.model.state_dict())
        assert equal_states(one.result.model.state_dict(), other.result.model.state_dict())
        curves = [without_clock(read_curve(run.paths.metrics)) for run in (one, other)]
        assert curves[0] == curves[1] == without_clock(one.result.curve) == without_clock(other.result.curve)
        saved = [torch.load(run.paths.checkpoint, weights_only=True) for run in (one, other)]
        for state in saved:
            del state["curve"], state["seconds"]
        assert equal_states(saved[0], saved[1]), "optimiser, random numbers and all"

    return check
