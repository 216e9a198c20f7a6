"""Widths that are scaled to a number of parameters."""

from typing import Any

import pytest
from pydantic import ValidationError

from nas.budget.closed_form import closed_form_params
from nas.config import WIDEST, ArchConfig, ImageShape, StageConfig
from nas.space.space_file import load_space
from nas.space.widths import FILLED, filled

CIFAR10 = ImageShape(channels=3, size=32, classes=10)


def network(*channels: int, blocks: int = 2, **others: Any) -> ArchConfig:
    return ArchConfig.model_validate({"stages": [{"blocks": blocks, "channels": c} for c in channels], **others})


def widths(arch: ArchConfig) -> list[int]:
    return [stage.channels for stage in arch.stages]


@pytest.mark.parametrize(
    ("space", "target"), [("resnet", 5_000_000), ("resnet", 250_000), ("resnet-small", 300_000), ("digits", 60_000)]
)
@pytest.mark.parametrize("step", [1, 8])
def test_every_draw_of_a_space_is_brought_to_between_98_and_100_percent(space: str, target: int, step: int) -> None:
    drawn = load_space(space)
    archs = (candidate.arch for candidate in drawn.uniform_draws(100, seed=11))
    scaled = [filled(arch, drawn.images, target, [step] * len(arch.stages)) for arch in archs]
    shares = [closed_form_params(arch, drawn.images) / target for arch in scaled]
    assert max(shares) <= 1
    assert sum(share >= FILLED for share in shares) >= 99
    assert min(shares) >= 0.97


def test_widths_alone_change() -> None:
    arch = network(16, 24, 64, block="bottleneck", se_reduction=4, stem={"kernel": 5, "stride": 2})
    scaled = filled(arch, CIFAR10, 2_000_000, [8, 8, 8])
    assert widths(scaled) != widths(arch)
    back = tuple(s.model_copy(update={"channels": c}) for s, c in zip(scaled.stages, widths(arch), strict=True))
    assert scaled.model_copy(update={"stages": back}) == arch


def test_ratios_of_the_widths_stay_so_that_a_shape_twice_as_wide_is_scaled_alike() -> None:
    once, twice = (filled(network(*c), CIFAR10, 1_000_000, [8] * 3) for c in ((16, 32, 64), (32, 64, 128)))
    assert once == twice
    factor = sum(widths(once)) / 112
    assert [abs(wide - factor * before) <= 16 for wide, before in zip(widths(once), (16, 32, 64), strict=True)] == [True] * 3


def test_most_widths_stay_multiples_of_their_step() -> None:
    archs = (candidate.arch for candidate in load_space("resnet-small").uniform_draws(100, seed=5))
    scaled = [filled(arch, CIFAR10, 300_000, [8] * len(arch.stages)) for arch in archs]
    found = [width % 8 == 0 for arch in scaled for width in widths(arch)]
    assert sum(found) >= 0.8 * len(found)


def test_network_that_fills_its_target_stays_as_it_is() -> None:
    arch = network(33, 47, 91)
    params = closed_form_params(arch, CIFAR10)
    for target in (params, int(params / 0.981)):
        assert filled(arch, CIFAR10, target, [8, 8, 8]) is arch
    assert filled(arch, CIFAR10, params - 1, [8, 8, 8]) != arch
    scaled = filled(arch, CIFAR10, 10 * params, [8, 8, 8])
    assert filled(scaled, CIFAR10, 10 * params, [8, 8, 8]) is scaled


def test_stem_of_its_own_width_keeps_its_ratio_to_the_first_stage() -> None:
    scaled = filled(network(32, 64, stem={"channels": 16}), CIFAR10, 4_000_000, [8, 8])
    assert scaled.stem.channels == round(scaled.stages[0].channels / 2)
    assert 0.98 * 4_000_000 <= closed_form_params(scaled, CIFAR10) <= 4_000_000
    same = filled(network(32, 64, stem={"channels": 32}), CIFAR10, 4_000_000, [8, 8])
    assert same.stem_channels(3) == same.stages[0].channels
    assert filled(network(32, 64), CIFAR10, 4_000_000, [8, 8]).stem.channels is None
    assert filled(network(64, 64, stem={"channels": 1}), CIFAR10, 2_000, [8, 8]).stem.channels == 1


def test_shape_that_is_too_large_at_one_channel_a_stage_comes_as_near_as_that() -> None:
    scaled = filled(network(16, 32, blocks=9), CIFAR10, 100, [8, 8])
    assert widths(scaled) == [1, 1]
    assert closed_form_params(scaled, CIFAR10) > 100


def test_widths_stop_at_the_most_that_a_network_may_have() -> None:
    StageConfig(blocks=1, channels=WIDEST)
    with pytest.raises(ValidationError):
        StageConfig(blocks=1, channels=WIDEST + 1)
    all_there_is = filled(network(16, 1024, blocks=1), CIFAR10, 10**12, [8, 8])
    assert widths(all_there_is) == [WIDEST, WIDEST]
    unequal = filled(network(16, 1024, blocks=1), CIFAR10, 500_000_000, [8, 8])  # the first makes up for the second
    assert unequal.stages[1].channels == WIDEST
    assert 490_000_000 <= closed_form_params(unequal, CIFAR10) <= 500_000_000


def test_steps_may_be_any_and_differ() -> None:
    for steps in ([12, 8, 1], [64, 64, 64], [3, 5, 7]):
        scaled = filled(network(24, 36, 60), CIFAR10, 700_000, steps)
        assert 686_000 <= closed_form_params(scaled, CIFAR10) <= 700_000
