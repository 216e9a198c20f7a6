"""Factors as they are typed, the variants that follow, and what a definition may become."""

import pytest

from nas.config import ArchConfig, BlockSource, Candidate, StageConfig, TrainConfig
from nas.errors import ConfigError, StudyError
from nas.runs.ablate_design import Cost, Definition, Factor, Variant, fixed_base, make_variants, parse_factors, short_name
from nas.study.settings import Environment

STAGES = (StageConfig(blocks=2, channels=16), StageConfig(blocks=3, channels=32))
BASE = Candidate(arch=ArchConfig(stages=STAGES), train=TrainConfig(epochs=4))


def cost(candidate: Candidate) -> Cost:
    blocks = sum(stage.blocks for stage in candidate.arch.stages)
    if blocks > 9:
        raise ConfigError("too deep")
    return blocks, 2 * blocks, "over" if blocks > 6 else None


def at_epochs(epochs: int) -> Candidate:
    """By a recipe that smooths the labels of long trainings."""
    smoothing = 0.1 if epochs >= 8 else 0.0
    return BASE.model_copy(update={"train": BASE.train.model_copy(update={"epochs": epochs, "label_smoothing": smoothing})})


def variants(*texts: str, grid: bool = False, base: Candidate = BASE) -> tuple[Variant, ...]:
    return make_variants(base, parse_factors(base, texts, grid), grid, at_epochs, cost)


def test_one_factor_at_a_time_leaves_all_else_as_it_is() -> None:
    made = variants("optimiser=sgd,adam", "activation=gelu,silu", "blocks=2-2,4-4")
    titles = ["base", "optimiser adam", "activation gelu", "activation silu", "blocks 2-2", "blocks 4-4"]
    assert [one.title for one in made] == titles
    assert [one.name for one in made][-1] == "blocks-4-4"
    assert made[0].candidate == BASE
    assert made[2].candidate == BASE.model_copy(update={"arch": BASE.arch.model_copy(update={"activation": "gelu"})})
    assert [(one.params, one.macs, one.over) for one in made[3:]] == [(5, 10, None), (4, 8, None), (8, 16, "over")]


def test_a_grid_is_every_combination_and_the_base() -> None:
    made = variants("optimiser=sgd,adam", "activation=relu,gelu", grid=True)
    assert [one.title for one in made] == ["base", "activation gelu", "optimiser adam", "optimiser adam, activation gelu"]
    beside = variants("optimiser=adam,adamw", "activation=gelu,silu", grid=True)
    assert [one.levels for one in beside[:2]] == [{}, {"optimiser": "adam", "activation": "gelu"}]
    assert len(beside) == 5


def test_what_trains_the_same_network_is_trained_once_in_a_grid() -> None:
    made = variants("optimiser=sgd,adam", "momentum=0.9,0.8", grid=True)
    assert [(one.title, one.same_as) for one in made] == [
        ("base", None),
        ("momentum 0.8", None),
        ("optimiser adam", None),
        ("optimiser adam, momentum 0.8", "optimiser-adam"),
    ]


def test_fields_may_change_together_and_a_value_have_a_plus_in_it() -> None:
    made = variants("blocks+channels=1-1+24-48,3-3+12-24")
    assert [one.title for one in made] == ["base", "blocks+channels 1-1+24-48", "blocks+channels 3-3+12-24"]
    assert [stage.channels for stage in made[2].candidate.arch.stages] == [12, 24]
    assert made[1].name == "blocks-1-1-channels-24-48"
    base, _ = fixed_base(BASE, ["dropout=0.1"])
    assert variants("dropout_place=head,stem+block", base=base)[1].candidate.arch.dropout_place == "stem+block"
    together = variants("policy+lr=none+1e+1,randaugment+0.2")
    assert [(one.candidate.train.augment.policy, one.candidate.train.lr) for one in together[1:]] == [
        ("none", 10.0),
        ("randaugment", 0.2),
    ]


def test_a_block_of_ones_own_beside_ours() -> None:
    source = BlockSource(file="mine.py", text="class Mine: ...")
    own = BASE.model_copy(update={"arch": BASE.arch.model_copy(update={"block": "Mine", "block_source": source})})
    blocks = [(one.candidate.arch.block, one.candidate.arch.block_source) for one in variants("block=Mine,preact", base=own)]
    assert blocks == [("Mine", source), ("preact", None)]


def test_values_are_set_before_anything_is_varied_and_a_recipe_follows_the_epochs() -> None:
    base, fixed = fixed_base(BASE, ["adam_lr=2e-3", "dropout=0.10"])
    assert fixed == {"adam_lr": "0.002", "dropout": "0.1"}
    made = variants("optimiser=adam", base=base)
    assert [one.candidate.train.peak_lr for one in made] == [0.1, 0.002]
    made = variants("epochs=4,8")
    assert [(one.candidate.train.epochs, one.candidate.train.label_smoothing) for one in made] == [(4, 0.0), (8, 0.1)]


