"""`nas compare`"""

from typing import Annotated

import typer

from nas.cli.options import JsonOption, StudyOption, print_json

HELP = """Set networks or studies side by side: what differs first.

Networks are `best`, a trial's number, STUDY/12 or STUDY/best of another study, or preset:NAME; studies are their names.
"""


def command(
    names: Annotated[list[str], typer.Argument(help="Two or more.")],
    study: StudyOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what is the same in all.")] = False,
    as_json: JsonOption = False,
) -> None:
    from nas.report.compare import compare

    found = compare(names, study)
    rows = found.table.rows if everything else found.table.rows[: found.different]
    if as_json:
        print_json({name: {row[0]: row[i] for row in found.table.rows} for i, name in enumerate(names, 1)})
        return
    shown = [found.table.columns, *rows]
    widths = [max(len(row[i]) for row in shown) for i in range(len(found.table.columns))]
    for row in shown:
        print("  ".join(f"{cell:{width}s}" for cell, width in zip(row, widths, strict=True)).rstrip())
    if not found.different:
        print("They differ in nothing.")
