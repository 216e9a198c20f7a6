"""`nas baseline`"""

import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.completion import complete_dataset, complete_recipe, complete_subject
from nas.cli.options import (
    DataOption,
    DeviceOption,
    JsonOption,
    LabelsOption,
    QuietOption,
    StudyOption,
    TrainSubsetOption,
    absolute_path,
    parse_seeds,
    parse_timeout,
)
from nas.cli.output import end_suspended, print_json, printed_lines, spread_data, table_lines
from nas.errors import ConfigError
from nas.specs import BaselineSpec

if TYPE_CHECKING:
    from nas.display.terminal import TerminalDisplay
    from nas.interrupts import Stop
    from nas.runs.baseline import BaselineOrder, BaselinePlan, Comparison, Done, Row
    from nas.train.checkpoint import EpochMetrics

HELP = """Train known networks by the recipe of a study's, on the same images, as rows to compare with.

A network is torchvision:resnet18, or a class in a file of yours, net.py:Net; arguments stand in the name, quoted for the shell:
'net.py:Net(width=64)'. It may be over the study's budget, and is marked so. None is ever submitted or exported.

\b
    nas baseline torchvision:resnet18 torchvision:mobilenet_v3_small --epochs 30
    nas baseline 'net.py:Net(width=64)' --like preset:resnet-443 --dataset cifar10 --hold-out 0.1 --seeds 3

The same command goes on where it stopped, and trains nothing that is there. A file that has changed is another network, trained
beside the earlier one. It runs with your rights: first in a process of its own with a time limit, then, to train, in this one.
"""


