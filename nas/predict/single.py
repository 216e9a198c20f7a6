"""The classes of single images."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nas.data.decoding import decode, decoding_failure
from nas.data.stream import pick_storage
from nas.errors import ConfigError, DataError
from nas.runs.card import ModelCard
from nas.runs.load import load_network
from nas.runs.select import find_run
from nas.specs import PredictSpec
from nas.train.device import FULL_PRECISION, pick_device
from nas.train.evaluate import predict_logits


@dataclass(frozen=True)
class Guess:
    image: Path
    classes: tuple[tuple[str, float], ...]
    """The most probable ones with their probabilities, the first one first."""


def predict_images(request: PredictSpec) -> list[Guess]:
    """Each brought to the network's size as in training. Raises NasError."""
    if request.top < 1:
        raise ConfigError(f"--top must be at least 1, but is {request.top}")
    model, card = load_network(find_run(request.paths, request.run))
    images = np.stack([_read(path, card) for path in request.images])
    device = pick_device(request.device)
    data = pick_storage(images.nbytes, device)(images, None, card.mean, card.std, device)
    logits = predict_logits(model.to(device), data, FULL_PRECISION, card.tta)
    found = torch.softmax(logits, 1).topk(min(request.top, len(card.classes)))
    return [
        Guess(path, tuple((card.classes[i], share) for share, i in zip(shares, which, strict=True)))
        for path, shares, which in zip(request.images, found.values.tolist(), found.indices.tolist(), strict=True)
    ]


def _read(path: Path, card: ModelCard) -> np.ndarray:
    if not path.is_file():
        raise DataError(f"there is no file {path}", hint="name images: nas predict IMAGE…")
    try:
        return decode(path, card.shape.size, card.shape.channels, card.data.resize)
    except Exception as error:
        raise DataError(f"{path} cannot be read as an image: {decoding_failure(error)}") from None
