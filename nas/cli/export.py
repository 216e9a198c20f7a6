"""`nas export`"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.completion import complete_averaging, complete_format
from nas.cli.options import RUN_HELP, JsonOption, StudyOption
from nas.cli.output import print_json
from nas.specs import ExportSpec

HELP = """Write a retrained network for use elsewhere, and check that it predicts there as here.

weights: a folder with model.safetensors, model.json and a model.py that needs torch alone. onnx: one file, preprocessing inside,
for batches of any size. torch: a program of torch.export. Each takes uint8 images (N, H, W, C) and gives logits.
"""


def command(
    run: Annotated[str | None, typer.Argument(help=RUN_HELP, show_default=False)] = None,
    study: StudyOption = None,
    form: Annotated[str, typer.Option("--format", help="weights, onnx or torch.", autocompletion=complete_format)] = "weights",
    output: Annotated[
        Path | None, typer.Option(help="File or folder. [default: under exported/ in the study's folder, or here]")
    ] = None,
    tta: Annotated[
        str | None, typer.Option(help="none, flip or flip_shift. [default: as nas submit]", autocompletion=complete_averaging)
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="weights: also in bfloat16, half as large.")] = False,
    as_json: JsonOption = False,
) -> None:
    from nas.display.terminal import TerminalDisplay
    from nas.export import export
    from nas.report.words import bytes_text
    from nas.runs.select import study_of

    with TerminalDisplay() as display:
        request = ExportSpec(paths=study_of(run, study), run=run, format=form, output=output, tta=tta, bf16=bf16)
        done = export(request, display.note)
    if as_json:
        print_json({**asdict(done), "path": str(done.path)})
        return
    print(f"{done.path}  ({bytes_text(done.bytes)}): network {done.run}; its logits differ by {done.difference:.1g} at most")
    if done.bf16_bytes is not None:
        print(f"model.bf16.safetensors  ({bytes_text(done.bf16_bytes)}): its logits differ by {done.bf16_difference:.1g} at most")
        if done.accuracy is not None:
            print(f"Of the official test set: {done.accuracy:.2%}, in bfloat16 {done.bf16_accuracy:.2%}")
