"""What the augmentations draw: ranges, shares, and independence from image to image."""

from typing import Any

import pytest
import torch
from torch import Tensor

from nas.config import AugmentConfig
from nas.data.augment import augment, colour, geometric
from nas.data.augment.draw import Draw, choose, pick, put
from nas.data.augment.geometric import hashed
from tests.data.pictures import a_draw, pictures

OFF: dict[str, Any] = {"crop_padding": 0, "flip": "none"}


def grey(n: int, level: int = 255, size: int = 32) -> Tensor:
    return torch.full((n, 3, size, size), level, dtype=torch.uint8)


def test_each_image_tosses_its_own_coin() -> None:
    times = torch.zeros(50)
    counts = []
    for seed in range(400):
        chosen = a_draw(50, seed).some(0.3)
        assert len(chosen) == len(chosen.unique())
        times[chosen] += 1
        counts.append(float(len(chosen)))
    assert torch.allclose(times / 400, torch.tensor(0.3), atol=0.1)  # 4 standard deviations
    # Independent tosses make the number binomial: of variance 50 · 0.3 · 0.7.
    assert abs(float(torch.tensor(counts).mean()) - 15) < 0.7
    assert 7.5 < float(torch.tensor(counts).var()) < 13.5


def test_a_split_gives_every_image_one_choice_in_the_shares_asked_for() -> None:
    groups = a_draw(8000).split([1, 2, 0, 5])
    assert torch.equal(torch.cat(list(groups)).sort().values, torch.arange(8000))
    assert len(groups[2]) == 0
    for group, share in zip(groups, (1 / 8, 2 / 8, 0, 5 / 8), strict=True):
        assert abs(len(group) / 8000 - share) < 0.025
    # Who falls where has nothing to do with the order in the batch.
    assert abs(float(groups[3].float().mean()) - 4000) < 150


def test_the_ends_of_probability() -> None:
    assert len(a_draw(100).some(0.0)) == 0
    assert len(a_draw(100).some(1.0)) == 100
    assert all(a_draw(1, seed).chance(1.0) and not a_draw(1, seed).chance(0.0) for seed in range(20))


def test_numbers_are_uniform() -> None:
    draw = a_draw(1)
    values = draw.uniform(-2, 6, 10_000)
    assert -2 <= float(values.min()) < -1.99
    assert 5.99 < float(values.max()) <= 6
    assert abs(float(values.mean()) - 2) < 0.1
    assert torch.allclose(draw.integers(4, 10_000).bincount() / 10_000, torch.tensor(0.25), atol=0.02)
    assert abs(float(draw.signs(10_000).float().mean())) < 0.04


def test_host_and_device_draw_differently() -> None:
    draw = a_draw(1)
    assert not torch.equal(torch.rand(8, generator=draw.host), draw.uniform(0, 1, 8))


@pytest.mark.parametrize("channels_last", [True, False])
def test_as_indexing_and_masks_do_it(channels_last: bool) -> None:
    images = pictures(7, 3, 8)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    others, where = 255 - images, torch.tensor([5, 0, 3])
    which = torch.tensor([True, False, True, True, False, False, True])
    assert torch.equal(pick(images, where), images[where])
    assert torch.equal(choose(which, others, images), torch.where(which.view(-1, 1, 1, 1), others, images))
    expected = images.clone()
    expected[where] = others[where]
    assert torch.equal(put(images, where, [others[[5]], others[[0, 3]]]), expected)
    assert not torch.equal(images, expected), "the images themselves stay"


def test_none_is_picked_and_none_put() -> None:
    images, nowhere = pictures(3, 1, 8), torch.zeros(0, dtype=torch.int64)
    assert pick(images, nowhere).shape == (0, 1, 8, 8)
    assert torch.equal(put(images, nowhere, [images[:0]]), images)


def test_crops_reach_every_place() -> None:
    images = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).expand(2000, 1, 8, 8)
    config = AugmentConfig(crop_padding=1, pad_mode="zero", flip="none")
    assert len({image.numpy().tobytes() for image in augment(images, config, a_draw(2000))}) == 9


def _boxes(monkeypatch: pytest.MonkeyPatch, smallest: float, size: int) -> Tensor:
    """(4, N): top, left, height and width of 3,000 random resized crops."""
    seen = []

    def record(images: Tensor, *box: Tensor) -> Tensor:
        seen.append(torch.stack(box))
        return images

    monkeypatch.setattr(geometric, "resized_crop", record)
    augment(grey(3000, size=size), AugmentConfig(**OFF, resized_crop=smallest), a_draw(3000))
    return seen[0]


