"""`nas retrain`: trains networks on all labelled training images, and chooses among several on held-out images before the
official test set is evaluated."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from nas.device import with_its_threads
from nas.errors import ConfigError, StudyError
from nas.files import write_whole
from nas.interrupts import Stop
from nas.jobs.placement import DeviceGroup, Placement, device_group, devices_of, say_left_out
from nas.paths import TrialPaths
from nas.runs.card import ModelCard, read_card
from nas.runs.context import TrainingContext, locked, open_context
from nas.runs.finish import finish, seal, with_test
from nas.runs.load import load_network
from nas.runs.plan import RunPlan, plan_compute, plan_run, plan_timed_run
from nas.runs.select import Network, expected, find_subject, group, rank, record_choice
from nas.runs.statistics import Expectation
from nas.runs.train import Outcome, TrainingDisplay, prepared_workers, train_all
from nas.specs import HOLD_OUT, Criterion, RetrainSpec, SeveralSpec
from nas.study.settings import read_settings

OnPlan = Callable[[Sequence[RunPlan], int, TrainingContext], None]
"""Receives the runs to train, the number of runs that have ended, and the context. It is not called if nothing is left to
train."""


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
    plans, outcome, _ = _train([spec], devices, devices, on_plan, display, stop)
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
    devices = device_group(devices_of(spec.placement)[0], None)
    plans, outcome, ctx = _train(spec.each(), spec.placement, devices, on_plan, display, stop)
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
    specs: Sequence[RetrainSpec],
    where: DeviceGroup | Placement,
    devices: DeviceGroup,
    on_plan: OnPlan,
    display: TrainingDisplay,
    stop: Stop,
) -> tuple[list[RunPlan], Outcome[RunPlan], TrainingContext]:
    """Trains the missing runs. Returns the plan of every run, and how the trained ones ended."""
    paths, seconds, flop, settings = specs[0].paths, specs[0].seconds, specs[0].flop, read_settings(specs[0].paths)
    with ExitStack() as closing:
        if seconds is None and flop is None:
            plans = [plan_run(spec, settings) for spec in specs]  # reports mistakes before any image is read
            pending = [plan for plan in plans if not plan.has_ended]
            executor = closing.enter_context(prepared_workers(paths, where, len(pending)))
            ctx = open_context(specs[0], devices, display.decoding)
        else:
            for spec in specs:
                find_subject(paths, spec.which)
            ctx = open_context(specs[0], devices, display.decoding)
            plans = [
                plan_timed_run(spec, seconds, ctx, display.note) if seconds is not None else plan_compute(spec, flop or 0.0, ctx)
                for spec in specs
            ]
            pending = [plan for plan in plans if not plan.has_ended]
            executor = closing.enter_context(prepared_workers(paths, where, len(pending)))  # they would disturb the timing
        closing.enter_context(locked([plan.run.folder for plan in pending]))
        for plan in pending:
            ctx.devices.require_share(plan.train.batch_of(ctx.selected.train_images), plan.train.hardest)
            write_whole(plan.run.candidate, plan.candidate.to_json().encode())
        if pending:
            on_plan(pending, len(plans) - len(pending), ctx)
            say_left_out(specs[0].device, where.gpus if isinstance(where, Placement) else specs[0].gpus, display.note)
        alone = len(plans) == 1

        def judge(plan: RunPlan) -> None:
            finish(plan, ctx, display.note, opens_test=alone)

        outcome = train_all(pending, ctx, executor, judge, display, stop)
    return plans, outcome, ctx


def _networks(plans: Sequence[RunPlan]) -> tuple[Network, ...]:
    """The networks with at least one finished run."""
    return group((plan.run, read_card(plan.run)) for plan in plans if plan.run.card.is_file())


def _with_test(network: Network, ctx: TrainingContext, note: Callable[[str], None]) -> Network:
    """The network with its test scores. Evaluates on the official test set the runs that have none yet."""
    runs = []
    for run, card in network.runs:
        if ctx.dataset.test is not None and card.test_accuracy is None and not card.includes_test_labels:
            model, _ = load_network(run)
            card = seal(run, with_test(card, run, model.to(ctx.device), ctx), ctx, note)
        runs.append((run, card))
    return Network(tuple(runs))
