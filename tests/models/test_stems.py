"""The whitening stem: what its frozen convolution does to the images it was made from."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.budget import count_params
from nas.config import ArchConfig, ImageShape, StageConfig
from nas.models import build_model
from nas.models.resnet import WhiteningStem


def whitening_arch(**changes: object) -> ArchConfig:
    return ArchConfig.model_validate({"stages": [StageConfig(blocks=1, channels=6)], "stem": {"type": "whitening"}, **changes})


def natural_images(channels: int, size: int = 16, count: int = 400) -> Tensor:
    """Smooth, with channels that agree: neighbouring pixels are alike, as in photographs. Mean about 0."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 1, size // 4, size // 4, generator=generator)
    shared = F.interpolate(coarse, size=size, mode="bilinear")
    own = torch.randn(count, channels, size, size, generator=generator)
    return shared + 0.3 * own


def patches_of(outputs: Tensor) -> Tensor:
    """(N, C, H, W) → (N·H·W, C)"""
    return outputs.permute(0, 2, 3, 1).flatten(0, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_frozen_convolution_decorrelates_its_training_images(channels: int) -> None:
    stem = WhiteningStem(whitening_arch(), channels)
    images = natural_images(channels)
    before = torch.corrcoef(patches_of(images.unfold(2, 2, 1).unfold(3, 2, 1).flatten(4).movedim(4, 1).flatten(1, 2)).T)
    stem.initialise_from(images)
    half = channels * 4
    white = patches_of(F.conv2d(images, stem.whiten.weight))
    covariance = (white.T @ white / len(white))[:half, :half]
    assert torch.allclose(covariance, torch.eye(half), atol=0.02)
    assert (before - torch.eye(half)).abs().max() > 0.5, "the images were correlated before"
    assert torch.equal(white[:, half:], -white[:, :half]), "each direction comes with both signs"


def test_directions_come_strongest_first_and_weak_ones_are_not_blown_up() -> None:
    stem = WhiteningStem(whitening_arch(), 1)
    flat = torch.randn(300, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()  # every pixel of an image alike: one direction only
    stem.initialise_from(flat)
    first, *rest = stem.whiten.weight[:4].flatten(1)
    # A mean of four equal pixels, brought to deviation 1.
    assert torch.allclose(first.abs(), torch.full((4,), 0.25) / flat.square().mean().sqrt(), atol=1e-3)
    largest = 1 / np.sqrt(WhiteningStem.EPSILON)
    assert all(filters.norm() <= largest * 1.001 for filters in rest)


def test_the_weights_are_frozen_counted_and_saved() -> None:
    shape = ImageShape(channels=3, size=16, classes=4)
    model = build_model(whitening_arch(), shape)
    frozen = {name: p.numel() for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"stem.whiten.weight": 24 * 3 * 2 * 2}
    assert count_params(whitening_arch(), shape) == sum(p.numel() for p in model.parameters())
    assert "stem.whiten.weight" in model.state_dict()


def test_images_decide_the_frozen_weights_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = build_model(whitening_arch(block="preact"), ImageShape(channels=3, size=16, classes=4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.initialise_from(natural_images(3))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"stem.whiten.weight"}


def test_a_plain_stem_does_not_look_at_images() -> None:
    model = build_model(whitening_arch(stem={"type": "conv"}), ImageShape(channels=3, size=16, classes=4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.initialise_from(natural_images(3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("images", [torch.zeros(50, 3, 8, 8), natural_images(1).expand(-1, 3, -1, -1)])
def test_images_without_colour_give_finite_weights(images: Tensor) -> None:
    stem = WhiteningStem(whitening_arch(), 3)
    stem.initialise_from(images)
    assert torch.isfinite(stem.whiten.weight).all()
