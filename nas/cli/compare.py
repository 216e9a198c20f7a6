"""`nas compare`"""

from typing import Annotated

import typer

from nas.cli.completion import complete_subject
from nas.cli.options import JsonOption, StudyOption
from nas.cli.output import print_json, print_table

HELP = """Set networks or studies side by side: what differs first.

Networks are `best`, a trial's number, STUDY/12 or STUDY/best of another study, or preset:NAME; studies are their names.
"""


def command(
    names: Annotated[list[str], typer.Argument(help="Two or more.", autocompletion=complete_subject)],
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
    print_table(found.table.columns, rows)
    if not found.different:
        print("They differ in nothing.")
