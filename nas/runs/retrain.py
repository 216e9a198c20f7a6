"""`nas retrain` of one network: trains it in this process, or in several together, and finishes it."""

from collections.abc import Callable
from dataclasses import dataclass

from nas.budget import count_params
from nas.data.cache import Progress as DecodingProgress
from nas.data.cache import silent
from nas.errors import StudyError
from nas.files import write_whole
from nas.paths import TrialPaths
from nas.runs.card import ModelCard, read_card
from nas.runs.context import TrainingContext, locked, open_context
from nas.runs.finish import divergence, finish
from nas.runs.parts import in_parts
from nas.runs.plan import Order, make_order
from nas.runs.select import find_subject
from nas.runs.together import train_together
from nas.specs import RetrainSpec
from nas.study.retry import Retry
from nas.train.checkpoint import EpochMetrics
from nas.train.evaluate import never
from nas.train.loop import Status
from nas.train.rank import Training


@dataclass(frozen=True)
class RetrainPlan:
    """What will be done, shown before it begins."""

    order: Order
    params: int
    train_images: int
    held_out: int
    device: str
    precision: str


@dataclass(frozen=True)
class Retrained:
    run: TrialPaths
    card: ModelCard | None
    """None where it was suspended."""
    already_there: bool = False


def retrain(
    request: RetrainSpec,
    on_start: Callable[[RetrainPlan], None],
    on_epoch: Callable[[EpochMetrics], None],
    should_suspend: Callable[[], bool] = never,
    decoding: DecodingProgress = silent,
    note: Callable[[str], None] = lambda text: None,
) -> Retrained:
    """One training, in this process. Goes on from its checkpoint where it was suspended before. `note` hears what else happens.
    Raises NasError."""
    find_subject(request.paths, request.which)  # a mistake there is said before any image is read
    ctx = open_context(request, decoding)
    order = make_order(request, ctx, note)
    if order.run.card.is_file():
        return Retrained(order.run, read_card(order.run), already_there=True)
    with locked([order.run.folder]):
        on_start(begin(order, ctx))
        status = _train(order, ctx, on_epoch, should_suspend, note)
        return Retrained(order.run, None if status == "suspended" else finish(order, ctx, note, opens_test=True))


def begin(order: Order, ctx: TrainingContext) -> RetrainPlan:
    """Raises ConfigError where a batch cannot be shared out."""
    write_whole(order.run.candidate, order.candidate.to_json().encode())
    params = count_params(order.candidate.arch, ctx.dataset.shape)
    ctx.devices.require_share(min(order.candidate.train.batch_size, ctx.chosen.train_images))
    return RetrainPlan(order, params, ctx.chosen.train_images, ctx.held_out, ctx.devices.name, ctx.precision.name)


def _train(
    order: Order,
    ctx: TrainingContext,
    on_epoch: Callable[[EpochMetrics], None],
    should_suspend: Callable[[], bool],
    note: Callable[[str], None],
) -> Status:
    """In this process, or in several together. Raises StudyError."""

    def attempt(parts: int) -> Status:
        training = Training(
            run=order.run,
            candidate=order.candidate,
            shape=ctx.dataset.shape,
            data=ctx.data,
            selection=order.selection,
            seed=order.mixed_seed,
            identity=order.identity,
            micro_batches=parts,
        )
        if ctx.devices.processes > 1:
            return train_together(training, ctx.devices, on_epoch, should_suspend)
        return _train_here(training, ctx, on_epoch, should_suspend, note)

    smaller = "retrain a smaller network (nas list shows them), or use another --device"
    batch, parts = order.candidate.train.batch_size, order.subject.micro_batches
    status = in_parts(attempt, batch, parts, order.subject.title, order.run, ctx.device, note, smaller)
    if status == "diverged":
        raise StudyError(
            f"the {divergence(order.run, order.candidate.train)}",
            hint="retrain another trial (nas list shows them), or try another --seed",
        )
    return status


def _train_here(
    training: Training,
    ctx: TrainingContext,
    on_epoch: Callable[[EpochMetrics], None],
    should_suspend: Callable[[], bool],
    note: Callable[[str], None],
) -> Status:
    """Waits for room on a full disk."""
    again = "the same nas retrain"
    retry = Retry(training.run.folder.name, note, should_suspend, "the run's folder", doing="training", again=again)

    def heard(metrics: EpochMetrics) -> bool:
        on_epoch(metrics)
        return True

    data = ctx.place(ctx.chosen.images, ctx.chosen.train)
    return training.fit(data, heard, should_suspend, note if ctx.compiled else None, retry.write).status
