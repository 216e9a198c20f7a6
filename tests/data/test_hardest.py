"""Passes over the hardest images: which they are, in which order, and after a training was cut off."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from nas.config import AugmentConfig, TrainConfig
from nas.data.hardest import Hardest
from nas.data.images import ImageSet
from nas.data.loader import Resident, TrainBatches

CPU = torch.device("cpu")
PLAIN = AugmentConfig(crop_padding=0, flip="none")


def batches(images: int = 10, share: float = 0.6, size: int = 2, flip: str = "none") -> TrainBatches:
    """Each image shows its position, and its right half is darker by one."""
    pixels = np.arange(images, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2) * 2 + 1
    pixels[:, :, 2:] -= 1
    data = Resident(ImageSet(pixels, np.arange(images)), [0.0], [1.0], CPU)
    augment = AugmentConfig.model_validate({"crop_padding": 0, "flip": flip})
    return TrainBatches(data, TrainConfig(batch_size=size, augment=augment, hardest=share), 7, images)


def losses_of(positions: torch.Tensor) -> torch.Tensor:
    """The later the image, the harder."""
    return positions.float()


def use(train: TrainBatches, epoch: int) -> list[int]:
    seen = []
    for _, labels in train.epoch(epoch):
        assert train.hardest
        train.hardest.record(losses_of(labels))
        seen += labels.tolist()
    return seen


def test_unused_images_come_first_then_the_hardest() -> None:
    train = batches()
    assert len(train) == 3
    first, second, third = (use(train, epoch) for epoch in range(3))
    assert len(set(first)) == 6
    unused = set(range(10)) - set(first)
    assert set(second) == unused | set(sorted(first)[-2:])
    assert set(third) == {4, 5, 6, 7, 8, 9}
    assert third != sorted(third, reverse=True), "the order is shuffled"
    assert train.hardest is not None
    assert train.hardest.uses.tolist() == [(first + second + third).count(image) for image in range(10)]


def test_a_pass_keeps_the_order_of_the_shuffled_images() -> None:
    hardest = Hardest(6, 0.5, CPU)
    hardest.losses = torch.tensor([1.0, 5.0, 3.0, 4.0, 0.0, 2.0])
    assert hardest.of_pass(0, torch.tensor([4, 2, 0, 3, 5, 1])).tolist() == [2, 3, 1]


def test_within_a_pass_new_losses_change_nothing() -> None:
    train, other = batches(), batches()
    use(train, 0)
    whole = [labels.tolist() for _, labels in train.epoch(1)]
    assert train.hardest is not None
    assert other.hardest is not None
    train.hardest.begin()
    seen = []
    for (_, labels), _ in zip(train.epoch(1), range(2), strict=False):
        train.hardest.record(losses_of(labels))
        seen.append(labels.tolist())
    other.hardest.restore(train.hardest.state())
    assert seen + [labels.tolist() for _, labels in other.epoch(1, first_step=2)] == whole


def test_losses_belong_to_the_oldest_batch_that_was_prepared() -> None:
    hardest = Hardest(4, 0.5, CPU)
    hardest.give(torch.tensor([0, 1]))
    hardest.give(torch.tensor([2, 3]))  # prepared one step early
    hardest.record(torch.tensor([5.0, 6.0]))
    assert hardest.losses.tolist() == [5.0, 6.0, math.inf, math.inf]
    hardest.begin()
    hardest.give(torch.tensor([3, 0]))
    hardest.record(torch.tensor([1.0, 2.0]))
    assert hardest.losses.tolist() == [2.0, 6.0, math.inf, 1.0]


def test_an_alternating_flip_alternates_for_each_image() -> None:
    train, sides = batches(flip="alternating"), dict[int, list[bool]]()
    for epoch in range(6):
        for images, labels in train.epoch(epoch):
            assert train.hardest
            train.hardest.record(losses_of(labels))
            for image, label in zip(images, labels.tolist(), strict=True):
                sides.setdefault(label, []).append(bool(image[0, 0, 0] < image[0, 0, -1]))
    assert sorted(sides) == list(range(10))
    assert any(shown[0] for shown in sides.values())
    assert not all(shown[0] for shown in sides.values())
    for shown in sides.values():
        assert all(one != following for one, following in pairwise(shown))
    assert max(map(len, sides.values())) > min(map(len, sides.values())), "otherwise an epoch's number would do"


def test_all_images_need_no_choice() -> None:
    assert batches(share=1.0).hardest is None


def test_an_epochs_images_steps_and_compute() -> None:
    recipe = TrainConfig(hardest=0.6, epochs=5, batch_size=4, augment=PLAIN)
    assert recipe.images_of(1000) == 600
    assert recipe.whole_epochs(1000) == 5.0
    assert recipe.model_copy(update={"epoch_images": 300}).whole_epochs(1000) == 2.5
    assert recipe.flop(10, 1000) == 6 * 10 * 600 * 5
    data = Resident(ImageSet(np.zeros((1000, 4, 4, 1), np.uint8), np.zeros(1000, int)), [0.0], [1.0], CPU)
    assert len(TrainBatches(data, recipe, 0, 1)) == 150
    few = TrainBatches(data, recipe.model_copy(update={"epoch_images": 100}), 0, 1)
    assert (len(few), few.pass_steps) == (25, 150)
    assert TrainConfig(hardest=0.5, min_steps=20, batch_size=256).batch_of(1000) == 25


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"class_balance": "sampling"}, "both choose an epoch's images; use class_balance: loss"),
        (
            {"augment": {"mix": "cutmix", "mix_p": 0.0}},
            "hardest: 0.5 needs the loss of each image, and mix: cutmix mixes images; use mix: none",
        ),
    ],
)
def test_what_has_no_loss_of_each_image_is_refused(more: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainConfig.model_validate({"hardest": 0.5, **more})
    TrainConfig.model_validate({"hardest": 1.0, **more})
