"""Each operation against torchvision's for one image, with the same parameters."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as F

from nas.data.augment import colour, geometric
from tests.data.pictures import apart, pictures, share_apart

SHAPES = [(1, 8), (3, 8), (3, 32)]


def singly(function: Callable[..., Tensor], images: Tensor, *parameters: Tensor) -> Tensor:
    """torchvision's function, image for image, its parameters as Python numbers."""
    columns = [parameter.tolist() for parameter in parameters]
    return torch.stack([function(image, *row) for image, *row in zip(images, *columns, strict=True)])


@pytest.mark.parametrize(("channels", "size"), SHAPES)
@pytest.mark.parametrize(("mode", "theirs"), [("zero", "constant"), ("reflect", "reflect")])
def test_crop(mode: str, theirs: str, channels: int, size: int) -> None:
    images = pictures(81, channels, size)
    top, left = torch.cartesian_prod(torch.arange(9), torch.arange(9)).unbind(1)
    expected = singly(lambda image, t, x: F.crop(F.pad(image, [4] * 4, padding_mode=theirs), t, x, size, size), images, top, left)
    assert torch.equal(geometric.crop(images, top, left, 4, mode), expected)


def test_windows_are_the_same_by_lines_and_by_pixels() -> None:
    padded = pictures(5, 3, 12).permute(0, 2, 3, 1).contiguous()
    starts = geometric.first_pixels(padded) + 12 * torch.arange(8)[:, None] + torch.arange(5).view(-1, 1, 1) % 5
    assert torch.equal(geometric.runs_from(padded, starts, 8), geometric.pixels_from(padded, starts, 8))


def test_crop_mirrors_again_beyond_the_mirror_image() -> None:
    images = pictures(8, 3, 8)
    corners = torch.tensor([-32, -20, -9, -8, 8, 9, 17, 32])
    expected = []
    for image, corner in zip(images, corners.tolist(), strict=True):
        padded = np.pad(image.numpy(), [(0, 0), (32, 32), (32, 32)], mode="reflect")
        expected.append(padded[:, 32 + corner : 40 + corner, 32 - corner : 40 - corner])
    assert torch.equal(geometric.crop(images, 32 + corners, 32 - corners, 32, "reflect"), torch.from_numpy(np.stack(expected)))


@pytest.mark.parametrize(("channels", "size"), SHAPES)
def test_resized_crop(channels: int, size: int) -> None:
    images = pictures(200, channels, size)
    generator = torch.Generator().manual_seed(0)
    height, width = torch.randint(1, size + 1, (2, 200), generator=generator)
    top, left = (torch.rand(2, 200, generator=generator) * (size + 1 - torch.stack([height, width]))).long()
    height[1], width[1], top[1], left[1] = size, size, 0, 0
    expected = singly(lambda image, *box: F.resized_crop(image, *box, [size, size]), images, top, left, height, width)
    result = geometric.resized_crop(images, *(x.float() for x in (top, left, height, width)))
    assert torch.equal(result[1], images[1])
    assert apart(result, expected) <= 1
    assert share_apart(result, expected) < 0.01


def test_affine_maps_that_are_whole_pixels_are_exact() -> None:
    images = pictures(25)
    right, down = (x.float() for x in torch.cartesian_prod(torch.arange(-10, 11, 5), torch.arange(-32, 33, 16)).unbind(1))
    expected = singly(lambda image, x, y: F.affine(image, 0.0, [int(x), int(y)], 1.0, [0.0, 0.0]), images, right, down)
    assert torch.equal(geometric.affine(images, geometric.turned(torch.zeros(25), right, down)), expected)
    quarter = geometric.turned(torch.full((25,), 90.0))
    assert torch.equal(geometric.affine(images, quarter), images.rot90(1, dims=(2, 3)))


# Where a source lies within float32's precision of the middle between two pixels, either is taken.
MIDWAY = 0.01


@pytest.mark.parametrize(("channels", "size"), SHAPES)
def test_rotation(channels: int, size: int) -> None:
    images = pictures(121, channels, size)
    degrees = torch.linspace(-180, 180, 121)
    result = geometric.affine(images, geometric.turned(degrees))
    assert share_apart(result, singly(F.rotate, images, degrees)) < MIDWAY


def test_rotation_and_translation_are_one_affine_map() -> None:
    images = pictures(60)
    generator = torch.Generator().manual_seed(0)
    degrees = 60 * torch.rand(60, generator=generator) - 30
    right, down = torch.randint(-9, 10, (2, 60), generator=generator).float()
    expected = singly(lambda image, a, x, y: F.affine(image, -a, [int(x), int(y)], 1.0, [0.0, 0.0]), images, degrees, right, down)
    assert share_apart(geometric.affine(images, geometric.turned(degrees, right, down)), expected) < MIDWAY


