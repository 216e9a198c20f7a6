"""Folders in which one process trains at a time."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock

from nas.errors import StudyError

OTHER_RUN = "wait for it, or train another network: --seed N, --epochs N, --recipe NAME"


@contextmanager
def held(folders: Iterable[Path], what: str = "run", command: str = "nas retrain", hint: str = OTHER_RUN) -> Iterator[None]:
    """They belong to this process meanwhile, and are made where they are not there. `what` is in them, `command` trains it, and
    `hint` says what to do while another process does.

    Raises StudyError where one does, or a folder cannot be written.
    """
    with ExitStack() as locks:
        for folder in folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                locks.enter_context(filelock.FileLock(folder / f"{what}.lock", timeout=0))
            except filelock.Timeout:
                raise StudyError(f"{what} {folder.name!r} is being trained by another {command}", hint=hint) from None
            except OSError as error:
                raise StudyError(
                    f"the {what}'s folder {folder.absolute()} cannot be written: {error.strerror}",
                    hint="make room, or work in another folder: NAS_STUDIES=FOLDER",
                ) from None
        yield
