"""`nas retrain`"""

import signal
import sys
import time
from types import FrameType
from typing import Annotated

import typer

from nas.cli.options import DataOption, DeviceOption, StudyOption, plain_path

HELP = """Train a network of a study on all its labelled training data, longer than the search did."""


def command(
    which: Annotated[str, typer.Argument(help="`best`, or a trial's number.")] = "best",
    study: StudyOption = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs. [default: four times the search's]")] = None,
    seed: Annotated[int, typer.Option(help="Another seed trains another network.", min=0)] = 0,
    include_test_labels: Annotated[
        bool,
        typer.Option("--include-test-labels", help="Train on the official test set too; no test accuracy is claimed then."),
    ] = False,
    data: DataOption = None,
    device: DeviceOption = "auto",
) -> None:
    from nas.cli.display import TerminalDisplay, count_text, time_text
    from nas.paths import existing_study, remember_study
    from nas.retrain import RetrainPlan, RetrainRequest, retrain
    from nas.train.loop import EpochMetrics

    paths = existing_study(study)
    request = RetrainRequest(
        paths=paths,
        which=which,
        epochs=epochs,
        seed=seed,
        include_test_labels=include_test_labels,
        data_folder=plain_path(data),
        device=device,
    )
    stopping = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    with TerminalDisplay() as display:
        total = 0
        last_line = -float("inf")

        def on_start(plan: RetrainPlan) -> None:
            nonlocal total
            total = plan.candidate.train.epochs
            display.note(
                f"study {paths.name}, trial {plan.trial}: {count_text(plan.params)} parameters, "
                f"{plan.candidate.arch.one_line()}\n"
                f"training {total} epochs on {plan.train_images:,} images, on {plan.device} in {plan.precision}"
            )

        def on_epoch(metrics: EpochMetrics) -> None:
            nonlocal last_line
            now = time.monotonic()
            if now - last_line < 10 and metrics.epoch != total:
                return
            last_line = now
            left = time_text(metrics.seconds * (total - metrics.epoch))
            display.note(
                f"epoch {metrics.epoch:4d}/{total}  loss {metrics.train_loss:.4f}  "
                f"training accuracy {metrics.train_accuracy:.2%}  {metrics.images_per_second:,.0f} images/s  {left} left"
            )

        result = retrain(request, on_start, on_epoch, lambda: stopping, display.decoding)
    remember_study(paths)
    if result.card is None:
        again = " ".join(["nas", *sys.argv[1:]])
        print(f"Suspended, the checkpoint written. To go on:  {again}")
        sys.exit(130)
    card = result.card
    if result.already_there:
        print(f"{result.run.folder} was trained before; another --seed or --epochs trains another network.")
    print(f"Trained on {card.train_images:,} images in {time_text(card.seconds)}: {result.run.folder}")
    if card.test_accuracy is not None and card.test_accuracy_tta is not None:
        print(
            f"Official test set, opened once: {card.test_accuracy:.2%} of {card.test_images:,}"
            + (f"; with flip averaging {card.test_accuracy_tta:.2%}" if card.tta == "flip" else "")
        )
    elif card.includes_test_labels:
        print("It was trained on the official test labels too, so that no test accuracy can be claimed.")
    else:
        print("The data set has no labelled test images, so that no test accuracy can be claimed.")
    print(f"Next:  nas submit --study {paths.name}")