@pytest.mark.parametrize("size", [8, 32])
def test_resized_crops_are_boxes_within_the_image(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    top, left, height, width = _boxes(monkeypatch, 0.25, size)
    assert torch.equal(torch.stack([top, left, height, width]).frac(), torch.zeros(4, 3000))
    assert float(torch.minimum(top, left).min()) == 0
    assert float((top + height).max()) == float((left + width).max()) == size
    # The sides are whole, so that area and aspect may be beyond their bounds by half a pixel of either side.
    assert float(((height + 0.5) * (width + 0.5)).min()) >= 0.25 * size**2
    assert float(((height - 0.5) / (width + 0.5)).max()) <= 4 / 3
    assert float(((width - 0.5) / (height + 0.5)).max()) <= 4 / 3


def test_resized_crops_have_the_distribution_of_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(grey(1)[0], [0.25, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)], dtype=torch.float32
    ).T
    ours = _boxes(monkeypatch, 0.25, 32)
    assert torch.allclose(ours.mean(dim=1), theirs.mean(dim=1), atol=0.45)  # 4 standard deviations
    assert torch.allclose(ours.std(dim=1), theirs.std(dim=1), atol=0.35)


@pytest.mark.parametrize(
    ("axis", "share", "config"), [(3, 0.5, {"flip": "horizontal"}), (2, 0.2, {"flip": "none", "vertical_flip": 0.2})]
)
def test_a_flip_mirrors_its_share_of_the_images(axis: int, share: float, config: dict[str, Any]) -> None:
    images = pictures(2)[1:].expand(2000, -1, -1, -1)
    result = augment(images, AugmentConfig(crop_padding=0, **config), a_draw(2000))
    mirrored = (result == images.flip(axis)).flatten(1).all(dim=1)
    assert torch.equal(result[~mirrored], images[~mirrored])
    assert abs(float(mirrored.float().mean()) - share) < 0.05


def test_an_alternating_flip_shows_the_other_side_every_other_epoch() -> None:
    images = pictures(200)
    config = AugmentConfig(crop_padding=0, flip="alternating")
    epochs = [augment(images, config, Draw.seeded(epoch, torch.arange(200), epoch, seed=5)) for epoch in range(4)]
    assert torch.equal(epochs[1], epochs[0].flip(3))
    assert torch.equal(epochs[2], epochs[0])
    assert torch.equal(epochs[3], epochs[1])
    mirrored = (epochs[0] != images).flatten(1).any(dim=1)
    assert 70 < int(mirrored.sum()) < 130
    assert torch.equal(epochs[0], torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images))


def test_the_lot_of_an_alternating_flip_is_fair_and_the_seeds_own() -> None:
    places = torch.arange(20_000)
    lots = torch.stack([hashed(places, seed) % 2 for seed in (0, 1, 2, 2**40, 2**62 + 1)])
    assert torch.allclose(lots.float().mean(dim=1), torch.tensor(0.5), atol=0.015)
    for i in range(len(lots)):
        for j in range(i):
            assert abs(float((lots[i] == lots[j]).float().mean()) - 0.5) < 0.015
        for step in (1, 2, 3, 256):  # neighbours in the training set
            assert abs(float((lots[i][step:] == lots[i][:-step]).float().mean()) - 0.5) < 0.015


def _affine_draws(monkeypatch: pytest.MonkeyPatch, **settings: float) -> Tensor:
    """(3, N): degrees, pixels to the right and down."""
    seen = []

    def record(*parameters: Tensor) -> Tensor:
        seen.append(torch.stack(parameters))
        return torch.zeros(len(parameters[0]), 2, 3)

    monkeypatch.setattr(geometric, "turned", record)
    augment(grey(4000), AugmentConfig(**OFF, **settings), a_draw(4000))
    return seen[0]


def test_rotation_and_translation_are_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    degrees, right, down = _affine_draws(monkeypatch, rotation=20, translation=0.25)
    assert 19.9 < float(degrees.max()) <= 20
    assert -20 <= float(degrees.min()) < -19.9
    assert abs(float(degrees.abs().mean()) - 10) < 0.5
    for shift in (right, down):
        assert shift.unique().tolist() == list(range(-8, 9))
        assert abs(float(shift.mean())) < 0.4
    assert abs(float(torch.corrcoef(torch.stack([right, down]))[0, 1])) < 0.07
    degrees, right, down = _affine_draws(monkeypatch, rotation=20)
    assert float(degrees.abs().max()) > 19
    assert not right.any() | down.any()


