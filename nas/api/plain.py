"""How a call shows itself: lines on standard output, as a command writes them where there is no terminal; none if little is
asked."""

import sys

from rich.console import Console

from nas.cli.options import parse_duration
from nas.display.terminal import TerminalDisplay


def plain_display(quiet: bool, log: str | None = None) -> TerminalDisplay:
    console = Console(file=sys.stdout, force_terminal=False, force_jupyter=False, highlight=False)
    return TerminalDisplay(console, quiet=quiet, log=log)


def seconds_of(time: float | str | None) -> float | None:
    """Of `90`, `"90s"`, `"15m"`. Raises ConfigError."""
    return parse_duration(time) if isinstance(time, str) else time
