import json
import textwrap
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution

from nas.config import Candidate, TrainConfig
from nas.errors import ConfigError
from nas.space import Slot, Space, UniformDraw
from nas.space_file import find_space, load_space, read_space, shipped_folder

WHOLE = """\
version: 1
budget: {params: 300k, macs: 50M}
arch:
  stages: {type: int, low: 2, high: 3}
  block: {type: categorical, choices: [basic, bottleneck]}
  stem:
    kernel: {type: categorical, choices: [3, 5]}
    channels: {type: categorical, choices: [null, 16]}
  stage:
    blocks: {type: int, low: 1, high: 4, log: true}
    channels:
      - {type: int, low: 16, high: 32, step: 8}
      - 32
      - {type: categorical, choices: [32, 64]}
  dropout: {type: float, low: 0.0, high: 0.2, step: 0.1}
  zero_init: {type: categorical, choices: [false, true]}
train:
  epochs: 6
  lr: {type: float, low: 1e-3, high: 0.1, log: true}
  schedule: multistep
  milestones: [0.5, 0.75]
  augment: {flip: none, rotation: {type: float, low: 0, high: 10}}
"""


def read(text: str = WHOLE) -> Space:
    return read_space(text, source="my.yaml", name="my")


def with_arch(line: str) -> str:
    return f"version: 1\nbudget: {{params: 5M}}\narch:\n  stages: 3\n  stage: {{blocks: 1, channels: 8}}\n  {line}\n"


def with_stage(line: str) -> str:
    return f"version: 1\nbudget: {{params: 5M}}\narch:\n  stages: 3\n  stage:\n    blocks: 1\n    channels: 8\n    {line}\n"


def with_train(line: str) -> str:
    return f"version: 1\nbudget: {{params: 5M}}\narch: {{stages: 3, stage: {{blocks: 1, channels: 8}}}}\ntrain:\n  {line}\n"


def with_budget(budget: str) -> str:
    return f"version: 1\nbudget: {budget}\narch: {{stages: 3, stage: {{blocks: 1, channels: 8}}}}\n"


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as refused:
        read(text)
    return refused.value


# -------------------------------------------------------------------------------------------- mistakes in the file

