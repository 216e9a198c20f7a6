"""Whether a space fills its budget, before a search and as `nas show` says it; a search through a space that does."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.budget import Budget, count_params
from nas.config import ImageShape
from nas.errors import BudgetError
from nas.space.feasibility import check_can_fill, measure_fill
from nas.space.space import Space, UniformDraw
from nas.space.space_file import CIFAR10, load_preset, load_space, read_space
from nas.study.settings import Overrides
from nas.study.warm_start import Start, fit_start
from tests.conftest import Done

GRAY = ImageShape(channels=1, size=28, classes=47)


def space(budget: str, fit: str = "params", stage: str = "blocks: {type: int, low: 1, high: 4}, kernel: 3") -> Space:
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
    check_can_fill(space("300k"), CIFAR10)
    check_can_fill(space("300k", "{params: {low: 0.001, high: 1.0, log: true}}"), CIFAR10)
    check_can_fill(space("10").unscaled(), CIFAR10)


def test_space_whose_narrowest_networks_are_too_large_is_refused_with_the_ranges_to_lower() -> None:
    error = refusal(space("100", stage="blocks: {type: int, low: 2, high: 4}, kernel: {type: categorical, choices: [3, 5]}"))
    assert re.fullmatch(
        r"space s cannot fill its budget: of 100 uniform draws none has 98% to 100% of the parameters that it is scaled to; "
        r"the nearest has 1\d\d for 100, even with a single channel a stage",
        error.message,
    )
    assert error.hint == (
        "lower the ranges of stage0.kernel, stage1.kernel, stage0.blocks in the space, or raise the budget with --max-params"
    )


def test_space_whose_widest_networks_are_too_small_is_refused() -> None:
    error = refusal(space("100G", stage="blocks: 1, kernel: 1"))
    assert "even with 4,096 channels a stage, the most there may be" in error.message
    assert error.hint == "raise arch.stage.blocks or arch.stage.kernel in the space, or lower the budget with --max-params"


def test_space_whose_smallest_step_is_too_large_is_refused() -> None:
    error = refusal(space("300", stage="blocks: 1, kernel: 3"))
    assert re.search(r"the nearest has 2\d\d for 300, and one channel more is too many", error.message)
    assert error.hint == "shrink the fixed values of arch in the space, or raise the budget with --max-params"


def test_the_images_of_the_search_decide() -> None:
    tiny = space("140", stage="blocks: 1, kernel: 1")
    many = ImageShape(channels=3, size=32, classes=1000)
    assert "even with a single channel a stage" in refusal(tiny, many).message
    assert "even with a single channel a stage" not in refusal(tiny).message


def test_how_the_draws_fill_the_budget_is_measured_in_shares_of_them() -> None:
    well = measure_fill(space("300k"), draws=100, seed=0)
    assert (well.draws, well.filled, well.over) == (100, 1.0, 0.0)
    never = measure_fill(space("50"), draws=100, seed=0)
    assert (never.filled, never.over) == (0.0, 1.0)
    assert measure_fill(space("400"), draws=100, seed=0) == measure_fill(space("400"), draws=100, seed=0)
    assert well.sentence() == (
        "Widths are scaled to fill the budget: 100.0% of the draws have 98% to 100% of the parameters that they are scaled to, "
        "0.0% have more."
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
    assert done.err.startswith("Error: space f cannot fill its budget: of 100 uniform draws none has 98% to 100%")


def test_draws_of_a_search_fill_its_own_budget_on_its_own_images() -> None:
    searched = Overrides(max_params=120_000).applied_to(load_space("resnet-small-fit")).for_images(GRAY)
    budget, lots = Budget(searched.budget, GRAY), UniformDraw(seed=0)
    for _ in range(10):
        arch = searched.draw(lots).arch
        assert 117_600 <= count_params(arch, GRAY) == budget.check(arch).params <= 120_000


def test_network_of_another_study_begins_one_whose_widths_are_scaled_by_the_ratios_that_give_it() -> None:
    filling = load_space("resnet-small-fit")
    candidate = filling.draw(UniformDraw(seed=4))
    fitted = fit_start(Start("study:other trial 1", candidate), filling, Budget(filling.budget, CIFAR10))
    assert fitted.reasons == []
    assert fitted.values is not None
    assert filling.candidate({slot.name: slot.ends()[0] for slot in filling.slots} | fitted.values) == candidate


def test_preset_that_does_not_fill_the_budget_is_left_out_with_the_widths_that_are_scaled() -> None:
    text = load_space("resnet").text + "\nfit: params\n"
    filling = read_space(text, source="f.yaml", name="f")
    preset = load_preset("light-resnet18").candidate  # 2.8 of 5 M parameters
    fitted = fit_start(Start("preset:light-resnet18", preset), filling, Budget(filling.budget, CIFAR10))
    assert fitted.values is None
    assert "stages.0.channels 32: the space has int 16 to 144 log, scaled" in fitted.reasons


def test_preset_begins_a_search_that_fills_a_share_of_the_budget_which_it_has() -> None:
    text = load_space("resnet").text + "\nfit: {params: {low: 0.2, high: 1.0}}\n"
    filling = read_space(text, source="f.yaml", name="f")
    preset = load_preset("light-resnet18").candidate
    fitted = fit_start(Start("preset:light-resnet18", preset), filling, Budget(filling.budget, CIFAR10))
    assert fitted.values is not None
    assert fitted.values["fill"] == pytest.approx(2_809_480 / 5_000_000)
