"""The command line. Here: how commands print JSON and tables."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.report.tables import Table


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    """Of what JSON does not know: fields of a dataclass or configuration, the row of a trial, what the values of a spread say."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "row"):
        return value.row()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "interval"):
        return pick(value, "values", "mean", "deviation", "interval")
    return pick(value, *(field.name for field in dataclasses.fields(value)))


def pick(value: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def table_lines(table: "Table") -> list[str]:
    shown = [table.columns, *table.rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(f"{cell:{width}s}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def print_table(table: "Table") -> None:
    print("\n".join(table_lines(table)))


def note(text: str) -> None:
    print(text, file=sys.stderr)
