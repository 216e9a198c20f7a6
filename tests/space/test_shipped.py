"""The shipped spaces and reported networks: complete, counted exactly, feasible, each inside what is to hold it."""

from pathlib import Path

import pytest

from nas.budget import Budget, count_params
from nas.config import DataConfig, ImageShape
from nas.data.datasets import load_dataset
from nas.errors import ConfigError
from nas.models.resnet import check_size
from nas.paths import shipped_file, shipped_folder, shipped_names
from nas.space.feasibility import check_can_fill, check_feasible, measure_fill, measure_fit
from nas.space.space import Slot
from nas.space.space_file import load_preset, load_space
from nas.study.warm_start import Start, fit_start
from tests.reported import REPORTED

CIFAR10 = ImageShape(channels=3, size=32, classes=10)
SPACES = shipped_names("space")
DRAWS = 300


def test_spaces_are_shipped_under_their_names() -> None:
    assert {"digits", "resnet", "resnet-224", "resnet-small", "resnet-small-fit"} <= set(SPACES)
    for name in SPACES:
        assert shipped_file("space", name).name == f"{name}.yaml"


@pytest.mark.parametrize("name", SPACES)
def test_shipped_space_has_something_that_fits_its_images_and_its_budget(name: str) -> None:
    space = load_space(name)
    check_feasible(space, Budget(space.budget, space.images))


def test_space_of_the_digits_is_meant_for_them() -> None:
    assert load_space("digits").images == load_dataset(DataConfig(dataset="digits")).shape


@pytest.mark.parametrize("name", SPACES)
def test_shipped_space_is_warned_of_by_nothing(name: str) -> None:
    assert load_space(name).warnings() == []


@pytest.mark.parametrize("name", SPACES)
def test_a_third_of_uniform_draws_of_each_block_type_fits_the_budget(name: str) -> None:
    space = load_space(name)
    fit = measure_fit(space, Budget(space.budget, space.images), DRAWS, seed=0)
    assert sum(fit.draws_by_block.values()) == DRAWS
    assert fit.by_block.keys() >= {"basic", "preact"}
    assert {block: share for block, share in fit.by_block.items() if share < 1 / 3} == {}


def test_space_that_fills_its_budget_fills_it_whatever_is_drawn() -> None:
    space = load_space("resnet-small-fit")
    assert space.fills
    check_can_fill(space, space.images)
    assert measure_fill(space, DRAWS, seed=0).filled == 1.0


def test_filled_space_is_resnet_small_with_narrower_ranges_of_widths() -> None:
    plain, filling = load_space("resnet-small").describe(), load_space("resnet-small-fit").unscaled().describe()
    assert plain.keys() == filling.keys()
    assert {name for name in plain if plain[name] != filling[name]} == {f"stage{i}.channels" for i in range(4)}


@pytest.mark.parametrize("name", REPORTED)
def test_reported_network_has_its_printed_number_of_parameters(name: str) -> None:
    assert count_params(REPORTED[name].arch, CIFAR10) == REPORTED[name].params


@pytest.mark.parametrize("name", REPORTED)
def test_reported_network_lies_inside_the_space_for_its_budget(name: str) -> None:
    space = load_space("resnet")
    slots: dict[str, Slot] = {slot.name: slot for slot in space.slots}
    arch, params = REPORTED[name]
    wanted = {
        "stages": len(arch.stages),
        "block": arch.block,
        "activation": arch.activation,
        "stem.kernel": arch.stem.kernel,
        "stem.stride": arch.stem.stride,
        "downsample": arch.downsample,
        "dropout": arch.dropout,
        "dropout_place": arch.dropout_place,
        "se_reduction": arch.se_reduction,
        "stochastic_depth": arch.stochastic_depth,
        "pool": arch.pool,
        "pool_size": arch.pool_size,
    }
    for i, stage in enumerate(arch.stages):
        wanted |= {f"stage{i}.{key}": value for key, value in stage.model_dump().items()}
    assert [f"{key} {value}: {slots[key].describe()}" for key, value in wanted.items() if not slots[key].holds(value)] == []
    assert params <= space.budget.params


