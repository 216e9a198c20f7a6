"""The simulated shift: each kind by what it must do to an image, and that it is the same every time."""

import numpy as np
import pytest
import torch
from torch import Tensor

from nas.data.augment import Draw
from nas.data.images import ImageSet
from nas.data.shift import LEAST_STRENGTH, SHIFTS, shifted
from tests.data.pictures import pictures


def changed(kind: str, images: Tensor, strength: float) -> Tensor:
    n = len(images)
    return SHIFTS[kind](images, torch.full((n,), strength), Draw.seeded(1, torch.arange(n)))


@pytest.mark.parametrize("kind", SHIFTS)
def test_each_kind_changes_images_the_more_the_stronger(kind: str) -> None:
    images = pictures(8)
    before = images.clone()
    weak, strong = (changed(kind, images, strength) for strength in (LEAST_STRENGTH, 1.0))
    assert torch.equal(images, before), "what it is given stays"
    assert weak.shape == strong.shape == images.shape
    assert weak.dtype == strong.dtype == torch.uint8
    distances = [float((result.float() - images.float()).abs().mean()) for result in (weak, strong)]
    assert 0.5 < distances[0] < distances[1]


@pytest.mark.parametrize("kind", SHIFTS)
@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (3, 4, 5, 5)], ids=["greyscale", "four channels"])
def test_other_images_than_coloured_ones_keep_their_shape(kind: str, shape: tuple[int, ...]) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    assert changed(kind, images, 1.0).shape == images.shape


def made(n: int) -> ImageSet:
    images = pictures(n).permute(0, 2, 3, 1).contiguous().numpy()
    return ImageSet(images, np.arange(n, dtype=np.int64) % 4)


def test_images_follow_the_seed_are_visibly_others_and_keep_their_labels() -> None:
    data = made(256)
    first, again, other = (shifted(data, None, seed).images for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (np.abs(first.astype(float) - data.images).mean(axis=(1, 2, 3)) > 0.5).mean() > 0.95
    part = np.array([3, 40, 63])
    some = shifted(data, part, 0)
    assert some.labels.tolist() == data.labels[part].tolist()
    assert len(some) == 3