def command(
    networks: Annotated[
        list[str] | None, typer.Argument(help="FILE.py:CLASS or torchvision:NAME, one or several.", show_default=False)
    ] = None,
    study: StudyOption = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="With --like preset:NAME, of no study: digits, cifar10, cifar100, fashion-mnist, svhn, folder.",
            autocompletion=complete_dataset,
        ),
    ] = None,
    like: Annotated[
        str,
        typer.Option(
            help="The network whose recipe it is: `best`, a trial's number or preset:NAME.", autocompletion=complete_subject
        ),
    ] = "best",
    recipe: Annotated[
        str,
        typer.Option(
            help="searched, auto, fast, long, robust, or a YAML file: how that network would be retrained.",
            autocompletion=complete_recipe,
        ),
    ] = "searched",
    epochs: Annotated[
        int | None, typer.Option(help="Epochs. [default: the recipe's, or four times the search's, as in nas retrain]")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Trainings of each: how many, or a list such as 0,3,4.")] = "1",
    hold_out: Annotated[
        float, typer.Option(help="Share of the training images that judges instead, as in nas retrain.", min=0, max=0.5)
    ] = 0.0,
    train_subset: TrainSubsetOption = None,
    data: DataOption = None,
    labels: LabelsOption = None,
    device: DeviceOption = "auto",
    timeout: Annotated[str, typer.Option(help="For the code of a network to build it and train it a step: 90s, 5m.")] = "60s",
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    all_seeds, seconds = parse_seeds(seeds, 0), parse_timeout(timeout)
    if not networks:
        raise ConfigError("no network is named", hint="nas baseline torchvision:resnet18, or a class of yours, net.py:Net")
    from nas.cli.whose import study_of_networks
    from nas.display.terminal import TerminalDisplay
    from nas.interrupts import Stop
    from nas.paths import remember_study

    with TerminalDisplay(quiet=quiet) as display:
        paths = study_of_networks(f"baseline {shlex.join(networks)} --like", [like], study, dataset, data, labels, display)
        request = BaselineSpec(
            paths=paths,
            networks=tuple(networks),
            like=like,
            recipe=recipe,
            epochs=epochs,
            seeds=all_seeds,
            hold_out=hold_out,
            train_subset=train_subset,
            data_folder=absolute_path(data),
            labels=absolute_path(labels),
            device=device,
            timeout=seconds,
        )
        done = train_shown(request, display, Stop())
    remember_study(paths)
    if as_json:
        print_json(as_data(done))
    else:
        print("\n".join(_lines(done, paths.name)))
    if done.suspended:
        end_suspended(done.suspended)
    if done.failures:
        sys.exit(1)


def train_shown(request: "BaselineSpec", display: "TerminalDisplay", stop: "Stop") -> "Done":
    """In this process; a signal suspends it."""
    from nas.display.trainings import Together
    from nas.interrupts import suspended_by_signals
    from nas.runs.baseline import train_baselines

    together = Together(display)

    def begin(plan: "BaselinePlan") -> None:
        _announce(plan, request, display)
        together.begin({order.run: order.definition.train.epochs for order in plan.pending})

    def epoch(order: "BaselineOrder", metrics: "EpochMetrics") -> None:
        together.epoch(order.run, metrics)

    def printed(name: str, text: str) -> None:
        display.say("\n".join(printed_lines(name, text)))

    with suspended_by_signals(stop.request):
        return train_baselines(request, begin, epoch, stop, display.decoding, display.note, printed)


def _announce(plan: "BaselinePlan", request: "BaselineSpec", display: "TerminalDisplay") -> None:
    from nas.report.words import count_text, number_text

    say, first = display.say, plan.orders[0].definition
    known = {order.definition.network.name: order.definition.network for order in plan.orders}
    seeds = ", ".join(str(seed) for seed in request.seeds)
    say(
        f"study {request.paths.name}: {number_text(len(known), 'known network')} by seed {seeds}, as {first.like} would "
        f"be trained, {number_text(first.train.epochs, 'epoch')} by recipe {first.recipe!r}"
    )
    for network in known.values():
        macs = "multiply-adds unknown" if network.macs is None else f"{count_text(network.macs)} multiply-adds"
        over = "" if network.over_text is None else f"  over budget by {network.over_text}"
        say(f"  {network.name}:  {network.params:,} parameters, {macs}{over}")
        if network.unknown:
            say(f"    its {', '.join(network.unknown)} could not be held against the budget")
    there = f", {len(plan.orders) - len(plan.pending)} are there" if len(plan.pending) < len(plan.orders) else ""
    held_out = f"; {plan.held_out:,} are set aside and judge" if plan.held_out else ""
    test = ". The official test set is opened once, at the end of each" if plan.test_images else ""
    say(
        f"{number_text(len(plan.pending), 'training')}{there}, on {plan.train_images:,} images{held_out}, on {plan.device} "
        f"in {plan.precision}{test}"
    )
    for warning in first.train.warnings():
        display.note(f"Warning: {warning}")


def _lines(done: "Done", study: str) -> list[str]:
    from nas.report.experiments import comparison_sentences, networks_table

    if done.comparison is None:
        return ["No training has ended yet."]
    table = networks_table(done.comparison)
    first, *rest = comparison_sentences(done.comparison)
    remark = "(mean ± deviation over the seeds)"
    lines = [first, "", *table_lines(table.columns, table.rows), remark, "", *rest]
    return [*lines, *(f"Written: {run.folder}" for run in done.runs), f"Next:  nas report --study {study}"]


def as_data(done: "Done") -> dict[str, object]:
    return {
        "runs": [str(run.folder) for run in done.runs],
        "comparison": None if done.comparison is None else comparison_data(done.comparison),
        "failures": done.failures,
        "suspended": done.suspended,
    }


def comparison_data(comparison: "Comparison") -> dict[str, Any]:
    return {
        "like": comparison.like,
        "recipe": comparison.recipe,
        "train": comparison.train.model_dump(mode="json"),
        "train_images": comparison.train_images,
        "held_out_images": comparison.held_out,
        "test_images": comparison.test,
        "metric": comparison.metric,
        "own": [_row_data(row) for row in comparison.own],
        "known": [_row_data(row) for row in comparison.known],
        "differences": [
            {"network": one.known.title, "to": one.ours.title, "on_test": one.on_test, **spread_data(one.spread)}
            for one in comparison.differences
        ],
    }


def _row_data(row: "Row") -> dict[str, Any]:
    return {
        "network": row.title,
        "params": row.params,
        "macs": row.macs,
        "over": row.over,
        "seeds": sorted(row.cards),
        "diverged": list(row.diverged),
        "held_out": spread_data(row.held_out),
        "shifted": spread_data(row.shifted),
        "test": spread_data(row.test),
        "seconds": row.seconds,
        "runs": list(row.runs),
    }