MISTAKES = {
    "unknown key": (
        with_arch("activaton: relu"),
        "arch.activaton: unknown key. Did you mean 'activation'? Choices: stages, stage, ",
    ),
    "unknown key at the top": (
        "version: 1\nbudgte: {params: 5M}",
        "budgte: unknown key. Did you mean 'budget'? Choices: version, budget, reported, arch, train.",
    ),
    "unknown key of a stage": (
        with_stage("kernal: 3"),
        "arch.stage.kernal: unknown key. Did you mean 'kernel'? Choices: blocks, channels, kernel, skip_kernel.",
    ),
    "unknown key of the stem": (with_arch("stem: {strides: 2}"), "arch.stem.strides: unknown key. Did you mean 'stride'?"),
    "unknown key of the augmentation": (
        with_train("augment: {cutuot: 8}"),
        "train.augment.cutuot: unknown key. Did you mean 'cutout'?",
    ),
    "unknown key of a range": (
        with_arch("dropout: {type: float, low: 0, hihg: 0.2}"),
        "arch.dropout.hihg: unknown key. Did you mean 'high'? Choices: type, low, high, log, step.",
    ),
    "key of another kind of range": (
        with_arch("activation: {type: categorical, low: 0}"),
        "arch.activation.low: unknown key. Choices: type, choices.",
    ),
    "unknown kind of range": (
        with_arch("dropout: {type: flaot, low: 0, high: 0.2}"),
        "arch.dropout.type: 'flaot' is no type of range. Did you mean 'float'? Choices: int, float, categorical.",
    ),
    "kind of range that is a list": (with_arch("block: {type: [int]}"), "arch.block.type: ['int'] is no type of range."),
    "missing kind of range": (
        with_arch("block: {choices: [basic]}"),
        "arch.block.type: is missing; a range is one of int, float, categorical",
    ),
    "wrong word": (with_arch("activation: relux"), "arch.activation: must be 'relu', 'gelu' or 'silu' (got 'relux')"),
    "wrong word among the choices": (
        with_arch("activation: {type: categorical, choices: [relu, gleu]}"),
        "arch.activation.choices[1]: must be 'relu', 'gelu' or 'silu' (got 'gleu')",
    ),
    "word for a number": (with_arch("dropout: some"), "arch.dropout: must be a valid number (got 'some')"),
    "fraction for a whole number": (with_arch("se_reduction: 8.5"), "arch.se_reduction: must be a valid integer (got 8.5)"),
    "number beyond its limits": (with_arch("dropout: 1.5"), "arch.dropout: must be less than 1 (got 1.5)"),
    "range beyond its field's limits": (
        with_stage("kernel: 3\n    skip_kernel: {type: int, low: 1, high: 17, step: 2}"),
        "arch.stage.skip_kernel: must be less than or equal to 15 (got 17)",
    ),
    "fractional range of whole numbers": (
        with_arch("se_reduction: {type: int, low: 0.5, high: 8}"),
        "arch.se_reduction.low: must be a whole number, but is 0.5",
    ),
    "float range for a whole number": (
        with_arch("se_reduction: {type: float, low: 0.5, high: 8.5}"),
        "arch.se_reduction: must be a valid integer (got 0.5)",
    ),
    "word as the end of a range": (
        with_arch("dropout: {type: float, low: little, high: 0.2}"),
        "arch.dropout.low: must be a number, but is 'little'",
    ),
    "endless range": (with_train("lr: {type: float, low: 0.1, high: .inf}"), "train.lr.high: must be finite, but is inf"),
    "range to a number too large to compute with": (
        with_train(f"lr: {{type: float, low: 0.1, high: {'9' * 400}}}"),
        "train.lr.high: must be finite",
    ),
    "range from no number": (with_train("lr: {type: float, low: .nan, high: 1}"), "train.lr.low: must be finite, but is nan"),
    "value that is no number": (with_train("lr: .nan"), "train.lr: must be less than or equal to 100 (got nan)"),
    "no choices": (
        with_arch("activation: {type: categorical, choices: []}"),
        "arch.activation.choices: must be a list of at least one value, but is []",
    ),
    "choices that are no list": (
        with_arch("activation: {type: categorical, choices: relu}"),
        "arch.activation.choices: must be a list of at least one value, but is 'relu'",
    ),
    "a choice given twice": (
        with_arch("dropout: {type: categorical, choices: [0, 0.0]}"),
        "arch.dropout.choices: names a value twice: [0, 0.0]",
    ),
    "missing low": (
        with_arch("dropout: {type: float, high: 0.2}"),
        "arch.dropout.low: is missing; a range has a low and a high end, both included",
    ),
    "missing high": (with_arch("dropout: {type: float, low: 0.2}"), "arch.dropout.high: is missing"),
    "low above high": (
        with_arch("dropout: {type: float, low: 0.3, high: 0.1}"),
        "arch.dropout: low must not exceed high, but low is 0.3 and high is 0.1",
    ),
    "step that does not divide": (
        with_stage("skip_kernel: {type: int, low: 1, high: 8, step: 2}"),
        "arch.stage.skip_kernel.step: must divide the range: 8 − 1 is not a multiple of 2",
    ),
    "fractional step that does not divide": (
        with_arch("dropout: {type: float, low: 0.0, high: 0.3, step: 0.2}"),
        "arch.dropout.step: must divide the range: 0.3 − 0.0 is not a multiple of 0.2",
    ),
    "step of 0": (
        with_arch("dropout: {type: float, low: 0, high: 0.2, step: 0}"),
        "arch.dropout.step: must be above 0, but is 0.0",
    ),
    "logarithmic range from 0": (
        with_train("weight_decay: {type: float, low: 0, high: 0.1, log: true}"),
        "train.weight_decay: a logarithmic range starts above 0, but low is 0.0",
    ),
    "log together with step": (
        with_train("lr: {type: float, low: 0.1, high: 0.3, log: true, step: 0.1}"),
        "train.lr: takes either log or step: logarithmic ranges have no steps",
    ),
    "log that is no truth value": (
        with_train("lr: {type: float, low: 0.1, high: 0.3, log: 1}"),
        "train.lr.log: must be true or false, but is 1",
    ),
    "list for a value": (
        with_arch("activation: [relu, gelu]"),
        "arch.activation: a list is no value; to choose from it write {type: categorical, choices: ['relu', 'gelu']}",
    ),
    "list for too few stages": (
        with_stage("kernel: [3, 5]"),
        "arch.stage.kernel: a list has one entry a stage, 3 of them, but has 2",
    ),
    "list for too many stages": (
        with_stage("kernel: [3, 5, 3, 5]"),
        "arch.stage.kernel: a list has one entry a stage, 3 of them, but has 4",
    ),
    "mistake in one stage's entry": (with_stage("kernel: [3, 4, 5]"), "arch.stage.kernel[1]: must be odd"),
    "even kernel": (
        with_stage("kernel: 4"),
        "arch.stage.kernel: must be odd, so that the convolution keeps the size of its input, but is 4",
    ),
    "even kernel in the middle of a range": (
        with_stage("kernel: {type: int, low: 3, high: 7}"),
        "arch.stage.kernel: must be odd",
    ),
    "even kernel among the choices": (
        with_arch("stem: {kernel: {type: categorical, choices: [3, 4]}}"),
        "arch.stem.kernel.choices[1]: must be odd",
    ),
    "off for a word": (
        with_train("augment: {flip: off}"),
        "train.augment.flip: must be 'none', 'horizontal' or 'alternating' "
        "(got False; YAML reads on, off, yes and no as booleans: put a word in quotes)",
    ),
    "on for a number": (
        with_arch("se_reduction: on"),
        "arch.se_reduction: must be a valid integer (got True; YAML reads on, off, yes and no as booleans",
    ),
    "on for the end of a range": (
        with_arch("dropout: {type: float, low: off, high: 0.1}"),
        "arch.dropout.low: must be a number, but is False",
    ),
    "epochs as a range": (
        with_train("epochs: {type: int, low: 6, high: 18}"),
        "train.epochs: must be one number: pruning compares candidates epoch by epoch",
    ),
    "epochs as a choice": (with_train("epochs: {type: categorical, choices: [6, 18]}"), "train.epochs: must be one number"),
    "no epochs": (with_train("epochs: 0"), "train.epochs: must be greater than or equal to 1 (got 0)"),
    "milestones as a choice": (
        with_train("milestones: {type: categorical, choices: [[0.5], [0.7]]}"),
        "train.milestones: takes one list of numbers, such as [0.5, 0.75], and is never drawn",
    ),
    "milestones that are no list": (with_train("milestones: 0.5"), "train.milestones: must be a list (got 0.5)"),
    "milestones beyond the end of a multistep schedule": (
        with_train("schedule: {type: categorical, choices: [cosine, multistep]}\n  milestones: [1.5]"),
        "train: a multistep schedule needs a milestone below 1, the end of the run, but its milestones are (1.5,)",
    ),
    "ranges that cross": (
        with_train(
            "augment: {erasing_min: {type: float, low: 0.01, high: 0.3}, erasing_max: {type: float, low: 0.2, high: 0.4}}"
        ),
        "train.augment: erasing_min must not exceed erasing_max, but 0.3 > 0.2",
    ),
    "choices that cross, in any order": (
        with_train(
            "augment: {erasing_min: {type: categorical, choices: [0.1, 0.25]}, "
            "erasing_max: {type: categorical, choices: [0.3, 0.2]}}"
        ),
        "train.augment: erasing_min must not exceed erasing_max, but 0.25 > 0.2",
    ),
    "budget that is no count": (
        with_budget("{params: 5 apples}"),
        "budget.params: a count is a whole number above 0, such as 5M, 300k or 5_000_000, but got '5 apples'",
    ),
    "budget of nothing": (with_budget("{params: 0}"), "budget.params: a count is a whole number above 0"),
    "budget that is no mapping": (with_budget("5M"), "budget: must be a mapping of keys to values, but is '5M'"),
    "budget without parameters": (with_budget("{macs: 5M}"), "budget.params: is missing"),
    "unknown key of the budget": (
        with_budget("{parms: 5M}"),
        "budget.parms: unknown key. Did you mean 'params'? Choices: params, macs.",
    ),
    "report without its accuracy": (
        "version: 1\nbudget: {params: 5M}\nreported: {params: 3, measured_on: test}\narch: {}",
        "reported.accuracy: is missing",
    ),
    "report of a percentage": (
        "version: 1\nbudget: {params: 5M}\nreported: {params: 3, measured_on: test, accuracy: 93.3}\narch: {}",
        "reported.accuracy: must be less than or equal to 1 (got 93.3)",
    ),
    "missing version": ("budget: {params: 5M}", "version: must be 1, the only version there is, but is None"),
    "unknown version": ("version: 2", "version: must be 1, the only version there is, but is 2"),
    "version that is a truth value": ("version: yes", "version: must be 1, the only version there is, but is True"),
    "missing budget": ("version: 1\narch: {}", "budget: is missing; for example  budget: {params: 5M}"),
    "missing arch": ("version: 1\nbudget: {params: 5M}", "arch: is missing; it says which networks are searched"),
    "missing stages": ("version: 1\nbudget: {params: 5M}\narch: {stage: {}}", "arch.stages: is missing"),
    "missing stage": ("version: 1\nbudget: {params: 5M}\narch: {stages: 3}", "arch.stage: is missing"),
    "missing stage.blocks": (
        "version: 1\nbudget: {params: 5M}\narch: {stages: 3, stage: {channels: 8}}",
        "arch.stage.blocks: is missing; each stage needs it",
    ),
    "missing stage.channels": (
        "version: 1\nbudget: {params: 5M}\narch: {stages: 3, stage: {blocks: 1}}",
        "arch.stage.channels: is missing; each stage needs it",
    ),
    "too many stages": (
        "version: 1\nbudget: {params: 5M}\narch: {stages: {type: int, low: 3, high: 7}, stage: {blocks: 1, channels: 8}}",
        "arch.stages: a network has 1 to 6 stages, not 7",
    ),
    "section that is no mapping": (with_arch("stem: 3"), "arch.stem: must be a mapping of keys to values, but is 3"),
    "section without content": (with_train(""), "train: must be a mapping of keys to values, but is None"),
    "empty file": ("", "the file: must be a mapping of keys to values, but is None"),
    "list for a file": ("- version", "the file: must be a mapping of keys to values, but is ['version']"),
    "duplicate key": ("version: 1\nversion: 1\n", "not valid YAML: key 'version' is given twice, again on line 2"),
    "duplicate key inside": (
        "version: 1\narch:\n  block: basic\n  block: preact\n",
        "not valid YAML: key 'block' is given twice, again on line 4",
    ),
    "list for a key": ("{[1]: 2}", "not valid YAML: "),
    "date that there is not": ("version: 2026-13-45", "not valid YAML: month must be in 1..12"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_refused_with_file_key_value_and_choices(mistake: str) -> None:
    text, message = MISTAKES[mistake]
    error = refusal(text)
    assert error.message.startswith(f"my.yaml: {message}")
    if "not valid YAML" not in message:
        assert error.hint == f"compare {shipped_folder() / 'resnet.yaml'}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\narch: {stages: 3", "my.yaml, line 2: not valid YAML: expected ',' or '}'"),
        ("a: b: c", "my.yaml, line 1: not valid YAML: mapping values are not allowed here"),
        ("version: 1\n\tarch: 2", "my.yaml, line 2: not valid YAML: found character"),
        ("version: !!python/name:os.system 1", "my.yaml, line 1: not valid YAML: could not determine a constructor"),
        ("version: 1\n---\nversion: 1", "my.yaml, line 2: not valid YAML: but found another document"),
    ],
)
def test_text_that_is_no_yaml_is_refused_with_its_line(text: str, message: str) -> None:
    assert refusal(text).message.startswith(message)


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "picture.yaml"
    file.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ConfigError, match=r"picture\.yaml cannot be read as text"):
        load_space(str(file))


