"""Several networks, retrained by several seeds each, and which of them is to be handed over: chosen on images that none of them
trained on, before the official test set is opened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from nas.data.cache import Progress as DecodingProgress
from nas.data.cache import silent
from nas.errors import ConfigError
from nas.interrupts import Stop
from nas.jobs.placement import devices_of
from nas.paths import TrialPaths
from nas.runs.card import ModelCard, read_card
from nas.runs.context import TrainingContext, locked, open_context
from nas.runs.finish import finish, seal, with_test
from nas.runs.load import load_network
from nas.runs.plan import Order, make_order
from nas.runs.queue import Heard, Queue
from nas.runs.retrain import RetrainPlan, begin
from nas.specs import HOLD_OUT, Criterion, SeveralSpec

CRITERIA: tuple[Criterion, ...] = ("clean", "shifted")


@dataclass(frozen=True)
class Network:
    """One network and its trainings, by one seed each."""

    runs: tuple[tuple[TrialPaths, ModelCard], ...]

    @property
    def card(self) -> ModelCard:
        return self.runs[0][1]

    def scores(self, by: Criterion) -> list[float]:
        """On the held-out images, by what the study judges networks by; empty where there are none."""
        held_out = [card.held_out for _, card in self.runs if card.held_out is not None]
        return [one.clean if by == "clean" else one.shifted for one in held_out]

    def mean(self, by: Criterion) -> float | None:
        scores = self.scores(by)
        return fmean(scores) if scores else None

    def deviation(self, by: Criterion) -> float | None:
        """None of one training."""
        scores = self.scores(by)
        return stdev(scores) if len(scores) > 1 else None

    def best_run(self, by: Criterion) -> tuple[TrialPaths, ModelCard]:
        """The first of those that score highest."""
        scores = self.scores(by)
        return self.runs[scores.index(max(scores))] if scores else self.runs[0]


@dataclass(frozen=True)
class Several:
    networks: tuple[Network, ...]
    """Best first where something chose, else as asked for."""
    chosen: Network | None
    """None where nothing chose among several."""
    by: Criterion
    failures: dict[str, str]
    suspended: int
    """Runs that go on with the same command."""

    @property
    def best(self) -> tuple[TrialPaths, ModelCard] | None:
        return None if self.chosen is None else self.chosen.best_run(self.by)


def retrain_several(
    request: SeveralSpec,
    on_plan: Callable[[Sequence[RetrainPlan], int], None],
    on_epoch: Heard,
    stop: Stop,
    decoding: DecodingProgress = silent,
    note: Callable[[str], None] = lambda text: None,
) -> Several:
    """Trains what is not trained yet over the workers, then judges and chooses. `on_plan` hears what is to be trained, and how
    many trainings are there already. Raises NasError."""
    if request.by == "shifted" and not request.base.hold_out:
        raise ConfigError("--choose-by shifted needs images that chose nothing before", hint=f"--hold-out {HOLD_OUT:g}")
    devices = devices_of(request.placement)
    ctx = open_context(replace(request.base, device=devices[0]), decoding)
    orders = [make_order(one, ctx, note) for one in request.each()]
    pending = [order for order in orders if not order.run.card.is_file()]
    with locked([order.run.folder for order in pending]):
        failures, suspended = _train_all(request, ctx, pending, len(orders), on_plan, on_epoch, stop, note)
    networks = _networks(orders)
    if suspended or not networks:
        return Several(tuple(networks), None, request.by, failures, len(suspended))
    ranked = _ranked(networks, request.by)
    if ranked is None:
        return Several(tuple(networks), None, request.by, failures, 0)
    chosen = _with_test(ranked[0], ctx, note)
    return Several((chosen, *ranked[1:]), chosen, request.by, failures, 0)


def _train_all(
    request: SeveralSpec,
    ctx: TrainingContext,
    pending: Sequence[Order],
    count: int,
    on_plan: Callable[[Sequence[RetrainPlan], int], None],
    on_epoch: Heard,
    stop: Stop,
    note: Callable[[str], None],
) -> tuple[dict[str, str], list[Order]]:
    """Trains what is pending, of so many in all, and judges what has ended. Returns what failed, and what is suspended."""
    if not pending:
        return {}, []
    on_plan([begin(order, ctx) for order in pending], count - len(pending))
    queue = Queue(pending, ctx, request.placement, on_epoch, stop, note)
    for order in queue.run():
        note(f"judging {order.name}")
        finish(order, ctx, note, opens_test=False)
    return queue.failures, queue.suspended


def _networks(orders: Sequence[Order]) -> list[Network]:
    """Those of which a training has ended."""
    by_subject: dict[str, list[tuple[TrialPaths, ModelCard]]] = {}
    for order in orders:
        if order.run.card.is_file():
            by_subject.setdefault(order.subject.title, []).append((order.run, read_card(order.run)))
    return [Network(tuple(runs)) for runs in by_subject.values()]


def _ranked(networks: list[Network], by: Criterion) -> list[Network] | None:
    """By the held-out images, else by the search's; None where several were judged by neither."""
    if len(networks) == 1:
        return networks
    means = [network.mean(by) for network in networks]
    if None in means:
        means = [network.card.search_accuracy for network in networks]
    if None in means:
        return None
    return [network for _, network in sorted(zip(means, networks, strict=True), key=lambda pair: -(pair[0] or 0.0))]


def _with_test(network: Network, ctx: TrainingContext, note: Callable[[str], None]) -> Network:
    """With what its trainings say of the official test set, which is opened for those that have not seen it yet."""
    runs = []
    for run, card in network.runs:
        if ctx.dataset.test is not None and card.test_accuracy is None and not card.includes_test_labels:
            model, _ = load_network(run)
            card = seal(run, with_test(card, run, model.to(ctx.device), ctx), ctx, note)
        runs.append((run, card))
    return Network(tuple(runs))
