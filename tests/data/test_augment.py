"""What every augmentation promises, checked for each entry of the registry, and the batches that come of them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nas.config import AugmentConfig, TrainConfig
from nas.data.augment import AUGMENTATIONS, EXAMPLES, NOTHING, augment
from nas.data.augment.mix import MIXES, mix
from nas.data.images import ImageSet
from nas.data.loader import Resident, TrainBatches
from tests.data.pictures import a_draw, pictures

ALONE = {label: config for label, config in EXAMPLES.items() if config.mix == "none"}
"""Those that change one image at a time."""

SHAPES = [(1, 8), (3, 32)]
COLOUR_ONLY = {"saturation", "hue"}


@pytest.mark.parametrize(("channels", "size"), SHAPES)
@pytest.mark.parametrize("label", ALONE)
def test_it_follows_the_seed_and_keeps_shape_type_and_its_input(label: str, channels: int, size: int) -> None:
    images = pictures(24, channels, size)
    before = images.clone()
    result = augment(images, ALONE[label], a_draw(24, seed=3))
    assert (result.shape, result.dtype, result.device) == (images.shape, torch.uint8, images.device)
    assert torch.equal(images, before)
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(result, augment(last, ALONE[label], a_draw(24, seed=3))), "the layout in memory does not matter"
    if channels == 3 or label not in COLOUR_ONLY:
        assert not torch.equal(result, augment(images, ALONE[label], a_draw(24, seed=4)))


@pytest.mark.parametrize(("channels", "size"), SHAPES)
@pytest.mark.parametrize("label", ALONE)
def test_each_image_has_its_own_draw(label: str, channels: int, size: int) -> None:
    image = pictures(2, channels, size)[1:]
    results = augment(image.expand(64, -1, -1, -1), ALONE[label], a_draw(64))
    different = len({result.numpy().tobytes() for result in results})
    if channels == 1 and label in COLOUR_ONLY:
        assert torch.equal(results, image.expand(64, -1, -1, -1))
    elif "flip" in label or label == "sharpness":
        assert different == 2
    else:
        assert different > 8


def test_every_augmentation_has_an_example_that_turns_it_on_alone() -> None:
    images = pictures(24)
    for config in ALONE.values():
        assert sum(is_on(config) for is_on, _ in AUGMENTATIONS.values()) == 1
    for name, (is_on, function) in AUGMENTATIONS.items():
        on = [config for config in ALONE.values() if is_on(config)]
        assert any(not torch.equal(function(images, config, a_draw(24)), images) for config in on), name
    assert {config.mix for config in EXAMPLES.values()} == {"none", *MIXES}


def test_nothing_happens_and_nothing_is_drawn_when_all_is_off() -> None:
    images, draw = pictures(24), a_draw(24)
    before = draw.generator.get_state(), draw.host.get_state()
    assert augment(images, NOTHING, draw) is images
    assert torch.equal(draw.generator.get_state(), before[0])
    assert torch.equal(draw.host.get_state(), before[1])


def test_a_batch_of_one_image() -> None:
    everything = AugmentConfig(
        resized_crop=0.5, vertical_flip=0.5, rotation=9, translation=0.1, brightness=0.3, hue=0.1, sharpness=2, blur=1
    )
    everything = everything.model_copy(update={"policy": "autoaugment", "erasing": 0.5, "cutout": 4, "mix": "cutmix"})
    for seed in range(20):
        draw = a_draw(1, seed)
        images, targets = mix(augment(pictures(1), everything, draw).float(), torch.tensor([2]), 4, everything, draw)
        assert images.shape == (1, 3, 32, 32)
        assert targets.tolist() == [[0, 0, 1, 0]]


class _NoQuestions(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU: reading a value, or a result whose size depends on values."""

    REFUSED = ("nonzero", "_local_scalar_dense", "masked_select", "unique", "is_nonzero")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in str(func) for name in self.REFUSED), f"{func} waits for the device"
        masks = [x for x in args[1] if x is not None] if "aten.index" in str(func) and isinstance(args[1], list | tuple) else []
        assert all(mask.dtype != torch.bool for mask in masks), f"{func} by a mask waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("label", ALONE)
def test_never_waits_for_the_device(label: str) -> None:
    images, draw = pictures(24), a_draw(24)
    with _NoQuestions():
        augment(images, ALONE[label], draw)


def test_the_check_for_waiting_finds_it() -> None:
    values = torch.arange(4)
    for waiting in (lambda: values[values > 1], lambda: int(values.sum()), lambda: values.nonzero()):
        with _NoQuestions(), pytest.raises(AssertionError, match="waits"):
            waiting()


def _batches(augmentation: AugmentConfig, n: int = 40, batch_size: int = 16) -> TrainBatches:
    images = pictures(n, 3, 8).permute(0, 2, 3, 1).contiguous().numpy()
    labels = np.arange(n, dtype=np.int64) % 5
    data = Resident(ImageSet(images, labels), [120.0] * 3, [60.0] * 3, torch.device("cpu"))
    return TrainBatches(data, TrainConfig(batch_size=batch_size, augment=augmentation), 7, 5)


def test_batches_of_mixed_images_have_soft_targets_and_those_of_whole_ones_class_indices() -> None:
    for images, targets in _batches(AugmentConfig(mix="cutmix")).epoch(0):
        assert images.shape == (16, 3, 8, 8)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert (targets.shape, targets.dtype) == ((16, 5), torch.float32)
        assert 0.01 < float(targets.max(dim=1).values.min()) < 0.999
    for images, labels in _batches(AugmentConfig()).epoch(0):
        assert images.dtype == torch.float32
        assert (labels.shape, labels.dtype) == ((16,), torch.int64)


def test_the_alternating_flip_follows_the_image_through_the_shuffling() -> None:
    batches = _batches(AugmentConfig(crop_padding=0, flip="alternating"), batch_size=40)
    shuffled = _batches(NOTHING, batch_size=40)
    originals = batches.data.normalise(batches.data.take(torch.arange(40))[0])
    mirrored = []  # bool (3, 40): by epoch, and by the image's place in the data
    for epoch in range(3):
        (images, _), (unmirrored, _) = next(batches.epoch(epoch)), next(shuffled.epoch(epoch))
        places = (unmirrored[:, None] == originals[None]).flatten(2).all(dim=2).int().argmax(dim=1)
        turned = (images != unmirrored).flatten(1).any(dim=1)
        mirrored.append(torch.zeros(40, dtype=torch.bool).index_put((places,), turned)[1:])  # the first is symmetric
    assert torch.equal(mirrored[1], ~mirrored[0])
    assert torch.equal(mirrored[2], mirrored[0])
    assert 8 < int(mirrored[0].sum()) < 31
