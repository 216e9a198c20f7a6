"""Trials by hand, for tests of what a report says of them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from nas.study.trials import TrialRecord

MIDNIGHT = datetime(2026, 1, 1)


def training(
    number: int,
    accuracies: Sequence[float] = (),
    outcome: str = "trained",
    *,
    began: float | None = None,
    ended: float | None = None,
    **fields: Any,
) -> TrialRecord:
    """`began`, `ended`: minutes after midnight; by default a minute each, one after the other."""
    accuracy = accuracies[-1] if accuracies else None
    known = TrialRecord(number, outcome, accuracy, len(accuracies), params=1000, macs=None, architecture=f"network {number}")
    return replace(
        known,
        seed=0 if "finalist" in fields else None,
        curve=dict(enumerate(accuracies, 1)),
        projected=accuracy,
        began=MIDNIGHT + timedelta(minutes=number if began is None else began),
        ended=None if outcome == "running" else MIDNIGHT + timedelta(minutes=number + 1 if ended is None else ended),
        **fields,
    )