def test_deepest_network_of_each_space_leaves_something_of_its_images() -> None:
    for name in SPACES:
        space = load_space(name)
        deepest = space.candidate({slot.name: slot.ends()[-1] for slot in space.slots}).arch
        check_size(deepest, space.images.size)


CIFAR10 = ImageShape(channels=3, size=32, classes=10)
ADAM = ("resnet-1111-adam", "resnet-2222-slim-adam")


def test_all_eleven_are_shipped() -> None:
    assert set(shipped_names("preset")) == {*REPORTED, *ADAM}


@pytest.mark.parametrize("name", shipped_names("preset"))
def test_a_preset_has_the_reported_architecture_and_count(name: str) -> None:
    preset = load_preset(name)
    expected = REPORTED[name.removesuffix("-adam")]
    assert preset.candidate.arch.canonical() == expected.arch.canonical()
    assert count_params(preset.candidate.arch, CIFAR10) == expected.params == preset.reported.params


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ("  activation: relu", "  activation: {type: categorical, choices: [relu, silu]}", "fixes every value, but draws act"),
        ("reported:", "# reported:", "reported: is missing"),
    ],
)
def test_a_preset_that_draws_or_has_no_report_is_refused(
    line: str, instead: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (shipped_folder() / "presets" / "resnet-1111.yaml").read_text()
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "mine.yaml").write_text(text.replace(line, instead))
    monkeypatch.setattr("nas.paths.shipped_folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match=said) as refused:
        load_preset("mine")
    assert refused.value.hint


@pytest.mark.parametrize("name", shipped_names("preset"))
def test_a_preset_can_start_a_search_of_the_space_resnet(name: str) -> None:
    space = load_space("resnet")
    preset = load_preset(name)
    fitted = fit_start(Start(name, preset.candidate), space, Budget(space.budget, CIFAR10))
    assert fitted.values is not None, fitted.reasons
    assert fitted.values.keys() == {
        s.name for s in space.slots if not (s.name.startswith("stage3") and len(preset.candidate.arch.stages) == 3)
    }


def test_recipes_keep_what_the_reports_state() -> None:
    recipes = {name: load_preset(name).candidate.train for name in shipped_names("preset")}
    assert {name: r.epochs for name, r in recipes.items()} == {
        "resnet-2322": 65,
        "resnet-443": 75,
        "resnet-1111": 60,
        "resnet-1111-adam": 60,
        "resnet-2222-slim": 60,
        "resnet-2222-slim-adam": 60,
        "light-resnet18": 300,
        "light-resnet18-v2-40": 300,
        "light-resnet18-v2-45": 300,
        "robust-resnet64": 300,
        "resnet-3243-gelu": 65,
    }
    assert [n for n, r in recipes.items() if r.optimiser == "adam"] == [
        "resnet-1111-adam",
        "resnet-2222-slim-adam",
        "resnet-3243-gelu",
    ]
    assert {r.decay_norm_and_bias for r in recipes.values()} == {True}  # none of them spared BatchNorm and biases
    first = recipes["resnet-2322"]
    assert (first.batch_size, first.schedule, first.lr, first.rate_per_epoch, first.weight_decay) == (
        32,
        "onecycle",
        0.1,
        True,
        0,
    )
    assert [round(m * 75) for m in recipes["resnet-443"].milestones] == [30, 40, 60, 80]
    assert recipes["robust-resnet64"].augment.mix == "mixup_or_cutmix"
    assert recipes["robust-resnet64"].augment.mix_p == 0.5


def test_a_milestone_that_is_never_reached_is_warned_of() -> None:
    (warning,) = load_preset("resnet-443").candidate.train.warnings()
    assert "1.06667" in warning
    assert "never reached" in warning


def test_a_misspelt_preset_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset("preset:robust-resnet46")
    assert "Did you mean 'robust-resnet64'?" in caught.value.message
    assert "nas presets" in caught.value.hint
