"""`nas list`"""

import sys
from typing import Annotated

import typer

from nas.cli.completion import complete_study
from nas.cli.options import JsonOption
from nas.cli.output import print_json

HELP = """List the studies, or with --study the trials of one."""


def command(
    study: Annotated[str | None, typer.Option(help="List this study's trials.", autocompletion=complete_study)] = None,
    as_json: JsonOption = False,
) -> None:
    from nas.config import METRIC_WORDS
    from nas.paths import existing_study, studies_folder
    from nas.report.record import read_studies, read_study
    from nas.report.words import count_text, counts_line, finalist_text, row_text

    if study is not None:
        report = read_study(existing_study(study))
        if as_json:
            print_json(report.plain())
            return
        for row in report.trials:
            mark = "  ← best" if report.best is not None and row.number == report.best.number else ""
            print(row_text(row) + mark)
        print(f"{report.trained} trained: {counts_line(report.counts)}")
        for rank, finalist in enumerate(report.finalists):
            print(f"finalist   {finalist_text(finalist)}{'  ← best' if rank == 0 else ''}")
        for run in report.retrained:
            print(f"retrained  {run}")
        return
    reports, broken = read_studies()
    for sentence in broken:
        print(f"Cannot be read: {sentence}", file=sys.stderr)
    if as_json:
        print_json(
            [
                {
                    "study": r.name,
                    "searching": r.led,
                    "running": r.counts.get("running", 0),
                    "trained": r.trained,
                    "metric": r.settings.study.metric,
                    "counts": r.counts,
                    "best": None if r.best is None else r.best.row(),
                }
                for r in reports
            ]
        )
        return
    for r in reports:
        metric = r.settings.study.metric
        by = "" if metric == "accuracy" else f"{METRIC_WORDS[metric]} "
        best = (
            "none yet"
            if r.best is None
            else f"{by}{r.best.accuracy:.2%} with {count_text(r.best.params)} (trial {r.best.number})"
        )
        state = "searching" if r.led else "interrupted" if r.counts.get("running") else "at rest"
        print(f"{r.name:24s} {state:12s} {r.trained:4d} trained, best {best}; {len(r.retrained)} retrained")
        print(f"{'':24s} {'':12s} {counts_line(r.counts) or 'nothing drawn yet'}")
    if not reports and not broken:
        print(
            f"There is no study under {studies_folder()} yet. Next:  nas search --space digits --dataset digits", file=sys.stderr
        )
