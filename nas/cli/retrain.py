"""`nas retrain`"""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.completion import complete_criterion, complete_recipe, complete_subject
from nas.cli.options import (
    DataOption,
    DatasetOption,
    DeviceOption,
    JsonOption,
    LabelsOption,
    LogOption,
    QuietOption,
    StudyOption,
    TrainSubsetOption,
    WorkersOption,
    absolute_path,
    parse_duration,
    parse_seeds,
)
from nas.cli.output import end_suspended, print_json, table_lines
from nas.specs import HOLD_OUT, Criterion, RetrainSpec, SeveralSpec

if TYPE_CHECKING:
    from nas.display.terminal import TerminalDisplay
    from nas.interrupts import Stop
    from nas.paths import StudyPaths
    from nas.runs.card import ModelCard
    from nas.runs.choice import Network, Several
    from nas.runs.retrain import RetrainPlan

HELP = """Train networks of a study on its labelled training data for the last time, longer than the search did."""


TABLE_COLUMNS = ("network", "parameters", "seeds", "held out", "held out, shifted", "in the search", "")


def command(
    which: Annotated[
        list[str] | None,
        typer.Argument(
            help="`best`, `top:5`, numbers or preset:NAME, one or several. [default: best]",
            autocompletion=complete_subject,
            show_default=False,
        ),
    ] = None,
    study: StudyOption = None,
    dataset: DatasetOption = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="searched, auto, fast, long, robust, or a YAML file: how it is trained. auto goes by the length.",
            autocompletion=complete_recipe,
        ),
    ] = "searched",
    epochs: Annotated[int | None, typer.Option(help="Epochs. [default: the recipe's, or four times the search's]")] = None,
    time: Annotated[
        str | None, typer.Option(help="As many epochs as take so long, such as 8m, for each training, by timing some steps.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed trains another network.", min=0)] = 0,
    seeds: Annotated[str | None, typer.Option(help="Several trainings of each: how many, or a list such as 0,3,4.")] = None,
    hold_out: Annotated[
        float | None,
        typer.Option(help="Share of the images that judges instead. [default: 0; 0.1 for several networks]", min=0, max=0.5),
    ] = None,
    choose_by: Annotated[
        str,
        typer.Option(help="clean or shifted: the held-out images as they are, or corrupted.", autocompletion=complete_criterion),
    ] = "clean",
    include_test_labels: Annotated[
        bool,
        typer.Option("--include-test-labels", help="Train on the official test set too; no test accuracy is claimed then."),
    ] = False,
    train_subset: TrainSubsetOption = None,
    data: DataOption = None,
    labels: LabelsOption = None,
    device: DeviceOption = "auto",
    gpus: Annotated[
        int | None,
        typer.Option(help="One training: so many together, processes with --device cpu. Several: one each. 0 is the CPU."),
    ] = None,
    workers: WorkersOption = None,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="By torch.compile, which takes a while first. [default: on CUDA, one GPU]"),
    ] = None,
    log: LogOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    seconds, all_seeds = parse_duration(time), parse_seeds(seeds, seed)
    words = which or ["best"]
    from nas.cli.whose import study_of_networks
    from nas.display.terminal import TerminalDisplay
    from nas.errors import ConfigError, choices_sentence
    from nas.interrupts import Stop
    from nas.jobs.placement import Placement
    from nas.paths import remember_study
    from nas.runs.choice import CRITERIA
    from nas.runs.select import find_names

    by = next((name for name in CRITERIA if name == choose_by), None)
    if by is None:
        raise ConfigError(f"--choose-by {choose_by!r} is no criterion.{choices_sentence(choose_by, CRITERIA)}")
    stop = Stop()
    with TerminalDisplay(quiet=quiet, log=log) as display:
        paths = study_of_networks("retrain", words, study, dataset, data, labels, display)
        names = find_names(paths, words)
        if hold_out is None:
            hold_out = HOLD_OUT if len(names) > 1 or by == "shifted" else 0.0
        base = RetrainSpec(
            paths=paths,
            epochs=epochs,
            recipe=recipe,
            seconds=seconds,
            include_test_labels=include_test_labels,
            train_subset=train_subset,
            hold_out=hold_out,
            data_folder=absolute_path(data),
            labels=absolute_path(labels),
            device=device,
            compiled=compiled,
        )
        display.track(paths)
        if len(names) == len(all_seeds) == 1 and workers is None:
            result = retrain_one(replace(base, which=names[0], seed=all_seeds[0], gpus=gpus), display, stop)
        else:
            placement = Placement(device, gpus=gpus, workers=workers)
            result = _several(SeveralSpec(base, names, all_seeds, placement, by), display, stop)
    remember_study(paths)
    if result.suspended:
        end_suspended(result.suspended)
    if as_json:
        print_json(_as_data(result))
    else:
        print("\n".join(_lines(result, paths)))
    if result.failures:
        sys.exit(1)


