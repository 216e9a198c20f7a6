"""How commands print: JSON and tables."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    """Of what JSON does not know: a dataclass's or a configuration's fields; of a spread what its values say."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "interval"):
        return pick(value, "values", "mean", "deviation", "interval")
    return pick(value, *(field.name for field in dataclasses.fields(value)))


def pick(value: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    shown = [columns, *rows]
    widths = [max(len(row[i]) for row in shown) for i in range(len(columns))]
    return ["  ".join(f"{cell:{width}s}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("\n".join(table_lines(columns, rows)))
