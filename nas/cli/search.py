"""`nas search`"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli.completion import (
    complete_balance,
    complete_channels,
    complete_dataset,
    complete_metric,
    complete_pruner,
    complete_resize,
    complete_sampler,
    complete_space,
    complete_start,
)
from nas.cli.options import DataOption, DeviceOption, JsonOption, LogOption, QuietOption, absolute_path, parse_duration
from nas.cli.output import print_json
from nas.specs import SearchSpec

if TYPE_CHECKING:
    from nas.study.run import SearchResult

HELP = """Draw networks, prune those over budget before training, train the rest with early pruning.

The same command run again goes on where it stopped: --trials counts the trained networks of all runs of a study.
"""


def command(
    space: Annotated[
        str | None, typer.Option(help="A shipped space or a YAML file. [default: resnet]", autocompletion=complete_space)
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="digits, cifar10, cifar100, fashion-mnist, svhn or folder. [default: cifar10]", autocompletion=complete_dataset
        ),
    ] = None,
    data: DataOption = None,
    study: Annotated[str | None, typer.Option(help="Its name, a folder under studies/. [default: SPACE-DATASET]")] = None,
    trials: Annotated[int, typer.Option(help="Networks to train, over all runs of the study.")] = 100,
    timeout: Annotated[str | None, typer.Option(help="Suspend after this time, such as 90s, 15m or 1h30m.")] = None,
    finalists: Annotated[
        int | None,
        typer.Option(help="Train the best so many again at the end, longer; 0 is none. [default: for a fifth of the cost]"),
    ] = None,
    finalist_epochs: Annotated[int | None, typer.Option(help="Of each of these trainings. [default: 1.5 times --epochs]")] = None,
    finalist_seeds: Annotated[int | None, typer.Option(help="Trainings of each. [default: 2]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split, the draws and the trainings. [default: 0]", min=0)] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each training. [default: the space's]")] = None,
    max_params: Annotated[str | None, typer.Option(help="The budget, such as 5M or 300k. [default: the space's]")] = None,
    train_subset: Annotated[int | None, typer.Option(help="Train on so many images only, stratified.", min=1)] = None,
    labels: Annotated[
        Path | None, typer.Option(help="A CSV or Parquet file with the label of each image under --data.", show_default=False)
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Its paths of images, within --data. [default: image]")] = None,
    label_column: Annotated[str | None, typer.Option(help="Its labels. [default: label]")] = None,
    group_column: Annotated[
        str | None, typer.Option(help="Its groups, such as patients: none is on both sides of the split.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", "--size", help="Resize `folder`'s images. [default: the first one's shorter side]", min=8),
    ] = None,
    resize: Annotated[
        str | None, typer.Option(help="To a square: squash, crop or pad. [default: squash]", autocompletion=complete_resize)
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="grey or rgb. [default: the first image's]", autocompletion=complete_channels)
    ] = None,
    skip_bad_images: Annotated[
        bool, typer.Option("--skip-bad-images", help="Leave out what cannot be read, has no label or no file.")
    ] = False,
    warm_start: Annotated[
        str | None,
        typer.Option(
            help="Begin a new study with `presets`, `preset:NAME` or `study:NAME`, where they fit.", autocompletion=complete_start
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="tpe, random, gp, qmc, cmaes or evolution. [default: the space's, else tpe]", autocompletion=complete_sampler
        ),
    ] = None,
    pruner: Annotated[
        str | None,
        typer.Option(
            help="asha, hyperband, median, percentile, patient or none. [default: the space's, else asha]",
            autocompletion=complete_pruner,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="What judges networks: accuracy, balanced_accuracy or macro_f1. [default: the space's, else accuracy]",
            autocompletion=complete_metric,
        ),
    ] = None,
    class_balance: Annotated[
        str | None,
        typer.Option(
            help="For classes of few images: none, loss or sampling. [default: the space's, else none]",
            autocompletion=complete_balance,
        ),
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs to use, one worker each; 0 is the CPU. [default: all visible]")] = None,
    workers_per_gpu: Annotated[int | None, typer.Option(help="Several on each GPU, which pays for small networks.")] = None,
    workers: Annotated[int | None, typer.Option(help="On the CPU: so many, the cores shared out. [default: 1]")] = None,
    device: DeviceOption = "auto",
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Workers on a Ray cluster: host:port, `auto` for a running one, or `local`."),
    ] = None,
    gpus_per_worker: Annotated[float | None, typer.Option(help="On Ray: a fraction shares a GPU. [default: 1]", min=0)] = None,
    cpus_per_worker: Annotated[float | None, typer.Option(help="On Ray: cores of each worker. [default: 1]", min=0.1)] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="postgresql://user@host/database. [default: SQLite in the study's folder]"),
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say how long it would take, from some timed steps, and begin nothing.")
    ] = False,
    log: LogOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    seconds = parse_duration(timeout)
    from nas.display.terminal import TerminalDisplay
    from nas.study.run import run_search

    request = SearchSpec(
        study=study,
        space=space,
        dataset=dataset,
        data_folder=absolute_path(data),
        labels=absolute_path(labels),
        image_column=image_column,
        label_column=label_column,
        group_column=group_column,
        image_size=image_size,
        resize=resize,
        channels=channels,
        skip_bad_images=skip_bad_images,
        train_subset=train_subset,
        seed=seed,
        epochs=epochs,
        max_params=max_params,
        sampler=sampler,
        pruner=pruner,
        metric=metric,
        class_balance=class_balance,
        trials=trials,
        timeout=seconds,
        finalists=finalists,
        finalist_epochs=finalist_epochs,
        finalist_seeds=finalist_seeds,
        device=device,
        gpus=gpus,
        workers_per_gpu=workers_per_gpu,
        workers=workers,
        ray=ray,
        gpus_per_worker=gpus_per_worker,
        cpus_per_worker=cpus_per_worker,
        storage=storage,
        warm_start=warm_start,
    )
    if estimate:
        from nas.cli.estimate import estimate_lines
        from nas.study.estimate import estimate_search

        with TerminalDisplay(quiet=quiet) as display:
            estimated = estimate_search(request, display)
        print_json(asdict(estimated)) if as_json else print("\n".join(estimate_lines(estimated)))
        return
    with TerminalDisplay(quiet=quiet, log=log) as display:
        result = run_search(request, display)
    # What a study does not remember has to be said again.
    where = {
        "--device": None if device == "auto" else device,
        "--gpus": gpus,
        "--workers-per-gpu": workers_per_gpu,
        "--workers": workers,
        "--ray": ray,
        "--gpus-per-worker": gpus_per_worker,
        "--cpus-per-worker": cpus_per_worker,
        "--finalists": finalists,
        "--finalist-epochs": finalist_epochs,
        "--finalist-seeds": finalist_seeds,
        "--log": log,
    }
    again = f"nas search --study {result.plan.paths.name}" + "".join(
        f" {key} {value:g}" if isinstance(value, float) else f" {key} {value}"
        for key, value in where.items()
        if value is not None
    )
    if as_json:
        print_json(_as_data(result))
    else:
        _print_result(result, again)
    if result.interrupted:
        sys.exit(130)


def _as_data(result: "SearchResult") -> dict[str, Any]:
    progress = result.progress
    return {
        "study": result.plan.paths.name,
        "trained": progress.trained,
        "counts": {outcome: count for outcome, count in progress.counts.items() if count},
        "best": None if progress.best is None else progress.best.row(),
        "finalists": [{**asdict(one), "mean": one.mean, "deviation": one.deviation} for one in result.finalists],
        "interrupted": result.interrupted,
        "exhausted": result.exhausted,
    }


def _print_result(result: "SearchResult", again: str) -> None:
    """`again`: the command that goes on, but for its --trials."""
    from nas.report.words import finalist_text, row_text

    progress, name = result.progress, result.plan.paths.name
    drawn = sum(progress.counts.values()) - progress.counts["imported"]
    over = progress.counts["over_budget"]
    print(f"{progress.trained} networks trained in study {name}.", end=" ")
    print(f"{over} of {drawn} draws ({over / drawn:.0%}) were over budget and never trained." if drawn else "")
    if progress.best is not None:
        print(f"Best of the search: {row_text(progress.best)}")
    for rank, finalist in enumerate(result.finalists):
        print(f"{'Winner' if rank == 0 else '      '}  {finalist_text(finalist)}")
    if result.interrupted:
        print(f"Suspended. To go on:  {again} --trials {progress.goal}")
        return
    if result.exhausted:
        print(f"Nothing new was left to draw. Widen the ranges of the space and search on from here:  --warm-start study:{name}")
    if progress.best is None:
        print(f"No training ran to its end yet. To go on:  {again} --trials {progress.goal + 10}")
        return
    goal = progress.goal if progress.trained < progress.goal else progress.goal * 2
    more = "" if result.exhausted else f"   or more trials:  {again} --trials {goal}"
    print(f"Next:  nas retrain best --study {name}{more}")
    print(f"All of it on one page:  nas report --study {name}")
    if result.plan.settings.study.objective == "front":
        print(f"The front of accuracy against parameters:  nas best --study {name}")
