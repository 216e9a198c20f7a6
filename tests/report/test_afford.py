"""What a budget would still buy: that what is said fits, that one step more does not, and that fvcore counts the same."""

import random
from itertools import product

import pytest

from nas.budget import Budget, count_macs, count_params, peak_memory
from nas.config import ArchConfig, BudgetConfig, ImageShape, StageConfig
from nas.report.check import STEP, affordable
from tests.reported import REPORTED

CIFAR10 = ImageShape(channels=3, size=32, classes=10)
SMALL = ImageShape(channels=1, size=8, classes=10)


def with_stage(arch: ArchConfig, index: int, **changed: int) -> ArchConfig:
    stages = [dict(stage) for stage in arch.stages]
    stages[index] |= changed
    return ArchConfig.model_validate({**arch.model_dump(), "stages": stages})


def any_network(lots: random.Random) -> ArchConfig:
    step = lots.choice([1, STEP])
    stages = [StageConfig(blocks=lots.randint(1, 4), channels=step * lots.randint(1, 6)) for _ in range(lots.randint(1, 3))]
    block = lots.choice(["basic", "preact", "bottleneck"])
    downsample = lots.choice(["conv", "maxpool", "avgpool"])
    se_reduction = lots.choice([0, 4])
    return ArchConfig.model_validate({"stages": stages, "block": block, "downsample": downsample, "se_reduction": se_reduction})


@pytest.mark.parametrize("limits", [{"params": 20_000}, {"macs": 800_000}, {"params": 30_000, "macs": 500_000, "memory": 8_000}])
def test_what_a_stage_could_have_fits_and_one_more_does_not(limits: dict[str, int]) -> None:
    lots = random.Random(sum(limits.values()))
    budget = Budget(BudgetConfig.model_validate(limits), SMALL)
    found_any = 0
    for _ in range(4):
        arch = any_network(lots)
        step = STEP if all(stage.channels % STEP == 0 for stage in arch.stages) else 1
        found = affordable(arch, SMALL, budget.limits)
        for i, room in enumerate(found.stages):
            deeper = with_stage(arch, i, blocks=room.blocks + 1)
            assert room.block_params == count_params(deeper, SMALL) - count_params(arch, SMALL)
            if room.most_blocks is None:
                assert not budget.check(with_stage(arch, i, blocks=1)).fits
            else:
                found_any += 1
                assert budget.check(with_stage(arch, i, blocks=room.most_blocks)).fits
                if room.most_blocks < 64:
                    assert not budget.check(with_stage(arch, i, blocks=room.most_blocks + 1)).fits
            if room.most_channels is not None:
                assert budget.check(with_stage(arch, i, channels=room.most_channels)).fits
                for wider in range(room.most_channels + step, room.most_channels + 4 * step, step):
                    assert not budget.check(with_stage(arch, i, channels=wider)).fits
        if found.together is not None:
            widths = zip(arch.stages, found.together.channels, strict=True)
            stages = tuple(stage.model_copy(update={"channels": channels}) for stage, channels in widths)
            scaled = arch.model_copy(update={"stages": stages})
            assert budget.check(scaled).fits
            assert (found.together.params, found.together.macs) == (count_params(scaled, SMALL), count_macs(scaled, SMALL))
    assert found_any


@pytest.mark.parametrize("name", ["resnet-443", "light-resnet18"])
def test_reported_networks_can_be_widened_to_their_budget(name: str) -> None:
    arch, params = REPORTED[name]
    found = affordable(arch, CIFAR10, BudgetConfig(params=5_000_000))
    assert found.together is not None
    assert max(params, 4_900_000) <= found.together.params <= 5_000_000
    assert all(now <= stage.channels for now, stage in zip((s.channels for s in arch.stages), found.stages, strict=True))
    assert all(stage.most_channels is not None and stage.most_channels >= stage.channels for stage in found.stages)


def test_network_that_fits_is_never_told_to_be_narrower() -> None:
    """A limit of multiply-adds decides, and the steps of the search for the widest would end just below."""
    arch, params = REPORTED["resnet-443"]
    for macs, limit in product([count_macs(arch, CIFAR10)], [None, 5_000_000]):
        found = affordable(arch, CIFAR10, BudgetConfig(params=limit, macs=macs))
        assert found.together is not None
        assert found.together.params >= params
        assert found.together.macs <= macs


def test_budget_for_nothing_affords_nothing() -> None:
    arch = ArchConfig(stages=(StageConfig(blocks=1, channels=8), StageConfig(blocks=1, channels=8)))
    found = affordable(arch, SMALL, BudgetConfig(params=10))
    assert found.together is None
    assert [(room.most_blocks, room.most_channels) for room in found.stages] == [(None, None)] * 2


def test_memory_alone_bounds_widths_but_hardly_depths() -> None:
    arch = ArchConfig(stages=(StageConfig(blocks=1, channels=8),))
    limit = 2 * peak_memory(arch, SMALL)
    (room,) = affordable(arch, SMALL, BudgetConfig(memory=limit)).stages
    assert room.most_blocks == 64
    assert room.most_channels is not None
    assert peak_memory(with_stage(arch, 0, channels=room.most_channels), SMALL) <= limit
    assert peak_memory(with_stage(arch, 0, channels=room.most_channels + STEP), SMALL) > limit
