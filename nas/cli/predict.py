"""`nas predict`"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.options import DeviceOption, JsonOption, StudyOption, print_json

HELP = """Name the most probable classes of some images."""


def command(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    study: StudyOption = None,
    run: Annotated[str | None, typer.Option(help="A folder under retrained/. [default: the latest]")] = None,
    top: Annotated[int, typer.Option(help="Classes to name.")] = 3,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    from nas.paths import existing_study
    from nas.predict import PredictRequest, predict_images

    guesses = predict_images(PredictRequest(existing_study(study), tuple(images), run, top, device))
    if as_json:
        print_json([{**asdict(guess), "image": str(guess.image), "classes": dict(guess.classes)} for guess in guesses])
        return
    for guess in guesses:
        print(f"{guess.image}: " + ", ".join(f"{name} {share:.1%}" for name, share in guess.classes))
