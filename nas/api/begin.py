"""`nas.search`, `nas.open_study`, `nas.studies`."""

import os
import time

from nas.api.plain import plain_display, seconds_of
from nas.api.study import Study
from nas.paths import existing_study, known_studies
from nas.specs import SearchSpec
from nas.study.request import DEFAULT_TRIALS
from nas.study.run import run_search


def search(
    space: str | os.PathLike[str] | None = None,
    dataset: str | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    study: str | None = None,
    trials: int = DEFAULT_TRIALS,
    timeout: float | str | None = None,
    finalists: int | None = None,
    finalist_epochs: int | None = None,
    finalist_seeds: int | None = None,
    seed: int | None = None,
    epochs: int | None = None,
    max_params: int | str | None = None,
    train_subset: int | None = None,
    labels: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    image_size: int | None = None,
    resize: str | None = None,
    channels: str | None = None,
    skip_bad_images: bool = False,
    warm_start: str | None = None,
    sampler: str | None = None,
    pruner: str | None = None,
    metric: str | None = None,
    class_balance: str | None = None,
    gpus: int | None = None,
    workers_per_gpu: int | None = None,
    workers: int | None = None,
    device: str = "auto",
    ray: str | None = None,
    gpus_per_worker: float | None = None,
    cpus_per_worker: float | None = None,
    storage: str | None = None,
    log: str | None = None,
    quiet: bool = False,
) -> Study:
    """`nas search`: draws networks, prunes those over budget before training, trains the rest with early pruning.

    The same call again goes on where it stopped, and on a finished study returns at once: `trials` counts the trained networks of
    all runs of a study. Workers are processes of their own, and a script needs no `if __name__ == "__main__"` for them.

    Args:
        space: a shipped space's name, or a YAML file; by default resnet.
        dataset: digits, cifar10, cifar100, fashion-mnist, svhn or folder; by default cifar10.
        data: the folder of the images, or of the download.
        labels: a CSV or Parquet file with the label of each image under `data`, by its columns `image_column` and `label_column`;
            images of one group in `group_column` stay on one side of the split.
        study: its name, a folder under `studies/`; by default SPACE-DATASET.
        timeout: suspends after so many seconds, or after `"15m"`.
        metric: accuracy, balanced_accuracy or macro_f1, which judges networks.
        max_params: the budget, such as `5_000_000` or `"5M"`; by default the space's.
        quiet: prints warnings and faults alone.

    What is not named here is as `nas search --help` has it. Raises NasError, and KeyboardInterrupt once the search is suspended
    by Ctrl-C: the same call goes on.
    """
    seconds = seconds_of(timeout)
    request = SearchSpec(
        study=study,
        space=None if space is None else os.fspath(space),
        dataset=dataset,
        data_folder=None if data is None else os.fspath(data),
        labels=None if labels is None else os.fspath(labels),
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
        max_params=None if max_params is None else str(max_params),
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
    begun = time.monotonic()
    with plain_display(quiet, log) as display:
        result = run_search(request, display)
        in_time = seconds is None or time.monotonic() - begun < seconds
        if result.interrupted and in_time:
            raise KeyboardInterrupt(f"study {result.plan.paths.name!r} is suspended; the same call goes on")
        if result.exhausted:
            display.note("nothing new was left to draw: widen the ranges of the space")
    return Study(result.plan.paths)


def open_study(name: str | None = None) -> Study:
    """A study under `studies/`, or the one used last. Raises StudyError with the studies there are."""
    return Study(existing_study(name))


def studies() -> list[str]:
    """Names of the studies there are."""
    return known_studies()
