"""Workers of searches within the tests' own process: copies of one that has imported torch and its compiler, which takes longer
than nearly all that tests train.

Commands in processes of their own start theirs as users' do, and so does tests/jobs/test_local_executor.py.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from nas.jobs.local import LocalExecutor

ROOT = Path(__file__).parents[1]
POSSIBLE = sys.platform == "linux"
"""Elsewhere a process that has imported so much may not be able to copy itself."""


class Copy(ForkServerProcess):
    """Has the environment of who starts it, as a spawned process would; a copy has that of its original."""

    def start(self) -> None:
        self.environment = dict(os.environ)
        super().start()

    def run(self) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        super().run()


class Copies(ForkServerContext):
    Process = Copy  # type: ignore[assignment]


def new_process(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A copy, where that is possible."""
    kind = Copy if POSSIBLE else multiprocessing.get_context("spawn").Process
    return kind(target=target, args=arguments, daemon=True)


@contextmanager
def warm_workers() -> Iterator[None]:
    if not POSSIBLE:
        yield
        return
    with pytest.MonkeyPatch.context() as monkeypatch:
        # What it begins with; see `Copy`.
        monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        multiprocessing.set_forkserver_preload(["tests.warm", "tests.warm_original"])
        forkserver.ensure_running()
    with pytest.MonkeyPatch.context() as monkeypatch:
        make = LocalExecutor.__init__

        def make_warm(executor: LocalExecutor, plans: list[Any]) -> None:
            make(executor, plans)
            executor._context = Copies()  # type: ignore[assignment]

        monkeypatch.setattr(LocalExecutor, "__init__", make_warm)
        yield


@contextmanager
def cold_workers() -> Iterator[None]:
    """Within `warm_workers`: as users' searches start them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        make = LocalExecutor.__init__

        def make_cold(executor: LocalExecutor, plans: list[Any]) -> None:
            make(executor, plans)
            executor._context = multiprocessing.get_context("spawn")

        monkeypatch.setattr(LocalExecutor, "__init__", make_cold)
        yield
