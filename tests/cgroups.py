"""Control groups of Linux, for tests of what a process may use: only root may make one, and only where they limit that."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def new_cgroup(*kinds: tuple[str, dict[str, str]]) -> Iterator[Path]:
    """The list of the processes of a new one with these files, of the first kind that can be made; `kinds`: a folder of
    /sys/fs/cgroup, and what the files hold. Whoever is left in it at the end is killed. Skips the test where none can be made."""
    for folder, files in kinds:
        group = Path("/sys/fs/cgroup", folder, f"nas-test-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue
        processes = group / "cgroup.procs"
        try:
            if all((group / file).exists() for file in files):
                for file, text in files.items():
                    (group / file).write_text(text)
                yield processes
                return
        finally:
            while processes.exists() and (left := processes.read_text().split()):
                for pid in left:
                    os.kill(int(pid), signal.SIGKILL)
                time.sleep(0.01)
            group.rmdir()
    pytest.skip("this process may make no such control group")
