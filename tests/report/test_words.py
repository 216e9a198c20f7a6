"""Figures in words: what a reader takes for the number has to be it."""

import pytest

from nas.report.words import bytes_text, count_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "?"),
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (272_474, "272k"),
        (999_499, "999k"),
        (999_999, "1M"),
        (4_483_172, "4.48M"),
        (999_999_999, "1G"),
    ],
)
def test_counts_have_three_digits_and_their_unit(value: int | None, text: str) -> None:
    assert count_text(value) == text


def test_bytes_have_three_digits_and_their_unit() -> None:
    assert [bytes_text(size) for size in (12, 340_000, 999_999, 1_210_000_000)] == ["12 bytes", "340 kB", "1 MB", "1.21 GB"]
