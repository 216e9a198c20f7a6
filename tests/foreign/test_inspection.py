"""The process of its own: what becomes of a file that hangs, exits, dies or prints. Each test starts one, which imports torch."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.config import ImageShape
from nas.errors import ConfigError
from nas.foreign.inspection import KEPT_OUTPUT, inspect_network
from nas.foreign.known import named
from nas.foreign.measure import ForeignFacts

pytestmark = pytest.mark.usefixtures("user_file")
SHAPE = ImageShape(channels=3, size=32, classes=10)


def inspect(text: str, printed: list[str], timeout: float = 250) -> ForeignFacts:
    return inspect_network(named(text), SHAPE, timeout, printed.append)


def test_network_is_measured_and_its_output_kept_apart(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('mine, and not the one that is meant')")
    (tmp_path / "random.py").write_text("raise RuntimeError('mine, and not the one that is meant')")
    (tmp_path / "sub").mkdir()
    shutil.move("mine.py", "sub/mine.py")
    printed: list[str] = []
    found = inspect("sub/mine.py:Net", printed)
    assert (found.built, found.output) == ("Net(num_classes=10)", (10,))
    assert printed == ["importing networks\nforward of (1, 3, 32, 32)"], "what runs again prints once"
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.rglob("__pycache__"))


def test_network_that_hangs_is_ended_with_the_line_where_it_was(user_file: Path) -> None:
    lines = user_file.read_text().splitlines()
    loop = next(n for n, line in enumerate(lines, 1) if "while True" in line)
    printed: list[str] = []
    begin = time.monotonic()
    with pytest.raises(ConfigError) as refused:
        inspect("mine.py:Hangs", printed, timeout=0.5)
    assert refused.value.message in {
        f"mine.py:Hangs was stopped after 0.5 s while it was built, at mine.py, line {line}, in __init__"
        for line in (loop, loop + 1)
    }
    assert refused.value.hint == "if it is only slow, use --timeout 5m"
    assert printed == ["importing networks\nhanging"]
    assert time.monotonic() - begin < 120


@pytest.mark.skipif(sys.platform != "linux", reason="a process is told of its parent's death on Linux alone")
def test_network_that_hangs_ends_with_the_command_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import os\nopen('pid', 'w').write(str(os.getpid()))\nwhile True: pass\n")
    code = (
        "from nas.config import ImageShape; from nas.foreign.inspection import foreign_name, inspect_network; "
        "inspect_network(foreign_name('hangs.py:Net'), ImageShape(channels=3, size=32, classes=10), 250)"
    )
    command = subprocess.Popen([sys.executable, "-c", code])
    pid = _wait_for(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text())
    command.kill()
    command.wait()
    _wait_for(lambda: not _runs(int(pid)))


def _wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Kills",
            "the process of mine.py:Kills was ended by SIGKILL while it was built, which the system does when memory runs out",
        ),
        ("Leaves", "mine.py:Leaves ended its process with status 0 while it was built"),
        ("For512", "For512() takes no images of 3×32×32: RuntimeError: "),
    ],
)
def test_network_that_ends_its_process_is_a_sentence(text: str, message: str) -> None:
    printed: list[str] = []
    with pytest.raises(ConfigError) as refused:
        inspect(f"mine.py:{text}", printed)
    assert refused.value.message.startswith(message)
    assert printed == ["importing networks"]


def test_what_a_file_starts_ends_with_it_and_endless_output_is_cut(tmp_path: Path) -> None:
    starts = "import subprocess\nprocess = subprocess.Popen(['sleep', '600'])\nopen('pid', 'w').write(str(process.pid))\n"
    (tmp_path / "spam.py").write_text(f"{starts}while True: print('\\x1b[31mspam\\x07')\n")
    printed: list[str] = []
    with pytest.raises(ConfigError, match=r"spam.py:Net was stopped after 0.5 s while it was imported, at spam.py, line 4"):
        inspect("spam.py:Net", printed, timeout=0.5)
    (text,) = printed
    assert text.startswith("spam�\nspam�\n")
    assert text.endswith(" bytes more")
    assert len(text) < KEPT_OUTPUT + 100
    _wait_for(lambda: not _runs(int((tmp_path / "pid").read_text())))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # ended, and waiting for whoever adopted it
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True
