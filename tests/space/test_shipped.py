"""The shipped spaces and reported networks: complete, counted exactly, feasible, each inside what is to hold it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas.budget import Budget, count_macs, count_params
from nas.config import DataConfig, ImageShape
from nas.data.datasets import load_dataset
from nas.errors import ConfigError
from nas.models.resnet import check_size
from nas.paths import shipped_folder, shipped_names
from nas.space.feasibility import check_can_fill, check_feasible, measure_fill, measure_fit
from nas.space.space_file import load_preset, load_space, read_space
from nas.study.warm_start import Start, fit_start
from tests.reported import REPORTED

CIFAR10 = ImageShape(channels=3, size=32, classes=10)
SPACES = shipped_names("space")
DRAWS = 300
SCHEMA = shipped_folder() / "space.schema.json"
FILES = [*shipped_folder().glob("*.yaml"), *shipped_folder().glob("presets/*.yaml")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_editor_finds_the_schema_of_a_shipped_file_and_no_mistake(file: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    text = file.read_text()
    comment, _, schema = text.splitlines()[0].partition("=")
    assert (comment, (file.parent / schema).resolve()) == ("# yaml-language-server: $schema", SCHEMA)
    jsonschema.validate(yaml.safe_load(text), json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ((), {"budgets": {}}),
        ((), {"version": 2}),
        (("budget",), {"params": "many"}),
        (("budget",), {"latency": {"max_ms": 5}}),
        (("arch",), {"block": {"type": "categorical", "choice": ["basic"]}}),
        (("arch",), {"stages": 9}),
        (("arch", "stage"), {"kernel": [3, "five"]}),
        (("train",), {"lr": -0.1}),
        (("train",), {"epochs": {"type": "int", "low": 1, "high": 9}}),
        (("train", "augment"), {"flip": "vertical"}),
        ((), {"fit": {"params": 2}}),
    ],
)
def test_an_editor_finds_what_nas_would_refuse(section: tuple[str, ...], change: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    tree = part = yaml.safe_load((shipped_folder() / "digits.yaml").read_text())
    for key in section:
        part = part[key]
    part |= change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tree, json.loads(SCHEMA.read_text()))
    with pytest.raises(ConfigError):
        read_space(yaml.safe_dump(tree), "changed.yaml", "changed")


def test_an_editor_accepts_what_nas_accepts() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    text = """
        version: 1
        budget: {params: 5_000k, macs: 50M, memory: 512kB, latency: {max_ms: 5, runtime: torch}}
        fit: {params: {low: 0.5, high: 1.0}}
        study: {sampler: {name: tpe, startup_trials: 30}, pruner: none, objective: front}
        arch: {stages: 2, block: {type: categorical, choices: [basic, plain]},
               stage: {blocks: [1, {type: int, low: 1, high: 3}], channels: 8}, stem: {channels: null}}
        train: {optimizer: adamw, nesterov: {type: categorical, choices: [true, false]},
                schedule: multistep, milestones: [0.5, 2]}
    """
    jsonschema.validate(yaml.safe_load(text), json.loads(SCHEMA.read_text()))
    read_space(text, "mine.yaml", "mine")


@pytest.mark.parametrize("name", SPACES)
def test_shipped_space_has_something_that_fits_its_images_and_its_budget(name: str) -> None:
    space = load_space(name)
    check_feasible(space, Budget(space.budget, space.images))
    assert space.warnings() == []
    deepest = space.candidate({slot.name: slot.ends()[-1] for slot in space.slots}).arch
    check_size(deepest, space.images.size)
    if name == "digits":
        assert space.images == load_dataset(DataConfig(dataset="digits")).shape


@pytest.mark.parametrize("name", SPACES)
def test_a_third_of_uniform_draws_of_each_block_type_fits_the_budget(name: str) -> None:
    space = load_space(name)
    fit = measure_fit(space, Budget(space.budget, space.images), DRAWS, seed=0)
    assert sum(fit.draws_by_block.values()) == DRAWS
    assert "basic" in fit.by_block
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


FIVE_REPORTS = sorted([*REPORTED, "resnet-1111-adam", "resnet-2222-slim-adam"])


def test_the_networks_of_the_five_reports_and_the_record_are_shipped() -> None:
    assert set(shipped_names("preset")) == {*FIVE_REPORTS, "air-like"}


def test_the_record_has_its_count_but_for_the_bias_of_the_classifier() -> None:
    preset = load_preset("air-like")
    assert count_params(preset.candidate.arch, CIFAR10) == preset.reported.params + CIFAR10.classes
    assert count_macs(preset.candidate.arch, CIFAR10) == pytest.approx(118e6, rel=0.01)


@pytest.mark.parametrize("name", FIVE_REPORTS)
def test_a_preset_has_the_reported_architecture_and_count(name: str) -> None:
    preset = load_preset(name)
    expected = REPORTED[name.removesuffix("-adam")]
    assert preset.candidate.arch.canonical() == expected.arch.canonical()
    assert count_params(preset.candidate.arch, CIFAR10) == expected.params == preset.reported.params


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        (
            "  activation: relu",
            "  activation: {type: categorical, choices: [relu, silu]}",
            "must fix every value, but has ranges for act",
        ),
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


@pytest.mark.parametrize("name", FIVE_REPORTS)
def test_a_preset_can_start_a_search_of_the_space_resnet(name: str) -> None:
    space = load_space("resnet")
    preset = load_preset(name)
    fitted = fit_start(Start(name, preset.candidate), space, Budget(space.budget, CIFAR10))
    assert fitted.values is not None, fitted.reasons
    assert fitted.values.keys() == {
        s.name for s in space.slots if not (s.name.startswith("stage3") and len(preset.candidate.arch.stages) == 3)
    }


def test_recipes_keep_what_the_reports_state() -> None:
    recipes = {name: load_preset(name).candidate.train for name in FIVE_REPORTS}
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
    r = recipes["resnet-2322"]
    assert (r.batch_size, r.schedule, r.lr, r.rate_per_epoch, r.weight_decay) == (32, "onecycle", 0.1, True, 0)
    assert [round(m * 75) for m in recipes["resnet-443"].milestones] == [30, 40, 60, 80]
    assert recipes["robust-resnet64"].augment.mix == "mixup_or_cutmix"
    assert recipes["robust-resnet64"].augment.mix_p == 0.5


def test_a_milestone_that_is_never_reached_is_warned_of() -> None:
    (warning,) = load_preset("resnet-443").candidate.train.warnings()
    assert "1.06667" in warning
    assert "never be reached" in warning


def test_a_misspelt_preset_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset("preset:robust-resnet46")
    assert "Did you mean 'robust-resnet64'?" in caught.value.message
    assert "nas presets" in caught.value.hint
