"""`nas submit`"""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.options import DeviceOption, JsonOption, QuietOption, StudyOption, print_json

HELP = """Predict an unlabelled test set and write the CSV that is handed in: ID,Labels."""


def command(
    test: Annotated[
        Path | None,
        typer.Argument(
            help="A pickle, a .npy or .npz file, or a folder of images. [default: the one given to this study before]"
        ),
    ] = None,
    study: StudyOption = None,
    run: Annotated[str | None, typer.Option(help="A folder under retrained/. [default: the latest]")] = None,
    output: Annotated[Path | None, typer.Option(help="The CSV. [default: in the study's folder]")] = None,
    tta: Annotated[
        str | None,
        typer.Option(help="Average over `flip`, or `none`. [default: flip, if the network was trained with flips]"),
    ] = None,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    from nas.cli.display import TerminalDisplay
    from nas.paths import existing_study, remember_study
    from nas.predict import SubmitRequest, submit

    paths = existing_study(study)
    with TerminalDisplay(quiet=quiet) as display:
        done = submit(SubmitRequest(paths, test, run, output, tta, device), display.decoding)
    remember_study(paths)
    if as_json:
        print_json(
            {
                "output": str(done.output),
                "run": done.run,
                "test": done.test,
                "tta": done.tta,
                "images": done.images,
                "per_class": done.per_class,
            }
        )
        return
    print(f"Study {paths.name}, network {done.run}, test set {done.test}, test-time augmentation {done.tta}")
    classes = [name if name == str(label) else f"{label} {name}" for label, name in enumerate(done.per_class)]
    counted = zip(classes, done.per_class.values(), strict=True)
    print("Predicted  " + ", ".join(f"{name}: {count}" for name, count in counted))
    print(f"Wrote {done.output} ({done.images:,} rows)")