# --------------------------------------------------------------------------------------------------- finding files


def test_unknown_space_is_refused_with_the_nearest_name_and_all_names() -> None:
    with pytest.raises(ConfigError) as refused:
        find_space("resnet-smal")
    assert "'resnet-smal' is no shipped space. Did you mean 'resnet-small'? Choices: digits, " in refused.value.message
    assert refused.value.hint is not None
    assert "--space my-space.yaml" in refused.value.hint


def test_missing_file_is_refused_by_its_path() -> None:
    with pytest.raises(ConfigError, match="there is no space file spaces/mine"):
        find_space("spaces/mine")
    with pytest.raises(ConfigError, match=r"there is no space file mine\.yaml"):
        find_space("mine.yaml")


def test_space_of_ones_own_is_named_like_its_file(tmp_path: Path) -> None:
    (tmp_path / "narrow.yaml").write_text(WHOLE)
    space = load_space(str(tmp_path / "narrow.yaml"))
    assert (space.name, space.text) == ("narrow", WHOLE)


# ------------------------------------------------------------------------------------------------- values as read


def domains(text: str) -> dict[str, Any]:
    return {slot.name: slot.domain for slot in read(text).slots}


def test_numbers_that_yaml_takes_for_words_are_read_by_their_declared_type() -> None:
    assert domains(with_train("weight_decay: 1e-4"))["weight_decay"] == 1e-4
    assert domains(with_train("weight_decay: {type: categorical, choices: [1e-4, 5e-4]}"))["weight_decay"].choices == (1e-4, 5e-4)
    assert domains(with_train("lr: {type: float, low: 1e-3, high: 5e-1, log: true}"))["lr"].low == 1e-3
    assert domains(with_train("milestones: [5e-1, 0.75]"))["milestones"] == (0.5, 0.75)
    assert domains(with_train("epochs: 1e2"))["epochs"] == 100


