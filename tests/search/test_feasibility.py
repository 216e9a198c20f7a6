"""Whether anything fits, and what is blamed where nothing does."""

from typing import Any

import pytest

from nas.budget import Budget, count_macs, count_params
from nas.config import BudgetConfig, ImageShape
from nas.errors import BudgetError, ConfigError
from nas.search.feasibility import check_feasible, costly_ranges, measure_fit, smallest_network
from nas.space import Space, UniformDraw
from nas.space_file import read_space

SHAPE = ImageShape(channels=3, size=32, classes=10)
ARCH = """
  stages: {type: int, low: 2, high: 3}
  block: {type: categorical, choices: [basic, bottleneck]}
  stem:
    stride: {type: categorical, choices: [1, 2]}
  stage:
    blocks: {type: int, low: 1, high: 4}
    channels: {type: int, low: 8, high: 64}
    kernel: {type: categorical, choices: [5, 3]}
"""


def space(arch: str = ARCH) -> Space:
    return read_space(f"version: 1\nbudget: {{params: 1M}}\narch:{arch}", source="the test", name="test")


def budget(**limits: Any) -> Budget:
    return Budget(BudgetConfig(**limits), SHAPE)


def test_no_draw_is_smaller_than_the_smallest_network() -> None:
    smallest = count_params(smallest_network(space(), SHAPE), SHAPE)
    draw = UniformDraw(seed=0)
    assert all(count_params(space().draw(draw).arch, SHAPE) >= smallest for _ in range(60))


def test_what_fits_is_let_pass() -> None:
    check_feasible(space(), budget(params=1_000_000))
    check_feasible(space(), budget(params=count_params(smallest_network(space(), SHAPE), SHAPE)))


def test_what_cannot_fit_is_refused_with_its_count_and_the_ranges_to_lower() -> None:
    smallest = count_params(smallest_network(space(), SHAPE), SHAPE)
    with pytest.raises(BudgetError) as caught:
        check_feasible(space(), budget(params=smallest - 1))
    assert f"its smallest network has {smallest:,} parameters, the budget is {smallest - 1:,}" in caught.value.message
    assert "stage" in str(caught.value.hint)
    assert "--max-params" in str(caught.value.hint)


def test_multiply_adds_are_refused_by_the_lightest_network_not_the_smallest() -> None:
    """A stem that halves costs no parameters and saves three quarters of the multiply-adds."""
    heavy = count_macs(smallest_network(space(), SHAPE), SHAPE)
    check_feasible(space(), budget(params=1_000_000, macs=heavy // 2))
    with pytest.raises(BudgetError, match="multiply-adds"):
        check_feasible(space(), budget(params=1_000_000, macs=1000))


def test_the_three_costliest_ranges_are_blamed() -> None:
    blamed = costly_ranges(space(), SHAPE)
    assert len(blamed) == 3
    assert all(name.startswith("stage") for name in blamed)


def test_where_nothing_is_drawn_the_fixed_values_are_blamed() -> None:
    fixed = space("\n  stages: 1\n  stage: {blocks: 1, channels: 64}\n")
    with pytest.raises(BudgetError) as caught:
        check_feasible(fixed, budget(params=10))
    assert "fixed values" in str(caught.value.hint)


def test_stages_that_shrink_the_images_to_nothing_are_refused() -> None:
    tiny = Budget(BudgetConfig(params=1_000_000), ImageShape(channels=1, size=8, classes=10))
    deep = space("\n  stages: {type: int, low: 2, high: 5}\n  stage: {blocks: 1, channels: 8}\n")
    with pytest.raises(ConfigError, match=r"space test: stage 5 of 5"):
        check_feasible(deep, tiny)


def test_the_share_that_fits_is_measured_for_each_block() -> None:
    everything, nothing = (measure_fit(space(), budget(params=p), draws=20, seed=1) for p in (10_000_000, 1))
    assert everything.fits == 1
    assert set(everything.by_block) == {"basic", "bottleneck"}
    assert sum(everything.draws_by_block.values()) == everything.draws == 20
    assert nothing.fits == 0
    assert measure_fit(space(), budget(params=50_000), 20, seed=1) == measure_fit(space(), budget(params=50_000), 20, seed=1)
