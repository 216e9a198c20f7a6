"""`nas baseline` as a whole: measures the networks, then trains and judges what is not there yet, one after the other in this
process."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from nas.data.cache import Progress as DecodingProgress
from nas.data.cache import silent
from nas.data.loader import TrainBatches
from nas.errors import ConfigError, NasError, StudyError, one_line
from nas.files import sha256_of, write_whole
from nas.foreign.known import InParts, build, named, quiet
from nas.interrupts import Stop
from nas.models.user_code import place_of
from nas.paths import TrialPaths
from nas.runs.baseline.card import BaselineCard, read_baseline, write_baseline
from nas.runs.baseline.order import BaselineOrder, begun_file, find_alike, find_networks, make_orders, others_of_that_name
from nas.runs.baseline.results import Comparison, find_comparisons
from nas.runs.card import HeldOut
from nas.runs.context import TrainingContext, locked, open_context
from nas.runs.finish import (
    begin_card,
    clear_away,
    divergence,
    judge_held_out,
    judge_test,
    keep_weights,
    mark_diverged,
    take_weights,
)
from nas.runs.parts import in_parts
from nas.specs import BaselineSpec
from nas.study.retry import Retry
from nas.study.settings import read_settings
from nas.train.checkpoint import EpochMetrics
from nas.train.device import out_of_memory, release_memory
from nas.train.evaluate import EVALUATION_BATCH
from nas.train.loop import Status, fit

SMALLEST_EVALUATION = 8
"""Images at a time."""
OTHER_RUN = "wait for it, or train another network: --seeds N,M, --epochs N, --recipe NAME"

Heard = Callable[[BaselineOrder, EpochMetrics], None]


@dataclass(frozen=True)
class BaselinePlan:
    """What will be done, shown before it begins."""

    orders: tuple[BaselineOrder, ...]
    """All, also those that have ended."""
    pending: tuple[BaselineOrder, ...]
    train_images: int
    held_out: int
    test_images: int
    device: str
    precision: str


@dataclass(frozen=True)
class Done:
    runs: tuple[TrialPaths, ...]
    """In the order in which they were asked for: those that have ended, diverged ones included."""
    comparison: Comparison | None
    """Beside the study's own networks that were trained alike; None where no training has ended yet."""
    failures: dict[str, str]
    """By run; what has diverged is a result and none of them."""
    suspended: int
    """Runs that go on with the same command."""


def train_baselines(
    request: BaselineSpec,
    on_plan: Callable[[BaselinePlan], None],
    on_epoch: Heard,
    stop: Stop,
    decoding: DecodingProgress = silent,
    note: Callable[[str], None] = lambda text: None,
    printed: Callable[[str, str], None] = lambda name, text: None,
) -> Done:
    """Goes on where it stopped before. `printed` hears a network's name, and what its code printed. Raises NasError; what is
    wrong with a network is said before any is trained."""
    settings = read_settings(request.paths)
    alike = find_alike(request, settings)
    networks = find_networks(request, alike, settings, has_ended, printed)
    orders = make_orders(request, alike, settings, networks)
    pending = [order for order in orders if not has_ended(order.run)]
    failures: dict[str, str] = {}
    suspended = 0
    if pending:
        ctx = open_context(request.retraining, decoding)
        _require_judges(ctx)
        with locked([order.run.folder for order in pending], command="nas baseline", hint=OTHER_RUN):
            on_plan(_plan(orders, pending, ctx))
            for text in filter(None, [alike.left_out, *_changed(request, pending)]):
                note(text)
            failures, suspended = _train_all(pending, ctx, on_epoch, stop, note)
    ended = [order for order in orders if has_ended(order.run)]
    return Done(tuple(order.run for order in ended), _comparison(request, ended), failures, suspended)


def has_ended(run: TrialPaths) -> bool:
    return run.baseline.is_file() or run.diverged.is_file()


def _require_judges(ctx: TrainingContext) -> None:
    if ctx.dataset.test is None and ctx.chosen.hold_out is None:
        raise ConfigError(
            "the data set has no labelled test images, so that nothing would judge the networks",
            hint="--hold-out 0.1 sets training images aside that do, also in nas retrain",
        )


def _plan(orders: list[BaselineOrder], pending: list[BaselineOrder], ctx: TrainingContext) -> BaselinePlan:
    for order in pending:
        write_whole(begun_file(order.run), (order.definition.to_json() + "\n").encode())
    return BaselinePlan(
        orders=tuple(orders),
        pending=tuple(pending),
        train_images=ctx.chosen.train_images,
        held_out=ctx.held_out,
        test_images=ctx.test_images,
        device=ctx.devices.name,
        precision=ctx.precision.name,
    )


def _changed(request: BaselineSpec, pending: list[BaselineOrder]) -> list[str]:
    said = []
    for network in {order.definition.network.name: order.definition.network for order in pending}.values():
        if others := others_of_that_name(request.paths, network):
            said.append(
                f"the code of {network.name} is not what it was for {others[-1].folder.name}, which stays as it is; this one is "
                "trained beside it"
            )
    return said


def _comparison(request: BaselineSpec, ended: list[BaselineOrder]) -> Comparison | None:
    """The one with these trainings."""
    runs = {order.run.folder.name for order in ended}
    found = [one for one in find_comparisons(request.paths) if any(runs & set(row.runs) for row in one.known)]
    return found[0].only(runs) if found else None


# -------------------------------------------------------------------------------------------------------------- training