def test_truth_values_are_read_where_they_are_meant() -> None:
    assert domains(with_arch("zero_init: on"))["zero_init"] is True
    assert domains(with_train("nesterov: {type: categorical, choices: [yes, no]}"))["nesterov"].choices == (True, False)


def test_words_in_quotes_stay_words() -> None:
    assert domains(with_train("augment: {flip: 'none'}"))["augment.flip"] == "none"


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


# ----------------------------------------------------------------------------------------------------------- draws


class Recorder:
    """Stands where a trial would; answers with one end of every range and remembers what it was asked."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.asked: dict[str, tuple[Any, ...]] = {}

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        self.asked[name] = (low, high, step, log)
        return (low, high)[self.end]

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        self.asked[name] = (low, high, step, log)
        return (low, high)[self.end]

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.asked[name] = tuple(choices)
        return choices[-self.end]


@pytest.mark.parametrize("text", [WHOLE, *(p.read_text() for p in sorted(shipped_folder().glob("*.yaml")))])
def test_every_slot_is_suggested_at_the_same_range_whatever_is_drawn(text: str) -> None:
    space = read(text)
    first, last = Recorder(0), Recorder(1)
    assert space.draw(first) != space.draw(last)
    assert first.asked == last.asked
    assert set(first.asked) == {slot.name for slot in space.slots if slot.drawn}


def test_every_stage_is_drawn_and_only_those_there_are_get_built() -> None:
    space = read()
    few, many = Recorder(0), Recorder(1)
    assert len(space.draw(few).arch.stages) == 2
    assert len(space.draw(many).arch.stages) == 3
    assert few.asked["stage2.channels"] == (32, 64)


def test_drawn_candidate_has_what_was_drawn_and_what_is_fixed() -> None:
    drawn = read().draw(Recorder(1))
    assert drawn.arch.block == "bottleneck"
    assert [stage.channels for stage in drawn.arch.stages] == [32, 32, 64]
    assert [stage.blocks for stage in drawn.arch.stages] == [4, 4, 4]
    assert (drawn.arch.stem.kernel, drawn.arch.stem.channels) == (5, 16)
    assert (drawn.arch.dropout, drawn.arch.zero_init) == (0.2, True)
    assert (drawn.train.lr, drawn.train.milestones) == (0.1, (0.5, 0.75))
    assert (drawn.train.augment.flip, drawn.train.augment.rotation) == ("none", 10.0)


@pytest.mark.parametrize("text", [WHOLE, *(p.read_text() for p in sorted(shipped_folder().glob("*.yaml")))])
def test_drawn_candidate_comes_back_from_its_json(text: str) -> None:
    space, lots = read(text), UniformDraw(seed=3)
    for _ in range(20):
        drawn = space.draw(lots)
        assert Candidate.from_json(drawn.to_json()) == drawn


@pytest.fixture
def optuna_study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def test_drawing_again_on_a_trial_that_has_values_gives_the_same_candidate(optuna_study: optuna.Study) -> None:
    space = read()
    for _ in range(10):
        trial = optuna_study.ask()
        drawn = space.draw(trial)
        again = optuna.Trial(optuna_study, trial._trial_id)
        assert space.draw(again) == drawn


def test_a_trial_that_was_cut_off_in_the_middle_of_its_draw_keeps_what_it_had(optuna_study: optuna.Study) -> None:
    space = read()
    trial = optuna_study.ask()
    halves = {slot.name: slot.value(trial) for slot in space.slots[:4]}
    space.draw(optuna.Trial(optuna_study, trial._trial_id))
    assert halves.items() <= ({s.name: s.domain for s in space.slots if not s.drawn} | trial.params).items()


def test_optuna_sees_one_rectangular_space(optuna_study: optuna.Study) -> None:
    space = read()
    for _ in range(10):
        trial = optuna_study.ask()
        space.draw(trial)
        optuna_study.tell(trial, 0.0)
    shared = optuna.search_space.intersection_search_space(optuna_study.trials)
    assert shared == {slot.name: slot.domain for slot in space.slots if isinstance(slot.domain, BaseDistribution)}


def test_uniform_draws_stay_within_their_ranges_and_reach_both_ends() -> None:
    space = read()
    lots = UniformDraw(seed=0)
    seen: dict[str, set[Any]] = {slot.name: set() for slot in space.slots}
    for _ in range(300):
        values = {slot.name: slot.value(lots) for slot in space.slots}
        for slot in space.slots:
            seen[slot.name].add(values[slot.name])
            if isinstance(slot.domain, BaseDistribution):
                assert slot.domain._contains(slot.domain.to_internal_repr(values[slot.name])), slot.name
    assert seen["stage0.blocks"] == {1, 2, 3, 4}
    assert seen["stage0.channels"] == {16, 24, 32}
    assert {round(v, 9) for v in seen["dropout"]} == {0.0, 0.1, 0.2}


# ----------------------------------------------------------------------------- a candidate from elsewhere, in this space


def slot_of(line: str) -> Slot:
    (slot,) = [slot for slot in read(with_train(line)).slots if slot.path[-1] == line.partition(":")[0].strip("{ ")]
    return slot


@pytest.mark.parametrize(
    ("line", "value", "nearest"),
    [
        ("lr: {type: float, low: 0.1, high: 0.4, log: true}", 0.2, 0.2),
        ("lr: {type: float, low: 0.1, high: 0.4, log: true}", 0.01, 0.1),
        ("lr: {type: float, low: 0.1, high: 0.4, log: true}", 3.0, 0.4),
        ("label_smoothing: {type: float, low: 0.0, high: 0.3, step: 0.1}", 0.19, 0.2),
        ("batch_size: {type: int, low: 32, high: 128, step: 32}", 100, 96),
        ("batch_size: {type: int, low: 32, high: 128}", 100, 100),
        ("batch_size: {type: categorical, choices: [32, 128]}", 64, 32),
        ("optimiser: {type: categorical, choices: [adam, sgd]}", "sgd", "sgd"),
        ("optimiser: {type: categorical, choices: [adam, sgd]}", "adamw", "adam"),
        ("nesterov: {type: categorical, choices: [true, false]}", False, False),
        ("lr: 0.1", 0.1, 0.1),
        ("lr: 0.1", 0.2, 0.1),
    ],
)
def test_value_from_elsewhere_is_kept_or_brought_to_the_nearest_that_may_be_drawn(line: str, value: Any, nearest: Any) -> None:
    slot = slot_of(line)
    assert slot.holds(value) == (value == nearest)
    assert (value if slot.holds(value) else slot.nearest(value)) == pytest.approx(nearest)
    assert slot.holds(slot.nearest(value))


def test_candidate_that_was_drawn_here_has_its_own_values() -> None:
    space, lots = read(), UniformDraw(seed=5)
    for _ in range(20):
        drawn = space.draw(lots)
        values = space.values_nearest_to(drawn)
        filler = {slot.name: slot.ends()[0] for slot in space.slots}
        assert space.candidate(filler | values) == drawn


def test_stages_that_a_candidate_lacks_have_no_values() -> None:
    space = read()
    two = space.draw(Recorder(0))
    assert {name for name in space.describe() if name not in space.values_nearest_to(two)} == {
        slot.name for slot in space.slots if slot.path[:3] == ("arch", "stage", 2)
    }


def test_stem_as_wide_as_the_first_stage_is_brought_into_a_range_of_widths() -> None:
    space = read(with_arch("stem: {channels: {type: int, low: 4, high: 16}}"))
    plain = read(with_arch("block: basic")).draw(Recorder(0))
    assert plain.arch.stem.channels is None
    assert space.values_nearest_to(plain)["stem.channels"] == 8


def test_space_warns_of_what_its_fixed_values_never_reach() -> None:
    text = with_train("schedule: multistep\n  milestones: [0.5, 1.2]")
    assert read(text).warnings() == ["milestones 1.2 lie at or beyond the end of the run and are never reached"]
    assert read().warnings() == []


# ----------------------------------------------------------------------------------------------------- fingerprint


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# nothing\n", ""),
        ("version: 1\n", "# a comment\nversion: 1\n"),
        ("low: 1e-3", "low: 0.001"),
        ("low: 0, high: 10", "low: 0.0, high: 1.0e+1"),
        ("kernel: {type: categorical, choices: [3, 5]}", "kernel: {choices: [3, 5], type: categorical}"),
        ("params: 300k, macs: 50M", "params: 400k"),
        ("[false, true]", "[no, yes]"),
    ],
)
def test_fingerprint_stays_where_the_meaning_of_the_draws_does(before: str, after: str) -> None:
    text = "# nothing\n" + WHOLE
    assert before in text
    assert read(text.replace(before, after, 1)).fingerprint == read(text).fingerprint


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("low: 2, high: 3}", "low: 1, high: 3}"),
        ("[basic, bottleneck]", "[bottleneck, basic]"),
        ("[basic, bottleneck]", "[basic]"),
        ("high: 4, log: true", "high: 4"),
        ("step: 8", "step: 16"),
        ("step: 0.1", "step: 0.2"),
        ("      - 32\n", "      - 33\n"),
        ("epochs: 6", "epochs: 7"),
        ("milestones: [0.5, 0.75]", "milestones: [0.5, 0.8]"),
        ("flip: none", "flip: horizontal"),
        ("  zero_init: {type: categorical, choices: [false, true]}\n", ""),
        ("[null, 16]", "[16]"),
    ],
)
def test_fingerprint_changes_with_the_meaning_of_the_draws(before: str, after: str) -> None:
    assert before in WHOLE
    assert read(WHOLE.replace(before, after, 1)).fingerprint != read(WHOLE).fingerprint


def test_another_number_of_epochs_is_another_meaning() -> None:
    space = read()
    longer = space.with_epochs(12)
    assert (space.epochs, longer.epochs) == (6, 12)
    assert longer.draw(Recorder(0)).train.epochs == 12
    assert longer.fingerprint != space.fingerprint
    assert longer.with_epochs(6).fingerprint == space.fingerprint


def test_space_describes_each_slot_in_words() -> None:
    described = read().describe()
    assert described["stages"] == "int 2 to 3"
    assert described["stage0.blocks"] == "int 1 to 4 log"
    assert described["stage0.channels"] == "int 16 to 32 step 8"
    assert described["stage1.channels"] == "32"
    assert described["dropout"] == "float 0.0 to 0.2 step 0.1"
    assert described["lr"] == "float 0.001 to 0.1 log"
    assert described["stem.channels"] == "one of null, 16"
    assert described["epochs"] == "6"
    assert json.dumps(described)
