"""What may not change while a study lives, and what may."""

import sys
from pathlib import Path
from typing import Any

import pytest

from nas.config import BudgetConfig, DataConfig, ImageShape, StrategyConfig, StudyConfig
from nas.errors import ConfigError, StudyError
from nas.paths import StudyPaths
from nas.space.space import Space
from nas.space.space_file import read_space
from nas.study import settings as settings_module
from nas.study.settings import (
    COMPUTE_RULE,
    FIRST_STRATEGIES,
    REORDERED,
    Environment,
    Overrides,
    StudySettings,
    git_state,
    installed_versions,
    read_settings,
)

PARAMETERS = {"lr": "float 0.1 to 0.2", "epochs": "18", "block": 'one of "basic"'}
ENVIRONMENT = Environment(created="then", command="nas search", python="3", packages={}, git=None, machine="this")


def settings(**changes: Any) -> StudySettings:
    base: dict[str, Any] = {
        "space": "small",
        "overrides": Overrides(),
        "parameters": PARAMETERS,
        "budget": BudgetConfig(params=1000),
        "data": DataConfig(dataset="digits"),
        "data_fingerprint": "abc",
        "shape": ImageShape(channels=1, size=8, classes=10),
        "seed": 0,
        "environment": ENVIRONMENT,
    }
    return StudySettings(**{**base, **changes})


def test_an_option_may_not_contradict_the_space() -> None:
    text = "version: 1\nbudget: {params: 1k}\narch: {stages: 1, stage: {blocks: 1, channels: 8}}\ntrain: {hardest: 0.6}\n"
    space = read_space(text, "mine.yaml", "mine")
    assert Overrides(class_balance="loss").applied_to(space) != space
    with pytest.raises(ConfigError, match=r"space mine with --class-balance sampling: train: hardest: 0\.6 and class_balance"):
        Overrides(class_balance="sampling").applied_to(space)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "a range": ({"parameters": PARAMETERS | {"lr": "float 0.1 to 0.5"}}, "lr: float 0.1 to 0.2 → "),
    "a new parameter": ({"parameters": PARAMETERS | {"warmup": "0.1"}}, "warmup: absent → 0.1"),
    "a parameter gone": ({"parameters": {"lr": "float 0.1 to 0.2", "epochs": "18"}}, 'block: one of "basic" → absent'),
    "the epochs": ({"parameters": PARAMETERS | {"epochs": "9"}}, "epochs: 18 → 9"),
    "the budget": ({"budget": BudgetConfig(params=2000)}, "budget.params: 1000 → 2000"),
    "a second budget": ({"budget": BudgetConfig(params=1000, macs=5)}, "budget.macs: None → 5"),
    "the data set": ({"data": DataConfig(dataset="cifar10")}, "data.dataset: digits → cifar10"),
    "the image size": ({"data": DataConfig(dataset="digits", image_size=16)}, "data.image_size: None → 16"),
    "the split": ({"data": DataConfig(dataset="digits", validation=0.2)}, "data.validation: 0.1 → 0.2"),
    "the split's seed": ({"data": DataConfig(dataset="digits", seed=1)}, "data.seed: 0 → 1"),
    "the subset": ({"data": DataConfig(dataset="digits", subset=100)}, "data.subset: None → 100"),
    "images left out": ({"data": DataConfig(dataset="digits", skip_bad_images=True)}, "data.skip_bad_images: False → True"),
    "the images": ({"data_fingerprint": "xyz"}, "data: the images or labels differ from those of the study"),
    "the seed": ({"seed": 7}, "seed: 0 → 7"),
    "the sampler": ({"study": StudyConfig(sampler=StrategyConfig(name="random"))}, "sampler: tpe (startup_trials 20, "),
    "an argument": (
        {"study": FIRST_STRATEGIES.model_copy(update={"pruner": StrategyConfig(name="asha", arguments={"reduction": 4})})},
        "pruner: asha (reduction 3, startup_trials 0) → asha (reduction 4, startup_trials 0)",
    ),
    "the compute of a trial": (
        {"study": FIRST_STRATEGIES.model_copy(update={"trial_compute": 1e13})},
        "trial_compute: None → 10TFLOP",
    ),
    "the objective": ({"study": FIRST_STRATEGIES.model_copy(update={"objective": "front"})}, "objective: accuracy → front"),
}


