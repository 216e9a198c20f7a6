"""Registers the commands, and turns a user's mistake into a message. Imports nothing heavy: `nas --help` must be quick."""

import sys
from typing import NoReturn

import typer

from nas.cli import (
    ablate,
    baseline,
    best,
    check,
    clean,
    compare,
    dashboard,
    doctor,
    export,
    listing,
    predict,
    presets,
    report,
    retrain,
    runs,
    search,
    show,
    submit,
)
from nas.errors import NasError

app = typer.Typer(
    help="Finds the best residual network under a parameter budget, trains it, and predicts with it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("search", help=search.HELP)(search.command)
app.command("retrain", help=retrain.HELP)(retrain.command)
app.command("ablate", help=ablate.HELP)(ablate.command)
app.command("baseline", help=baseline.HELP)(baseline.command)
app.command("runs", help=runs.HELP)(runs.command)
app.command("submit", help=submit.HELP)(submit.command)
app.command("predict", help=predict.HELP)(predict.command)
app.command("export", help=export.HELP)(export.command)
app.command("best", help=best.HELP)(best.command)
app.command("show", help=show.HELP)(show.command)
app.command("check", help=check.HELP)(check.command)
app.command("list", help=listing.HELP)(listing.command)
app.command("report", help=report.HELP)(report.command)
app.command("dashboard", help=dashboard.HELP)(dashboard.command)
app.command("compare", help=compare.HELP)(compare.command)
app.command("presets", help=presets.HELP)(presets.command)
app.command("doctor", help=doctor.HELP)(doctor.command)
app.command("clean", help=clean.HELP)(clean.command)


def main() -> NoReturn:
    """Exit status: 0 done, 1 a mistake that its user can mend, 2 wrong arguments, 130 interrupted."""
    try:
        app(prog_name="nas")
    except NasError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"Next:  {error.hint}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)
