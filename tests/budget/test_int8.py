"""Flash and RAM in eight bits, against arenas of TensorFlow Lite Micro and sizes of files that were measured once by
`scripts/bench/arena.py`."""

import json
from pathlib import Path
from typing import Any

import pytest

from nas.budget import count_flash, count_ram
from nas.budget.int8 import planned_bytes
from nas.config import ArchConfig, ImageShape

MEASUREMENTS = [json.loads(line) for line in Path(__file__).with_name("arenas.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("measured", MEASUREMENTS, ids=lambda one: one["network"])
def test_what_is_computed_is_what_was_measured(measured: dict[str, Any]) -> None:
    network = ArchConfig.model_validate(measured["arch"])
    shape = ImageShape(channels=measured["channels"], size=measured["size"], classes=10)
    assert count_ram(network, shape) == pytest.approx(measured["arena"], rel=0.01)
    assert count_flash(network, shape) == pytest.approx(measured["file"], rel=0.06)


@pytest.mark.parametrize(
    ("spans", "needed"),
    [
        ([], 0),
        ([(10, 0, 1)], 16),
        ([(16, 0, 1), (32, 1, 2), (16, 2, 3)], 48),  # the first and the last share a place
        ([(16, 0, 2), (32, 1, 3), (64, 2, 4)], 112),
        # Of equal ones the latest comes first: were it the earliest, the fourth would find no place below 64.
        ([(16, 0, 2), (16, 1, 2), (16, 2, 3), (18, 4, 5), (16, 3, 4)], 48),
    ],
)
def test_memory_is_planned_greedily(spans: list[tuple[int, int, int]], needed: int) -> None:
    assert planned_bytes(spans) == needed