def test_a_study_from_before_strategies_had_names_keeps_those_of_then_and_one_from_before_an_argument_its_default() -> None:
    old = settings().model_dump(mode="json", exclude={"study"})
    assert StudySettings.model_validate(old).study == FIRST_STRATEGIES
    fewer = FIRST_STRATEGIES.model_copy(update={"pruner": StrategyConfig(name="asha", arguments={"reduction": 3})})
    settings(study=fewer).require_same(settings(), "mine")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_meaning_is_refused_with_the_difference(change: str) -> None:
    changed, sentence = CHANGES[change]
    (difference,) = settings().differences(settings(**changed))
    assert difference.startswith(sentence)
    with pytest.raises(StudyError) as caught:
        settings().require_same(settings(**changed), "mine")
    assert difference in caught.value.message
    assert "nas search --study mine" in str(caught.value.hint)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"data": DataConfig(dataset="digits", folder="elsewhere")},
        {"space": "another name"},
        {"environment": ENVIRONMENT.model_copy(update={"git": "fffff", "packages": {"torch": "9"}})},
    ],
)
def test_what_only_describes_may_change(changed: dict[str, Any]) -> None:
    other = StudySettings.from_json(settings(**changed).to_json())
    assert settings().differences(other) == []
    settings().require_same(other, "mine")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    for damaged in (b"\xff\xfe no text", b'{"seed": '):
        paths.settings.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"study\.json: invalid JSON"):
            read_settings(paths)


def test_overrides_replace_what_the_space_says(space: Space) -> None:
    assert Overrides().applied_to(space) == space
    changed = Overrides(epochs=7, max_params=99).applied_to(space)
    assert (changed.epochs, changed.budget.params) == (7, 99)
    assert (space.epochs, space.budget.params) == (3, 5000)


def test_trainings_are_the_same_on_the_same_data_and_epochs_whatever_the_space() -> None:
    other_space = settings(parameters={"epochs": "18"}, budget=BudgetConfig(params=9), seed=3)
    assert settings().same_trainings_as(other_space)
    assert settings().same_trainings_as(settings(data=DataConfig(dataset="digits", folder="moved")))
    costlier = FIRST_STRATEGIES.model_copy(update={"trial_compute": 1e13})
    assert not settings().same_trainings_as(settings(study=costlier))
    aimed = FIRST_STRATEGIES.model_copy(update={"trial_compute": 1e13, "final_compute": 1e14})
    narrow, wide = (settings(study=aimed, budget=BudgetConfig(macs=most)) for most in (10**8, 2 * 10**8))
    assert not narrow.same_trainings_as(wide), "the limit of MACs decides the compute of a trial"
    assert narrow.same_trainings_as(narrow)
    newer = narrow.model_copy(update={"compute_rule": COMPUTE_RULE})
    assert not narrow.same_trainings_as(newer), "it trained small networks for less"
    assert narrow.differences(newer) == [f"rule of final_compute: 1 → {COMPUTE_RULE}"]
    assert settings().differences(settings(compute_rule=COMPUTE_RULE)) == [], "it only matters with final_compute"
    for changed in ({"parameters": {"epochs": "9"}}, {"data_fingerprint": "z"}, {"data": DataConfig(dataset="digits", subset=9)}):
        assert not settings().same_trainings_as(settings(**changed))


def test_the_environment_is_recorded() -> None:
    now = Environment.now()
    assert now.command.startswith("nas")
    assert now.packages["optuna"].startswith("5.")
    assert installed_versions(("no-such-package",)) == {"no-such-package": "not installed"}


@pytest.mark.parametrize(
    ("program", "command"),
    [("/env/bin/nas", "nas search"), ("/lib/nas/__main__.py", "nas search"), ("lab/try.py", "python try.py search")],
)
def test_a_script_that_searches_is_recorded_as_one(program: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [program, "search"])
    assert Environment.now().command == command


def test_commit_is_that_of_the_beginning_and_none_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("git")

    begun = git_state()
    monkeypatch.setattr(settings_module.subprocess, "run", missing)
    assert git_state() == begun, "the code that runs does not change with the checkout"
    git_state.cache_clear()
    assert git_state() is None
    git_state.cache_clear()


def test_images_in_another_order_are_a_difference_unless_the_study_is_too_old_to_know() -> None:
    began, old = settings(data_order="a"), settings()
    assert began.differences(settings(data_order="b")) == [f"data: {REORDERED}"]
    for same in (began, old):
        assert same.differences(began) == []
