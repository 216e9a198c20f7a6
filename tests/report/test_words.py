"""Counts, times and rows in words."""

import pytest

from nas.report.words import (
    all_counts_text,
    bytes_text,
    count_draws,
    count_text,
    counts_line,
    listed,
    number_text,
    row_text,
    time_text,
    trained_text,
)
from nas.study.trials import TrialRecord


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (720, "12 min"), (5400, "1 h 30 min"), (11_100, "3 h 05 min")],
)
def test_times_are_shown_in_their_own_units(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_every_outcome_there_was_is_shown_in_the_same_words_everywhere() -> None:
    counts = {"trained": 1, "pruned_early": 5, "over_budget": 10, "failed": 0, "running": 2, "waiting": 3}
    assert counts_line(counts) == "1 completed, 5 pruned early, 10 over budget, 2 not ended, 3 waiting"
    assert trained_text(counts, " in study a") == "6 networks trained in study a: 1 completed, 5 pruned early"
    assert all_counts_text(counts).endswith("1 completed, 5 pruned early; 10 over budget, 2 not ended, 3 waiting")
    assert trained_text({"trained": 1}) == all_counts_text({"trained": 1}) == "1 network trained: 1 completed"
    assert trained_text({"over_budget": 1}) == "0 networks trained"
    assert count_draws(counts) == 18, "those that have not ended among them, and none that only waits"


def test_rows_stand_under_each_other_and_say_what_was_over() -> None:
    trained = TrialRecord(7, "trained", 0.7438, 1, 260_290, None, "basic 1-1", 1)
    over = TrialRecord(12, "over_budget", None, 0, 544_000, None, "preact 1-1", 1, over={"params": 0.8133, "macs": 0.1})
    assert row_text(trained) == "trial    7  completed     74.38%  after   1 epoch    260k  basic 1-1"
    assert row_text(over) == "trial   12  over budget  params +81%, macs +10%      544k  preact 1-1"
    assert row_text(trained).index("basic") == row_text(over).index("preact")


@pytest.mark.parametrize(("parts", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_list_in_words(parts: list[str], text: str) -> None:
    assert listed(parts) == text


def test_one_is_no_plural_and_counts_and_bytes_have_three_digits() -> None:
    assert [number_text(n, "epoch") for n in (0, 1, 1204)] == ["0 epochs", "1 epoch", "1,204 epochs"]
    counts = (None, 0, 999, 1000, 272_474, 999_499, 999_999, 4_483_172, 999_999_999)
    assert [count_text(value) for value in counts] == ["?", "0", "999", "1k", "272k", "999k", "1M", "4.48M", "1G"]
    assert [bytes_text(size) for size in (12, 340_000, 999_999, 1_210_000_000)] == ["12 bytes", "340 kB", "1 MB", "1.21 GB"]
