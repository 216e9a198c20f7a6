"""Images on a device: which are taken, and how they are normalised."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nas.config import AugmentConfig, TrainConfig
from nas.data.images import ImageSet
from nas.data.loader import Resident, TrainBatches

CPU = torch.device("cpu")
MEAN, STD = [120.5, 101.25, 33.0], [60.7, 0.3, 71.1]
RNG = np.random.default_rng(0)


def images_of(n: int, height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (n, height, width, channels), np.uint8)


def resident(images: np.ndarray, indices: np.ndarray | None = None, labelled: bool = True) -> Resident:
    channels = images.shape[3]
    data = ImageSet(images, np.arange(len(images)) % 5) if labelled else images
    return Resident(data, MEAN[:channels], STD[:channels], CPU, indices)


def batches_of(images: np.ndarray, size: int, **recipe: Any) -> TrainBatches:
    return TrainBatches(resident(images), TrainConfig(batch_size=size, **recipe), 7, 5)


def laid_out(images: np.ndarray, layout: str) -> Tensor:
    """uint8 (N, C, H, W)"""
    last = torch.from_numpy(images).permute(0, 3, 1, 2)
    if layout == "channels last":
        return last
    if layout == "channels first":
        return last.contiguous()
    if layout == "every second":
        return last.repeat_interleave(2, dim=3)[..., ::2]
    return last.flip(3).transpose(2, 3).contiguous().transpose(2, 3).flip(3)


LAYOUTS = ["channels last", "channels first", "every second", "columns first"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("n", "height", "width"), [(5, 8, 8), (3, 7, 9), (64, 16, 16), (1, 1, 1), (2, 33, 1), (300, 5, 3), (0, 8, 8)]
)
def test_it_is_the_difference_from_the_mean_in_deviations(n: int, height: int, width: int, channels: int, layout: str) -> None:
    array = images_of(n, height, width, channels)
    images = laid_out(array, layout)
    before = images.clone()
    result = resident(images_of(1, channels=channels)).normalise(images)
    mean, std = torch.tensor(MEAN[:channels]), torch.tensor(STD[:channels])
    wanted = ((torch.from_numpy(array) - mean.double()) / std.double()).permute(0, 3, 1, 2)
    assert result.dtype == torch.float32
    assert result.shape == images.shape
    assert result.is_contiguous(memory_format=torch.channels_last)
    # Three roundings: of the difference, of the deviation's inverse, of their product.
    torch.testing.assert_close(result.double(), wanted, rtol=2e-7, atol=1e-6)
    assert torch.equal(images, before), "it may be a view of the images themselves"


def test_a_pixel_becomes_the_same_wherever_it_is() -> None:
    data = resident(images_of(1))
    images = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 3, 5, 7)
    whole = data.normalise(images)
    assert torch.equal(whole, whole[:, :, :1, :1].expand(whole.shape))
    assert torch.equal(whole[100:101], data.normalise(images[100:101]))


def test_images_that_are_floats_already_are_not_written_into() -> None:
    images = torch.full((2, 3, 8, 8), 7.0).contiguous(memory_format=torch.channels_last)
    resident(images_of(1)).normalise(images)
    assert (images == 7).all()


CHOSEN = np.array([7, 3, 3, 12, 0, 19])


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("indices", [None, CHOSEN], ids=["all", "chosen"])
@pytest.mark.parametrize("which", [torch.tensor([4, 0, 4]), torch.tensor([], dtype=torch.int64)])
def test_images_and_labels_are_taken_from_the_same_places(which: Tensor, indices: np.ndarray | None, labelled: bool) -> None:
    array = images_of(20)
    images, labels = resident(array, indices, labelled).take(which)
    places = (np.arange(20) if indices is None else indices)[which.numpy()]
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1), array[places])
    assert (labels is None) is not labelled
    if labels is not None:
        np.testing.assert_array_equal(labels, places % 5)


def test_on_the_cpu_nothing_is_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", images_of(20))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="c")
    data = resident(mapped, CHOSEN)
    assert np.shares_memory(data._rows.numpy(), mapped)  # type: ignore[union-attr]
    assert len(data) == 6


@pytest.mark.parametrize("size", [1, 4, 6, 100])
def test_batches_are_all_images_in_order(size: int) -> None:
    array = images_of(20)
    data = resident(array, CHOSEN)
    batches = list(data.batches(size))
    assert [len(images) for images, _ in batches] == [len(part) for part in torch.arange(6).split(size)]
    everything = data.normalise(torch.from_numpy(array[CHOSEN]).permute(0, 3, 1, 2))
    assert torch.equal(torch.cat([images for images, _ in batches]), everything)
    assert torch.cat([labels for _, labels in batches if labels is not None]).tolist() == (CHOSEN % 5).tolist()


def test_a_sample_is_spread_evenly() -> None:
    array = images_of(20)
    data = resident(array)
    assert torch.equal(data.sample(7), data.normalise(data.take(torch.arange(0, 20, 3))[0]))
    assert len(data.sample(100)) == 20


def test_after_an_epochs_last_step_nothing_is_left_of_it() -> None:
    batches = batches_of(images_of(20), 6)
    assert len(list(batches.epoch(0))) == len(batches) == 3
    assert list(batches.epoch(0, first_step=3)) == []


@pytest.mark.parametrize("epoch_images", [4, 12, 20, 26, 61])
def test_epochs_of_any_length_see_the_same_batches_as_whole_passes(epoch_images: int) -> None:
    def batches(epochs: int, **more: int) -> list[tuple[Tensor, Tensor]]:
        train = batches_of(images, 4, augment=AugmentConfig(flip="alternating"), **more)
        return [batch for epoch in range(epochs) for batch in train.epoch(epoch)]

    images = images_of(21)  # five whole batches, and one image is left out
    steps = epoch_images // 4
    wanted, found = batches(13)[: 4 * steps], batches(4, epoch_images=epoch_images)
    assert len(found) == len(wanted) == 4 * steps
    for (a, a_labels), (b, b_labels) in zip(wanted, found, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a_labels, b_labels)
    train = batches_of(images, 4, epoch_images=epoch_images)
    whole = list(train.epoch(2))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[1:], train.epoch(2, first_step=1), strict=True))


def test_a_batch_is_no_larger_than_an_epoch() -> None:
    train = batches_of(images_of(21), 8, epoch_images=3)
    assert (train.batch_size, len(train), len(list(train.epoch(9)))) == (3, 1, 1)
