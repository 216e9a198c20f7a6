"""The end of a training: the network from its checkpoint, its evaluation, and its card."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from nas.budget import count_macs, count_params
from nas.config import TrainConfig
from nas.errors import StudyError
from nas.files import write_whole
from nas.models import build_model
from nas.paths import TrialPaths
from nas.runs.card import HeldOut, ModelCard, TrainedCard, write_card
from nas.runs.context import TrainingContext
from nas.runs.evaluation import judge_held_out, judge_test
from nas.runs.ledger import record_run
from nas.runs.plan import RunPlan
from nas.study.settings import Environment
from nas.train.checkpoint import read_curve, trained_weights


def finish(plan: RunPlan, ctx: TrainingContext, note: Callable[[str], None], opens_test: bool, in_ledger: bool = True) -> None:
    """Turns an ended training into a finished run: weights, evaluation, and last the card, which marks it as finished. Records it
    in the ledger, unless it is not one of the study's retrained networks. Raises StudyError if the checkpoint does not hold the
    network."""
    run, candidate, shape = plan.run, plan.candidate, ctx.dataset.shape
    weights = take_weights(run, plan.job(ctx).identity)
    model = build_model(candidate.arch, shape)
    model.load_state_dict(weights)
    model = model.to(ctx.device).to(memory_format=torch.channels_last)
    card = ModelCard(
        **begin_card(run, ctx, judge_held_out(model, plan.tta, ctx, run if in_ledger else None)),
        subject=plan.subject.title,
        recipe=plan.recipe,
        candidate=candidate,
        params=count_params(candidate.arch, shape),
        macs=count_macs(candidate.arch, shape),
        includes_test_labels=ctx.spec.include_test_labels,
        seed=plan.seed,
        search_accuracy=plan.subject.accuracy,
        tta=plan.tta,
        processes=ctx.devices.processes,
    )
    keep_weights(run, weights)
    if opens_test:
        card = with_test(card, run, model, ctx)
    if in_ledger:
        seal(run, card, ctx, note)
    else:
        write_card(run, card)
    clear_away(run)


def with_test(card: ModelCard, run: TrialPaths, model: nn.Module, ctx: TrainingContext) -> ModelCard:
    """The card with the scores on the official test set; unchanged if there is none or it was trained on."""
    return card if card.includes_test_labels else card.model_copy(update=judge_test(model, card.tta, run, ctx))


def seal(run: TrialPaths, card: ModelCard, ctx: TrainingContext, note: Callable[[str], None]) -> ModelCard:
    """Writes the card, with the hashes of the files beside it, and its row in the ledger."""
    sealed = write_card(run, card)
    record_run(ctx.spec.paths, run, note)
    return sealed


def take_weights(run: TrialPaths, identity: str) -> dict[str, Tensor]:
    """The EMA weights, or the raw ones without EMA. Raises StudyError if the checkpoint does not hold them."""
    weights, found = trained_weights(run.checkpoint, identity)
    if weights is None:
        raise StudyError(
            f"{run.checkpoint}, the checkpoint of the trained network, is {'gone' if found == 'none' else found}",
            hint="run the same command to train it again",
        )
    return weights


def keep_weights(run: TrialPaths, weights: Mapping[str, Tensor]) -> None:
    # Copies, because safetensors refuses tensors that share memory.
    # Not with safetensors' save_file, which writes files that only their owner may read.
    write_whole(run.weights, save({name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}))


def begin_card(run: TrialPaths, ctx: TrainingContext, held_out: HeldOut | None) -> dict[str, Any]:
    """The fields of a `TrainedCard`, before the official test set is opened."""
    card = TrainedCard(
        study=ctx.spec.paths.name,
        shape=ctx.dataset.shape,
        classes=ctx.dataset.classes,
        mean=ctx.dataset.mean,
        std=ctx.dataset.std,
        data=ctx.settings.data,
        data_fingerprint=ctx.dataset.fingerprint,
        train_images=ctx.selected.train_images,
        metric=ctx.settings.study.metric,
        held_out=held_out,
        seconds=round(sum(metrics.seconds for metrics in read_curve(run.metrics)), 1),
        device=ctx.devices.name,
        precision=ctx.precision.name,
        environment=Environment.now(),
    )
    return dict(card)


def clear_away(run: TrialPaths) -> None:
    """Deletes what a finished run does not need."""
    for file in (run.checkpoint, run.error):
        file.unlink(missing_ok=True)


def divergence(run: TrialPaths, train: TrainConfig) -> str:
    """Why a training diverged, as a sentence without a subject."""
    epoch = len(read_curve(run.metrics)) + 1
    return f"loss became infinite or NaN in epoch {epoch}, at a peak learning rate of {train.peak_lr:g}"


def mark_diverged(run: TrialPaths, reason: str) -> None:
    """Writes `diverged.txt` instead of a card. The run is not repeated: the same network with the same seed would diverge
    again."""
    write_whole(run.diverged, f"{reason}\n".encode())
    run.checkpoint.unlink(missing_ok=True)
