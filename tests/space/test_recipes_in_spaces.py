"""Mistakes in the recipe of a space: each names the file, the key and what would be right."""

import pytest

from nas.errors import ConfigError
from nas.space.space import Space
from nas.space.space_file import read_space

ARCH = """
version: 1
budget: {params: 50k}
arch:
  stages: 2
  stage: {blocks: 1, channels: 8}
"""


def read(train: str) -> Space:
    return read_space(ARCH + "train:\n" + train, source="mine.yaml", name="mine")


def refusal(train: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(train)
    assert caught.value.message.startswith("mine.yaml: train")
    return caught.value.message


def test_a_misspelt_augmentation_is_answered_with_the_nearest_one() -> None:
    message = refusal("  augment: {rotatoin: 10}\n")
    assert "train.augment.rotatoin" in message
    assert "Did you mean 'rotation'?" in message


def test_a_misspelt_policy_is_answered_with_the_choices() -> None:
    message = refusal("  augment: {policy: randaug}\n")
    assert "train.augment.policy" in message
    for choice in ("randaugment", "autoaugment", "trivialaugment"):
        assert choice in message


@pytest.mark.parametrize("value", ["1.5", "-0.1", "{type: float, low: 0.0, high: 1.5}"])
def test_a_probability_of_mixing_beyond_one_is_refused(value: str) -> None:
    message = refusal(f"  augment: {{mix: mixup, mix_p: {value}}}\n")
    assert "train.augment.mix_p" in message
    assert "1" in message


def test_milestones_that_all_lie_beyond_the_end_are_refused() -> None:
    message = refusal("  schedule: multistep\n  milestones: [1.0, 1.5]\n")
    assert "milestone below 1" in message
    assert "(1.0, 1.5)" in message


def test_they_are_also_refused_where_multistep_is_one_choice_of_several() -> None:
    message = refusal("  schedule: {type: categorical, choices: [cosine, multistep]}\n  milestones: [2.0]\n")
    assert "multistep" in message


def test_some_milestones_beyond_the_end_are_a_warning() -> None:
    (warning,) = read("  schedule: multistep\n  milestones: [0.5, 1.25]\n").warnings()
    assert "1.25" in warning
    assert "0.5" not in warning


def test_no_warning_without_reason() -> None:
    assert read("  schedule: cosine\n  milestones: [0.5, 1.25]\n").warnings() == []


def test_an_erased_area_from_large_to_small_is_refused() -> None:
    assert "erasing_min must not exceed erasing_max" in refusal("  augment: {erasing_min: 0.5, erasing_max: 0.1}\n")
