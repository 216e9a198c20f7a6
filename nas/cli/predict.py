"""`nas predict`"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.options import DeviceOption, JsonOption, RunOption, StudyOption
from nas.cli.output import print_json
from nas.specs import PredictSpec

HELP = """Name the most probable classes of some images."""


def command(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    study: StudyOption = None,
    run: RunOption = None,
    top: Annotated[int, typer.Option(help="Classes to name.")] = 3,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    from nas.predict import predict_images
    from nas.runs.select import study_of

    request = PredictSpec(paths=study_of(run, study), images=tuple(images), run=run, top=top, device=device)
    guesses = predict_images(request)
    if as_json:
        print_json([{**asdict(guess), "image": str(guess.image), "classes": dict(guess.classes)} for guess in guesses])
        return
    for guess in guesses:
        print(f"{guess.image}: " + ", ".join(f"{name} {share:.1%}" for name, share in guess.classes))
