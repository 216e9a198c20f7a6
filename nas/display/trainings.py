"""How retrainings, ablations and baselines show themselves: the plan, each epoch, how long all that is left will take."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from nas.budget import count_params
from nas.display.terminal import TerminalDisplay, printed_lines
from nas.interrupts import Stop, suspended_by_signals
from nas.report.words import count_text, number_text, time_text
from nas.runs.ablate import Done as AblationDone
from nas.runs.ablate import run_ablation, warnings_of
from nas.runs.ablate_design import Definition
from nas.runs.baseline import BaselinePlan, train_baselines
from nas.runs.baseline import Done as BaselinesDone
from nas.runs.context import TrainingContext
from nas.runs.plan import Plan, RunPlan, judging_passes
from nas.runs.retrain import Retrained, retrain, retrain_several
from nas.runs.train import TrainingDisplay
from nas.specs import AblateSpec, BaselineSpec, RetrainSpec, SeveralSpec
from nas.train.checkpoint import EpochMetrics, read_curve
from nas.train.loop import EpochProgress

Spec = TypeVar("Spec")
Result = TypeVar("Result")
Train = Callable[[Spec, Callable[..., None], TrainingDisplay, Stop], Result]


class Trainings(TrainingDisplay):
    """Of one command, one after another or together, and what judges them at the end."""

    def __init__(self, display: TerminalDisplay) -> None:
        self.display = display

    def run(self, train: Train[Spec, Result], spec: Spec, on_plan: Callable[..., None]) -> Result:
        """Until all have ended, or a signal suspends them."""
        stop = Stop()
        with suspended_by_signals(stop.request):
            return train(spec, on_plan, self, stop)

    def decoding(self, items: Iterable, what: str, count: int) -> Iterable:
        return self.display.decoding(items, what, count)

    def note(self, text: str) -> None:
        self.display.note(text)

    def begin(self, pending: Sequence[Plan], passes: int) -> None:
        """Epochs that a run has had already count. `passes`: forward passes of an image by which all of them are judged."""
        self.epochs = {plan.name: plan.train.epochs for plan in pending}
        self.done: dict[str, float] = {plan.name: len(read_curve(plan.run.metrics)) for plan in pending}
        self.passes = passes
        self.said = dict.fromkeys(self.epochs, "")  # of the last epoch of each
        self.first: tuple[float, float] | None = None  # when the first was heard of, and the epochs of all by then

    def on_epoch(self, plan: Plan, metrics: EpochMetrics) -> None:
        name = plan.name
        self.said[name] = f"loss {metrics.train_loss:.4f}  training accuracy {metrics.train_accuracy:.2%}"
        if isinstance(plan, RunPlan):
            self.display.track_epoch(f"retrained-{name}", plan.candidate, metrics)
        self._show(name, metrics.epoch, 1.0, metrics.images_per_second)

    def on_progress(self, plan: Plan, progress: EpochProgress) -> None:
        self._show(plan.name, progress.epoch, progress.share, progress.images_per_second)

    def on_printed(self, name: str, text: str) -> None:
        self.display.say("\n".join(printed_lines(name, text)))

    def _show(self, name: str, epoch: int, share: float, images_per_second: float | None) -> None:
        self.done[name] = max(epoch - 1 + share, self.done[name])
        alone = len(self.epochs) == 1
        text = [self.said[name], f"{images_per_second:,.0f} images/s" if images_per_second else "", self._left(images_per_second)]
        text[2] += " of all" if text[2] and not alone else ""
        self.display.training(epoch, self.epochs[name], "  ".join(filter(None, text)), "" if alone else name, share)

    def _left(self, images_per_second: float | None) -> str:
        """To train what is left, as fast as until now, and to judge: a forward pass takes about a third of a training step."""
        now, done = time.monotonic(), sum(self.done.values())
        began, before = self.first = self.first or (now, done)
        if done == before or not images_per_second:
            return ""
        seconds = (now - began) / (done - before) * (sum(self.epochs.values()) - done) + self.passes / (3 * images_per_second)
        return f"{time_text(seconds)} left"


def _plan_text(plan: RunPlan, ctx: TrainingContext) -> str:
    held_out = f", {ctx.held_out:,} held out" if ctx.held_out else ""
    params = count_text(count_params(plan.candidate.arch, ctx.dataset.shape))
    return (
        f"{plan.subject.title}: {params} parameters, {plan.candidate.arch.one_line()}\n"
        f"training {number_text(plan.train.epochs, 'epoch')} with recipe {plan.recipe!r} on {ctx.selected.train_images:,} "
        f"images{held_out}, on {ctx.devices.name} in {ctx.precision.name}"
    )


def _there(plans: Sequence[Plan], pending: Sequence[Plan]) -> str:
    there = len(plans) - len(pending)
    return f", {there} are done" if there else ""


def _trainings_text(plans: Sequence[Plan], pending: Sequence[Plan], ctx: TrainingContext) -> str:
    return f"{number_text(len(pending), 'training')}{_there(plans, pending)}, on {ctx.selected.train_images:,} images"


def _say_more(display: TerminalDisplay, counts: str, warnings: Iterable[str] = ()) -> None:
    """`counts`: of a folder's images; empty for other data."""
    if counts:
        display.say(counts)
    for warning in warnings:
        display.note(f"Warning: {warning}")