def _plan_text(plan: "RetrainPlan") -> str:
    from nas.report.words import count_text

    order = plan.order
    epochs = order.candidate.train.epochs
    held_out = f", {plan.held_out:,} held out" if plan.held_out else ""
    return (
        f"{order.subject.title}: {count_text(plan.params)} parameters, {order.candidate.arch.one_line()}\n"
        f"training {epochs} epoch{'s' * (epochs > 1)} by recipe {order.recipe!r} on {plan.train_images:,} images{held_out}, "
        f"on {plan.device} in {plan.precision}"
    )


def retrain_one(request: "RetrainSpec", display: "TerminalDisplay", stop: "Stop") -> "Several":
    """In this process."""
    from nas.interrupts import suspended_by_signals
    from nas.report.words import time_text
    from nas.runs.choice import Network, Several
    from nas.runs.retrain import retrain
    from nas.train.checkpoint import EpochMetrics

    begun: list[RetrainPlan] = []

    def on_start(plan: "RetrainPlan") -> None:
        begun.append(plan)
        display.say(f"study {request.paths.name}, {_plan_text(plan)}")
        for warning in plan.order.candidate.train.warnings():
            display.note(f"Warning: {warning}")

    def on_epoch(metrics: EpochMetrics) -> None:
        order = begun[0].order
        total = order.candidate.train.epochs
        left = time_text(metrics.seconds * (total - metrics.epoch))
        text = f"loss {metrics.train_loss:.4f}  training accuracy {metrics.train_accuracy:.2%}"
        if display.tracker is not None:
            display.tracker.epoch(f"retrained-{order.run.folder.name}", order.candidate, metrics)
        display.training(metrics.epoch, total, f"{text}  {metrics.images_per_second:,.0f} images/s  {left} left")

    with suspended_by_signals(stop.request):
        done = retrain(request, on_start, on_epoch, lambda: stop.requested, display.decoding, display.note)
    if done.card is None:
        return Several((), None, "clean", {}, suspended=1)
    if done.already_there:
        display.say(f"{done.run.folder} was trained before; another --seed, --epochs or --recipe trains another network.")
    network = Network(((done.run, done.card),))
    return Several((network,), network, "clean", {}, suspended=0)


def _several(request: "SeveralSpec", display: "TerminalDisplay", stop: "Stop") -> "Several":
    """Over workers."""
    from collections.abc import Sequence

    from nas.interrupts import suspended_by_signals
    from nas.report.words import time_text
    from nas.runs.choice import retrain_several
    from nas.runs.plan import Order
    from nas.train.checkpoint import EpochMetrics

    def on_plan(plans: Sequence["RetrainPlan"], there: int) -> None:
        display.say(f"study {request.base.paths.name}: {len(plans)} trainings" + (f", {there} are there" if there else ""))
        for plan in {plan.order.subject.title: plan for plan in plans}.values():
            display.say(_plan_text(plan))

    def on_epoch(order: Order, metrics: EpochMetrics) -> None:
        total, name = order.candidate.train.epochs, order.run.folder.name
        left = time_text(metrics.seconds * (total - metrics.epoch))
        if display.tracker is not None:
            display.tracker.epoch(f"retrained-{name}", order.candidate, metrics)
        text = f"training accuracy {metrics.train_accuracy:.2%}  {metrics.images_per_second:,.0f} images/s  {left} left"
        display.training(metrics.epoch, total, text, name)

    with suspended_by_signals(stop.request):
        return retrain_several(request, on_plan, on_epoch, stop, display.decoding, display.note)


