"""What a network is worth on a set of images, the logits behind that, and BatchNorm statistics taken anew before."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from nas.config import AugmentConfig, MetricName
from nas.data.cache import Progress, silent
from nas.data.loader import Resident
from nas.device import Precision, out_of_memory, release_memory
from nas.errors import ConfigError, choices_sentence
from nas.train.optimiser import BATCH_NORMS

EVALUATION_BATCH = 500
"""Images. Twice as many are 2 % faster on a CPU, and would need more memory than a training at the usual batch sizes."""
SMALLEST_EVALUATION = 8  # images at a time

Result = TypeVar("Result")

# ------------------------------------------------------------------------------------------------------------- metrics


@dataclass(frozen=True)
class ClassCounts:
    """How often each class was there, was predicted, and both; int64 (classes,) each."""

    there: np.ndarray
    predicted: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, predicted: np.ndarray, classes: int) -> "ClassCounts":
        """Of labels and predictions, int64 (N,)."""
        right = labels[labels == predicted]
        return cls(*(np.bincount(found, minlength=classes) for found in (labels, predicted, right)))


def accuracy(counts: ClassCounts) -> float:
    """Share of the images that were recognised."""
    return int(counts.right.sum()) / int(counts.there.sum())


def balanced_accuracy(counts: ClassCounts) -> float:
    """Mean recall of the classes that are there (arXiv 2008.05756)."""
    there = counts.there > 0
    return float(np.mean(counts.right[there] / counts.there[there]))


def macro_f1(counts: ClassCounts) -> float:
    """Mean F1 of the classes that are there or were predicted, as in scikit-learn."""
    both = counts.there + counts.predicted
    seen = both > 0
    return float(np.mean(2 * counts.right[seen] / both[seen]))


METRICS: dict[MetricName, Callable[[ClassCounts], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
}
"""By name; each is in [0, 1]."""

# ---------------------------------------------------------------------------------------------- test-time augmentation


def plain(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, classes) of images (N, C, H, W)."""
    return model(images)


def flip_averaged(model: nn.Module, images: Tensor) -> Tensor:
    """Mean logits (N, classes) of images (N, C, H, W) and their mirror images."""
    return (model(images) + model(images.flip(3))) / 2


def flip_shift_averaged(model: nn.Module, images: Tensor) -> Tensor:
    """Mean logits (N, classes) of images (N, C, H, W) and two copies shifted by a pixel along both diagonals, each with its
    mirror image; the unshifted ones count half (arXiv 2404.00498)."""
    size = images.shape[-1]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    shifted = [flip_averaged(model, padded[:, :, at : at + size, at : at + size]) for at in (0, 2)]
    return flip_averaged(model, images) / 2 + (shifted[0] + shifted[1]) / 4


TTA: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {"none": plain, "flip": flip_averaged, "flip_shift": flip_shift_averaged}
"""Test-time augmentation by name."""


def require_tta(name: str) -> None:
    """Raises ConfigError with those there are."""
    if name not in TTA:
        raise ConfigError(f"{name!r} is not a test-time augmentation.{choices_sentence(name, TTA)}")


def fitting_tta(config: AugmentConfig) -> str:
    """Flip averaging for a network that has seen mirrored images; to any other a mirrored digit is another digit."""
    return "none" if config.flip == "none" else "flip"


# ----------------------------------------------------------------------------------------------- passes over the images


class Stopped(Exception):
    """Raised out of a pass over the images when `should_stop` says so."""


def never() -> bool:
    return False


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """Within it the network computes in this precision. float32 is not TF32, and not by kernels chosen for their speed in that
    moment, on CUDA too: what is computed twice is the same."""
    if precision.autocast is None:
        cudnn = torch.backends.cudnn
        return cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False)
    return torch.autocast(device.type, dtype=precision.autocast, enabled=precision.autocast is not None)


def within_memory(run: Callable[[int], Result], batch: int, device: torch.device) -> Result:
    """`run(batch)`; where its memory runs out, again with a quarter of the images at a time."""
    while True:
        try:
            return run(batch)
        except Exception as error:
            if out_of_memory(error) is None or batch <= SMALLEST_EVALUATION:
                raise
        release_memory(device)
        batch = max(SMALLEST_EVALUATION, batch // 4)


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    data: Resident,
    precision: Precision,
    tta: str = "none",
    *,
    batch: int = EVALUATION_BATCH,
    should_stop: Callable[[], bool] = never,
    progress: Progress = silent,
    what: str = "predicting",
) -> Tensor:
    """float32 (N, classes), on the data's device, in batches of at most `batch` images. Leaves the model in evaluation mode.
    Raises Stopped."""
    model.eval()

    def predict(batch: int) -> Tensor:
        outputs = []
        with autocast(data.device, precision):
            for images, _ in progress(data.batches(batch), f"{what}, batches", math.ceil(len(data) / batch)):
                if should_stop():
                    raise Stopped
                outputs.append(TTA[tta](model, images).float())
        return torch.cat(outputs)

    return within_memory(predict, batch, data.device)


