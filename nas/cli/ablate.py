"""`nas ablate`"""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.completion import complete_recipe, complete_subject
from nas.cli.options import (
    DataOption,
    DatasetOption,
    DeviceOption,
    JsonOption,
    LabelsOption,
    QuietOption,
    StudyOption,
    TrainSubsetOption,
    WorkersOption,
    absolute_path,
    parse_seeds,
)
from nas.cli.output import end_suspended, print_json, spread_data, table_lines
from nas.specs import HOLD_OUT, AblateSpec

if TYPE_CHECKING:
    from nas.display.terminal import TerminalDisplay
    from nas.runs.ablate import AblationPlan, Done
    from nas.runs.plan import Order
    from nas.train.checkpoint import EpochMetrics

HELP = """Train a network beside variants of it, and say what each choice is worth.

Every variant differs from the base in one value (--grid: all combinations); all are trained by the same seeds, and judged by
training images that were set aside. The same command goes on where it stopped; further values and seeds may be added to it.

\b
    nas ablate best --vary optimiser=sgd,adam --vary activation=relu,gelu --seeds 3
    nas ablate preset:resnet-443 --vary blocks=3-3-3,5-5-5 --vary channels=32-64-128,64-128-256
"""


def command(
    which: Annotated[
        str, typer.Argument(help="The base: `best`, a trial's number or preset:NAME.", autocompletion=complete_subject)
    ] = "best",
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            help="A field and its values: lr=0.05,0.1  kernel=3,5  blocks=2-2-2,3-3-3 (a value a stage)  "
            "policy=none,randaugment  blocks+channels=2-2-2+64-128-256,3-3-3+48-96-192 (together). Again for another one.",
            show_default=False,
        ),
    ] = None,
    fixed: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A field and its value in all variants: adam_lr=0.002. Again for another.", show_default=False
        ),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Every combination instead of one factor at a time.")] = False,
    seeds: Annotated[str, typer.Option(help="Trainings of each variant: how many, or a list such as 0,3,4.")] = "3",
    study: StudyOption = None,
    dataset: DatasetOption = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="searched, auto, fast, long, robust, or a YAML file: how the base is trained.", autocompletion=complete_recipe
        ),
    ] = "searched",
    epochs: Annotated[int | None, typer.Option(help="Epochs. [default: the recipe's, or the search's]")] = None,
    hold_out: Annotated[
        float | None, typer.Option(help="Share of the images that judges. [default: 0.1]", min=0, max=0.5, show_default=False)
    ] = None,
    train_subset: TrainSubsetOption = None,
    name: Annotated[
        str | None,
        typer.Option(help="Of the ablation, a folder under the study's. [default: of the network, the factors and the epochs]"),
    ] = None,
    data: DataOption = None,
    labels: LabelsOption = None,
    device: DeviceOption = "auto",
    gpus: Annotated[int | None, typer.Option(help="So many, a training each. [default: all; 0 is the CPU]")] = None,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    all_seeds = parse_seeds(seeds, 0)
    from nas.cli.whose import study_of_networks
    from nas.display.terminal import TerminalDisplay
    from nas.display.trainings import Together
    from nas.interrupts import Stop, suspended_by_signals
    from nas.paths import remember_study
    from nas.report.experiments import write_tables
    from nas.runs.ablate import run_ablation

    stop = Stop()
    with TerminalDisplay(quiet=quiet) as display:
        paths = study_of_networks("ablate", [which], study, dataset, data, labels, display)
        request = AblateSpec(
            paths,
            which,
            factors=tuple(vary or ()),
            fixed=tuple(fixed or ()),
            grid=grid,
            seeds=all_seeds,
            epochs=epochs,
            hold_out=HOLD_OUT if hold_out is None else hold_out,
            name=name,
            recipe=recipe,
            train_subset=train_subset,
            data_folder=absolute_path(data),
            labels=absolute_path(labels),
            device=device,
            gpus=gpus,
            workers=workers,
        )
        together = Together(display)

        def begin(plan: "AblationPlan") -> None:
            _announce(plan, display)
            together.begin({order.run: order.candidate.train.epochs for order in plan.pending})

        def epoch(order: "Order", metrics: "EpochMetrics") -> None:
            together.epoch(order.run, metrics)

        with suspended_by_signals(stop.request):
            done = run_ablation(request, begin, epoch, stop, display.decoding, display.note)
    remember_study(paths)
    written = write_tables(done.ablation, done.folder)
    if as_json:
        print_json(as_data(done))
    else:
        print("\n".join(_lines(done)))
        print(f"Written: {written}, table.tex, table.csv, runs.csv.   Next:  nas report --study {paths.name}")
    if done.suspended:
        end_suspended(done.suspended)
    if done.failures:
        sys.exit(1)


def _announce(plan: "AblationPlan", display: "TerminalDisplay") -> None:
    from nas.report.words import count_text, number_text

    definition = plan.definition
    variants = sum(variant.same_as is None for variant in definition.variants)
    seeds = ", ".join(map(str, definition.seeds))
    display.say(f"ablation {plan.folder.name} of {definition.subject}: {variants} networks by seed {seeds}")
    for variant in definition.variants:
        over = "" if variant.over is None else f"  over budget: {variant.over}"
        same = "" if variant.same_as is None else f"  trains the same network as {variant.same_as}"
        arch = variant.candidate.arch.one_line()
        display.say(f"  {variant.title}:  {count_text(variant.params)} parameters, {arch}{over}{same}")
    there = f", {plan.there} are there" if plan.there else ""
    trainings = number_text(len(plan.pending), "training")
    display.say(f"{trainings}{there}, on {plan.train_images:,} images; {plan.held_out:,} are set aside and judge")
    for warning in plan.warnings:
        display.note(f"Warning: {warning}")


def _lines(done: "Done") -> list[str]:
    from nas.report.experiments import ablation_sentences, effects_table, variants_table

    ablation = done.ablation
    base, *rest = ablation_sentences(ablation)
    table = variants_table(ablation)
    lines = [base, "", *table_lines(table.columns, table.rows), "(mean ± deviation over the seeds; differences in points)"]
    if effects := effects_table(ablation):
        lines += ["", "In the mean over the grid:", *table_lines(effects.columns, effects.rows)]
    return [*lines, "", *rest]


def as_data(done: "Done") -> dict[str, object]:
    ablation = done.ablation
    return {
        "ablation": ablation.name,
        "folder": str(done.folder),
        "ended": ablation.ended,
        "expected": ablation.expected,
        "judged_images": ablation.judged_images,
        "metric": ablation.metric,
        "variants": [
            {
                **row.variant.model_dump(mode="json", exclude={"candidate"}),
                "seeds": sorted(row.cards),
                "diverged": list(row.diverged),
                "score": spread_data(row.score),
                "difference": spread_data(row.difference),
                "shifted": spread_data(row.shifted),
                "shifted_difference": spread_data(row.shifted_difference),
                "seconds": row.seconds,
            }
            for row in ablation.rows
        ],
        "effects": [
            {"factor": one.factor, "level": one.level, "reference": one.reference, "difference": spread_data(one.difference)}
            for one in ablation.effects
        ],
        "failures": done.failures,
    }
