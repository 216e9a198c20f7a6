"""Whether anything in a space fits its budget, whether scaled widths can fill it, and which ranges are blamed where not."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

import nas.budget.check
from nas.budget import Budget, count_macs, count_params, peak_memory
from nas.config import ArchConfig, BudgetConfig, ImageShape, LatencyConfig
from nas.errors import BudgetError, ConfigError
from nas.space.feasibility import (
    check_can_fill,
    check_feasible,
    costly_ranges,
    least_cost,
    measure_fill,
    measure_fit,
    nothing_fits,
    smallest_network,
    time_draws,
)
from nas.space.space import Space
from nas.space.space_file import CIFAR10, load_preset, load_space, read_space
from nas.study.samplers import SAMPLERS
from nas.study.settings import Overrides
from nas.study.warm_start import Start, fit_start
from tests.conftest import Done
from tests.study.scripted import draw_only

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
    return Budget(BudgetConfig.model_validate(limits), SHAPE)


def test_no_draw_is_smaller_than_the_smallest_network() -> None:
    smallest = count_params(smallest_network(space(), SHAPE), SHAPE)
    assert all(count_params(drawn.arch, SHAPE) >= smallest for drawn in space().uniform_draws(60, seed=0))


def test_what_fits_is_let_pass_and_what_cannot_is_refused_with_the_ranges_to_lower() -> None:
    smallest = count_params(smallest_network(space(), SHAPE), SHAPE)
    check_feasible(space(), budget(params=smallest))
    with pytest.raises(BudgetError) as caught:
        check_feasible(space(), budget(params=smallest - 1))
    assert f"its smallest network has {smallest:,} parameters, the budget is {smallest - 1:,}" in caught.value.message
    blamed = costly_ranges(space(), SHAPE)
    assert len(blamed) == 3
    assert all(name.startswith("stage") and name in str(caught.value.hint) for name in blamed)
    fixed = space("\n  stages: 1\n  stage: {blocks: 1, channels: 64}\n")
    with pytest.raises(BudgetError) as caught:
        check_feasible(fixed, budget(params=10))
    assert "fixed values" in str(caught.value.hint)


def test_multiply_adds_are_refused_by_the_lightest_network_not_the_smallest() -> None:
    """A stem that halves costs no parameters and saves three quarters of the multiply-adds."""
    heavy = count_macs(smallest_network(space(), SHAPE), SHAPE)
    check_feasible(space(), budget(params=1_000_000, macs=heavy // 2))
    with pytest.raises(BudgetError, match="MACs"):
        check_feasible(space(), budget(params=1_000_000, macs=1000))


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


RAISE = {
    "params": "raise the budget with --max-params",
    "flash": "raise budget.flash",
    "ram": "raise budget.ram",
    "memory": "raise budget.memory",
    "macs": "raise budget.macs",
    "latency": "raise budget.latency.max_ms",
}


@pytest.mark.parametrize("limit", RAISE)
def test_each_limit_is_raised_in_its_own_way(limit: str) -> None:
    hint = str(nothing_fits(space(), budget(params=10), "why", limit).hint)
    assert hint.startswith("lower the ranges of stage")
    assert hint.endswith(f" in the space, or {RAISE[limit]}")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"params": 10}, "parameters, the budget is 10"),
        ({"memory": 1000}, "bytes of activations, the budget is 1,000"),
        ({"flash": 1000}, "bytes of flash, the budget is 1,000"),
        ({"ram": 1000}, "bytes of RAM, the budget is 1,000"),
        ({"macs": 1000}, "MACs, the budget is 1,000"),
        ({"macs": 1000, "memory": 1000}, "bytes of activations, the budget is 1,000"),
    ],
)
def test_a_limit_that_nothing_keeps_is_named_with_what_the_smallest_has(limits: dict[str, int], message: str) -> None:
    with pytest.raises(BudgetError) as caught:
        check_feasible(space(), budget(**limits))
    assert caught.value.message.startswith("nothing in space test fits: its smallest network has ")
    assert caught.value.message.endswith(message)


def test_memory_is_refused_by_the_network_that_needs_least() -> None:
    least = least_cost(space(), budget(memory=1), "memory")
    assert least < peak_memory(smallest_network(space(), SHAPE, count_params), SHAPE)  # a stem that halves its maps
    check_feasible(space(), budget(memory=int(least)))
    with pytest.raises(BudgetError, match=f"{least:,} bytes of activations"):
        check_feasible(space(), budget(memory=int(least) - 1))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[ArchConfig]:
    """What is timed: bottlenecks take 3 ms, basic blocks 2 ms, however many multiply-adds they have."""
    networks: list[ArchConfig] = []

    def measure(arch: ArchConfig, shape: ImageShape, latency: LatencyConfig) -> float:
        networks.append(arch)
        return 3.0 if arch.block == "bottleneck" else 2.0

    monkeypatch.setattr(nas.budget.check, "measure_latency", measure)
    return networks


def limited_to(ms: float) -> Budget:
    return budget(latency={"max_ms": ms, "runtime": "torch"})


def test_latency_is_tried_on_the_network_of_fewest_multiply_adds_and_then_on_every_choice(timed: list[ArchConfig]) -> None:
    check_feasible(space(), limited_to(3.0))
    assert timed == [smallest_network(space(), SHAPE, count_macs)]
    assert timed[0].block == "bottleneck"
    check_feasible(space(), limited_to(2.5))
    assert {arch.block for arch in timed} == {"basic", "bottleneck"}
    with pytest.raises(BudgetError) as caught:
        check_feasible(space(), limited_to(1.5))
    assert caught.value.message == (
        "nothing in space test fits: its smallest network takes 2.000 ms, the budget is 1.5 ms by torch on cpu, 1 thread, batch 1"
    )


def test_network_too_large_to_run_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.budget.check, "measure_latency", lambda *a: math.inf)
    with pytest.raises(BudgetError, match="its smallest network is too large to run, the budget is 5 ms by torch"):
        check_feasible(space(), limited_to(5))


def test_a_few_that_keep_the_other_limits_are_timed_and_none_for_the_share_that_fits(timed: list[ArchConfig]) -> None:
    assert measure_fit(space(), limited_to(1.0), draws=20, seed=1).fits == 1
    assert not timed
    half = budget(params=50_000, latency={"max_ms": 2.5, "runtime": "torch"})
    found = time_draws(space(), half, 5, 60, seed=1)
    assert found == sorted(found)
    assert len(found) == 5
    assert all(count_params(arch, SHAPE) <= 50_000 for arch in timed)
    assert time_draws(space(), budget(params=1, latency={"max_ms": 2.5, "runtime": "torch"}), 5, 20, seed=1) == []


def test_ranges_that_cost_nothing_are_not_blamed() -> None:
    drawn = "dropout: {type: float, low: 0, high: 0.5}, stage: {blocks: 1, channels: {type: int, low: 8, high: 16}}"
    one = read_space(f"version: 1\nbudget: {{params: 1k}}\narch: {{stages: 1, {drawn}}}", source="s.yaml", name="s")
    assert costly_ranges(one, SHAPE) == ["stage0.channels"]
    assert costly_ranges(one, SHAPE, peak_memory) == ["stage0.channels"]


def test_draws_that_are_all_over_budget_end_with_the_limit_that_most_of_them_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.study.drawing.MAX_OVER_BUDGET_IN_A_ROW", 5)
    sampler = SAMPLERS["random"]()
    drawer = draw_only(optuna.create_study(sampler=sampler), sampler, space(), budget(params=1_000_000, memory=100))
    drawer.begin_draw()
    for _ in range(4):
        drawer.work()
    assert drawer.error is None
    drawer.work()
    assert isinstance(drawer.error, BudgetError)
    assert "5 candidates in a row were over budget" in drawer.error.message
    assert str(drawer.error.hint).endswith(f"{RAISE['memory']}, in a new study: --study NAME")


GRAY = ImageShape(channels=1, size=28, classes=47)


def scaled(budget: str, fit: str = "params", stage: str = "blocks: {type: int, low: 1, high: 4}, kernel: 3") -> Space:
    text = (
        f"version: 1\nbudget: {{params: {budget}}}\nfit: {fit}\narch:\n  stages: 2\n"
        f"  stage: {{channels: {{type: int, low: 16, high: 64}}, {stage}}}\n"
    )
    return read_space(text, source="s.yaml", name="s")


def refusal(space: Space, shape: ImageShape = CIFAR10) -> BudgetError:
    with pytest.raises(BudgetError) as refused:
        check_can_fill(space, shape)
    return refused.value


def test_space_that_can_fill_its_budget_passes_and_one_that_scales_nothing_does() -> None:
    check_can_fill(scaled("300k"), CIFAR10)
    check_can_fill(scaled("300k", "{params: {low: 0.001, high: 1.0, log: true}}"), CIFAR10)
    check_can_fill(scaled("10").unscaled(), CIFAR10)


LOWER = "lower the ranges of stage0.kernel, stage1.kernel, stage0.blocks in the space, or raise the budget with --max-params"
RAISE_STAGES = "raise arch.stage.blocks or arch.stage.kernel in the space, or lower the budget with --max-params"
SHRINK = "shrink the fixed values of arch in the space, or raise the budget with --max-params"


@pytest.mark.parametrize(
    ("budget", "stage", "message", "hint"),
    [
        (
            "100",
            "blocks: {type: int, low: 2, high: 4}, kernel: {type: categorical, choices: [3, 5]}",
            r"space s cannot fill its budget: none of 100 uniform draws reaches 98% to 100% of its target; "
            r"the nearest has 1\d\d parameters for a target of 100, even with one channel for each stage",
            LOWER,
        ),
        ("100G", "blocks: 1, kernel: 1", ".* even with 4,096 channels for each stage, the maximum", RAISE_STAGES),
        (
            "300",
            "blocks: 1, kernel: 3",
            r".* the nearest has 2\d\d parameters for a target of 300, and with one more channel it exceeds it",
            SHRINK,
        ),
    ],
)
def test_space_that_cannot_fill_its_budget_is_refused_with_what_to_change(
    budget: str, stage: str, message: str, hint: str
) -> None:
    error = refusal(scaled(budget, stage=stage))
    assert re.fullmatch(message, error.message)
    assert error.hint == hint


def test_feasibility_uses_the_images_of_the_search() -> None:
    tiny = scaled("140", stage="blocks: 1, kernel: 1")
    many = ImageShape(channels=3, size=32, classes=1000)
    assert "even with one channel for each stage" in refusal(tiny, many).message
    assert "even with one channel for each stage" not in refusal(tiny).message


def test_how_the_draws_fill_the_budget_is_measured_in_shares_of_them() -> None:
    well = measure_fill(scaled("300k"), draws=100, seed=0)
    assert (well.draws, well.filled, well.over) == (100, 1.0, 0.0)
    never = measure_fill(scaled("50"), draws=100, seed=0)
    assert (never.filled, never.over) == (0.0, 1.0)
    assert measure_fill(scaled("400"), draws=100, seed=0) == measure_fill(scaled("400"), draws=100, seed=0)
    assert well.sentence() == (
        "Widths are scaled to fill the budget: 100.0% of the draws reach 98% to 100% of their target, 0.0% exceed it."
    )


def test_space_is_shown_with_how_its_draws_fill_the_budget(nas: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(load_space("digits").text + "\nfit: params\n")
    filling = load_space(str(tmp_path / "f.yaml"))
    file, draws = str(tmp_path / "f.yaml"), ("--draws", "20")
    shown = nas("show", file, *draws).out
    assert f"\n{measure_fill(filling, draws=20, seed=0).sentence()}\n" in shown
    assert "  stage0.channels      int 8 to 32 log, scaled\n" in shown
    assert json.loads(nas("show", file, *draws, "--json").out)["fill"]["draws"] == 20
    assert "fill" not in json.loads(nas("show", "digits", *draws, "--json").out)


def test_search_through_a_space_that_cannot_fill_its_budget_does_not_begin(nas: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(load_space("digits").text + "\nfit: params\n")
    done = nas("search", "--space", str(tmp_path / "f.yaml"), "--dataset", "digits", "--max-params", "90", "--workers", "1")
    assert done.code == 1
    assert done.err.startswith("Error: space f cannot fill its budget: none of 100 uniform draws reaches 98% to 100%")


def test_draws_of_a_search_fill_its_own_budget_on_its_own_images() -> None:
    searched = Overrides(max_params=120_000).applied_to(load_space("resnet-small-fit")).for_images(GRAY)
    budget = Budget(searched.budget, GRAY)
    for drawn in searched.uniform_draws(10, seed=0):
        assert 117_600 <= count_params(drawn.arch, GRAY) == budget.check(drawn.arch).params <= 120_000


def test_network_of_another_study_begins_one_whose_widths_are_scaled_by_the_ratios_that_give_it() -> None:
    filling = load_space("resnet-small-fit")
    (candidate,) = filling.uniform_draws(1, seed=4)
    fitted = fit_start(Start("study:other trial 1", candidate), filling, Budget(filling.budget, CIFAR10))
    assert fitted.reasons == []
    assert fitted.values is not None
    assert filling.candidate(filling.first_values | fitted.values) == candidate


def test_preset_begins_a_search_only_where_its_widths_fill_the_budget_or_a_share_of_it() -> None:
    preset = load_preset("light-resnet18").candidate  # 2.8 of 5 M parameters

    def fitted(fit: str) -> Any:
        filling = read_space(f"{load_space('resnet').text}\nfit: {fit}\n", source="f.yaml", name="f")
        return fit_start(Start("preset:light-resnet18", preset), filling, Budget(filling.budget, CIFAR10))

    whole = fitted("params")
    assert whole.values is None
    assert "stages.0.channels 32: the space has int 16 to 144 log, scaled" in whole.reasons
    assert fitted("{params: {low: 0.2, high: 1.0}}").values["fill"] == pytest.approx(2_809_480 / 5_000_000)
