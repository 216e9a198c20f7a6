from pathlib import Path

import pytest

from tests.jobs.working import Workplace


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace.led(tmp_path / "study")
