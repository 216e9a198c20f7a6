"""A study for scripted workers, see `scripted`, and a database server, see `tests.postgres`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.paths import StudyPaths
from nas.space.space import Space
from nas.space.space_file import read_space
from tests.postgres import postgres  # noqa: F401  (a fixture)
from tests.study.scripted import SPACE, Bench


@pytest.fixture
def space() -> Space:
    return read_space(SPACE, source="the test", name="test")


@pytest.fixture
def bench(tmp_path: Path, space: Space) -> Callable[..., Bench]:
    """`bench(10, 20, 90)` draws these channels; above 50 are over budget."""

    def make(*channels: int, **changes: Any) -> Bench:
        return Bench(StudyPaths(tmp_path / "study"), space, channels or range(1, 51), **changes)

    return make
