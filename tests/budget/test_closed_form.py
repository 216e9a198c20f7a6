"""The closed form against fvcore."""

import random
from typing import get_args

import pytest

from nas.budget import count_macs, count_params
from nas.budget.closed_form import BLOCKS as CLOSED_FORMS
from nas.budget.closed_form import closed_form_macs, closed_form_params, params_at_widths
from nas.config import ArchConfig, BlockName, ImageShape
from nas.config.network import DownsampleName, PoolName, StemName, StemPoolName
from nas.errors import ConfigError
from nas.models.blocks import BLOCKS
from nas.models.resnet import check_size
from nas.space.space_file import CIFAR10


def any_shape(lots: random.Random) -> ImageShape:
    return ImageShape(
        channels=lots.choice([1, 3, 4]), size=lots.choice([8, 15, 28, 32, 33, 64]), classes=lots.choice([2, 10, 47, 100])
    )


def any_network(lots: random.Random, shape: ImageShape) -> ArchConfig:
    few = lots.choice([(8,), (7, 8, 16), range(1, 70)])  # equal widths too, so that there are shortcuts without projection
    stages = [
        {
            "blocks": lots.randint(1, 3),
            "channels": lots.choice(few),
            "kernel": lots.choice([1, 3, 5, 7]),
            "skip_kernel": lots.choice([1, 3, 5]),
        }
        for _ in range(lots.randint(1, 6))
    ]
    arch = ArchConfig.model_validate(
        {
            "stages": stages,
            "stem": {
                "type": lots.choice(get_args(StemName)),
                "kernel": lots.choice([1, 3, 7]),
                "stride": lots.choice([1, 2]),
                "pool": lots.choice(get_args(StemPoolName)),
                "channels": lots.choice([None, 8, lots.randint(1, 70)]),
            },
            "block": lots.choice(get_args(BlockName)),
            "expansion": lots.randint(1, 8),
            "downsample": lots.choice(get_args(DownsampleName)),
            "dropout": lots.choice([0.0, 0.2]),
            "dropout_place": lots.choice(["head", "block", "stem+block"]),
            "se_reduction": lots.choice([0, 1, 8, 16, 64]),
            "stochastic_depth": lots.choice([0.0, 0.1]),
            "logit_scale": lots.choice([1.0, 0.5]),
            "pool": lots.choice(get_args(PoolName)),
            "pool_size": lots.choice([1, 2, 3, 8]),
        }
    )
    while True:
        try:
            check_size(arch, shape.size)
            return arch
        except ConfigError:
            arch = arch.model_copy(update={"stages": arch.stages[:-1]})


@pytest.mark.slow
def test_closed_form_is_the_count_of_fvcore_on_a_thousand_random_networks() -> None:
    lots = random.Random(0)
    wrong = []
    for _ in range(1000):
        shape = any_shape(lots)
        arch = any_network(lots, shape)
        closed, counted = closed_form_params(arch, shape), count_params(arch, shape)
        if closed != counted:
            wrong.append(f"{closed} instead of {counted}: {arch.to_json()} on {shape}")
    assert wrong == []


@pytest.mark.slow
def test_closed_form_of_macs_is_the_count_of_fvcore_on_random_networks() -> None:
    lots = random.Random(2)
    wrong = []
    for _ in range(120):
        shape = any_shape(lots).model_copy(update={"size": lots.choice([8, 9, 15, 16])})  # fvcore runs them
        arch = any_network(lots, shape)
        closed, counted = closed_form_macs(arch, shape), count_macs(arch, shape)
        if closed != counted:
            wrong.append(f"{closed} instead of {counted}: {arch.to_json()} on {shape}")
    assert wrong == []


def test_closed_form_of_other_widths_is_that_of_the_network_that_has_them() -> None:
    lots = random.Random(1)
    for _ in range(50):
        arch = any_network(lots, CIFAR10)
        widths, stem = [lots.randint(1, 40) for _ in arch.stages], lots.randint(1, 40)
        stages = [{**stage.model_dump(), "channels": width} for stage, width in zip(arch.stages, widths, strict=True)]
        other = ArchConfig.model_validate({**arch.model_dump(), "stages": stages, "stem": {**dict(arch.stem), "channels": stem}})
        assert params_at_widths(arch, CIFAR10, widths, stem) == closed_form_params(other, CIFAR10)


def test_every_block_and_every_stem_has_its_closed_form() -> None:
    assert CLOSED_FORMS.keys() == BLOCKS.keys()
