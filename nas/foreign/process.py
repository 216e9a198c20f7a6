"""The process that a foreign network is built and measured in: started, waited for, ended. Nothing of the user's code runs here.

It protects this process from a file that hangs, prints, exits or crashes; it is no sandbox, the file has its user's rights.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from nas.config import ImageShape
from nas.errors import ConfigError, NasError
from nas.foreign.build import is_the_users
from nas.foreign.facts import ForeignFacts
from nas.foreign.name import ForeignName

ANSWER, STAGE, STACK = "answer.json", "stage", "stack"
"""Files in the request's folder: what it found, how far it has come, where it stood when its time was up."""
KEPT_OUTPUT = 20_000
"""Bytes of what the user's file prints; the rest is counted."""
START_UP = 300.0
"""Seconds until torch must be imported, before the user's time begins."""
GRACE = 1.0
"""Seconds after its time is up in which the process says where it stands."""

# With -P and the path of this process, whatever lies in the working folder cannot stand in for a module that is needed here.
_START = (
    "import json, sys; request = json.load(sys.stdin); sys.path[:] = request['path']; "
    "from nas.foreign.inside import main; main(request)"
)


def inspect_network(
    name: ForeignName,
    shape: ImageShape,
    timeout: float,
    printed: Callable[[str], None] = lambda text: None,
    training: bool = False,
) -> ForeignFacts:
    """Builds and measures the network for images of `shape`, `timeout` in seconds without the start of the process; `training`
    also tries a step of training, as `nas.foreign.learns` has it.

    `printed` hears what its code printed, if it did, before this returns or raises. Raises ConfigError with what is wrong with
    it, or with how it ended its process.
    """
    with tempfile.TemporaryDirectory(prefix="nas-foreign-") as folder:
        request = {
            "path": sys.path,
            "parent": os.getpid(),
            "folder": folder,
            "network": name.text,
            "shape": shape.model_dump(),
            "timeout": timeout,
            "training": training,
        }
        process = subprocess.Popen(
            [sys.executable, "-u", "-P", "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        output = _Output(process.stdout)
        try:
            with suppress(BrokenPipeError), process.stdin:
                process.stdin.write(json.dumps(request).encode())
            in_time = _wait(process, Path(folder), timeout)
        finally:
            _end(process)
        if text := output.text():
            printed(text)
        return _answer(Path(folder), name, process.returncode, None if in_time else timeout)


def _wait(process: subprocess.Popen[bytes], folder: Path, timeout: float) -> bool:
    """Whether it ended by itself."""
    deadline = time.monotonic() + START_UP
    began = False
    while process.poll() is None:
        if not began and (folder / STAGE).exists():
            began, deadline = True, time.monotonic() + timeout + GRACE
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it started and that has not left its session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Output:
    """Reads a pipe to its end, so that its writer never waits, and keeps the beginning."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._kept = b""
        self._dropped = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while chunk := os.read(self._pipe.fileno(), 65536):
            room = KEPT_OUTPUT - len(self._kept)
            self._kept += chunk[:room]
            self._dropped += max(0, len(chunk) - room)

    def text(self) -> str:
        """Printable, without colours; after the process has ended."""
        self._thread.join(timeout=2)  # who left the session may hold the pipe open
        if not self._thread.is_alive():
            self._pipe.close()
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._kept.decode(errors="replace"))
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        text = "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text).strip("\n")
        return text + (f"\n… and {self._dropped:,} bytes more" if self._dropped else "")


# ------------------------------------------------------------------------------------------------------ what it answered


_DOING = {
    "import": "while it was imported",
    "build": "while it was built",
    "forward": "in its forward pass",
    "count": "while its multiply-adds were counted",
    "learn": "in a step of training",
}


def _answer(folder: Path, name: ForeignName, status: int, timeout: float | None) -> ForeignFacts:
    """`timeout`: seconds after which it was ended, None where it ended itself."""
    with suppress(FileNotFoundError):
        answer = json.loads((folder / ANSWER).read_bytes())
        if "facts" in answer:
            return ForeignFacts.model_validate(answer["facts"])
        raise ConfigError(answer["message"], hint=answer["hint"])
    try:
        stage = (folder / STAGE).read_text()
    except FileNotFoundError:
        raise NasError(
            f"the process that was to build {name.text} ended before it began, with status {status}",
            hint="nas doctor shows whether torch can be imported",
        ) from None
    doing = _DOING[stage]
    if timeout is not None:
        place = _place(folder / STACK, name)
        raise ConfigError(
            f"{name.text} was ended after {timeout:g} s {doing}{place}", hint="--timeout 5m gives it longer, if it only is slow"
        )
    if status < 0:
        ending = signal.Signals(-status).name
        cause = ", as the system does where memory runs out" if ending == "SIGKILL" else ""
        raise ConfigError(f"the process of {name.text} was ended by {ending} {doing}{cause}")
    raise ConfigError(
        f"{name.text} ended its process with status {status} {doing}",
        hint='what a program does when it is run belongs under if __name__ == "__main__":',
    )


def _place(stack: Path, name: ForeignName) -> str:
    """`, at net.py, line 7, in forward`: the innermost line of the user's, of any thread."""
    if name.file is None:
        return ""
    folder = name.file.absolute().parent
    for path, line, function in re.findall(r'File "(.+)", line (\d+) in (.+)', stack.read_text(errors="replace")):
        if is_the_users(Path(path), folder):
            inside = f", in {function}" if function != "<module>" else ""
            return f", at {Path(path).relative_to(folder)}, line {line}{inside}"
    return ""
