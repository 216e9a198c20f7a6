"""`nas retrain`"""

import shlex
import sys
import threading
from typing import Annotated

import typer

from nas.cli.options import DataOption, DeviceOption, JsonOption, LogOption, QuietOption, StudyOption, print_json

HELP = """Train a network of a study on all its labelled training data, longer than the search did."""


def command(
    which: Annotated[str, typer.Argument(help="`best`, a trial's number, or preset:NAME.")] = "best",
    study: StudyOption = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Of a preset of no study: digits, cifar10, cifar100, fashion-mnist, svhn, folder."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs. [default: four times the search's]")] = None,
    seed: Annotated[int, typer.Option(help="Another seed trains another network.", min=0)] = 0,
    include_test_labels: Annotated[
        bool,
        typer.Option("--include-test-labels", help="Train on the official test set too; no test accuracy is claimed then."),
    ] = False,
    train_subset: Annotated[int | None, typer.Option(help="Train on so many images only, stratified.", min=1)] = None,
    data: DataOption = None,
    device: DeviceOption = "auto",
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="By torch.compile, which takes a while first. [default: on CUDA only]"),
    ] = None,
    log: LogOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    from nas.cli.display import TerminalDisplay
    from nas.config import DataConfig
    from nas.errors import ConfigError
    from nas.interrupts import suspended_by_signals
    from nas.paths import existing_study, known_studies, remember_study
    from nas.presets import PREFIX
    from nas.report.words import count_text, time_text
    from nas.retrain import RetrainPlan, RetrainRequest, found_presets_study, retrain
    from nas.train.loop import EpochMetrics

    folder = None if data is None else str(data.absolute())
    if dataset is None:
        if which.startswith(PREFIX) and study is None and not known_studies():
            raise ConfigError("no study says which images to train on", hint=f"nas retrain {which} --dataset cifar10")
        paths = existing_study(study)
    elif not which.startswith(PREFIX):
        raise ConfigError(
            "--dataset goes with preset:NAME alone: a study has its data",
            hint="nas retrain preset:robust-resnet64 --dataset cifar10; nas presets shows the names",
        )
    else:
        with TerminalDisplay(quiet=quiet) as display:
            paths = found_presets_study(DataConfig(dataset=dataset, folder=folder), study, display.decoding)
    request = RetrainRequest(
        paths=paths,
        which=which,
        epochs=epochs,
        seed=seed,
        include_test_labels=include_test_labels,
        train_subset=train_subset,
        data_folder=folder,
        device=device,
        compiled=compiled,
    )
    stop = threading.Event()
    with TerminalDisplay(quiet=quiet, log=log) as display:
        display.track(paths)
        total, run, candidate = 0, "", None

        def on_start(plan: RetrainPlan) -> None:
            nonlocal total, run, candidate
            run, candidate = f"retrained-{plan.run.folder.name}", plan.candidate
            total = plan.candidate.train.epochs
            display.say(
                f"study {paths.name}, {plan.subject}: {count_text(plan.params)} parameters, "
                f"{plan.candidate.arch.one_line()}\n"
                f"training {total} epochs on {plan.train_images:,} images, on {plan.device} in {plan.precision}"
            )
            for warning in plan.candidate.train.warnings():
                display.note(f"Warning: {warning}")

        def on_epoch(metrics: EpochMetrics) -> None:
            left = time_text(metrics.seconds * (total - metrics.epoch))
            text = f"loss {metrics.train_loss:.4f}  training accuracy {metrics.train_accuracy:.2%}"
            if display.tracker is not None and candidate is not None:
                display.tracker.epoch(run, candidate, metrics)
            display.training(metrics.epoch, total, f"{text}  {metrics.images_per_second:,.0f} images/s  {left} left")

        with suspended_by_signals(stop.set):
            result = retrain(request, on_start, on_epoch, stop.is_set, display.decoding, display.note)
    remember_study(paths)
    if result.card is None:
        again = shlex.join(["nas", *sys.argv[1:]])
        print(f"Suspended, the checkpoint written. To go on:  {again}")
        sys.exit(130)
    card = result.card
    if as_json:
        print_json({"run": str(result.run.folder), "already_there": result.already_there, **card.model_dump(mode="json")})
        return
    if result.already_there:
        print(f"{result.run.folder} was trained before; another --seed or --epochs trains another network.")
    print(f"Trained on {card.train_images:,} images in {time_text(card.seconds)}: {result.run.folder}")
    if card.test_accuracy is not None and card.test_accuracy_tta is not None:
        print(
            f"Official test set, opened once: {card.test_accuracy:.2%} of {card.test_images:,}"
            + (f"; with flip averaging {card.test_accuracy_tta:.2%}" if card.tta == "flip" else "")
        )
        if card.metric != "accuracy" and card.test_balanced_accuracy is not None and card.test_macro_f1 is not None:
            print(f"Balanced accuracy {card.test_balanced_accuracy:.2%}, macro F1 {card.test_macro_f1:.2%}")
    elif card.includes_test_labels:
        print("It was trained on the official test labels too, so that no test accuracy can be claimed.")
    else:
        print("The data set has no labelled test images, so that no test accuracy can be claimed.")
    print(f"Next:  nas submit --study {paths.name}")
