"""What is read of studies: which network is the best within limits, and which ones no other dominates."""

import random
from dataclasses import replace
from typing import Any

import pytest

from nas.budget import count_macs
from nas.config import Candidate
from nas.errors import BudgetError, StudyError
from nas.paths import StudyPaths, study_paths
from nas.report.compare import accuracy_front, fits, report_best, select_best, with_macs
from nas.report.record import read_studies, read_study
from nas.runs.select import find_subject
from nas.study.finalists import Finalist
from nas.study.settings import read_settings
from nas.study.trials import TrialRecord


def row(
    number: int, params: int | None, accuracy: float | None, macs: int | None = None, outcome: str = "trained"
) -> TrialRecord:
    return TrialRecord(number, outcome, accuracy, 3, params, macs, f"network {number}", 1)


def numbers(rows: list[TrialRecord]) -> list[int]:
    return [one.number for one in rows]


RISING = [row(0, 100, 0.5), row(1, 200, 0.7), row(2, 300, 0.9)]


@pytest.mark.parametrize(
    ("rows", "front"),
    [
        ([], []),
        ([row(0, 100, 0.0)], [0]),
        ([row(0, 50, 0.99, outcome="pruned_early"), row(1, 60, 0.99, outcome="diverged"), *RISING[1:]], [1, 2]),
        ([row(0, 100, 0.5), row(1, 100, 0.5, outcome="duplicate")], [0]),
        ([row(0, 100, 0.7, outcome="duplicate"), row(1, 100, 0.6)], [1]),
        ([row(0, 9, None, outcome="over_budget"), row(1, 9, 0.99, outcome="running"), row(2, 99, 0.5)], [2]),
        ([row(0, 100, 0.9, outcome="over_budget")], []),
    ],
)
def test_front_and_best_are_of_those_that_got_to_their_end(rows: list[TrialRecord], front: list[int]) -> None:
    found = accuracy_front(rows)
    assert numbers(found) == front
    assert select_best(rows) == (found or [None])[-1]


def test_both_limits_hold_at_once() -> None:
    rows = [row(0, 100, 0.5, 50), row(1, 200, 0.7, 10), row(2, 90, 0.9, 60), row(3, 80, 0.8, None)]
    assert select_best(rows, max_params=100, max_macs=50) == rows[0]
    assert select_best(rows, max_macs=50) == rows[1]
    assert select_best(rows, max_params=90) == rows[2], "what is not known need not be where nobody asks"
    assert select_best(rows, max_params=85, max_macs=1000) is None, "what is not known fits no limit"
    assert select_best(rows, max_params=99, max_macs=50) is None
    assert [fits(one, 100, 50) for one in rows] == [True, False, False, False]


def test_finalists_that_fit_go_before_all_others() -> None:
    finalists = [Finalist(1, 5, (0.8, 0.9)), Finalist(0, 5, (0.7,))]
    assert select_best(RISING, finalists=finalists) == RISING[1]
    assert select_best(RISING, max_params=100, finalists=finalists) == RISING[0]
    assert select_best(RISING[2:], finalists=finalists) == RISING[2]
    assert select_best(RISING, max_params=99, finalists=finalists) is None


@pytest.mark.parametrize("seed", range(20))
def test_front_and_best_are_what_their_definitions_say(seed: int) -> None:
    draw = random.Random(seed)
    rows = [row(i, draw.randint(1, 12), draw.randint(0, 10) / 10, draw.randint(1, 9)) for i in range(draw.randint(1, 30))]

    def dominates(one: TrialRecord, other: TrialRecord) -> bool:
        no_worse: Any = one.params <= other.params and one.accuracy >= other.accuracy
        better: Any = one.params < other.params or one.accuracy > other.accuracy or one.number < other.number
        return no_worse and better

    front = accuracy_front(rows)
    assert set(numbers(front)) == {one.number for one in rows if not any(dominates(other, one) for other in rows)}
    assert [one.params for one in front] == sorted({one.params for one in front})
    assert [one.accuracy for one in front] == sorted({one.accuracy for one in front})
    assert select_best(rows) == front[-1]
    for most in range(1, 13):
        assert select_best(rows, most) == (accuracy_front(one for one in rows if one.params <= most) or [None])[-1]


