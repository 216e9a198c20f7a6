import pytest

from nas.budget import Budget, count_params
from nas.config import DataConfig, ImageShape
from nas.data.datasets import load_dataset
from nas.models.resnet import check_size
from nas.paths import shipped_file, shipped_names
from nas.space.feasibility import check_can_fill, check_feasible, measure_fill, measure_fit
from nas.space.space import Slot
from nas.space.space_file import load_space
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
