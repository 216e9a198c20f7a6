"""A user's file, `networks.py` as `mine.py` in the working folder."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torchvision.models  # noqa: F401  (here, or it would be imported again for each test, which torch refuses)


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What its import changes is undone."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield Path(shutil.copy(Path(__file__).parent / "networks.py", tmp_path / "mine.py"))
    for name in set(sys.modules) - before:
        del sys.modules[name]
