"""How commands print: JSON, tables, and what several of them say alike."""

import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, overload

if TYPE_CHECKING:
    from nas.runs.statistics import Spread


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2))


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    shown = [columns, *rows]
    widths = [max(len(row[i]) for row in shown) for i in range(len(columns))]
    return ["  ".join(f"{cell:{width}s}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("\n".join(table_lines(columns, rows)))


def printed_lines(name: str, text: str) -> list[str]:
    """What the code of a user's file printed, told apart from what nas prints."""
    return [f"{name} printed:", *(f"  | {line}" for line in text.splitlines())]


@overload
def spread_data(found: "Spread") -> dict[str, Any]: ...
@overload
def spread_data(found: "Spread | None") -> dict[str, Any] | None: ...
def spread_data(found: "Spread | None") -> dict[str, Any] | None:
    """For `print_json`."""
    if found is None:
        return None
    return {"values": found.values, "mean": found.mean, "deviation": found.deviation, "interval": found.interval}


def end_suspended(left: int) -> NoReturn:
    """Of a command that was suspended with so many trainings left: says what goes on, and ends it as Ctrl-C would."""
    again = shlex.join(["nas", *sys.argv[1:]])
    print(f"Suspended, {left} training{'s are' if left > 1 else ' is'} left. To go on:  {again}", file=sys.stderr)
    sys.exit(130)
