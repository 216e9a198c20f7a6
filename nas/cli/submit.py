"""`nas submit`"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.completion import complete_averaging
from nas.cli.options import DeviceOption, JsonOption, QuietOption, RunOption, StudyOption
from nas.cli.output import print_json
from nas.specs import SubmitSpec

HELP = """Predict an unlabelled test set and write the CSV that is handed in: ID,Labels."""


def command(
    test: Annotated[
        Path | None,
        typer.Argument(
            help="A pickle, a .npy or .npz file, or a folder of images. [default: the one given to this study before]"
        ),
    ] = None,
    study: StudyOption = None,
    run: RunOption = None,
    output: Annotated[Path | None, typer.Option(help="The CSV. [default: in the study's folder, or here]")] = None,
    tta: Annotated[
        str | None,
        typer.Option(
            help="Average over flip, or flip_shift; or none. [default: flip, if the network was trained with flips]",
            autocompletion=complete_averaging,
        ),
    ] = None,
    adapt_norm: Annotated[
        bool, typer.Option("--adapt-norm", help="Take BatchNorm's statistics from the test set: for one that is shifted.")
    ] = False,
    names: Annotated[bool, typer.Option("--names", help="Write the classes' names instead of their indices.")] = False,
    id_column: Annotated[str | None, typer.Option(help="[default: ID]")] = None,
    label_column: Annotated[str | None, typer.Option(help="[default: Labels]")] = None,
    like: Annotated[Path | None, typer.Option(help="A sample submission: its columns, and its IDs in their order.")] = None,
    probabilities: Annotated[Path | None, typer.Option(help="Also write every class's probability into this CSV.")] = None,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    from nas.display.terminal import TerminalDisplay
    from nas.paths import remember_study
    from nas.predict import submit
    from nas.runs.select import is_folder, study_of

    paths = study_of(run, study)
    with TerminalDisplay(quiet=quiet) as display:
        request = SubmitSpec(
            paths=paths,
            test=test,
            run=run,
            output=output,
            tta=tta,
            adapt_norm=adapt_norm,
            names=names,
            id_column=id_column,
            label_column=label_column,
            like=like,
            probabilities=probabilities,
            device=device,
        )
        done = submit(request, display.decoding, display.note)
    if paths is not None and not is_folder(run):
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
                "adapted": None if done.adapted is None else asdict(done.adapted),
            }
        )
        return
    where = "No study" if paths is None else f"Study {paths.name}"
    print(f"{where}, network {done.run}, test set {done.test}, test-time augmentation {done.tta}")
    classes = [name if name == str(label) else f"{label} {name}" for label, name in enumerate(done.per_class)]
    counted = zip(classes, done.per_class.values(), strict=True)
    print("Predicted  " + ", ".join(f"{name}: {count}" for name, count in counted))
    if done.adapted is not None:
        before, after = done.adapted.confidence_before, done.adapted.confidence_after
        print(
            f"BatchNorm's statistics of the test set changed {done.adapted.changed:,} of {done.images:,} predictions; "
            f"mean confidence {before:.1%} before, {after:.1%} after"
        )
    print(f"Wrote {done.output} ({done.images:,} rows)")
