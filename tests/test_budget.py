from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

import nas.budget
from nas.budget import Budget, count_macs, count_params
from nas.config import ArchConfig, BudgetConfig, ImageShape, StageConfig
from nas.errors import BudgetError, ConfigError
from nas.models import build_model
from nas.search.feasibility import check_feasible, costly_ranges, measure_fit, smallest_network
from nas.space import Space
from nas.space_file import read_space
from tests.reported import REPORTED

CIFAR10 = ImageShape(channels=3, size=32, classes=10)
SMALL = ArchConfig(stages=(StageConfig(blocks=1, channels=8), StageConfig(blocks=1, channels=16)))
HUGE = ArchConfig(stages=tuple(StageConfig(blocks=64, channels=4096) for _ in range(4)))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Every network that the budget builds."""
    networks: list[nn.Module] = []

    def build(*arguments: Any) -> nn.Module:
        networks.append(build_model(*arguments))
        return networks[-1]

    monkeypatch.setattr(nas.budget, "build_model", build)
    return networks


def devices(network: nn.Module) -> set[str]:
    return {tensor.device.type for tensor in [*network.parameters(), *network.buffers()]}


def test_parameters_are_counted_without_allocating_any(built: list[nn.Module]) -> None:
    count_params(SMALL, CIFAR10)
    assert [devices(network) for network in built] == [{"meta"}]


def test_network_far_over_budget_is_never_allocated(built: list[nn.Module]) -> None:
    budget = Budget(BudgetConfig(params=5_000_000, macs=50_000_000), CIFAR10)
    cost = budget.check(HUGE)  # 300 GB of weights, if it were
    assert not cost.fits
    assert cost.params > 70_000_000_000
    assert cost.macs is None
    assert [devices(network) for network in built] == [{"meta"}]


def test_parameters_are_those_that_the_network_has() -> None:
    for arch, _ in REPORTED.values():
        assert count_params(arch, CIFAR10) == sum(p.numel() for p in build_model(arch, CIFAR10).parameters())


def test_counting_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    count_params(SMALL, CIFAR10)
    count_macs(SMALL, CIFAR10)
    assert torch.equal(torch.rand(3), expected)


def test_counting_leaves_the_number_of_threads_alone() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        count_macs(SMALL, CIFAR10)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_macs_of_a_network_are_those_of_its_layers() -> None:
    """By hand: convolutions and the classifier; fvcore adds BatchNorm's and the pooling's."""
    convolutions = (
        3 * 8 * 9 * 32**2  # stem
        + 2 * 8 * 8 * 9 * 32**2
        + (8 * 16 * 9 + 16 * 16 * 9 + 8 * 16) * 16**2
        + 16 * 10
    )
    norms = 2 * (3 * 8 * 32**2 + 3 * 16 * 16**2)
    pooling = 16 * 16**2
    assert count_macs(SMALL, CIFAR10) == convolutions + norms + pooling


def test_budget_says_what_a_network_costs_and_how_far_it_is_from_the_limit() -> None:
    params = count_params(SMALL, CIFAR10)
    for limit, fits in ((params, True), (params - 1, False), (2 * params, True)):
        cost = Budget(BudgetConfig(params=limit), CIFAR10).check(SMALL)
        assert (cost.params, cost.macs, cost.fits) == (params, None, fits)
        assert cost.excess == {"params": pytest.approx(params / limit - 1)}


def test_budget_of_macs_is_kept_too(built: list[nn.Module]) -> None:
    macs = count_macs(SMALL, CIFAR10)
    for limit, fits in ((macs, True), (macs - 1, False)):
        cost = Budget(BudgetConfig(params=5_000_000, macs=limit), CIFAR10).check(SMALL)
        assert (cost.macs, cost.fits) == (macs, fits)
        assert cost.excess["macs"] == pytest.approx(macs / limit - 1)


def test_network_that_shrinks_its_images_to_nothing_is_refused() -> None:
    arch = ArchConfig(stages=tuple(StageConfig(blocks=1, channels=8) for _ in range(5)))
    with pytest.raises(ConfigError) as refused:
        Budget(BudgetConfig(params=5_000_000), ImageShape(channels=1, size=8, classes=10)).check(arch)
    assert refused.value.message == (
        "stage 5 of 5 would halve a feature map of 1×1: images of 8×8 with a stem of stride 1 allow 4 stages"
    )
    assert refused.value.hint == "use fewer stages, a stem of stride 1, or larger images (--image-size)"


# ---------------------------------------------------------------------------------------- whether anything fits at all


def space(budget: str, stage: str = "blocks: {type: int, low: 1, high: 4}, channels: {type: int, low: 64, high: 256}") -> Space:
    text = f"version: 1\nbudget: {budget}\narch:\n  stages: 2\n  block: {{type: categorical, choices: [basic, bottleneck]}}\n"
    return read_space(f"{text}  stage: {{{stage}}}\n", source="s.yaml", name="s")


def refusal(space: Space, shape: ImageShape = CIFAR10) -> BudgetError | ConfigError:
    with pytest.raises((BudgetError, ConfigError)) as refused:
        check_feasible(space, Budget(space.budget, shape))
    return refused.value


def test_space_in_which_nothing_fits_is_refused_with_the_ranges_to_lower() -> None:
    error = refusal(space("{params: 10k}"))
    assert isinstance(error, BudgetError)
    smallest = count_params(smallest_network(space("{params: 10k}"), CIFAR10), CIFAR10)
    assert error.message == (f"nothing in space s fits: its smallest network has {smallest:,} parameters, the budget is 10,000")
    assert error.hint == (
        "lower the ranges of stage0.channels, stage1.channels, stage0.blocks in the space, or raise the budget with --max-params"
    )


def test_space_in_which_nothing_keeps_the_limit_of_macs_is_refused_with_that_limit() -> None:
    error = refusal(space("{params: 5M, macs: 1M}"))
    assert isinstance(error, BudgetError)
    assert "multiply-adds, the budget is 1,000,000" in error.message


def test_space_without_ranges_in_which_nothing_fits_is_told_to_shrink_its_fixed_values() -> None:
    text = "version: 1\nbudget: {params: 1k}\narch: {stages: 2, stage: {blocks: 1, channels: 64}}"
    error = refusal(read_space(text, source="s.yaml", name="s"))
    assert error.hint == "shrink the fixed values of arch.stage in the space, or raise the budget with --max-params"


def test_space_whose_deepest_network_is_too_deep_for_the_images_is_refused_by_name() -> None:
    text = "version: 1\nbudget: {params: 5M}\narch: {stages: {type: int, low: 2, high: 5}, stage: {blocks: 1, channels: 8}}"
    error = refusal(read_space(text, source="s.yaml", name="s"), ImageShape(channels=1, size=8, classes=10))
    assert isinstance(error, ConfigError)
    assert error.message.startswith("space s: stage 5 of 5 would halve a feature map of 1×1")


def test_smallest_network_is_no_larger_than_any_other_corner() -> None:
    wide = space("{params: 5M}")
    smallest = count_params(smallest_network(wide, CIFAR10), CIFAR10)
    for slot in wide.slots:
        for end in slot.ends():
            values = {s.name: s.ends()[0] for s in wide.slots} | {slot.name: end}
            assert smallest <= count_params(wide.candidate(values).arch, CIFAR10)


def test_ranges_that_cost_nothing_are_not_blamed() -> None:
    text = (
        "version: 1\nbudget: {params: 1k}\narch: {stages: 1, dropout: {type: float, low: 0, high: 0.5}, "
        "stage: {blocks: 1, channels: {type: int, low: 8, high: 16}}}"
    )
    assert costly_ranges(read_space(text, source="s.yaml", name="s"), CIFAR10) == ["stage0.channels"]


def test_share_of_fitting_draws_is_counted_by_block_type() -> None:
    narrow = space("{params: 40k}", "blocks: 1, channels: {type: int, low: 8, high: 64, log: true}")
    fit = measure_fit(narrow, Budget(narrow.budget, CIFAR10), draws=60, seed=1)
    again = measure_fit(narrow, Budget(narrow.budget, CIFAR10), draws=60, seed=1)
    assert fit == again
    assert Counter(fit.draws_by_block).total() == fit.draws == 60
    hits = sum(fit.by_block[block] * fit.draws_by_block[block] for block in fit.by_block)
    assert hits == pytest.approx(60 * fit.fits)
    assert fit.by_block["bottleneck"] > fit.by_block["basic"]