def _as_data(result: "Several") -> dict[str, object]:
    runs = [{"run": str(run.folder), **card.model_dump(mode="json")} for network in result.networks for run, card in network.runs]
    return {"runs": runs, "best": None if result.best is None else str(result.best[0].folder), "failures": result.failures}


def _lines(result: "Several", paths: "StudyPaths") -> list[str]:
    from nas.predict.submission import knows_test_set
    from nas.report.words import time_text

    lines: list[str] = []
    if sum(len(network.runs) for network in result.networks) > 1:
        lines += _table(result)
    if result.best is None:
        return [*lines, "Nothing chose among them: --hold-out 0.1 sets images aside that do."]
    run, card = result.best
    lines.append(f"Trained on {card.train_images:,} images in {time_text(card.seconds)}: {run.folder}")
    lines += _expected(card)
    test = "" if knows_test_set(paths, card) else "TEST "
    what = "    (TEST: a folder of images, a pickle, a .npy or .npz file)" if test else ""
    return [*lines, f"Next:  nas submit {test}--study {paths.name} --run {run.folder.name}{what}"]


def _table(result: "Several") -> list[str]:
    """A line a network, the best marked."""
    from nas.config import METRIC_WORDS
    from nas.report.words import count_text

    def score(network: "Network", by: "Criterion") -> str:
        mean, deviation = network.mean(by), network.deviation(by)
        if mean is None:
            return "–"
        return f"{mean:.2%}" + ("" if deviation is None else f" ± {100 * deviation:.2f}")

    rows = []
    for network in result.networks:
        card = network.card
        searched = "–" if card.search_accuracy is None else f"{card.search_accuracy:.2%}"
        mark = "← best" if network is result.chosen else ""
        rows.append(
            (
                card.subject,
                count_text(card.params),
                str(len(network.runs)),
                score(network, "clean"),
                score(network, "shifted"),
                searched,
                mark,
            )
        )
    metric = result.networks[0].card.metric
    remarks = ["mean ± standard deviation over the seeds"] if any(len(n.runs) > 1 for n in result.networks) else []
    remarks += [] if metric == "accuracy" else [f"by {METRIC_WORDS[metric]}"]
    return [*table_lines(TABLE_COLUMNS, rows), *([f"({', '.join(remarks)})"] if remarks else [])]


def _expected(card: "ModelCard") -> list[str]:
    """What may be expected of it, and by what that was measured."""
    from nas.config import METRIC_WORDS
    from nas.report.summary import grouped_remark
    from nas.runs.statistics import accuracy_interval

    def between(accuracy: float, images: float) -> str:
        low, high = accuracy_interval(accuracy, images)
        return f"{accuracy:.2%} ({100 * low:.1f}–{100 * high:.1f})"

    lines = []
    if card.test_accuracy is not None and card.test_accuracy_tta is not None and card.test_images is not None:
        averaged = f", {card.test_accuracy:.2%} without averaging over {card.tta}" if card.tta != "none" else ""
        shift = "" if card.test_shifted_accuracy is None else f"; under a simulated shift {card.test_shifted_accuracy:.2%}"
        lines.append(
            f"Official test set, opened once: {between(card.test_accuracy_tta, card.test_images)} of "
            f"{card.test_images:,}{averaged}{shift}"
        )
        if card.metric != "accuracy" and card.test_balanced_accuracy is not None and card.test_macro_f1 is not None:
            lines.append(f"On it, balanced accuracy {card.test_balanced_accuracy:.2%}, macro F1 {card.test_macro_f1:.2%}")
    elif card.includes_test_labels:
        lines.append("It was trained on the official test labels too, so that no test accuracy can be claimed.")
    else:
        lines.append("The data set has no labelled test images, so that no test accuracy can be claimed.")
    if (held_out := card.held_out) is not None:
        lines.append(
            f"Expected, by {held_out.images:,} images held out: {between(held_out.accuracy, held_out.counted)}; "
            f"under a simulated shift {between(held_out.shifted_accuracy, held_out.shifted_counted)}"
        )
        if card.metric != "accuracy":
            word = METRIC_WORDS[card.metric]
            lines.append(f"On them, {word} {held_out.clean:.2%}; under that shift {held_out.shifted:.2%}")
        if remark := grouped_remark(card):
            lines.append(remark)
    return lines
