"""`fit`: it learns, says what it did, and ends as it should."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas.config import AugmentConfig, FlipName, MixName, PadMode, PolicyName
from nas.data.loader import TrainBatches
from nas.device import Precision
from nas.train import loop
from nas.train.checkpoint import EpochMetrics, read_curve
from nas.train.evaluate import evaluate
from nas.train.optimiser import learning_rate

BF16 = Precision(torch.bfloat16, False, "for the test")


@pytest.mark.parametrize("precision", [Precision(None, False, "for the test"), BF16], ids=lambda p: p.name)
def test_the_loss_falls_and_the_digits_are_learnt(training: Any, tmp_path: Path, precision: Precision) -> None:
    easier = training.changed(arch={"dropout": 0.0, "stochastic_depth": 0.0, "se_reduction": 0}, epochs=20, lr=0.5)
    easier.precision = precision
    run = easier(tmp_path)
    curve = run.result.curve
    assert run.result.status == "finished"
    assert curve[-1].train_loss < 0.7 * curve[0].train_loss
    assert curve[-1].train_accuracy > 0.8
    assert curve[-1].ema_val_accuracy is not None
    assert curve[-1].ema_val_accuracy > 0.7


def test_the_curve_is_what_was_heard_and_what_the_file_holds(training: Any, tmp_path: Path) -> None:
    run = training(tmp_path)
    assert run.heard == run.result.curve == read_curve(run.paths.metrics)
    assert [metrics.epoch for metrics in run.heard] == [1, 2, 3, 4]
    lines = run.paths.metrics.read_text().splitlines()
    assert set(json.loads(lines[0])) == set(EpochMetrics.__dataclass_fields__)
    assert read_curve(tmp_path / "nowhere") == []
    assert run.model.stem.conv.weight.is_contiguous(memory_format=torch.channels_last)
    images, _ = next(iter(training.batches().epoch(0)))
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_metrics_are_written_and_the_checkpoint_too_before_anybody_hears_of_an_epoch(training: Any, tmp_path: Path) -> None:
    written = []

    def on_epoch(metrics: EpochMetrics) -> bool:
        saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        written.append((len(read_curve(tmp_path / "metrics.jsonl")), len(saved["curve"])))
        return True

    training(tmp_path, on_epoch=on_epoch)
    assert written == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_accuracies_are_those_of_the_networks_it_leaves(training: Any, tmp_path: Path) -> None:
    run = training(tmp_path, raw_weights=True)
    validation, last = training.resident(200, 100), run.result.curve[-1]
    assert (last.val_loss, last.val_accuracy) == evaluate(run.model, validation, training.precision)[:2]
    assert (last.ema_val_loss, last.ema_val_accuracy) == evaluate(run.result.model, validation, training.precision)[:2]
    assert run.result.model is not run.model


def test_raw_weights_are_evaluated_where_that_is_asked_for_and_where_there_are_no_others(training: Any, tmp_path: Path) -> None:
    usual, both = training(tmp_path / "usual").result.curve, training(tmp_path / "both", raw_weights=True).result.curve
    assert all((one.val_loss, one.val_accuracy) == (None, None) for one in usual)
    assert all(one.val_accuracy is not None for one in both)
    assert [one.ema_val_loss for one in usual] == [one.ema_val_loss for one in both]
    alone = training.changed(ema_epochs=0.0)(tmp_path / "alone")
    assert alone.result.model is alone.model
    for one in alone.result.curve:
        assert (one.ema_val_loss, one.ema_val_accuracy) == (one.val_loss, one.val_accuracy) != (None, None)


def test_the_training_loss_is_the_mean_over_the_images_that_were_seen(training: Any, tmp_path: Path) -> None:
    """With a rate that changes nothing, each batch can be computed again by hand."""
    still = training.changed(arch={"dropout": 0.0, "stochastic_depth": 0.0}, epochs=1, lr=1e-12, weight_decay=0.0)
    run = still(tmp_path)
    model = still.model().train()
    losses, correct, count = 0.0, 0, 0
    for images, labels in still.batches().epoch(0):
        with torch.no_grad():
            logits = model(images)
        losses += F.cross_entropy(logits, labels, label_smoothing=0.1).item() * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    assert count == 192  # the last, incomplete batch is left out
    assert run.result.curve[0].train_loss == pytest.approx(losses / count, rel=1e-4)
    assert run.result.curve[0].train_accuracy == pytest.approx(correct / count)


@pytest.mark.parametrize(("parts", "sam_rho"), [(1, 0.0), (2, 0.0), (1, 0.05)])
def test_the_next_pass_learns_the_loss_of_each_image(
    training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int, sam_rho: float
) -> None:
    made = list[TrainBatches]()
    batches = type(training).batches
    monkeypatch.setattr(type(training), "batches", lambda self: made.append(batches(self)) or made[-1])
    run = training.changed(hardest=0.48, epochs=2, sam_rho=sam_rho)(tmp_path, micro_batches=parts)
    hardest = made[0].hardest
    assert hardest.uses.unique().tolist() == [0, 1]
    assert int(hardest.uses.sum()) == 192, "the second pass takes those that the first one left out"
    used = hardest.losses[hardest.uses == 1]
    expected = sum(metrics.train_loss for metrics in run.result.curve) / 2
    assert used.mean().item() == pytest.approx(expected, rel=1e-4)
    assert hardest.losses[hardest.uses == 0].isinf().all()


def test_the_rate_of_an_epoch_is_that_of_its_last_step(training: Any, tmp_path: Path) -> None:
    train, steps = training.candidate.train, len(training.batches())
    curve = training(tmp_path).result.curve
    assert [m.lr for m in curve] == [learning_rate((epoch + 1) * steps - 1, steps, train) for epoch in range(4)]


def test_without_validation_images_nothing_is_said_about_them(training: Any, tmp_path: Path) -> None:
    last = training(tmp_path, validate=False).result.curve[-1]
    assert (last.val_loss, last.val_accuracy, last.ema_val_loss, last.ema_val_accuracy) == (None,) * 4
    assert math.isfinite(last.train_loss)


def test_whoever_listens_may_stop_it(training: Any, tmp_path: Path) -> None:
    run = training(tmp_path, on_epoch=lambda metrics: metrics.epoch < 2)
    assert run.result.status == "stopped"
    assert len(run.result.curve) == len(read_curve(run.paths.metrics)) == 2


def test_a_no_after_the_last_epoch_changes_nothing(training: Any, tmp_path: Path) -> None:
    def until_the_last(metrics: EpochMetrics) -> bool:
        return metrics.epoch < 4

    assert training(tmp_path, on_epoch=until_the_last).result.status == "finished"
    assert training(tmp_path, on_epoch=until_the_last).result.status == "finished", "and not when it is heard again"


def test_an_exploding_loss_is_divergence_and_leaves_no_epoch(training: Any, tmp_path: Path) -> None:
    exploding = training.changed(lr=2.0, weight_decay=10.0, warmup=0.9)  # every step multiplies the weights
    run = exploding(tmp_path)
    assert run.result.status == "diverged"
    assert run.heard == run.result.curve == read_curve(run.paths.metrics)
    assert 1 <= len(run.result.curve) < 4
    for metrics in run.result.curve:
        assert all(math.isfinite(value) for value in vars(metrics).values() if value is not None)


def test_weights_that_explode_in_the_very_last_step_are_divergence_too(training: Any, tmp_path: Path) -> None:
    asked = []
    # Before each step, and before each evaluation: for the last time before a step.
    last = 4 * len(training.batches()) + 3

    def poison_before_the_end() -> bool:
        asked.append(1)
        if len(asked) == last:
            for group in poisoned.param_groups:
                group["weight_decay"] = math.inf
        return False

    real = loop.make_optimiser

    def remember(*arguments: Any) -> torch.optim.Optimizer:
        nonlocal poisoned
        poisoned = real(*arguments)
        return poisoned

    poisoned = torch.optim.SGD([torch.zeros(1)])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "make_optimiser", remember)
        run = training(tmp_path, should_suspend=poison_before_the_end)
    assert run.result.status == "diverged"
    assert len(run.result.curve) == 3


def test_a_whitening_stem_is_made_from_the_training_images(training: Any, tmp_path: Path) -> None:
    run = training.changed(arch={"stem": {"type": "whitening"}}, epochs=1)(tmp_path)
    by_hand = training.changed(arch={"stem": {"type": "whitening"}}).model()
    by_hand.initialise_from(next(iter(training.resident(0, 200).batches(200)))[0])
    weights = by_hand.stem.whiten.weight
    for network in (run.model, run.result.model):
        assert torch.allclose(network.stem.whiten.weight, weights, rtol=1e-4, atol=1e-5)


AUGMENTATIONS: dict[str, dict[str, Any]] = {
    **{f"flip {name}": {"flip": name} for name in FlipName.__args__},
    **{f"pad {name}": {"crop_padding": 2, "pad_mode": name} for name in PadMode.__args__},
    **{f"policy {name}": {"policy": name} for name in PolicyName.__args__},
    **{f"mix {name}": {"mix": name} for name in MixName.__args__},
    "sometimes mixed": {"mix": "mixup_or_cutmix", "mix_p": 0.5},
}


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_every_augmentation_that_the_configuration_names_trains(training: Any, tmp_path: Path, augmentation: str) -> None:
    changed = training.changed(epochs=1, augment=AugmentConfig.model_validate(AUGMENTATIONS[augmentation]))
    (metrics,) = changed(tmp_path).result.curve
    assert math.isfinite(metrics.train_loss)
    assert 0 <= metrics.train_accuracy <= 1


def test_a_batch_in_parts_has_the_gradient_of_the_whole(training: Any, tmp_path: Path) -> None:
    """Without BatchNorm's statistics of the batch, which see each part on its own."""
    steady = training.changed(arch={"dropout": 0.0, "stochastic_depth": 0.0, "norm_momentum": 1e-9}, epochs=1)
    make = steady.model

    def without_batch_statistics() -> nn.Module:
        model = make()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_pre_hook(lambda m, _inputs: setattr(m, "training", False))
        return model

    steady.model = without_batch_statistics
    whole, parts = steady(tmp_path / "whole"), steady(tmp_path / "parts", micro_batches=4)
    assert parts.result.curve[0].train_loss == pytest.approx(whole.result.curve[0].train_loss, rel=1e-4)
    for name, value in whole.model.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, parts.model.state_dict()[name], atol=1e-4), name