def show_retraining(spec: RetrainSpec, display: TerminalDisplay) -> Retrained:
    """Of one network."""
    trainings, begun = Trainings(display), False

    def on_plan(plans: Sequence[RunPlan], pending: Sequence[RunPlan], ctx: TrainingContext) -> None:
        nonlocal begun
        begun = True
        display.say(f"study {spec.paths.name}, {_plan_text(plans[0], ctx)}")
        _say_more(display, ctx.dataset.counts, plans[0].train.warnings())
        trainings.begin(plans, judging_passes(ctx.held_out + ctx.test_images, plans[0].tta))

    done = trainings.run(retrain, spec, on_plan)
    if done.best is not None and not begun:
        display.say(
            f"{done.best[0].folder} was already trained. To train another network, use another --seed, --epochs or --recipe."
        )
    return done


def show_retrainings(spec: SeveralSpec, display: TerminalDisplay) -> Retrained:
    """Of several networks."""
    trainings = Trainings(display)

    def on_plan(plans: Sequence[RunPlan], pending: Sequence[RunPlan], ctx: TrainingContext) -> None:
        display.say(f"study {spec.base.paths.name}: {len(pending)} trainings{_there(plans, pending)}")
        for plan in {plan.subject.title: plan for plan in pending}.values():
            display.say(_plan_text(plan, ctx))
        _say_more(display, ctx.dataset.counts)
        passes = sum(judging_passes(ctx.held_out, plan.tta) for plan in pending)
        passes += len(spec.seeds) * judging_passes(ctx.test_images, pending[0].tta)  # of the one that is chosen
        trainings.begin(pending, passes)

    return trainings.run(retrain_several, spec, on_plan)


def show_ablation(spec: AblateSpec, display: TerminalDisplay) -> AblationDone:
    trainings = Trainings(display)

    def on_plan(
        name: str, definition: Definition, plans: Sequence[RunPlan], pending: Sequence[RunPlan], ctx: TrainingContext
    ) -> None:
        variants = sum(variant.same_as is None for variant in definition.variants)
        seeds = ", ".join(map(str, definition.seeds))
        display.say(f"ablation {name} of {definition.subject}: {variants} networks by seed {seeds}")
        for variant in definition.variants:
            over = "" if variant.over is None else f"  over budget: {variant.over}"
            same = "" if variant.same_as is None else f"  trains the same network as {variant.same_as}"
            arch = variant.candidate.arch.one_line()
            display.say(f"  {variant.title}:  {count_text(variant.params)} parameters, {arch}{over}{same}")
        display.say(f"{_trainings_text(plans, pending, ctx)}; {ctx.held_out:,} are held out")
        _say_more(display, ctx.dataset.counts, warnings_of(definition))
        trainings.begin(pending, sum(judging_passes(ctx.held_out, plan.tta) for plan in pending))

    return trainings.run(run_ablation, spec, on_plan)


def show_baselines(spec: BaselineSpec, display: TerminalDisplay) -> BaselinesDone:
    trainings = Trainings(display)

    def on_plan(plans: Sequence[BaselinePlan], pending: Sequence[BaselinePlan], ctx: TrainingContext) -> None:
        first = plans[0].definition
        known = {plan.definition.network.name: plan.definition.network for plan in plans}
        seeds = ", ".join(map(str, spec.seeds))
        display.say(
            f"study {spec.paths.name}: {number_text(len(known), 'known network')} with seed {seeds}, trained like "
            f"{first.like}: {number_text(first.train.epochs, 'epoch')} with recipe {first.recipe!r}"
        )
        for network in known.values():
            macs = "MACs unknown" if network.macs is None else f"{count_text(network.macs)} MACs"
            over = "" if network.over_text is None else f"  over budget by {network.over_text}"
            display.say(f"  {network.name}:  {network.params:,} parameters, {macs}{over}")
            if network.uncounted:
                display.say(f"    its MACs do not include {', '.join(network.uncounted)}, because there is no rule for them")
            if network.unknown:
                display.say(f"    its {', '.join(network.unknown)} could not be compared with the budget")
        held_out = f"; {ctx.held_out:,} are held out" if ctx.held_out else ""
        test = ". The official test set is evaluated once, at the end of each" if ctx.test_images else ""
        display.say(f"{_trainings_text(plans, pending, ctx)}{held_out}, on {ctx.devices.name} in {ctx.precision.name}{test}")
        _say_more(display, ctx.dataset.counts, first.train.warnings())
        passes = sum(judging_passes(ctx.held_out + ctx.test_images, plan.definition.tta) for plan in pending)
        trainings.begin(pending, passes)

    return trainings.run(train_baselines, spec, on_plan)
