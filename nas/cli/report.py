"""`nas report`"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.options import StudyOption

HELP = """Write one page that shows a study: what was searched and found, every curve, what mattered, the retrained network.

It needs no network to be opened. Of a search that is running it shows how it stands.
"""


def command(
    study: StudyOption = None,
    output: Annotated[Path | None, typer.Option(help="The page. [default: report.html in the study's folder]")] = None,
    paper: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also figures, tables and text for a paper, into this folder.")
    ] = None,
) -> None:
    from nas.paths import existing_study
    from nas.report.page import write_page
    from nas.report.record import read_record

    paths = existing_study(study)
    record = read_record(paths)
    for sentence in record.left_out:
        print(f"Warning: {sentence}", file=sys.stderr)
    page = write_page(record, output)
    print(f"{page}  ({page.stat().st_size / 1e6:.1f} MB)")
    if paper is not None:
        from nas.report.paper import write_paper

        for line in write_paper(record, paper):
            print(line)