def test_brightness_is_uniform_around_1() -> None:
    levels = augment(grey(4000, 100, 8), AugmentConfig(**OFF, brightness=0.4), a_draw(4000))[:, 0, 0, 0].float()
    assert 60 <= float(levels.min()) < 61
    assert 138 < float(levels.max()) <= 140
    assert abs(float(levels.mean()) - 99.5) < 1.5  # fractions are cut off
    assert abs(float(levels.std()) - 80 / 12**0.5) < 1


def test_the_order_of_the_colour_jitter_changes_from_batch_to_batch() -> None:
    orders = {tuple(a_draw(1, seed).order(4)) for seed in range(400)}
    assert len(orders) == 24


def test_sharpness_has_its_probability() -> None:
    images = pictures(2)[1:].expand(2000, -1, -1, -1)
    result = augment(images, AugmentConfig(**OFF, sharpness=3, sharpness_p=0.3), a_draw(2000))
    changed = (result != images).flatten(1).any(dim=1)
    assert abs(float(changed.float().mean()) - 0.3) < 0.04


@pytest.mark.parametrize(("largest", "low"), [(2.0, 0.1), (0.05, 0.05)])
def test_blur_draws_its_deviation(monkeypatch: pytest.MonkeyPatch, largest: float, low: float) -> None:
    seen = []
    monkeypatch.setattr(colour, "blur", lambda images, sigmas: seen.append(sigmas) or images)
    augment(grey(4000, size=8), AugmentConfig(**OFF, blur=largest), a_draw(4000))
    assert abs(float(seen[0].min()) - low) < 0.01
    assert abs(float(seen[0].max()) - largest) < 0.01
    assert abs(float(seen[0].mean()) - (low + largest) / 2) < 0.04


def _black_boxes(result: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """int64 (N,) each: height and width of what surrounds the black pixels of a white image, and how many there are."""
    black = (result == 0).all(dim=1)
    return black.any(dim=2).sum(dim=1), black.any(dim=1).sum(dim=1), black.sum(dim=(1, 2))


def test_erasing_blackens_one_rectangle_of_the_area_and_aspect_asked_for() -> None:
    config = AugmentConfig(**OFF, erasing=0.6, erasing_min=0.1, erasing_max=0.3)
    height, width, pixels = _black_boxes(augment(grey(3000), config, a_draw(3000)))
    erased = pixels > 0
    assert torch.equal(pixels, height * width)
    assert abs(float(erased.float().mean()) - 0.6) < 0.04
    height, width = height[erased].float(), width[erased].float()
    assert float(((height + 0.5) * (width + 0.5)).min()) >= 0.1 * 1024
    assert float(((height - 0.5) * (width - 0.5)).max()) <= 0.3 * 1024
    assert float(((height - 0.5) / (width + 0.5)).max()) <= 3.3
    assert float(((width - 0.5) / (height + 0.5)).max()) <= 1 / 0.3
    assert abs(float((height * width).mean()) / 1024 - 0.2) < 0.01
    assert abs(float((height / width).log().mean())) < 0.08


def test_erasing_has_the_distribution_of_torchvisions() -> None:
    from torchvision.transforms import RandomErasing

    torch.manual_seed(0)
    theirs = torch.tensor(
        [RandomErasing.get_params(grey(1)[0], [0.02, 0.33], [0.3, 3.3], [0.0])[2:4] for _ in range(3000)], dtype=torch.float32
    ).T
    height, width, _ = _black_boxes(augment(grey(3000), AugmentConfig(**OFF, erasing=1.0), a_draw(3000)))
    ours = torch.stack([height, width]).float()
    assert torch.allclose(ours.mean(dim=1), theirs.mean(dim=1), atol=0.6)  # 4 standard deviations
    assert torch.allclose(ours.std(dim=1), theirs.std(dim=1), atol=0.45)


def test_a_rectangle_that_never_fits_leaves_the_image() -> None:
    config = AugmentConfig(**OFF, erasing=1.0, erasing_min=1.0, erasing_max=1.0)
    assert torch.equal(augment(grey(50), config, a_draw(50)), grey(50))


@pytest.mark.parametrize("side", [1, 7, 16])
def test_cutout_is_a_square_around_a_uniform_point(side: int) -> None:
    height, width, pixels = _black_boxes(augment(grey(4000), AugmentConfig(**OFF, cutout=side), a_draw(4000)))
    assert torch.equal(pixels, height * width)
    for length in (height, width):
        assert int(length.max()) == side
        assert int(length.min()) == side - side // 2
    # A square is whole where its centre is far enough from the border, in 32 - side + 1 of 32 places along each axis.
    whole = (pixels == side**2).float().mean()
    assert abs(float(whole) - ((33 - side) / 32) ** 2) < 0.035