class Scores(NamedTuple):
    loss: float  # mean cross-entropy
    accuracy: float
    balanced_accuracy: float
    macro_f1: float

    @classmethod
    def of(cls, sums: Tensor) -> Self:
        """Of what was tallied over all images."""
        counts = ClassCounts(*sums[1:].numpy().astype(np.int64).reshape(3, -1))
        return cls(float(sums[0]) / int(counts.there.sum()), **{name: metric(counts) for name, metric in METRICS.items()})


def evaluate(model: nn.Module, data: Resident, precision: Precision) -> Scores:
    """Waits for the device at its end."""
    return Scores.of(tally(model, data, precision))


def tally(
    model: nn.Module,
    data: Resident,
    precision: Precision,
    *,
    batch: int = EVALUATION_BATCH,
    should_stop: Callable[[], bool] = never,
) -> Tensor:
    """float64 (1 + 3 × classes,) on the CPU: the sum of cross-entropies, then `ClassCounts`, row by row. What is tallied over
    parts of the images adds up to what is tallied over all of them. Raises Stopped when `should_stop`, asked before each batch of
    so many images, says so."""
    assert data.labels is not None
    logits = predict_logits(model, data, precision, batch=batch, should_stop=should_stop)
    total = F.cross_entropy(logits, data.labels, reduction="sum")
    classes = logits.argmax(1)
    counts = ClassCounts.of(data.labels.cpu().numpy(), classes.cpu().numpy(), logits.shape[1])
    return torch.from_numpy(np.concatenate([[total.item()], counts.there, counts.predicted, counts.right]))


SETTLED = 1e-4  # by so much of a deviation the statistics of BatchNorm may still change when they are taken anew


class _Moments:
    """Mean and variance of each channel of all that a BatchNorm is given, whatever the batches, on the CPU: summed up by batches
    as by Chan, Golub and LeVeque (1983)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()).double(), torch.zeros(()).double()

    def __call__(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A forward pre-hook."""
        of_channels = inputs[0].float().transpose(0, 1).flatten(1)
        variance, mean = torch.stack(torch.var_mean(of_channels, 1, correction=0)).cpu().double()
        count = of_channels.shape[1]
        whole, apart = self.count + count, mean - self.mean
        self.mean = self.mean + apart * count / whole
        self.squares = self.squares + variance * count + apart**2 * self.count * count / whole
        self.count = whole

    def give(self, norm: _BatchNorm) -> float:
        """Gives them to `norm`; the largest change of a channel's mean or deviation, in deviations."""
        variance = self.squares / max(1, self.count - 1)
        deviation = (variance + norm.eps).sqrt()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        # MPS has no float64.
        before = norm.running_mean.cpu().double(), (norm.running_var.cpu().double() + norm.eps).sqrt()
        norm.running_mean.copy_(self.mean.float())
        norm.running_var.copy_(variance.float())
        return max(float(((new - old).abs() / deviation).max()) for new, old in zip((self.mean, deviation), before, strict=True))


@torch.no_grad()
def reestimate_norm(
    model: nn.Module, data: Resident, precision: Precision, *, batch: int = EVALUATION_BATCH, progress: Progress = silent
) -> None:
    """Sets the running mean and variance of every BatchNorm to those of `data` as a whole, whatever its batches, and leaves all
    weights as they are. No label is used (arXiv 2006.10963, 2006.16971). Leaves the model in evaluation mode.

    Each pass over the images takes the statistics of all layers under those of the pass before: after it one layer more has those
    that stay, so that as many passes as there are layers are enough, and usually a few are.
    """
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, BATCH_NORMS) and m.running_mean is not None]

    def measure(batch: int) -> dict[_BatchNorm, _Moments]:
        moments: dict[_BatchNorm, _Moments] = {norm: _Moments() for norm in norms}
        hooks = [norm.register_forward_pre_hook(found) for norm, found in moments.items()]
        try:
            with autocast(data.device, precision):
                for images, _ in progress(data.batches(batch), "BatchNorm's statistics, batches", math.ceil(len(data) / batch)):
                    model(images)
        finally:
            for hook in hooks:
                hook.remove()
        return moments

    for _ in norms:
        moments = within_memory(measure, batch, data.device)
        if max((found.give(norm) for norm, found in moments.items() if found.count), default=0.0) < SETTLED:
            break
