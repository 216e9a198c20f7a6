"""Which trained network is the best, also within smaller limits than the study's, and what accuracy costs in parameters."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from nas.budget import quick_macs
from nas.config import LIMIT_NAMES, Candidate, MetricName
from nas.errors import BudgetError
from nas.paths import StudyPaths
from nas.report.facts import pareto_front
from nas.runs.select import none_is_best
from nas.study.finalists import Finalist, finalists_of
from nas.study.settings import read_settings
from nas.study.storage import open_study
from nas.study.trials import TrialRecord


@dataclass(frozen=True)
class BestReport:
    study: str
    max_params: int | None
    max_macs: int | None
    best: TrialRecord  # of those within both limits
    front: list[TrialRecord]
    """Of those within `max_macs`, whatever their parameters; and `best`, where others were better in the search."""
    metric: MetricName = "accuracy"  # what the values are of

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "best": self.best.row(), "front": [row.row() for row in self.front]}


def trained_rows(rows: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Those that ran to their end: another study's result that was taken over is one, a duplicate is its twin once more."""
    return [row for row in rows if row.outcome == "trained" and row.accuracy is not None and row.params is not None]


def fits(row: TrialRecord, max_params: int | None, max_macs: int | None) -> bool:
    """What is not known does not fit a limit."""
    limits = ((row.params, max_params), (row.macs, max_macs))
    return all(most is None or (value is not None and value <= most) for value, most in limits)


def select_best(
    rows: Iterable[TrialRecord],
    max_params: int | None = None,
    max_macs: int | None = None,
    finalists: Iterable[Finalist] = (),
) -> TrialRecord | None:
    """Of those within the limits the first of the finalists, which come best first, or else the most accurate trained one; of
    equal ones the smaller, then the earlier. None where none fits."""
    inside = [row for row in trained_rows(rows) if fits(row, max_params, max_macs)]
    by_number = {row.number: row for row in inside}
    for finalist in finalists:
        if finalist.number in by_number:
            return by_number[finalist.number]
    return min(inside, key=lambda row: (-(row.accuracy or 0.0), row.params, row.number), default=None)


def accuracy_front(rows: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The trained ones to which no other is at least equal in accuracy and in parameters and better in one; of equal ones the
    earliest. By parameters, so that accuracy rises with them; the last is what `select_best` takes without limits."""
    trained = sorted(trained_rows(rows), key=lambda row: row.number)
    return [trained[i] for i in pareto_front([(row.params or 0, row.accuracy or 0.0) for row in trained])]


def report_best(paths: StudyPaths, max_params: int | None = None, max_macs: int | None = None) -> BestReport:
    """Counts multiply-adds that the study does not know where they are asked for. Raises StudyError where nothing has run to its
    end, BudgetError, which names the smallest, where nothing fits."""
    study = open_study(paths)
    rows = trained_rows(TrialRecord.of(trial) for trial in study.get_trials(deepcopy=False))
    if not rows:
        raise none_is_best(paths)
    if max_macs is not None:
        rows = with_macs(rows, paths)
    best = select_best(rows, max_params, max_macs, finalists_of(study))
    if best is None:
        raise nothing_as_small(rows, paths.name, max_params, max_macs)
    front = accuracy_front(row for row in rows if fits(row, None, max_macs))
    if best not in front:
        front = sorted([*front, best], key=lambda row: (row.params, row.number))
    return BestReport(paths.name, max_params, max_macs, best, front, read_settings(paths).study.metric)


def with_macs(rows: Iterable[TrialRecord], paths: StudyPaths) -> list[TrialRecord]:
    shape = read_settings(paths).shape
    counted = []
    for row in rows:
        if row.macs is None:
            file = paths.trial(row.number).candidate
            candidate = Candidate.from_json(file.read_bytes(), source=str(file))
            row = replace(row, macs=quick_macs(candidate.arch, shape))
        counted.append(row)
    return counted


def nothing_as_small(rows: list[TrialRecord], study: str, max_params: int | None, max_macs: int | None) -> BudgetError:
    """`rows` are trained; where `max_macs` is given, all of their multiply-adds are known."""
    asked, least = [], []
    for field, most in (("params", max_params), ("macs", max_macs)):
        if most is not None:
            smallest = min(rows, key=lambda row: (getattr(row, field), row.number))
            asked.append(f"at most {most:,} {LIMIT_NAMES[field]}")
            least.append(f"{getattr(smallest, field):,} {LIMIT_NAMES[field]} (trial {smallest.number})")
    searched = "a search with that budget, under another --study NAME, finds such networks"
    return BudgetError(
        f"no trained network of study {study!r} has {' and '.join(asked)}: the smallest has {', the cheapest '.join(least)}",
        hint=f"raise the limit; {searched}",
    )
