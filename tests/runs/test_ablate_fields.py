"""Every field by its name, and what is typed as its value."""

from collections import Counter

import pytest

from nas.config import ArchConfig, Candidate, StageConfig, TrainConfig
from nas.errors import ConfigError
from nas.runs.ablate_fields import BARE, GROUPS, SOURCE, WHOLES, Field, changed, find_field, value_text

STAGES = (StageConfig(blocks=2, channels=16), StageConfig(blocks=3, channels=32, kernel=5))
BASE = Candidate(arch=ArchConfig(stages=STAGES), train=TrainConfig(lr=0.0123456789012345678))


def with_value(name: str, text: str) -> Candidate:
    return changed(BASE, {find_field(name, "--vary"): text}, "--vary")


FIELDS = [
    Field(group, key) for group, (model, _, _) in GROUPS.items() for key in model.model_fields if key not in (*WHOLES, SOURCE)
]


def test_every_field_has_a_name_of_its_own_that_finds_it_and_reads_back_what_it_has() -> None:
    assert max(Counter(field.name for field in FIELDS).values()) == 1
    for field in FIELDS:
        assert find_field(field.name, "--vary") == find_field(f"{field.group}.{field.key}", "--vary") == field
        assert changed(BASE, {field: value_text(BASE, field)}, "--vary") == BASE, field
    assert {"optimiser", "policy", "activation", "blocks", "stem.kernel", "stem.channels"} <= {field.name for field in FIELDS}
    assert (BARE["kernel"], BARE["channels"]) == ("stage", "stage")


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("lr", "1e-4", 1e-4),
        ("nesterov", "false", False),
        ("nesterov", "0", False),
        ("adam_lr", "none", None),
        ("adam_lr", "2e-3", 0.002),
        ("milestones", "5e-1-0.75", (0.5, 0.75)),
    ],
)
def test_values_of_the_training(name: str, text: str, read: object) -> None:
    assert getattr(with_value(name, text).train, name) == read


def test_values_of_the_stages_the_stem_and_the_augmentation() -> None:
    assert [stage.blocks for stage in with_value("blocks", "4-1").arch.stages] == [4, 1]
    assert [stage.kernel for stage in with_value("kernel", "7").arch.stages] == [7, 7]
    assert [stage.channels for stage in with_value("stage1.channels", "40").arch.stages] == [16, 40]
    assert value_text(BASE, find_field("kernel", "--vary")) == "3-5"
    assert value_text(BASE, find_field("stage1.kernel", "--vary")) == "5"
    assert with_value("augment.policy", "randaugment") == with_value("policy", "randaugment")
    assert with_value("stride", "2").arch.stem.stride == 2
    assert with_value("stem.channels", "none").arch.stem.channels is None


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("optimizer", "sgd", r"--vary optimizer: unknown field. Did you mean 'optimiser'\?"),
        ("block_source", "none", "unknown field"),
        ("stages", "3", "is not a single value; its fields are blocks, channels, kernel, skip_kernel"),
        ("augment", "none", "is not a single value; its fields are crop_padding"),
        (
            "optimiser",
            "adm",
            r"--vary optimiser=adm: must be 'sgd', 'adam', 'adamw' or 'muon' \(got 'adm'\)\. Did you mean 'adam'\?",
        ),
        ("lr", "-1", r"--vary lr=-1: must be greater than 0 \(got -1\)"),
        ("lr", "fast", "--vary lr=fast: must be a valid number"),
        ("lr", "nan", "must be a finite number"),
        ("kernel", "4", "must be odd, so that the convolution keeps the size of its input, but is 4"),
        ("blocks", "2-2-2", "has values for 3 stages, but the network has 2"),
        ("stage2.blocks", "2", "--vary stage2.blocks: the network has 2 stages"),
        ("erasing_min", "0.5", "erasing_min must not exceed erasing_max"),
    ],
)
def test_what_is_refused(name: str, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as refused:
        with_value(name, text)
    if name == "optimizer":
        for field in ("weight_decay", "mixup_alpha", "se_reduction", "skip_kernel", "stem.kernel"):
            assert field in refused.value.hint
