"""Registers the commands, and turns a NasError into a message. Imports nothing heavy: `nas --help` must be quick."""

import errno
import io
import os
import sys
from typing import NoReturn

from nas.cli import check, machine, read, search, show, train, use  # noqa: F401  (each registers its commands)
from nas.cli.options import app
from nas.errors import NasError
from nas.files import is_utf8

ORDER = (
    *("search", "retrain", "ablate", "baseline", "runs", "submit", "predict", "export", "best", "show", "check", "list"),
    *("report", "dashboard", "compare", "presets", "space", "doctor", "clean", "rename", "remove"),
)
"""Of the commands in the help."""
LEAST_FILES = 256  # that a process may have open at once: libraries, workers' pipes, the database
app.registered_commands.sort(key=lambda command: ORDER.index(command.name or ""))


RIGHTS = "ask its owner for permission, or use your own folder for studies: NAS_STUDIES=FOLDER"
REFUSALS = {
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EROFS: RIGHTS,
    errno.ENAMETOOLONG: "use a shorter name; most file systems allow 255 bytes",
}
"""Hints for errors of the file system."""


def main() -> NoReturn:
    """Exit status: 0 done, 1 an error that the user can correct, 2 wrong arguments, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # ? for what a terminal or pipe cannot show
    try:
        _require_utf8(sys.argv)
        _require_files()
        app(prog_name="nas")
    except NasError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"Next:  {error.hint}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        print(f"Error: {error.filename or 'a file'}: {os.strerror(error.errno)}", file=sys.stderr)
        print(f"Next:  {REFUSALS[error.errno]}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def _require_utf8(arguments: list[str]) -> None:
    """Settings, cards and ledgers, which are JSON, name the command and its folders."""
    for one in arguments:
        if not is_utf8(one):
            raise NasError(f"arguments and file names must be UTF-8, but {one!r} is not", hint="rename that file or folder")


def _require_files() -> None:
    """Raises the limit of open files to what a search needs, where the system lets us."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= LEAST_FILES:
        return
    if hard != resource.RLIM_INFINITY and hard < LEAST_FILES:
        raise NasError(
            f"this shell allows {hard} open files for each process, and nas needs {LEAST_FILES}",
            hint=f"run ulimit -n {LEAST_FILES} in a shell that may raise the limit, then the same command",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (LEAST_FILES, hard))
