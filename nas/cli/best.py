"""`nas best`"""

import sys
from typing import Annotated

import typer

from nas.cli.options import JsonOption, StudyOption
from nas.cli.output import print_json

HELP = """Name the best trained network of a study, also within smaller limits, and what accuracy costs in parameters.

The table holds it, and every network than which no smaller one was as accurate in the search.
"""


def command(
    study: StudyOption = None,
    max_params: Annotated[str | None, typer.Option(help="Of those with at most so many parameters, such as 1M.")] = None,
    max_macs: Annotated[str | None, typer.Option(help="Of those with at most so many multiply-adds, such as 30M.")] = None,
    as_json: JsonOption = False,
) -> None:
    from nas.config import METRIC_WORDS, parse_count
    from nas.paths import existing_study
    from nas.report.compare import report_best
    from nas.report.words import count_text, row_text

    most_params, most_macs = (None if text is None else parse_count(text) for text in (max_params, max_macs))
    report = report_best(existing_study(study), most_params, most_macs)
    if as_json:
        print_json(report.plain())
        return
    print(f"Study {report.study}, best: {row_text(report.best)}\n")
    word = METRIC_WORDS[report.metric]
    print(f"{'trial':>5s} {'parameters':>12s} {'MACs':>6s}  {word:>8s}  network")
    for row in report.front:
        mark = "  ← best" if row.number == report.best.number else ""
        cost = f"{row.params:12,} {count_text(row.macs):>6s}"
        print(f"{row.number:5d} {cost}  {row.accuracy:{max(8, len(word))}.2%}  {row.architecture}{mark}")
    print(f"Next:  nas retrain {report.best.number} --study {report.study}", file=sys.stderr)
