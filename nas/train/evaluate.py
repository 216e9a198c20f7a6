"""What a network is worth on a set of images, and the logits behind that."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.config import AugmentConfig
from nas.data.cache import Progress, silent
from nas.data.loader import Resident
from nas.errors import ConfigError, choices_sentence
from nas.train.device import Precision
from nas.train.metrics import METRICS, ClassCounts

EVALUATION_BATCH = 500
"""Images. Twice as many are 2 % faster on a CPU, and would need more memory than a training at the usual batch sizes."""


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    return torch.autocast(device.type, dtype=precision.autocast, enabled=precision.autocast is not None)


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
        raise ConfigError(f"{name!r} is no test-time augmentation.{choices_sentence(name, TTA)}")


def fitting_tta(config: AugmentConfig) -> str:
    """Flip averaging for a network that has seen mirrored images; to any other a mirrored digit is another digit."""
    return "none" if config.flip == "none" else "flip"


class Stopped(Exception):
    """Raised out of a pass over the images when `should_stop` says so."""


def never() -> bool:
    return False


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
) -> Tensor:
    """float32 (N, classes), on the data's device. Leaves the model in evaluation mode. Raises Stopped."""
    model.eval()
    outputs = []
    with autocast(data.device, precision):
        for images, _ in progress(data.batches(batch), "predicting, batches", math.ceil(len(data) / batch)):
            if should_stop():
                raise Stopped
            outputs.append(TTA[tta](model, images).float())
    return torch.cat(outputs)


class Scores(NamedTuple):
    loss: float
    """Mean cross-entropy."""
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
