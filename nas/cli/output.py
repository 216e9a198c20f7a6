"""How commands print: JSON, tables, and what several of them say alike."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

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


@overload
def spread_data(found: "Spread") -> dict[str, Any]: ...
@overload
def spread_data(found: "Spread | None") -> dict[str, Any] | None: ...
def spread_data(found: "Spread | None") -> dict[str, Any] | None:
    """For `print_json`."""
    if found is None:
        return None
    return {"values": found.values, "mean": found.mean, "deviation": found.deviation, "interval": found.interval}