def test_best_of_a_study_is_what_a_retraining_takes(study: StudyPaths) -> None:
    report = report_best(study)
    subject = find_subject(study, "best")
    assert (f"trial {report.best.number}", report.best.accuracy) == (subject.title, subject.accuracy)
    assert report.front[-1] == report.best
    assert (report.study, report.max_params, report.max_macs) == ("tiny", None, None)


def test_multiply_adds_are_counted_where_they_are_asked_for(study: StudyPaths) -> None:
    stored = [one for one in read_study(study).trials if one.outcome == "trained"]
    rows = [replace(one, macs=None) for one in stored]  # as in studies from before every trial had them
    counted = with_macs(rows, study)
    assert counted == stored
    for one in counted:
        candidate = Candidate.from_json(study.trial(one.number).candidate.read_text(), source="the test")
        assert one.macs == count_macs(candidate.arch, read_settings(study).shape)
    cheapest = min(counted, key=lambda one: one.macs or 0)
    report = report_best(study, max_macs=cheapest.macs)
    assert report.best == cheapest
    assert report.front == [cheapest]
    assert with_macs([replace(cheapest, macs=7)], study) == [replace(cheapest, macs=7)], "what is known is not counted again"


def test_where_nothing_is_as_small_the_smallest_is_named(study: StudyPaths) -> None:
    rows = with_macs([one for one in read_study(study).trials if one.outcome == "trained"], study)
    smallest = min(rows, key=lambda one: one.params or 0)
    cheapest = min(rows, key=lambda one: one.macs or 0)
    with pytest.raises(BudgetError) as caught:
        report_best(study, max_params=10, max_macs=2000)
    assert caught.value.message == (
        "no completed network of study 'tiny' has at most 10 parameters and at most 2,000 MACs: "
        f"the smallest has {smallest.params:,} parameters (trial {smallest.number}), "
        f"the cheapest {cheapest.macs:,} MACs (trial {cheapest.number})"
    )
    with pytest.raises(BudgetError, match=rf"10 parameters: the smallest has {smallest.params:,} parameters \(trial \d+\)$"):
        report_best(study, max_params=10)
    assert report_best(study, max_params=smallest.params).best == smallest


def test_winner_that_is_off_the_front_is_listed_with_it(study: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [one for one in read_study(study).trials if one.outcome == "trained"]
    before = report_best(study).front
    other = next(one for one in rows if one != before[-1])
    monkeypatch.setattr("nas.report.compare.finalists_of", lambda study: [Finalist(other.number, 3, (0.9,))])
    report = report_best(study)
    assert report.best == other
    assert report.front == sorted({*before, other}, key=lambda one: (one.params or 0, one.number))


def test_study_in_which_nothing_ended_has_no_best(study: StudyPaths) -> None:
    empty = study_paths("empty")
    empty.folder.mkdir()
    empty.settings.write_text(study.settings.read_text())
    with pytest.raises(StudyError, match="study 'empty' has no completed trial yet") as caught:
        report_best(empty)
    assert caught.value.hint == "nas search --study empty   continues; nas list --study empty   shows the trials"


# ------------------------------------------------------------------------------------------------ what is read of studies


def test_report_of_a_study_counts_every_trial(study: StudyPaths) -> None:
    report = read_study(study)
    assert (report.name, report.trained, len(report.retrained)) == ("tiny", 2, 1)
    assert sum(report.counts.values()) == len(report.trials)
    assert report.best in report.trials
    assert report.best.accuracy == max(row.accuracy for row in report.trials if row.accuracy is not None)


def test_report_of_all_studies_names_those_that_cannot_be_read(study: StudyPaths) -> None:
    other = study.folder.parent / "other"
    other.mkdir()
    (other / "study.json").write_text('{"space": "x"}')
    reports, broken = read_studies()
    assert [report.name for report in reports] == ["tiny"]
    assert len(broken) == 1
    assert broken[0].startswith(f"other: {other / 'study.json'}: overrides: is missing")
