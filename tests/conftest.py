"""What several rooms' tests share: folders of their own, one tiny study that was really searched, and the command line."""

import gc
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pytest
import sqlalchemy
import torch

from nas.cli.main import main
from nas.interrupts import Stop
from nas.paths import StudyPaths, study_paths
from nas.runs.retrain import retrain
from nas.runs.train import TrainingDisplay
from nas.specs import RetrainSpec, SearchSpec
from nas.study.finalists import Round
from nas.study.run import SearchDisplay, SearchPlan, run_search
from nas.study.source import Progress
from nas.study.trials import TrialRecord
from tests import warm
from tests.machines import Machine

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
# Each of several test processes, with all that it starts, keeps to one core: threads of two that share their cores wait for each
# other nearly all the time.
if (_process := os.environ.get("PYTEST_XDIST_WORKER")) and CORES:
    os.sched_setaffinity(0, {CORES[int(_process.removeprefix("gw")) % len(CORES)]})
# Networks in tests are so small that a second thread costs more than it gives, above all where several tests run at once.
torch.set_num_threads(1)


def unpooled(database: Path) -> optuna.storages.RDBStorage:
    """Optuna's own storage, which closes each connection after use."""
    return optuna.storages.RDBStorage(f"sqlite:///{database}", {"poolclass": sqlalchemy.NullPool})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--exhaustive", action="store_true", help="also the tests that take minutes of a core")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # The longest first, or the others would be waiting for it at the end.
    items.sort(key=lambda item: "test_killed_at_every_transition" not in item.name)
    if not config.getoption("--exhaustive"):
        for item in items:
            if item.get_closest_marker("exhaustive"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: scripts/test --exhaustive"))


def pytest_collection_finish(session: pytest.Session) -> None:
    # To look for garbage in all that is imported takes 0.4 s, and many a test does so.
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    gc.unfreeze()  # or triton lists, as the process ends, all that it has left behind


TINY_SPACE = """\
version: 1
budget: {params: 3k}
arch:
  stages: 2
  block: {type: categorical, choices: [basic, preact]}
  stage:
    blocks: 1
    channels: {type: int, low: 4, high: 12}
train:
  epochs: 2
  batch_size: 64
  lr: {type: float, low: 0.05, high: 0.2, log: true}
  augment: {crop_padding: 1, flip: none}
"""


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes its user's studies, cache or data."""
    _move_into(tmp_path, monkeypatch)


@pytest.fixture(autouse=True, scope="session")
def warm_workers() -> Iterator[None]:
    """Workers that have imported torch before they start; see tests/warm.py."""
    with warm.warm_workers():
        yield


@pytest.fixture(scope="module")
def cold_workers() -> Iterator[None]:
    """For tests of how workers start."""
    with warm.cold_workers():
        yield


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Threads that an earlier test has left would wait for each other on the single core of its process."""
    torch.set_num_threads(1)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`machine(gpus=2, cores=8)`: torch and the system show such a one. GPUs by their CUDA capabilities, or their number."""

    def make(gpus: int | Sequence[tuple[int, int]] = 0, **facts: Any) -> None:
        Machine(((8, 0),) * gpus if isinstance(gpus, int) else tuple(gpus), **facts).show(monkeypatch)

    return make


@pytest.fixture
def all_cores() -> Iterator[None]:
    """For tests whose searches have several workers, each of which takes a core."""
    if not CORES:
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    yield
    os.sched_setaffinity(0, own)


def _move_into(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_STUDIES", str(folder / "studies"))
    monkeypatch.setenv("NAS_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)


class QuietDisplay(SearchDisplay):
    """Shows a search to nobody, and remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.rows: list[TrialRecord] = []
        self.plan: SearchPlan | None = None
        self.finalists: Round | None = None

    def begin(self, plan: SearchPlan) -> None:
        self.plan = plan

    def begin_finalists(self, chosen: Round, there: int, /) -> None:
        self.finalists = chosen

    def ended(self, row: TrialRecord, progress: Progress) -> None:
        self.rows.append(row)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A studies folder with the study `tiny`: two networks trained on digits, the best one retrained for an epoch."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(TINY_SPACE)
    with pytest.MonkeyPatch.context() as monkeypatch:
        _move_into(folder, monkeypatch)
        monkeypatch.setattr(os, "cpu_count", lambda: 1)  # the threads of the worker
        request = SearchSpec(study="tiny", space="tiny.yaml", dataset="digits", trials=2, device="cpu")
        run_search(request, QuietDisplay())
        spec = RetrainSpec(study_paths("tiny"), epochs=1, device="cpu")
        retrain(spec, lambda plans, pending, ctx: None, TrainingDisplay(), Stop())
    return folder / "studies"


@pytest.fixture
def study(finished_study: Path, tmp_path: Path) -> StudyPaths:
    """A copy of the study `tiny` that the test may change."""
    shutil.copytree(finished_study, tmp_path / "studies")
    return study_paths("tiny")


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, where it ended well."""
        assert self.code == 0, self.err
        return json.loads(self.out)


Nas = Callable[..., Done]
"""`nas("list", "--json")`: see the fixture."""


@pytest.fixture
def nas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Nas]:
    """`nas("list", "--json")` runs the command line in this process, as the console script does."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["nas", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Done(ended.value.code or 0, out, err)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)
