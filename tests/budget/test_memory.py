"""Peak activation memory, against sums by hand. A float32 has 4 bytes."""

import pytest
import torch
from torch import Tensor, nn

from nas.budget import follow, peak_memory
from nas.config import ArchConfig, BlockName, ImageShape, StageConfig, StemConfig
from nas.models import build_model

SHAPE = ImageShape(channels=3, size=8, classes=10)
IMAGE = 3 * 8**2 * 4
MAP = 8**2 * 4
"""One channel of a map as large as the image."""


def network(*channels: int, block: BlockName = "basic", **fields: object) -> ArchConfig:
    stages = tuple(StageConfig(blocks=1, channels=c) for c in channels)
    return ArchConfig.model_validate({"stages": stages, "block": block, **fields})


def of(layers: nn.Module, *size: int) -> int:
    return follow(layers.eval().to("meta"), torch.empty(1, *size, device="meta")).peak


def test_one_convolution_holds_its_input_and_its_output() -> None:
    assert of(nn.Conv2d(3, 5, 3, padding=1), 3, 8, 8) == IMAGE + 5 * MAP


def test_the_worst_moment_counts_and_what_was_read_last_is_gone() -> None:
    """3 → 16 → 2 → 4 channels: the worst is the second convolution, after the image is gone."""
    layers = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 2, 1), nn.Conv2d(2, 4, 1))
    assert of(layers, 3, 8, 8) == max(3 + 16, 16 + 2, 2 + 4) * MAP
    assert of(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 16, 1)), 3, 8, 8) == (2 + 16) * MAP


def test_the_image_counts_as_long_as_it_is_read() -> None:
    class Again(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            wide = torch.cat([image, image], 1)
            return torch.cat([wide.relu(), image], 1)

    # The image, its double's activation, and all three together; the double itself was read before.
    assert of(Again(), 3, 8, 8) == IMAGE + 2 * IMAGE + 3 * IMAGE


def test_what_a_variable_still_names_but_nothing_reads_is_not_counted() -> None:
    class Keeps(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            first = image.relu()
            second = first.relu()
            return second.relu()

    assert of(Keeps(), 3, 8, 8) == 2 * IMAGE


def test_a_view_shares_what_it_views() -> None:
    assert of(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8**2, 10)), 3, 8, 8) == IMAGE + 10 * 4


def test_an_operation_in_place_makes_nothing() -> None:
    assert of(nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(inplace=True)), 3, 8, 8) == IMAGE + 5 * MAP


def test_where_the_maxima_were_is_not_kept() -> None:
    assert of(nn.MaxPool2d(2), 3, 8, 8) == IMAGE + IMAGE // 4
    assert of(nn.AdaptiveMaxPool2d(1), 3, 8, 8) == IMAGE + 3 * 4


def test_weights_are_not_among_it() -> None:
    assert of(nn.Linear(2, 3), 2) == (2 + 3) * 4
    heavy, light = network(8, stem=StemConfig(kernel=15)), network(8, stem=StemConfig(kernel=1))
    assert peak_memory(heavy, SHAPE) == peak_memory(light, SHAPE)


def test_basic_block_holds_its_input_while_its_branch_is_computed() -> None:
    """At BatchNorm within the branch: the block's input, the convolution's output and BatchNorm's."""
    assert peak_memory(network(8), SHAPE) == 3 * 8 * MAP


def test_first_block_of_a_wider_stage_holds_both_branches() -> None:
    """8 → 32 channels at a quarter of the size: while the shortcut's BatchNorm runs, the residual branch is there, too."""
    assert peak_memory(network(8, 32), SHAPE) == max(3 * 8 * MAP, 3 * 32 * MAP // 4)
    assert peak_memory(network(8, 64), SHAPE) == 3 * 64 * MAP // 4


def test_preactivation_block_is_counted_by_hand() -> None:
    """Stem and block of 8 channels: the raw input, its BatchNorm's output, and the activated one."""
    assert peak_memory(network(8, block="preact"), SHAPE) == 3 * 8 * MAP


def test_bottleneck_is_counted_by_hand() -> None:
    """64 channels, 16 of them inside: the block's input, the third convolution's output and its BatchNorm's."""
    assert peak_memory(network(64, block="bottleneck"), SHAPE) == 3 * 64 * MAP


def test_squeeze_and_excitation_adds_its_factors() -> None:
    """The block's input, the branch, its factors and their product."""
    assert peak_memory(network(8, se_reduction=4), SHAPE) == 3 * 8 * MAP + 8 * 4


def test_whitening_stem_is_wider_than_what_follows() -> None:
    """24 whitened channels and their activation, in maps of 8×8."""
    assert peak_memory(network(8, stem=StemConfig(type="whitening")), SHAPE) == 2 * 24 * MAP


@pytest.mark.parametrize("block", ["basic", "preact", "bottleneck"])
def test_memory_grows_with_channels_and_images_and_not_with_depth(block: BlockName) -> None:
    peaks = [peak_memory(network(c, 2 * c, block=block), SHAPE) for c in (8, 16, 24, 64)]
    assert peaks == sorted(set(peaks))
    larger = ImageShape(channels=3, size=16, classes=10)
    assert peak_memory(network(8, block=block), larger) == 4 * peak_memory(network(8, block=block), SHAPE)
    deep = ArchConfig(stages=(StageConfig(blocks=5, channels=8),), block=block)
    assert peak_memory(deep, SHAPE) == peak_memory(network(8, block=block), SHAPE)


@pytest.mark.parametrize("fields", [{"dropout": 0.3}, {"stochastic_depth": 0.5}, {"zero_init": True}, {"norm_momentum": 0.5}])
def test_what_only_trains_costs_none(fields: dict[str, object]) -> None:
    assert peak_memory(network(8, 16, **fields), SHAPE) == peak_memory(network(8, 16), SHAPE)


@pytest.mark.parametrize("block", ["basic", "preact", "bottleneck"])
def test_it_is_the_same_on_the_meta_device_and_on_a_real_one(block: BlockName) -> None:
    arch = network(8, 24, block=block, se_reduction=4, downsample="maxpool", pool="max")
    assert follow(build_model(arch, SHAPE).eval(), torch.zeros(1, 3, 8, 8)).peak == peak_memory(arch, SHAPE)
