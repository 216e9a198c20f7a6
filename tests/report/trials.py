"""Trials by hand, for tests of what a report says of them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from nas.study.trials import TrialRecord

MIDNIGHT = datetime(2026, 1, 1)


def training(
    number: int,
    accuracies: Sequence[float] = (),
    outcome: str = "trained",
    *,
    params: int | None = 1000,
    macs: int | None = None,
    drawn: dict[str, Any] | None = None,
    projected: float | None = None,
    began: float | None = None,
    ended: float | None = None,
    seconds: float | None = None,
    broken: dict[str, float] | None = None,
    imported: bool = False,
    finalist: int | None = None,
) -> TrialRecord:
    """`began`, `ended`: minutes after midnight; by default a minute each, one after the other."""
    accuracy = accuracies[-1] if accuracies else None
    return TrialRecord(
        number=number,
        outcome=outcome,
        accuracy=accuracy,
        epochs=len(accuracies),
        params=params,
        macs=macs,
        architecture=f"network {number}",
        finalist=finalist,
        seed=None if finalist is None else 0,
        over=broken or {},
        curve=dict(enumerate(accuracies, 1)),
        drawn=drawn or {},
        projected=accuracy if projected is None else projected,
        began=MIDNIGHT + timedelta(minutes=number if began is None else began),
        ended=None if outcome == "running" else MIDNIGHT + timedelta(minutes=number + 1 if ended is None else ended),
        seconds=seconds,
        imported=imported,
    )
