"""`nas retrain`: trains networks on all labelled training images, and chooses among several on held-out images before the
official test set is evaluated."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from nas.device import with_its_threads
from nas.errors import ConfigError, StudyError
from nas.interrupts import Stop
from nas.jobs.placement import DeviceGroup, Placement, device_group
from nas.paths import TrialPaths
from nas.runs.card import ModelCard, read_card
from nas.runs.context import TrainingContext, locked, open_context
from nas.runs.finish import finish, seal, with_test
from nas.runs.load import load_network
from nas.runs.plan import RunPlan, plan_compute, plan_run, plan_timed_runs
from nas.runs.select import Network, expected, find_subject, group, rank, record_choice
from nas.runs.statistics import Expectation
from nas.runs.train import Outcome, TrainingDisplay, prepared_workers, train_all
from nas.specs import HOLD_OUT, Criterion, RetrainSpec, SeveralSpec
from nas.study.settings import read_settings

OnPlan = Callable[[Sequence[RunPlan], Sequence[RunPlan], TrainingContext], None]


@dataclass(frozen=True)
class Retrained:
    networks: tuple[Network, ...]  # Best first if one was chosen, else as requested
    chosen: Network | None  # None if none could be chosen
    by: Criterion
    failures: dict[str, str]
    suspended: int  # Runs that resume with the same command

    @property
    def expected(self) -> dict[Criterion, Expectation]:
        """Expected accuracy of the best one on images like the held-out ones, clean and shifted; empty if these chose nothing."""
        return {} if self.best is None else expected(self.networks, self.best[0].folder.name)

    @property
    def best(self) -> tuple[TrialPaths, ModelCard] | None:
        return None if self.chosen is None else self.chosen.best_run(self.by)


@with_its_threads
def retrain(
    spec: RetrainSpec,
    on_plan: OnPlan,
    display: TrainingDisplay,
    stop: Stop,
) -> Retrained:
    """Trains one network with one seed, on `spec.gpus` devices together. Resumes from its checkpoint. Raises NasError, also if
    the training fails."""
    devices = device_group(spec.device, spec.gpus, spec.compiled, spec.threads)
    plans, outcome, _ = _train([spec], devices, on_plan, display, stop)
    for reason in outcome.diverged.values():
        raise StudyError(f"the {reason}", hint="retrain another trial (nas list shows them), or try another --seed")
    for name, reason in outcome.failures.items():
        raise StudyError(
            f"the training of {name} failed: {reason}",
            hint="the same command tries again; or retrain another network (nas list shows them), or use another --device",
        )
    networks = _networks(plans)
    return Retrained(networks, networks[0] if networks else None, "clean", {}, outcome.suspended)


@with_its_threads
def retrain_several(
    spec: SeveralSpec,
    on_plan: OnPlan,
    display: TrainingDisplay,
    stop: Stop,
) -> Retrained:
    """Trains the missing runs, each on one device, then evaluates them and chooses one. Raises NasError."""
    if spec.by == "shifted" and not spec.base.hold_out:
        raise ConfigError("--choose-by shifted needs held-out images", hint=f"--hold-out {HOLD_OUT:g}")
    plans, outcome, ctx = _train(spec.each(), spec.base.placement(spec.workers), on_plan, display, stop)
    networks, failures = _networks(plans), outcome.failures | {name: f"its {why}" for name, why in outcome.diverged.items()}
    ranked = None if outcome.suspended or not networks else rank(networks, spec.by)
    if ranked is None:
        return Retrained(networks, None, spec.by, failures, outcome.suspended)
    try:
        record_choice(spec.base.paths, ranked, spec.by)
    except OSError as error:
        text = f"the choice could not be recorded in {spec.base.paths.choice}: {error.strerror}"
        display.note(f"{text}; use --run to name the network")
    chosen = _with_test(ranked[0], ctx, display.note)
    return Retrained((chosen, *ranked[1:]), chosen, spec.by, failures, 0)


def _train(
    specs: Sequence[RetrainSpec], where: DeviceGroup | Placement, on_plan: OnPlan, display: TrainingDisplay, stop: Stop
) -> tuple[list[RunPlan], Outcome, TrainingContext]:
    """Trains the missing runs. Returns the plan of every run, and how the trained ones ended."""
    first, settings = specs[0], read_settings(specs[0].paths)
    with ExitStack() as closing:
        if first.seconds is None and first.flop is None:
            plans = [plan_run(spec, settings) for spec in specs]  # reports mistakes before any image is read
            executor = closing.enter_context(prepared_workers(first.paths, where, plans))
            ctx = open_context(first, where, display.decoding)
        else:
            for spec in specs:
                find_subject(first.paths, spec.which)
            ctx = open_context(first, where, display.decoding)
            if first.seconds is not None:
                plans = plan_timed_runs(specs, first.seconds, ctx, display.note)
            else:
                plans = [plan_compute(spec, first.flop or 0.0, ctx) for spec in specs]
            executor = closing.enter_context(prepared_workers(first.paths, where, plans))  # they would disturb the timing
        closing.enter_context(locked([plan.run.folder for plan in plans if not plan.has_ended]))
        judge = partial(finish, ctx=ctx, note=display.note, opens_test=len(plans) == 1)
        return plans, train_all(plans, ctx, executor, judge, on_plan, display, stop), ctx


def _networks(plans: Sequence[RunPlan]) -> tuple[Network, ...]:
    """The networks with at least one finished run."""
    return group((plan.run, read_card(plan.run)) for plan in plans if plan.run.card.is_file())


def _with_test(network: Network, ctx: TrainingContext, note: Callable[[str], None]) -> Network:
    """The network with its test scores. Evaluates on the official test set the runs that have none yet."""
    cards = dict(network.cards)
    for seed, card in network.cards.items():
        if ctx.dataset.test is not None and card.test_accuracy is None and not card.includes_test_labels:
            run = network.runs[seed]
            model, _ = load_network(run)
            cards[seed] = seal(run, with_test(card, run, model.to(ctx.device), ctx), ctx, note)
    return replace(network, cards=cards)
