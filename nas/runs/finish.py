"""The end of a training: its network from the checkpoint, what that says of the images that judge, and its card."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nas.budget import count_macs, count_params
from nas.config import TrainConfig
from nas.data.images import ImageSet
from nas.data.shift import shifted
from nas.errors import StudyError
from nas.files import write_whole
from nas.models import build_model
from nas.paths import TrialPaths
from nas.runs.card import HeldOut, ModelCard, TrainedCard, write_card
from nas.runs.context import TrainingContext
from nas.runs.evaluation import Evaluation, judge, write_evaluation
from nas.runs.ledger import record_run
from nas.runs.plan import Order
from nas.runs.statistics import effective_images
from nas.study.settings import Environment
from nas.train.checkpoint import read_curve, trained_weights

SHIFT_SEED = 0
"""Of the simulated shift, the same for all networks, so that they can be compared."""


def finish(
    order: Order, ctx: TrainingContext, note: Callable[[str], None], opens_test: bool, in_ledger: bool = True
) -> ModelCard:
    """Makes a trained run of a training that has ended: weights, judgements, and the card last, which makes it a finished one.
    Records it, unless it is none of the study's retrained networks. Raises StudyError where the checkpoint does not hold it."""
    run = order.run
    weights = take_weights(run, order.identity)
    model = build_model(order.candidate.arch, ctx.dataset.shape)
    model.load_state_dict(weights)
    model = model.to(ctx.device).to(memory_format=torch.channels_last)
    card = ModelCard(
        **begin_card(run, ctx, judge_held_out(model, order.tta, ctx)),
        subject=order.subject.title,
        recipe=order.recipe,
        candidate=order.candidate,
        params=count_params(order.candidate.arch, ctx.dataset.shape),
        macs=count_macs(order.candidate.arch, ctx.dataset.shape),
        includes_test_labels=order.selection.include_test_labels,
        seed=order.seed,
        search_accuracy=order.subject.accuracy,
        tta=order.tta,
        processes=ctx.devices.processes,
    )
    keep_weights(run, weights)
    if opens_test:
        card = with_test(card, run, model, ctx)
    card = seal(run, card, ctx, note) if in_ledger else write_card(run, card)
    clear_away(run)
    return card


def seal(run: TrialPaths, card: ModelCard, ctx: TrainingContext, note: Callable[[str], None]) -> ModelCard:
    """Writes the card, with the hashes of what lies beside it, and its row in the ledger."""
    sealed = write_card(run, card)
    record_run(ctx.paths, run, note)
    return sealed


# ------------------------------------------------------------------------------------------- of any network, ours or not


def take_weights(run: TrialPaths, identity: str) -> dict[str, Tensor]:
    """The averaged ones, or the only ones. Raises StudyError where the checkpoint does not hold them."""
    weights, found = trained_weights(run.checkpoint, identity)
    if weights is None:
        raise StudyError(
            f"{run.checkpoint}, which held the trained network, is {'gone' if found == 'none' else found}",
            hint="the same command trains it again",
        )
    return weights


def keep_weights(run: TrialPaths, weights: Mapping[str, Tensor]) -> None:
    # Each by itself, for one that has several names, or is a part of another, is refused by the format.
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}, run.weights)


def begin_card(run: TrialPaths, ctx: TrainingContext, held_out: HeldOut | None) -> dict[str, Any]:
    """The fields of a `TrainedCard`, before the official test set is opened."""
    card = TrainedCard(
        study=ctx.paths.name,
        shape=ctx.dataset.shape,
        classes=ctx.dataset.classes,
        mean=ctx.dataset.mean,
        std=ctx.dataset.std,
        data=ctx.settings.data,
        data_fingerprint=ctx.dataset.fingerprint,
        train_images=ctx.chosen.train_images,
        metric=ctx.settings.study.metric,
        held_out=held_out,
        seconds=round(sum(metrics.seconds for metrics in read_curve(run.metrics)), 1),
        device=ctx.devices.name,
        precision=ctx.precision.name,
        environment=Environment.now(),
    )
    return dict(card)


def clear_away(run: TrialPaths) -> None:
    """What a finished run has no more use for."""
    for file in (run.checkpoint, run.error):
        file.unlink(missing_ok=True)


def divergence(run: TrialPaths, train: TrainConfig) -> str:
    """What became of a training that has diverged, without its subject."""
    epoch = len(read_curve(run.metrics)) + 1
    return f"loss became infinite or NaN in epoch {epoch}, at a peak learning rate of {train.peak_lr:g}"


def mark_diverged(run: TrialPaths, reason: str) -> None:
    """In place of a card, for it would again: the same network by the same seed."""
    write_whole(run.diverged, f"{reason}\n".encode())
    run.checkpoint.unlink(missing_ok=True)


# ----------------------------------------------------------------------------------------------------------- judgements


def judge_held_out(model: nn.Module, tta: str, ctx: TrainingContext) -> HeldOut | None:
    """As a submission would be predicted."""
    chosen = ctx.chosen
    if chosen.hold_out is None:
        return None
    images, metric = ctx.dataset.train.only(chosen.hold_out), ctx.settings.study.metric
    both = clean_and_shifted(model, images, tta, ctx)
    accuracy, shifted_accuracy = (judged.accuracy for judged in both)
    score, shifted_score = (None if metric == "accuracy" else judged.score(metric) for judged in both)
    effective, shifted_effective = (
        None if images.groups is None else round(effective_images(judged.predicted == judged.labels, images.groups), 1)
        for judged in both
    )
    return HeldOut(
        images=len(images),
        accuracy=accuracy,
        shifted_accuracy=shifted_accuracy,
        score=score,
        shifted_score=shifted_score,
        effective_images=effective,
        shifted_effective_images=shifted_effective,
    )


def clean_and_shifted(model: nn.Module, images: ImageSet, tta: str, ctx: TrainingContext) -> tuple[Evaluation, Evaluation]:
    """What it says of the images, and of the same ones under a simulated shift."""
    changed = shifted(images, None, SHIFT_SEED)
    clean = judge(model, ctx.place(images), images, tta)
    return clean, judge(model, ctx.place(changed), changed, tta)


def with_test(card: ModelCard, run: TrialPaths, model: nn.Module, ctx: TrainingContext) -> ModelCard:
    """The card with what the network says of the official test set. The same card where there is none, or it was trained on."""
    return card if card.includes_test_labels else card.model_copy(update=judge_test(model, card.tta, run, ctx))


def judge_test(model: nn.Module, tta: str, run: TrialPaths, ctx: TrainingContext) -> dict[str, float]:
    """The fields of a card that tell what the network says of the official test set: the only place where that is opened. Keeps
    the evaluation beside it. Empty where there is none."""
    test = ctx.dataset.test
    if test is None:
        return {}
    judged, under_shift = clean_and_shifted(model, test, tta, ctx)
    plain = judged if tta == "none" else judge(model, ctx.place(test), test, "none")
    write_evaluation(run, judged)
    return {
        "test_images": len(test),
        "test_accuracy": plain.accuracy,
        "test_accuracy_tta": judged.accuracy,
        "test_balanced_accuracy": judged.score("balanced_accuracy"),
        "test_macro_f1": judged.score("macro_f1"),
        "test_shifted_accuracy": under_shift.accuracy,
    }
