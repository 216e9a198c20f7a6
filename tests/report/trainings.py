"""Trainings by hand, for tests of what a report says of them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from nas.study.outcomes import TrialRow
from nas.study.trainings import Training

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
) -> Training:
    """`began`, `ended`: minutes after midnight; by default a minute each, one after the other."""
    row = TrialRow(
        number,
        outcome,
        accuracies[-1] if accuracies else None,
        len(accuracies),
        params,
        macs,
        f"network {number}",
        1,
        finalist,
        None if finalist is None else 0,
        broken or {},
    )
    return Training(
        row=row,
        curve=dict(enumerate(accuracies, 1)),
        drawn=drawn or {},
        projected=row.accuracy if projected is None else projected,
        began=MIDNIGHT + timedelta(minutes=number if began is None else began),
        ended=None if outcome == "running" else MIDNIGHT + timedelta(minutes=number + 1 if ended is None else ended),
        seconds=seconds,
        imported=imported,
    )