@pytest.mark.parametrize(
    ("texts", "grid", "sentence"),
    [
        ([], False, "nothing is varied"),
        (["optimiser"], False, "--vary takes a field and its value, but got 'optimiser'"),
        (["optimiser=sgd,,adam"], False, "a value is missing"),
        (["optimiser=sgd"], False, "--vary optimiser=sgd varies nothing, because the base has this value"),
        (["lr=0.2,2e-1"], False, "--vary lr: 0.2 is given twice"),
        (["policy=randaugment", "augment.policy=autoaugment"], False, "--vary policy is given twice"),
        (["kernel=5", "stage0.kernel=7"], True, "both set stage0.kernel|both set kernel"),
        (["blocks+channels=2-2"], False, "'2-2' has 1 value for 2 fields"),
        (["lr=0.2+0.3"], False, r"--vary lr=0.2\+0.3: must be a valid number"),
        (["kernel+stage0.kernel=5+7"], False, "kernel is given twice"),
        (["gamma=0.2"], False, "--vary gamma=0.2 trains the same network as the base, which does not use this field"),
        (["gamma=0.2", "lr=0.1,0.2"], True, "--vary gamma=0.2 has no effect, because the networks do not use this field"),
        (["kernel=5", "stage0.kernel=3"], False, "varies nothing"),
        (["kernel=5-3", "stage0.kernel=5"], False, "--vary stage0.kernel=5 trains the same network as kernel 5-3"),
        (["blocks=5-5"], False, "--vary blocks=5-5: too deep"),
    ],
)
def test_invalid_ablations_are_refused(texts: list[str], grid: bool, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        variants(*texts, grid=grid)


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["lr=1", "lr=2"], "--set lr is given twice"),
        (["epochs=3"], "--set epochs=3: use the option --epochs"),
        (["lr"], "--set takes a field and its value"),
    ],
)
def test_invalid_values_of_set_are_refused(texts: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        fixed_base(BASE, texts)


def definition(*texts: str, seeds: tuple[int, ...] = (0, 1), grid: bool = False, base: Candidate = BASE) -> Definition:
    factors = parse_factors(base, texts, grid)
    made = make_variants(base, factors, grid, at_epochs, cost)
    settings = {"subject": "trial 7", "recipe": "searched", "fixed": {}, "hold_out": 0.1, "train_subset": None}
    return Definition(**settings, factors=factors, grid=grid, seeds=seeds, variants=made, environment=Environment.now())


def test_levels_and_seeds_may_be_added() -> None:
    begun = definition("optimiser=sgd,adam")
    more = definition("optimiser=adam,adamw,sgd", "activation=gelu", seeds=(0, 1, 2))
    assert begun.grown(more, "mine").variants == more.variants
    assert begun.grown(more, "mine").environment == begun.environment
    assert Definition.from_json(begun.to_json()) == begun


def test_started_runs_keep_their_order() -> None:
    begun = definition("blocks+channels=1-1+24-48,3-3+12-24", "optimiser=sgd,adam")
    asked = parse_factors(BASE, ["activation=gelu", "optimiser=adamw,adam,sgd", "channels+blocks=12-24+3-3,24-48+1-1"], False)
    assert [(factor.name, factor.levels) for factor in begun.arranged(asked)] == [
        ("blocks+channels", (("1-1", "24-48"), ("3-3", "12-24"))),
        ("optimiser", (("sgd",), ("adam",), ("adamw",))),
        ("activation", (("gelu",),)),
    ]


@pytest.mark.parametrize(
    ("new", "difference"),
    [
        (definition("optimiser=adamw"), "optimiser: sgd, adam → adamw"),
        (definition("activation=gelu"), "optimiser: no longer varied"),
        (definition("optimiser=sgd,adam", seeds=(0, 2)), "seeds: 0, 1 → 0, 2"),
        (definition("optimiser=sgd,adam", grid=True), "design: one factor at a time → a grid"),
        (definition("optimiser=sgd,adam", base=at_epochs(5)), "epochs: 4 → 5"),
        (definition("optimiser=sgd,adam").model_copy(update={"hold_out": 0.2}), "hold-out: 0.1 → 0.2"),
        (definition("optimiser=sgd,adam").model_copy(update={"fixed": {"lr": "1"}}), "set: nothing → lr 1"),
    ],
)
def test_other_changes_of_an_ablation_are_refused(new: Definition, difference: str) -> None:
    with pytest.raises(StudyError, match=f"ablation 'mine' was started with other settings(.|\n)*  {difference}"):
        definition("optimiser=sgd,adam").grown(new, "mine")


def test_a_grid_takes_no_further_factor() -> None:
    begun = definition("optimiser=sgd,adam", grid=True)
    with pytest.raises(StudyError, match="new in the grid, which was begun without: activation"):
        begun.grown(definition("optimiser=sgd,adam", "activation=relu,gelu", grid=True), "mine")


def test_names_fit_a_folder() -> None:
    assert short_name("optimiser-adam") == "optimiser-adam"
    long, other = (short_name("x" * 200 + end) for end in "ab")
    assert long != other
    assert len(long) == len(other) == 100


def test_a_level_is_compared_with_the_bases_or_with_the_first() -> None:
    factor = Factor(fields=("optimiser",), levels=(("adam",), ("adamw",)))
    assert definition("optimiser=adam,adamw").reference(factor) == "sgd"
    assert definition("optimiser=adam,adamw", "activation=gelu,silu", grid=True).reference(factor) == "adam"
