import json
from typing import Any

import pytest
import yaml

from nas.config import (
    AugmentConfig,
    BudgetConfig,
    Candidate,
    ImageShape,
    StudyConfig,
    TrainConfig,
)
from nas.errors import ConfigError
from tests.reported import REPORTED


@pytest.mark.parametrize("name", REPORTED)
def test_candidate_comes_back_from_its_json(name: str) -> None:
    original = Candidate(arch=REPORTED[name].arch, train=TrainConfig(lr=0.3, augment=AugmentConfig(mix="cutmix")))
    again = Candidate.from_json(original.to_json())
    assert again == original
    assert again.digest == original.digest
    assert hash(again) == hash(original)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (TrainConfig, '{"schedule": "multistep", "milestones": [1.5]}', "c.json: a multistep schedule needs a milestone below 1"),
        (AugmentConfig, '{"erasing_min": 0.5}', "c.json: erasing_min must not exceed erasing_max, but 0.5 > 0.33"),
        (BudgetConfig, '{"params": "5 apples"}', "c.json: params: a count is a whole number above 0"),
        (BudgetConfig, "{}", "c.json: must have at least one limit of params, flash, ram, memory, macs, latency"),
        (TrainConfig, '{"weight_decay": NaN}', "c.json: weight_decay: must be"),
        (TrainConfig, '{"weight_decay": Infinity}', "c.json: weight_decay: must be"),
        (
            Candidate,
            '{"arch": {"stages": [{"blocks": 1, "channels": 8, "kernal": 3}]}}',
            "c.json: arch.stages.0.kernal: unknown key (got 3)",
        ),
        (Candidate, '{"arch": {"stages": [{"blocks": 1, "channels": 8}]}, "trian": {}}', "c.json: trian: unknown key (got {})"),
        (Candidate, '{"train": {}}', "c.json: arch: is missing"),
        (Candidate, '{"arch": {"stages": []}}', "c.json: arch.stages: must have at least 1 item, not 0 (got [])"),
        (
            Candidate,
            '{"arch": {"stages": [{"blocks": 0, "channels": 8}]}}',
            "c.json: arch.stages.0.blocks: must be greater than or equal to 1",
        ),
        (
            Candidate,
            '{"arch": {"stages": [{"blocks": 1, "channels": 8, "kernel": 4}]}}',
            "c.json: arch.stages.0.kernel: must be odd",
        ),
        (Candidate, "[]", "c.json: must be an object (got [])"),
        (Candidate, "{", "c.json: invalid JSON: EOF while parsing"),
    ],
)
def test_json_that_is_none_of_the_kind_is_refused_with_file_and_key(kind: type[Any], text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        kind.from_json(text, source="c.json")
    assert refused.value.message.startswith(message)


def test_refusal_of_a_long_text_does_not_quote_all_of_it() -> None:
    text = json.dumps({"arch": {"stages": "x" * 5000}})
    with pytest.raises(ConfigError) as refused:
        Candidate.from_json(text, source="c.json")
    assert len(refused.value.message) < 300


def test_milestones_that_are_never_reached_are_warned_of() -> None:
    (warning,) = TrainConfig(schedule="multistep", milestones=(0.4, 1.0, 1.07)).warnings()
    assert warning.startswith("milestones 1, 1.07 are at or after the end")
    assert TrainConfig(schedule="cosine", milestones=(0.4, 1.07)).warnings() == []


def candidate(*settings: str) -> Candidate:
    """Three stages, of which two begin with a projection; `arch.pool=max` sets a field, `kernel=5` that of every stage."""
    stages = [{"blocks": 2, "channels": c} for c in (16, 32, 64)]
    tree: dict[str, Any] = {"arch": {"stages": stages}, "train": {}}
    for setting in settings:
        path, _, value = setting.partition("=")
        *into, key = path.split(".")
        for target in [tree] if into else stages:
            for name in into:
                target = target.setdefault(name, {})
            target[key] = yaml.safe_load(value)
    return Candidate.model_validate(tree)


# Settings, of which the last makes no difference, or makes one.
UNUSED = [
    "arch.expansion=2",
    "arch.dropout_place=block",
    "arch.downsample=avgpool skip_kernel=3",
    "arch.stem.channels=16",
    "train.optimiser=adamw train.momentum=0.5",
    "train.optimiser=adamw train.nesterov=false",
    "train.optimiser=muon train.adam_lr=0.01",
    "train.muon_lr=0.1",
    "train.muon_momentum=0.9",
    "train.momentum=0 train.nesterov=false",
    "train.schedule=cosine train.warmup=0.4",
    "train.schedule=cosine train.milestones=[0.3]",
    "train.schedule=cosine train.gamma=0.5",
    "train.schedule=constant train.rate_per_epoch=true",
    "train.weight_decay=0 train.decay_norm_and_bias=true",
    "train.augment.crop_padding=0 train.augment.pad_mode=zero",
    "train.augment.sharpness_p=0.9",
    "train.augment.sharpness_p=0 train.augment.sharpness=2",
    "train.augment.policy_ops=5",
    "train.augment.policy_magnitude=3",
    "train.augment.policy=trivialaugment train.augment.policy_magnitude=3",
    "train.augment.erasing_min=0.1",
    "train.augment.erasing_max=0.2",
    "train.augment.mix_p=0.5",
    "train.augment.mixup_alpha=0.5",
    "train.augment.cutmix_alpha=2.0",
    "train.augment.mix_p=0 train.augment.mix=mixup",
    "train.augment.mix=mixup train.augment.cutmix_alpha=2.0",
    "train.augment.mix=cutmix train.augment.mixup_alpha=2.0",
]
USED = [
    "arch.block=bottleneck arch.expansion=2",
    "arch.dropout=0.1 arch.dropout_place=block",
    "skip_kernel=3",
    "kernel=5",
    "blocks=3",
    "arch.block=preact",
    "arch.downsample=avgpool",
    "arch.activation=silu",
    "arch.se_reduction=8",
    "arch.stochastic_depth=0.1",
    "arch.zero_init=true",
    "arch.pool=max",
    "arch.pool_size=2",
    "arch.stem.stride=2",
    "arch.stem.channels=8",
    "arch.stem.pool=max",
    "train.optimiser=adamw",
    "train.nesterov=false",
    "train.momentum=0.8",
    "train.schedule=onecycle train.warmup=0.4",
    "train.schedule=multistep train.milestones=[0.3]",
    "train.schedule=multistep train.gamma=0.5",
    "train.rate_per_epoch=true",
    "train.decay_norm_and_bias=true",
    "train.epochs=19",
    "train.ema_epochs=0",
    "train.augment.pad_mode=zero",
    "train.augment.sharpness=2 train.augment.sharpness_p=0.2",
    "train.augment.policy=randaugment train.augment.policy_magnitude=3",
    "train.augment.erasing=0.2 train.augment.erasing_max=0.1",
    "train.augment.mix=mixup train.augment.mix_p=0.5",
    "train.augment.mix=mixup_or_cutmix train.augment.mixup_alpha=2.0",
]


@pytest.mark.parametrize("settings", UNUSED)
def test_digest_does_not_see_what_is_not_used(settings: str) -> None:
    plain, more = candidate(*settings.split()[:-1]), candidate(*settings.split())
    assert plain != more
    assert plain.digest == more.digest
    assert more.canonical().canonical() == more.canonical()


@pytest.mark.parametrize("settings", USED)
def test_digest_sees_what_is_used(settings: str) -> None:
    assert candidate(*settings.split()[:-1]).digest != candidate(*settings.split()).digest


def test_digest_sees_a_projection_only_where_there_is_one() -> None:
    def digest(downsample: str, *stages: dict[str, int]) -> str:
        stages = tuple({"blocks": 1, "channels": 16, **stage} for stage in stages)
        return Candidate.model_validate({"arch": {"stages": stages, "downsample": downsample}}).digest

    for downsample, seen in (("maxpool", False), ("conv", True)):
        assert (digest(downsample, {}, {"skip_kernel": 3}) != digest(downsample, {}, {})) == seen, downsample
    assert digest("maxpool", {}) == digest("conv", {}), "a single stage halves nothing"


def test_images_smaller_than_8_pixels_or_of_one_class_are_refused() -> None:
    with pytest.raises(ConfigError, match="size: must be greater than or equal to 8"):
        ImageShape.from_json('{"channels": 1, "size": 7, "classes": 10}')
    with pytest.raises(ConfigError, match="classes: must be greater than or equal to 2"):
        ImageShape.from_json('{"channels": 1, "size": 8, "classes": 1}')


def test_one_line_tells_what_distinguishes_a_network() -> None:
    settings = "arch.block=preact arch.activation=silu arch.se_reduction=16 arch.stem.stride=2 arch.pool_size=2"
    assert candidate(*settings.split()).arch.one_line() == "preact 2-2-2 × 16-32-64 k3-3-3 silu stem/2 se16 avgpool2"
    halved_and_pooled = candidate("arch.stem.stride=2", "arch.stem.pool=max").arch
    assert halved_and_pooled.stem.reduction == 4
    assert "stem/4" in halved_and_pooled.one_line()


@pytest.mark.parametrize(("images", "batch"), [(50_000, 512), (2_000, 100), (41, 2), (3, 2), (1, 1)])
def test_few_images_take_batches_small_enough_for_the_least_steps(images: int, batch: int) -> None:
    assert TrainConfig(batch_size=512, min_steps=20).batch_of(images) == batch


def test_a_training_takes_six_operations_a_multiply_add_and_image_and_sam_twice_that() -> None:
    assert TrainConfig(epochs=8).flop(118_000_000, 50_000) == pytest.approx(0.2832e15)
    assert TrainConfig(epochs=8, sam_rho=0.05).flop(118_000_000, 50_000) == pytest.approx(2 * 0.2832e15)


FINAL, MOST_MACS = 2.9e14, 130_000_000


def best_size(config: StudyConfig) -> float:
    """MACs of the network with the smallest error, by an error of the form that `compute_of` assumes."""

    def error(macs: int) -> float:
        images = (config.compute_of(macs, MOST_MACS) or 0.0) / (6 * macs)
        return 0.054 + 0.004 * (macs / 5e7) ** -1.5 + 0.0778 * ((macs / 5e7) ** 0.6 * images / 5e4) ** -0.8

    return min((round(1e7 * 1.02**step) for step in range(130)), key=error)


@pytest.mark.parametrize("trial", [1e13, 6e13])
def test_short_trials_rank_sizes_as_the_final_training_does(trial: float) -> None:
    wanted = best_size(StudyConfig(trial_compute=FINAL))
    assert 60e6 < wanted < 90e6
    assert best_size(StudyConfig(trial_compute=trial)) < 0.6 * wanted, "at equal compute they prefer small networks"
    config = StudyConfig(trial_compute=trial, final_compute=FINAL)
    assert best_size(config) == pytest.approx(wanted, rel=0.03)
    assert config.compute_of(MOST_MACS, MOST_MACS) == pytest.approx(trial)
    assert config.compute_of(MOST_MACS, MOST_MACS, times=100) == pytest.approx(FINAL)
    assert StudyConfig().compute_of(MOST_MACS, MOST_MACS) is None
