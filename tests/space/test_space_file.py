import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from nas.config import ImageShape, TrainConfig
from nas.errors import ConfigError
from nas.paths import shipped_folder
from nas.space.space_file import load_space
from tests.spaces import WHOLE, read, with_arch, with_budget, with_stage, with_train


def with_fit(fit: str) -> str:
    return f"{with_budget('{params: 5M}')}fit: {fit}\n"


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as refused:
        read(text)
    return refused.value


MISTAKES = [
    (with_arch("activaton: relu"), "arch.activaton: unknown key. Did you mean 'activation'? Choices: stages, stage, "),
    (
        "version: 1\nbudgte: {params: 5M}",
        "budgte: unknown key. Did you mean 'budget'? Choices: version, budget, fit, images, reported, study, blocks, arch, "
        "train.",
    ),
    (
        with_stage("kernal: 3"),
        "arch.stage.kernal: unknown key. Did you mean 'kernel'? Choices: blocks, channels, kernel, skip_kernel.",
    ),
    (
        with_arch("dropout: {type: float, low: 0, hihg: 0.2}"),
        "arch.dropout.hihg: unknown key. Did you mean 'high'? Choices: type, low, high, log, step.",
    ),
    (with_arch("activation: {type: categorical, low: 0}"), "arch.activation.low: unknown key. Choices: type, choices."),
    (
        with_arch("dropout: {type: flaot, low: 0, high: 0.2}"),
        "arch.dropout.type: 'flaot' is not a type of range. Did you mean 'float'? Choices: int, float, categorical.",
    ),
    (with_arch("block: {type: [int]}"), "arch.block.type: ['int'] is not a type of range."),
    (with_arch("block: {choices: [basic]}"), "arch.block.type: is missing; a range is one of int, float, categorical"),
    (with_arch("activation: relux"), "arch.activation: must be 'relu', 'gelu' or 'silu' (got 'relux')"),
    (
        with_arch("activation: {type: categorical, choices: [relu, gleu]}"),
        "arch.activation.choices[1]: must be 'relu', 'gelu' or 'silu' (got 'gleu')",
    ),
    (with_arch("se_reduction: 8.5"), "arch.se_reduction: must be a valid integer (got 8.5)"),
    (
        with_stage("kernel: 3\n    skip_kernel: {type: int, low: 1, high: 17, step: 2}"),
        "arch.stage.skip_kernel: must be less than or equal to 15 (got 17)",
    ),
    (with_arch("se_reduction: {type: int, low: 0.5, high: 8}"), "arch.se_reduction.low: must be a whole number, but is 0.5"),
    (with_arch("dropout: {type: float, low: little, high: 0.2}"), "arch.dropout.low: must be a number, but is 'little'"),
    (with_train("lr: {type: float, low: 0.1, high: .inf}"), "train.lr.high: must be finite, but is inf"),
    (with_train(f"lr: {{type: float, low: 0.1, high: {'9' * 400}}}"), "train.lr.high: must be finite"),
    (with_train("lr: .nan"), "train.lr: must be less than or equal to 100 (got nan)"),
    (
        with_arch("activation: {type: categorical, choices: []}"),
        "arch.activation.choices: must be a list of at least one value, but is []",
    ),
    (
        with_arch("activation: {type: categorical, choices: relu}"),
        "arch.activation.choices: must be a list of at least one value, but is 'relu'",
    ),
    (with_arch("dropout: {type: categorical, choices: [0, 0.0]}"), "arch.dropout.choices: names a value twice: [0, 0.0]"),
    (with_arch("dropout: {type: float, high: 0.2}"), "arch.dropout.low: is missing; a range has low and high, both included"),
    (with_arch("dropout: {type: float, low: 0.2}"), "arch.dropout.high: is missing"),
    (
        with_arch("dropout: {type: float, low: 0.3, high: 0.1}"),
        "arch.dropout: low must not exceed high, but low is 0.3 and high is 0.1",
    ),
    (
        with_stage("skip_kernel: {type: int, low: 1, high: 8, step: 2}"),
        "arch.stage.skip_kernel.step: must divide the range: 8 − 1 is not a multiple of 2",
    ),
    (
        with_arch("dropout: {type: float, low: 0.0, high: 0.3, step: 0.2}"),
        "arch.dropout.step: must divide the range: 0.3 − 0.0 is not a multiple of 0.2",
    ),
    (with_arch("dropout: {type: float, low: 0, high: 0.2, step: 0}"), "arch.dropout.step: must be above 0, but is 0.0"),
    (
        with_train("weight_decay: {type: float, low: 0, high: 0.1, log: true}"),
        "train.weight_decay: a logarithmic range starts above 0, but low is 0.0",
    ),
    (
        with_train("lr: {type: float, low: 0.1, high: 0.3, log: true, step: 0.1}"),
        "train.lr: log and step cannot be combined: logarithmic ranges have no steps",
    ),
    (with_train("lr: {type: float, low: 0.1, high: 0.3, log: 1}"), "train.lr.log: must be true or false, but is 1"),
    (
        with_arch("activation: [relu, gelu]"),
        "arch.activation: a list is not a value; to choose from it write {type: categorical, choices: ['relu', 'gelu']}",
    ),
    (with_stage("kernel: [3, 5]"), "arch.stage.kernel: a list must have one entry for each stage, 3 entries, but has 2"),
    (with_stage("kernel: [3, 4, 5]"), "arch.stage.kernel[1]: must be odd"),
    (with_stage("kernel: {type: int, low: 3, high: 7}"), "arch.stage.kernel: must be odd"),
    (with_arch("stem: {kernel: {type: categorical, choices: [3, 4]}}"), "arch.stem.kernel.choices[1]: must be odd"),
    (
        with_train("augment: {flip: off}"),
        "train.augment.flip: must be 'none', 'horizontal' or 'alternating' "
        "(got False; YAML reads on, off, yes and no as booleans: put a word in quotes)",
    ),
    (with_arch("dropout: {type: float, low: off, high: 0.1}"), "arch.dropout.low: must be a number, but is False"),
    (
        with_train("epochs: {type: int, low: 6, high: 18}"),
        "train.epochs: must be one number: pruning compares candidates epoch by epoch",
    ),
    (
        with_train("epoch_images: {type: int, low: 600, high: 1800}"),
        "train.epoch_images: must be one number: pruning compares candidates epoch by epoch",
    ),
    (
        with_train("hardest: {type: float, low: 0.3, high: 1.0}"),
        "train.hardest: must be one number: pruning compares candidates epoch by epoch",
    ),
    (
        WHOLE + "\nstudy: {trial_compute: much}\n",
        "study.trial_compute: compute is a number of operations above 0, such as 2PFLOP or 300TFLOP, but got 'much'",
    ),
    (
        with_train("milestones: {type: categorical, choices: [[0.5], [0.7]]}"),
        "train.milestones: must be one list of numbers, such as [0.5, 0.75], not a range",
    ),
    (
        with_train("schedule: {type: categorical, choices: [cosine, multistep]}\n  milestones: [1.5]"),
        "train: a multistep schedule needs a milestone below 1, the end of the run, but its milestones are (1.5,)",
    ),
    (
        with_train("augment: {erasing_min: 0.5, erasing_max: 0.1}"),
        "train.augment: erasing_min must not exceed erasing_max, but 0.5 > 0.1",
    ),
    (
        with_train(
            "augment: {erasing_min: {type: float, low: 0.01, high: 0.3}, erasing_max: {type: float, low: 0.2, high: 0.4}}"
        ),
        "train.augment: erasing_min must not exceed erasing_max, but 0.3 > 0.2",
    ),
    (
        with_train(
            "augment: {erasing_min: {type: categorical, choices: [0.1, 0.25]}, "
            "erasing_max: {type: categorical, choices: [0.3, 0.2]}}"
        ),
        "train.augment: erasing_min must not exceed erasing_max, but 0.25 > 0.2",
    ),
    (
        with_budget("{params: 5 apples}"),
        "budget.params: a count is a whole number above 0, such as 5M, 300k or 5_000_000, but got '5 apples'",
    ),
    (with_budget("{params: 0}"), "budget.params: a count is a whole number above 0"),
    (with_budget("5M"), "budget: must be a mapping of keys to values, but is '5M'"),
    (
        with_budget("{parms: 5M}"),
        "budget.parms: unknown key. Did you mean 'params'? Choices: params, macs, uncounted, memory, flash, ram, latency.",
    ),
    ("version: 1\nbudget: {params: 5M}\nimages: {channels: 3, size: 32}\narch: {}", "images.classes: is missing"),
    (
        with_fit("macs"),
        "fit: must be params, to scale the widths to the parameter budget, or {params: share of them}, but is 'macs'",
    ),
    (with_fit("{macs: 0.5}"), "fit.macs: unknown key. Choices: params."),
    (with_fit("{}"), "fit: must be params, to scale the widths to the parameter budget, or {params: share of them}"),
    (with_fit("yes"), "fit: must be params, to scale the widths"),
    (with_fit("{params: 1.5}"), "fit.params: must be less than or equal to 1 (got 1.5)"),
    (with_fit("{params: 0}"), "fit.params: must be greater than 0 (got 0)"),
    (with_fit("{params: [0.5, 1.0]}"), "fit.params: a list is not a value"),
    ("budget: {params: 5M}", "version: must be 1, the only version, but is None"),
    ("version: 2", "version: must be 1, the only version, but is 2"),
    ("version: yes", "version: must be 1, the only version, but is True"),
    ("version: 1\narch: {}", "budget: is missing; for example  budget: {params: 5M}"),
    ("version: 1\nbudget: {params: 5M}", "arch: is missing; it describes the networks"),
    ("version: 1\nbudget: {params: 5M}\narch: {stage: {}}", "arch.stages: is missing"),
    ("version: 1\nbudget: {params: 5M}\narch: {stages: 3}", "arch.stage: is missing"),
    (
        "version: 1\nbudget: {params: 5M}\narch: {stages: 3, stage: {channels: 8}}",
        "arch.stage.blocks: is missing; each stage needs it",
    ),
    (
        "version: 1\nbudget: {params: 5M}\narch: {stages: {type: int, low: 3, high: 7}, stage: {blocks: 1, channels: 8}}",
        "arch.stages: a network has 1 to 6 stages, not 7",
    ),
    (with_train(""), "train: must be a mapping of keys to values, but is None"),
    ("", "the file: must be a mapping of keys to values, but is None"),
    ("- version", "the file: must be a mapping of keys to values, but is ['version']"),
    ("version: 1\nversion: 1\n", "not valid YAML: key 'version' is given twice, again on line 2"),
    ("{[1]: 2}", "not valid YAML: "),
    ("version: 2026-13-45", "not valid YAML: month must be in 1..12"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[message[:60] for _, message in MISTAKES])
def test_mistake_is_refused_with_file_key_value_and_choices(text: str, message: str) -> None:
    error = refusal(text)
    assert error.message.startswith(f"my.yaml: {message}")
    if "not valid YAML" not in message:
        assert error.hint == f"compare {shipped_folder() / 'resnet.yaml'}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\narch: {stages: 3", "my.yaml, line 2: not valid YAML: expected ',' or '}'"),
        ("version: !!python/name:os.system 1", "my.yaml, line 1: not valid YAML: could not determine a constructor"),
        ("version: 1\n---\nversion: 1", "my.yaml, line 2: not valid YAML: but found another document"),
        (with_budget("{macs: 50M}") + "fit: params\n", "my.yaml: fit: fit scales the widths to budget.params, which is missing"),
    ],
)
def test_text_that_is_no_yaml_is_refused_with_its_line(text: str, message: str) -> None:
    assert refusal(text).message.startswith(message)


