"""`nas search`"""

import sys
from typing import Annotated

import typer

from nas.cli.options import DataOption, DeviceOption, parse_duration, plain_path

HELP = """Draw networks, prune those over budget before training, train the rest with early pruning.

The same command run again goes on where it stopped: --trials counts the trained networks of all runs of a study.
"""


def command(
    space: Annotated[str | None, typer.Option(help="A shipped space or a YAML file. [default: resnet]")] = None,
    dataset: Annotated[str | None, typer.Option(help="digits, cifar10, cifar100 or folder. [default: cifar10]")] = None,
    data: DataOption = None,
    study: Annotated[str | None, typer.Option(help="Its name, a folder under studies/. [default: SPACE-DATASET]")] = None,
    trials: Annotated[int, typer.Option(help="Networks to train, over all runs of the study.")] = 100,
    timeout: Annotated[str | None, typer.Option(help="Suspend after this time, such as 90s, 15m or 1h30m.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split, the draws and the trainings. [default: 0]", min=0)] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each training. [default: the space's]")] = None,
    max_params: Annotated[str | None, typer.Option(help="The budget, such as 5M or 300k. [default: the space's]")] = None,
    train_subset: Annotated[int | None, typer.Option(help="Train on so many images only, stratified.", min=1)] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Resize `folder`'s images. [default: the first one's size]", min=8)
    ] = None,
    skip_bad_images: Annotated[bool, typer.Option("--skip-bad-images", help="Leave unreadable images out.")] = False,
    warm_start: Annotated[
        str | None, typer.Option(help="Begin a new study with `presets`, `preset:NAME` or `study:NAME`, where they fit.")
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
) -> None:
    seconds = parse_duration(timeout)
    from nas.cli.display import TerminalDisplay, row_text
    from nas.search.run import SearchRequest, run_search

    request = SearchRequest(
        study=study,
        space=space,
        dataset=dataset,
        data_folder=plain_path(data),
        image_size=image_size,
        skip_bad_images=skip_bad_images,
        train_subset=train_subset,
        seed=seed,
        epochs=epochs,
        max_params=max_params,
        trials=trials,
        timeout=seconds,
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
    with TerminalDisplay() as display:
        result = run_search(request, display)
    progress, name = result.progress, result.plan.paths.name
    drawn = sum(progress.counts.values()) - progress.counts["imported"]
    over = progress.counts["over_budget"]
    print(f"{progress.trained} networks trained in study {name}.", end=" ")
    print(f"{over} of {drawn} draws ({over / drawn:.0%}) were over budget and never trained." if drawn else "")
    if progress.best is not None:
        print(f"Best: {row_text(progress.best)}")
    # What a study does not remember has to be said again.
    where = {
        "--device": None if device == "auto" else device,
        "--gpus": gpus,
        "--workers-per-gpu": workers_per_gpu,
        "--workers": workers,
        "--ray": ray,
        "--gpus-per-worker": gpus_per_worker,
        "--cpus-per-worker": cpus_per_worker,
    }
    again = f"nas search --study {name}" + "".join(
        f" {key} {value:g}" if isinstance(value, float) else f" {key} {value}"
        for key, value in where.items()
        if value is not None
    )
    if result.interrupted:
        print(f"Suspended. To go on:  {again} --trials {progress.goal}")
        sys.exit(130)
    if result.exhausted:
        print(f"Nothing new was left to draw. Widen the ranges of the space and search on from here:  --warm-start study:{name}")
    if progress.best is None:
        print(f"No training ran to its end yet. To go on:  {again} --trials {progress.goal + 10}")
    else:
        more = "" if result.exhausted else f"   or more trials:  {again} --trials {progress.goal * 2}"
        print(f"Next:  nas retrain best --study {name}{more}")
