import json
from typing import Any

import pytest

from nas.config import AugmentConfig, BudgetConfig, Candidate, ImageShape, TrainConfig, parse_count
from nas.errors import BudgetError, ConfigError
from tests.reported import REPORTED


def candidate(arch: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **stage: Any) -> Candidate:
    """Three stages; those after the first begin with a projection."""
    stages = [{"blocks": 2, "channels": c, **stage} for c in (16, 32, 64)]
    return Candidate.model_validate({"arch": {"stages": stages, **(arch or {})}, "train": train or {}})


@pytest.mark.parametrize("name", REPORTED)
def test_candidate_comes_back_from_its_json(name: str) -> None:
    original = Candidate(arch=REPORTED[name].arch, train=TrainConfig(lr=0.3, augment=AugmentConfig(mix="cutmix")))
    again = Candidate.from_json(original.to_json())
    assert again == original
    assert again.digest == original.digest
    assert hash(again) == hash(original)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"arch": {"stages": [{"blocks": 1, "channels": 8, "kernal": 3}]}}',
            "c.json: arch.stages.0.kernal: unknown key (got 3)",
        ),
        ('{"arch": {"stages": [{"blocks": 1, "channels": 8}]}, "trian": {}}', "c.json: trian: unknown key (got {})"),
        ('{"train": {}}', "c.json: arch: is missing"),
        ('{"arch": {"stages": []}}', "c.json: arch.stages: must have at least 1 item, not 0 (got [])"),
        (
            '{"arch": {"stages": [{"blocks": 0, "channels": 8}]}}',
            "c.json: arch.stages.0.blocks: must be greater than or equal to 1",
        ),
        ('{"arch": {"stages": [{"blocks": 1, "channels": 8, "kernel": 4}]}}', "c.json: arch.stages.0.kernel: must be odd"),
        ("[]", "c.json: must be an object (got [])"),
        ("{", "c.json: invalid JSON: EOF while parsing"),
    ],
)
def test_json_that_is_no_candidate_is_refused_with_file_and_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Candidate.from_json(text, source="c.json")
    assert refused.value.message.startswith(message)


def test_refusal_of_a_long_text_does_not_quote_all_of_it() -> None:
    text = json.dumps({"arch": {"stages": "x" * 5000}})
    with pytest.raises(ConfigError) as refused:
        Candidate.from_json(text, source="c.json")
    assert len(refused.value.message) < 300


def test_infinite_and_missing_numbers_are_refused() -> None:
    for value in ("Infinity", "NaN"):
        with pytest.raises(ConfigError, match=r"train\.weight_decay"):
            Candidate.from_json(
                f'{{"arch": {{"stages": [{{"blocks": 1, "channels": 8}}]}}, "train": {{"weight_decay": {value}}}}}'
            )


def test_train_config_refuses_a_multistep_schedule_whose_milestones_lie_behind_the_end() -> None:
    with pytest.raises(ConfigError, match=r"needs a milestone below 1.*\(1\.5,\)"):
        TrainConfig.from_json('{"schedule": "multistep", "milestones": [1.5]}')


def test_train_config_warns_of_milestones_that_are_never_reached() -> None:
    (warning,) = TrainConfig(schedule="multistep", milestones=(0.4, 1.0, 1.07)).warnings()
    assert warning.startswith("milestones 1, 1.07 lie at or beyond the end")
    assert TrainConfig(schedule="cosine", milestones=(0.4, 1.07)).warnings() == []


def test_erasing_refuses_a_smallest_share_above_the_largest() -> None:
    with pytest.raises(ConfigError, match=r"erasing_min must not exceed erasing_max, but 0\.5 > 0\.33"):
        AugmentConfig.from_json('{"erasing_min": 0.5}')


UNUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # what is set, and what of it has no effect, as keywords of `candidate`
    "expansion of basic blocks": ({}, {"arch": {"expansion": 2}}),
    "place of no dropout": ({}, {"arch": {"dropout_place": "block"}}),
    "kernel of projections that average pooling replaces by 1×1": (
        {"arch": {"downsample": "avgpool"}},
        {"arch": {"downsample": "avgpool"}, "skip_kernel": 3},
    ),
    "own stem width that is the first stage's": ({}, {"arch": {"stem": {"channels": 16}}}),
    "momentum of adamw": ({"train": {"optimiser": "adamw"}}, {"train": {"optimiser": "adamw", "momentum": 0.5}}),
    "nesterov of adamw": ({"train": {"optimiser": "adamw"}}, {"train": {"optimiser": "adamw", "nesterov": False}}),
    "adam's rate of muon": ({"train": {"optimiser": "muon"}}, {"train": {"optimiser": "muon", "adam_lr": 0.01}}),
    "muon's rate and momentum of sgd": ({}, {"train": {"muon_lr": 0.1, "muon_momentum": 0.9}}),
    "nesterov without momentum": ({"train": {"momentum": 0}}, {"train": {"momentum": 0, "nesterov": False}}),
    "warm-up of cosine": ({"train": {"schedule": "cosine"}}, {"train": {"schedule": "cosine", "warmup": 0.4}}),
    "milestones of cosine": ({"train": {"schedule": "cosine"}}, {"train": {"schedule": "cosine", "milestones": [0.3]}}),
    "gamma of cosine": ({"train": {"schedule": "cosine"}}, {"train": {"schedule": "cosine", "gamma": 0.5}}),
    "steps of a constant rate": (
        {"train": {"schedule": "constant"}},
        {"train": {"schedule": "constant", "rate_per_epoch": True}},
    ),
    "reach of no weight decay": ({"train": {"weight_decay": 0}}, {"train": {"weight_decay": 0, "decay_norm_and_bias": True}}),
    "padding mode of no crop": (
        {"train": {"augment": {"crop_padding": 0}}},
        {"train": {"augment": {"crop_padding": 0, "pad_mode": "zero"}}},
    ),
    "probability of sharpening by 1": ({}, {"train": {"augment": {"sharpness_p": 0.9}}}),
    "sharpening that never happens": ({}, {"train": {"augment": {"sharpness": 2.0, "sharpness_p": 0.0}}}),
    "operations of no policy": ({}, {"train": {"augment": {"policy_ops": 5, "policy_magnitude": 3}}}),
    "magnitude of trivialaugment": (
        {"train": {"augment": {"policy": "trivialaugment"}}},
        {"train": {"augment": {"policy": "trivialaugment", "policy_magnitude": 3}}},
    ),
    "sizes of no erasing": ({}, {"train": {"augment": {"erasing_min": 0.1, "erasing_max": 0.2}}}),
    "settings of no mixing": ({}, {"train": {"augment": {"mix_p": 0.5, "mixup_alpha": 1.0, "cutmix_alpha": 2.0}}}),
    "mixing that never happens": ({}, {"train": {"augment": {"mix": "mixup", "mix_p": 0.0, "mixup_alpha": 1.0}}}),
    "cutmix's alpha of mixup": (
        {"train": {"augment": {"mix": "mixup"}}},
        {"train": {"augment": {"mix": "mixup", "cutmix_alpha": 2.0}}},
    ),
    "mixup's alpha of cutmix": (
        {"train": {"augment": {"mix": "cutmix"}}},
        {"train": {"augment": {"mix": "cutmix", "mixup_alpha": 2.0}}},
    ),
}

USED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "expansion of bottlenecks": ({"arch": {"block": "bottleneck"}}, {"arch": {"block": "bottleneck", "expansion": 2}}),
    "place of dropout": ({"arch": {"dropout": 0.1}}, {"arch": {"dropout": 0.1, "dropout_place": "block"}}),
    "kernel of projections": ({}, {"skip_kernel": 3}),
    "kernel": ({}, {"kernel": 5}),
    "blocks": ({}, {"blocks": 3}),
    "block": ({}, {"arch": {"block": "preact"}}),
    "downsampling": ({}, {"arch": {"downsample": "avgpool"}}),
    "activation": ({}, {"arch": {"activation": "silu"}}),
    "squeeze and excitation": ({}, {"arch": {"se_reduction": 8}}),
    "stochastic depth": ({}, {"arch": {"stochastic_depth": 0.1}}),
    "zero initialisation": ({}, {"arch": {"zero_init": True}}),
    "pooling": ({}, {"arch": {"pool": "max"}}),
    "pooled cells": ({}, {"arch": {"pool_size": 2}}),
    "stem stride": ({}, {"arch": {"stem": {"stride": 2}}}),
    "own stem width": ({}, {"arch": {"stem": {"channels": 8}}}),
    "optimiser": ({}, {"train": {"optimiser": "adamw"}}),
    "nesterov of sgd": ({}, {"train": {"nesterov": False}}),
    "momentum of sgd": ({}, {"train": {"momentum": 0.8}}),
    "warm-up of onecycle": ({"train": {"schedule": "onecycle"}}, {"train": {"schedule": "onecycle", "warmup": 0.4}}),
    "milestones of multistep": ({"train": {"schedule": "multistep"}}, {"train": {"schedule": "multistep", "milestones": [0.3]}}),
    "gamma of multistep": ({"train": {"schedule": "multistep"}}, {"train": {"schedule": "multistep", "gamma": 0.5}}),
    "rate an epoch": ({}, {"train": {"rate_per_epoch": True}}),
    "reach of weight decay": ({}, {"train": {"decay_norm_and_bias": True}}),
    "epochs": ({}, {"train": {"epochs": 19}}),
    "averaging": ({}, {"train": {"ema_epochs": 0}}),
    "padding mode": ({}, {"train": {"augment": {"pad_mode": "zero"}}}),
    "sharpening": (
        {"train": {"augment": {"sharpness": 2.0}}},
        {"train": {"augment": {"sharpness": 2.0, "sharpness_p": 0.2}}},
    ),
    "magnitude of randaugment": (
        {"train": {"augment": {"policy": "randaugment"}}},
        {"train": {"augment": {"policy": "randaugment", "policy_magnitude": 3}}},
    ),
    "sizes of erasing": (
        {"train": {"augment": {"erasing": 0.2}}},
        {"train": {"augment": {"erasing": 0.2, "erasing_max": 0.1}}},
    ),
    "share of mixing": ({"train": {"augment": {"mix": "mixup"}}}, {"train": {"augment": {"mix": "mixup", "mix_p": 0.5}}}),
    "mixup's alpha of both": (
        {"train": {"augment": {"mix": "mixup_or_cutmix"}}},
        {"train": {"augment": {"mix": "mixup_or_cutmix", "mixup_alpha": 2.0}}},
    ),
}