@pytest.mark.parametrize("axis", ["x", "y"])
def test_shear(axis: str) -> None:
    images = pictures(61)
    amounts = torch.linspace(-0.99, 0.99, 61)

    def theirs(image: Tensor, amount: float) -> Tensor:
        angle = math.degrees(math.atan(amount))
        return F.affine(image, 0.0, [0, 0], 1.0, [angle, 0.0] if axis == "x" else [0.0, angle], center=[0, 0])

    matrices = geometric.sheared_x(amounts, 32) if axis == "x" else geometric.sheared_y(amounts, 32)
    assert share_apart(geometric.affine(images, matrices), singly(theirs, images, amounts)) < MIDWAY


# Operation, torchvision's, parameters from and to, and the share of values that may be a level apart. Blending cuts fractions
# off, so that a rounding error below a whole number counts; the two round differently.
TONES = {
    "brightness": (colour.brightness, F.adjust_brightness, 0.0, 3.0, 0.001),
    "contrast": (colour.contrast, F.adjust_contrast, 0.0, 3.0, 0.05),
    "saturation": (colour.saturation, F.adjust_saturation, 0.0, 3.0, 0.05),
    # torchvision cuts off fractions of a level on the way back from the colour circle; here they are rounded.
    "hue": (colour.hue, F.adjust_hue, -0.5, 0.5, 0.5),
    "sharpness": (colour.sharpness, F.adjust_sharpness, 0.0, 10.0, 0.05),
    "blur": (colour.blur, lambda image, sigma: F.gaussian_blur(image, [3, 3], [sigma, sigma]), 0.1, 10.0, 0.001),
    "posterise": (colour.posterise, lambda image, bits: F.posterize(image, round(bits)), 1.0, 8.0, 0.0),
    "solarise": (colour.solarise, F.solarize, 0.0, 255.0, 0.0),
}


@pytest.mark.parametrize(("channels", "size"), SHAPES)
@pytest.mark.parametrize("name", TONES)
def test_tone(name: str, channels: int, size: int) -> None:
    function, theirs, low, high, differing = TONES[name]
    images = pictures(106, channels, size)
    parameters = torch.linspace(low, high, 106)
    if name == "posterise":
        parameters = parameters.round()
    result = function(images, parameters)
    expected = singly(theirs, images, parameters)
    assert apart(result, expected) <= 1
    assert share_apart(result, expected) <= differing
    assert share_apart(result, images) > 0.3 or (channels == 1 and name in {"saturation", "hue"})


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "sharpness"])
def test_factor_1_changes_nothing(name: str) -> None:
    images = pictures(20)
    assert torch.equal(TONES[name][0](images, torch.ones(20)), images)


def test_a_whole_turn_of_the_hue_changes_nothing() -> None:
    every = torch.cartesian_prod(*[torch.arange(0, 256, 15)] * 3).to(torch.uint8)  # colours (18³, 3)
    images = every.T.reshape(1, 3, 18, -1)
    assert torch.equal(colour.hue(images, torch.zeros(1)), images)
    assert torch.equal(colour.hue(images, torch.ones(1)), images)
    half = colour.hue(colour.hue(images, torch.tensor([0.5])), torch.tensor([-0.5]))
    assert apart(half, images) <= 1


@pytest.mark.parametrize(("channels", "size"), SHAPES)
@pytest.mark.parametrize(
    ("function", "theirs"),
    [(colour.autocontrast, F.autocontrast), (colour.equalise, F.equalize), (colour.invert, F.invert)],
    ids=["autocontrast", "equalise", "invert"],
)
def test_tone_without_a_parameter(
    function: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], channels: int, size: int
) -> None:
    images = pictures(100, channels, size)
    images[1] = 0
    images[2] = 255
    images[3, :, :, : size // 2] = 0  # two values
    assert torch.equal(function(images), singly(theirs, images))


def test_blackened_boxes() -> None:
    images = pictures(50)
    generator = torch.Generator().manual_seed(0)
    top, left, height, width = torch.randint(0, 20, (4, 50), generator=generator)
    expected = singly(
        lambda image, *box: F.erase(image, *box, torch.tensor(0, dtype=torch.uint8)), images, top, left, height, width
    )
    assert torch.equal(geometric.blacken(images, geometric.in_boxes(images, top, left, height, width)), expected)


def test_a_box_is_cut_off_at_the_border() -> None:
    box = geometric.in_boxes(pictures(1, 1, 8), *(torch.tensor([x]) for x in (-3, 6, 5, 9)))
    expected = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    expected[:, :, :2, 6:] = True
    assert torch.equal(box, expected)
