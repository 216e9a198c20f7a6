"""Registers the commands, and turns a user's mistake into a message. Imports nothing heavy: `nas --help` must be quick."""

import sys
from typing import NoReturn

from nas.cli import check, machine, read, search, show, train, use  # noqa: F401  (each registers its commands)
from nas.cli.options import app
from nas.errors import NasError

ORDER = (
    *("search", "retrain", "ablate", "baseline", "runs", "submit", "predict", "export", "best", "show", "check", "list"),
    *("report", "dashboard", "compare", "presets", "doctor", "clean"),
)
"""Of the commands in the help."""
app.registered_commands.sort(key=lambda command: ORDER.index(command.name or ""))


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