@pytest.mark.parametrize("case", UNUSED)
def test_digest_does_not_see_what_is_not_used(case: str) -> None:
    plain, more = UNUSED[case]
    assert candidate(**plain) != candidate(**more)
    assert candidate(**plain).digest == candidate(**more).digest


@pytest.mark.parametrize("case", USED)
def test_digest_sees_what_is_used(case: str) -> None:
    plain, more = USED[case]
    assert candidate(**plain).digest != candidate(**more).digest


def test_digest_does_not_see_the_projection_kernel_of_a_stage_that_keeps_its_shape() -> None:
    stages = [{"blocks": 1, "channels": 16}, {"blocks": 1, "channels": 16, "skip_kernel": 3}]
    plain = [{"blocks": 1, "channels": 16}, {"blocks": 1, "channels": 16}]
    for downsample, seen in (("maxpool", False), ("conv", True)):
        with_kernel = Candidate.model_validate({"arch": {"stages": stages, "downsample": downsample}})
        without = Candidate.model_validate({"arch": {"stages": plain, "downsample": downsample}})
        assert (with_kernel.digest != without.digest) == seen, downsample


def test_digest_does_not_see_how_a_single_stage_would_halve() -> None:
    one = {"stages": [{"blocks": 1, "channels": 16}]}
    pooled = Candidate.model_validate({"arch": {**one, "downsample": "maxpool"}})
    assert pooled.digest == Candidate.model_validate({"arch": one}).digest


@pytest.mark.parametrize("case", UNUSED)
def test_canonical_form_is_its_own_canonical_form(case: str) -> None:
    canonical = candidate(**UNUSED[case][1]).canonical()
    assert canonical.canonical() == canonical


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("5M", 5_000_000),
        ("5m", 5_000_000),
        ("300k", 300_000),
        ("300 K", 300_000),
        ("5_000_000", 5_000_000),
        ("1.5M", 1_500_000),
        ("1.005M", 1_005_000),
        ("2G", 2_000_000_000),
        ("0.5k", 500),
        ("1", 1),
        (4096, 4096),
    ],
)
def test_count_is_read(text: str | int, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["5 apples", "0", "0M", "-3", "1.5", "", "M", "5e6", "inf", "nan", "5MM", True])
def test_count_that_is_no_whole_number_above_0_is_refused(text: Any) -> None:
    with pytest.raises(BudgetError) as refused:
        parse_count(text)
    assert refused.value.message == f"a count is a whole number above 0, such as 5M, 300k or 5_000_000, but got {text!r}"
    assert refused.value.hint == "for example --max-params 5M"


def test_budget_reads_counts_and_refuses_anything_else() -> None:
    assert BudgetConfig.model_validate({"params": "300k", "macs": "50M"}) == BudgetConfig(params=300_000, macs=50_000_000)
    with pytest.raises(ConfigError, match=r"^b: params: a count is a whole number above 0.*'5 apples'$"):
        BudgetConfig.from_json('{"params": "5 apples"}', source="b")
    with pytest.raises(ConfigError, match=r"^b: must limit something: at least one of params, macs, memory, latency"):
        BudgetConfig.from_json("{}", source="b")


def test_images_smaller_than_8_pixels_or_of_one_class_are_refused() -> None:
    with pytest.raises(ConfigError, match="size: must be greater than or equal to 8"):
        ImageShape.from_json('{"channels": 1, "size": 7, "classes": 10}')
    with pytest.raises(ConfigError, match="classes: must be greater than or equal to 2"):
        ImageShape.from_json('{"channels": 1, "size": 8, "classes": 1}')


def test_one_line_tells_what_distinguishes_a_network() -> None:
    arch = candidate(
        arch={"block": "preact", "activation": "silu", "se_reduction": 16, "stem": {"stride": 2}, "pool_size": 2}
    ).arch
    assert arch.one_line() == "preact 2-2-2 × 16-32-64 k3-3-3 silu stem/2 se16 avgpool2"


def test_a_stem_that_halves_and_pools_leaves_a_quarter() -> None:
    arch = candidate(arch={"stem": {"stride": 2, "pool": "max"}}).arch
    assert arch.stem.reduction == 4
    assert "stem/4" in arch.one_line()
    assert candidate(arch={"stem": {"pool": "max"}}).digest != candidate(arch={"stem": {"stride": 2}}).digest
