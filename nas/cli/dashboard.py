"""`nas dashboard`"""

import sys
from typing import Annotated

import typer

from nas.cli.options import StudyOption

HELP = """Open a study in optuna-dashboard, also while it is being searched.

Every trial is there with its outcome, cost, architecture, layers and curve. It changes nothing; Ctrl-C ends it.
"""


def command(
    study: StudyOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any that is free.", min=0, max=65535)] = 8080,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open it in a browser.")] = False,
) -> None:
    from nas.dashboard.serve import serve
    from nas.paths import existing_study

    def ready(address: str) -> None:
        print(address, flush=True)
        print("Ctrl-C ends it.", file=sys.stderr)
        if open_browser:
            typer.launch(address)

    serve(existing_study(study), host, port, ready)