def _train_all(
    pending: list[BaselineOrder], ctx: TrainingContext, on_epoch: Heard, stop: Stop, note: Callable[[str], None]
) -> tuple[dict[str, str], int]:
    """One after the other. Returns what failed, and how many are suspended."""
    failures: dict[str, str] = {}
    suspended = 0
    for order in pending:
        name = order.run.folder.name
        if stop.requested:
            suspended += 1
            continue
        try:
            status = _train(order, ctx, on_epoch, lambda: stop.requested, note)
            if status == "suspended":
                suspended += 1
            elif status == "diverged":
                reason = f"its {divergence(order.run, order.definition.train)}"
                mark_diverged(order.run, reason)
                note(f"{name}: {reason}")
            else:
                note(f"judging {name}")
                _finish(order, ctx)
        except NasError as error:
            failures[name] = error.message
            note(f"{name} failed: {error.message}")
        finally:
            release_memory(ctx.device)
    return failures, suspended


def _train(
    order: BaselineOrder,
    ctx: TrainingContext,
    on_epoch: Heard,
    should_suspend: Callable[[], bool],
    note: Callable[[str], None],
) -> Status:
    """Waits for room on a full disk. Raises NasError."""
    definition, run = order.definition, order.run
    network, recipe = definition.network, definition.train
    again = "the same nas baseline"
    retry = Retry(run.folder.name, note, should_suspend, "the run's folder", doing="training", again=again)

    def heard(metrics: EpochMetrics) -> bool:
        on_epoch(order, metrics)
        return True

    def attempt(parts: int) -> Status:
        data = ctx.place(ctx.chosen.images, ctx.chosen.train)
        torch.manual_seed(order.mixed_seed)
        model = build(network, ctx.dataset.shape)
        with _blamed(order), quiet():
            return fit(
                model,
                TrainBatches.by_recipe(data, recipe, order.mixed_seed, ctx.dataset.shape.classes),
                None,
                recipe,
                heard,
                paths=run,
                precision=ctx.precision,
                seed=order.mixed_seed,
                identity=order.identity(ctx.chosen.train_images),
                micro_batches=parts,
                should_suspend=should_suspend,
                write=retry.write,
                channels_last=network.channels_last,
            ).status

    smaller = "compare with a smaller network, take images of fewer pixels, or use another --device"
    return in_parts(attempt, recipe.batch_size, 1, network.name, run, ctx.device, note, smaller)


@contextmanager
def _blamed(order: BaselineOrder) -> Iterator[None]:
    """Whatever fails, and is neither memory nor disk, is the network's fault as far as anybody can tell, sys.exit included: its
    traceback is kept. Raises ConfigError."""
    try:
        yield
    except NasError:
        raise
    except (Exception, SystemExit) as error:
        network = order.definition.network
        place = place_of(error, named(network.name).file)
        if out_of_memory(error) or (isinstance(error, OSError) and not place):
            raise
        write_whole(order.run.error, f"{one_line(error)}\n\n{traceback.format_exc()}".encode())
        raise ConfigError(
            f"{network.built} fails in its training: {one_line(error)}{place} (traceback in {order.run.error})"
        ) from None


# --------------------------------------------------------------------------------------------------- after the training


def _finish(order: BaselineOrder, ctx: TrainingContext) -> None:
    """Of a training that has ended: weights, judgements, and the card last. Opens the official test set, the only time for this
    network. Raises StudyError where the checkpoint does not hold it."""
    definition, run = order.definition, order.run
    weights = take_weights(run, order.identity(ctx.chosen.train_images))
    model = build(definition.network, ctx.dataset.shape)
    with _blamed(order), quiet():
        model.load_state_dict(weights)
        held_out, test = _judged(model, order, ctx)
    keep_weights(run, weights)
    write_baseline(run, BaselineCard(**dict(definition) | begin_card(run, ctx, held_out) | test))
    clear_away(run)


def _judged(model: nn.Module, order: BaselineOrder, ctx: TrainingContext) -> tuple[HeldOut | None, dict[str, float]]:
    """Fewer images at a time where the memory runs out, for a known network may be far larger than ours."""
    model = model.to(ctx.device)
    if order.definition.network.channels_last:
        model = model.to(memory_format=torch.channels_last)
    images, tta = EVALUATION_BATCH, order.definition.tta
    while True:
        try:
            judged = InParts(model, images)
            return judge_held_out(judged, tta, ctx), judge_test(judged, tta, order.run, ctx)
        except Exception as error:
            if out_of_memory(error) is None or images <= SMALLEST_EVALUATION:
                raise
        release_memory(ctx.device)
        images = max(SMALLEST_EVALUATION, images // 4)


def load_baseline(run: TrialPaths) -> tuple[nn.Module, BaselineCard]:
    """The network with its weights, on the CPU, in evaluation mode. Runs the user's file, where it lay when it was trained.

    Raises NasError where a file is missing or was changed.
    """
    card = read_baseline(run)
    file = run.weights
    if not file.is_file() or sha256_of(file) != card.weights_sha256:
        what = "is not the file that this training wrote" if file.is_file() else "is not there"
        raise StudyError(
            f"{file} {what}", hint="restore the folder from a copy, or remove it and train it again with nas baseline"
        )
    model = build(card.network, card.shape)
    try:
        model.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        raise StudyError(f"{file} does not fit {card.network.name}: {one_line(error)}") from None
    return model.eval(), card
