"""A study for scripted workers, see `scripted`, a study's storage, and a database server, see `tests.postgres`."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import pytest

from nas.interrupts import Stop
from nas.paths import StudyPaths
from nas.space.space import Space
from nas.space.space_file import read_space
from nas.study.ownership import own_study
from nas.study.storage import owned_study
from tests.postgres import Cluster, postgres  # noqa: F401  (a fixture)
from tests.study.scripted import SPACE, Bench


def own(
    paths: StudyPaths, url: str | None = None, note: Callable[[str], None] = lambda text: None, stop: Stop | None = None
) -> AbstractContextManager[optuna.storages.BaseStorage]:
    """The storage of the study's coordinator."""
    return own_study(paths, url, note=note, stop_requested=lambda: stop is not None and stop.requested)


@contextmanager
def led(
    paths: StudyPaths, url: str | None = None, *, sampler: Any = None, pruner: Any = None, **more: Any
) -> Iterator[optuna.Study]:
    """The study that the coordinator leads, as `nas search` has it when it has begun; `more`: see `own`."""
    with own(paths, url, **more) as storage:
        paths.settings.write_text("{}")
        yield owned_study(storage, paths, sampler, pruner)


@pytest.fixture
def paths(tmp_path: Path) -> StudyPaths:
    """Of a study whose folder is not there yet."""
    return StudyPaths(tmp_path / "studies" / "mine")


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Cluster:
    return request.getfixturevalue("postgres")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no `mount`")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # this process may have a study open there


def fill(file: Path) -> Path:
    """Takes the room that is left on its disk."""
    with open(file, "wb", buffering=0) as filling, suppress(OSError):
        while filling.write(bytes(4096)):
            pass
    return file


@pytest.fixture
def space() -> Space:
    return read_space(SPACE, source="the test", name="test")


@pytest.fixture
def bench(tmp_path: Path, space: Space) -> Callable[..., Bench]:
    """`bench(10, 20, 90)` draws these channels; above 50 are over budget."""

    def make(*channels: int, **changes: Any) -> Bench:
        return Bench(StudyPaths(tmp_path / "study"), space, channels or range(1, 51), **changes)

    return make