TOO_MUCH = {
    "brackets": ("arch: " + "[" * 5_000, "my.yaml, line 1: not valid YAML: more than 30 lists and mappings within one another"),
    "closed brackets": ("[" * 500 + "]" * 500, "my.yaml, line 1: not valid YAML: more than 30 lists"),
    "braces": ("{a: " * 5_000, "my.yaml, line 1: not valid YAML: more than 30 lists"),
    "dashes": ("- " * 5_000 + "a", "my.yaml, line 1: not valid YAML: more than 30 lists"),
    "indents": ("".join(f"{' ' * i}a:\n" for i in range(1_200)), "my.yaml, line 30: not valid YAML: more than 30 lists"),
    "digits": (
        f"version: {'9' * 5_000}",
        "my.yaml, line 1: not valid YAML: a whole number of 5,000 digits, but at most 1,000 are allowed",
    ),
    "hexadecimal digits": (f"version: 1\nbudget: 0x{'f' * 5_000}", "my.yaml, line 2: not valid YAML: a whole number of 5,002"),
    "characters": ("#" * 1_000_001, "my.yaml: has 1,000,001 characters, but at most 1,000,000 are allowed"),
    "repetitions": (
        "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)),
        "my.yaml, line 6: not valid YAML: more than 100,000 values, including those that aliases repeat",
    ),
    "endless repetition": ("a: &a [*a]", "my.yaml, line 1: not valid YAML: an alias refers to a value that contains the alias"),
    "steps": (
        with_arch("dropout: {type: float, low: 0, high: 0.2, step: 1e-300}"),
        "my.yaml: arch.dropout.step: must give at most 1,000,000 values in the range, but 1e-300 gives 2e+299",
    ),
    "steps without end": (
        with_arch("dropout: {type: float, low: 0, high: 0.2, step: 1e-320}"),
        "my.yaml: arch.dropout.step: must give at most 1,000,000 values in the range, but 1e-320 gives inf",
    ),
    "width": (
        with_arch(f"stem: {{channels: {{type: int, low: 1, high: {10**40}}}}}"),
        "my.yaml: arch.stem.channels.high: must be at most 9,007,199,254,740,992 in size, but is 1000",
    ),
    "budget": (with_fit("params").replace("5M", "9" * 400), "my.yaml: budget.params: "),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_huge_space_files_are_refused(what: str) -> None:
    text, message = TOO_MUCH[what]
    assert refusal(text).message.startswith(message)


def test_optimizer_is_optimiser() -> None:
    drawn = "{type: categorical, choices: [sgd, adam]}"
    assert read(with_train(f"optimizer: {drawn}")).slots == read(with_train(f"optimiser: {drawn}")).slots
    error = refusal(with_train("optimizer: sgd\n  optimiser: sgd"))
    assert error.message == "my.yaml: train: optimizer: is given with optimiser, which is the same"


def test_space_of_ones_own_is_named_like_its_file_and_what_is_no_space_is_refused(tmp_path: Path) -> None:
    (tmp_path / "narrow.yaml").write_text(WHOLE)
    space = load_space("narrow.yaml")
    assert (space.name, space.text) == ("narrow", WHOLE)
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    for name, message in (
        ("resnet-smal", "'resnet-smal' is not a shipped space. Did you mean 'resnet-small'? Choices: digits, "),
        ("spaces/mine", "there is no space file spaces/mine"),
        ("mine.yaml", "there is no space file mine.yaml"),
        ("picture.yaml", "picture.yaml cannot be read as text"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            load_space(name)


def domains(text: str) -> dict[str, Any]:
    return {slot.name: slot.domain for slot in read(text).slots}


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        (with_train("weight_decay: 1e-4"), "weight_decay", 1e-4),
        (
            with_train("weight_decay: {type: categorical, choices: [1e-4, 5e-4]}"),
            "weight_decay",
            CategoricalDistribution([1e-4, 5e-4]),
        ),
        (with_train("lr: {type: float, low: 1e-3, high: 5e-1, log: true}"), "lr", FloatDistribution(1e-3, 0.5, log=True)),
        (with_train("milestones: [5e-1, 0.75]"), "milestones", (0.5, 0.75)),
        (with_train("epochs: 1e2"), "epochs", 100),
        (with_arch("zero_init: on"), "zero_init", True),
        (with_train("nesterov: {type: categorical, choices: [yes, no]}"), "nesterov", CategoricalDistribution([True, False])),
        (with_train("augment: {flip: 'none'}"), "augment.flip", "none"),
    ],
)
def test_values_are_read_by_their_declared_type_and_not_as_yaml_takes_them(text: str, name: str, value: Any) -> None:
    assert domains(text)[name] == value


def test_images_are_those_of_cifar_unless_the_file_says_otherwise() -> None:
    assert read().images == ImageShape(channels=3, size=32, classes=10)
    other = read(WHOLE + "images: {channels: 1, size: 28, classes: 47}\n")
    assert other.images == ImageShape(channels=1, size=28, classes=47)
    assert other.fingerprint == read().fingerprint


@pytest.mark.parametrize(
    ("fit", "domain"),
    [
        ("params", 1.0),
        ("{params: 0.8}", 0.8),
        ("{params: 1}", 1.0),
        ("{params: {low: 0.5, high: 1}}", FloatDistribution(0.5, 1.0)),
        ("{params: {low: 5e-1, high: 1.0, log: true}}", FloatDistribution(0.5, 1.0, log=True)),
        ("{params: {type: float, low: 0.5, high: 1.0, step: 0.25}}", FloatDistribution(0.5, 1.0, step=0.25)),
        ("{params: {type: categorical, choices: [0.5, 1.0]}}", CategoricalDistribution([0.5, 1.0])),
    ],
)
def test_fit_is_the_whole_budget_or_a_share_of_it(fit: str, domain: Any) -> None:
    assert domains(with_fit(fit))["fill"] == domain
    assert "fill" not in domains(with_budget("{params: 5M}"))


def test_value_that_is_not_named_keeps_its_default_and_is_no_slot() -> None:
    space = read(with_train("lr: 0.2"))
    assert {slot.name for slot in space.slots} == {"stages", "epochs", "lr"} | {
        f"stage{i}.{key}" for i in range(3) for key in ("blocks", "channels")
    }
    assert space.epochs == TrainConfig().epochs


def test_mapping_takes_over_the_keys_of_another_by_a_merge_key() -> None:
    text = textwrap.dedent("""\
        version: 1
        budget: {params: 5M}
        arch:
          stages: 2
          stage:
            blocks: 1
            channels: [&wide {type: int, low: 8, high: 64, log: true}, {<<: *wide, high: 128}]
        """)
    found = domains(text)
    assert (found["stage0.channels"].high, found["stage1.channels"].high, found["stage1.channels"].low) == (64, 128, 8)
