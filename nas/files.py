"""Files that are written whole or not at all, what keeps them from being written, and how they are told apart."""

import errno
import hashlib
import os
from pathlib import Path


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """A reader finds the old content or the new, and so does whoever comes after a crash. Raises OSError, and leaves no rest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # says which disk is full
        raise


def is_disk_full(error: OSError) -> bool:
    """Or a quota exceeded."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_utf8(text: str) -> bool:
    """Whether a file's name, or an argument, can be written down: of bytes that are not UTF-8 Python makes lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def sha256_of(path: Path) -> str:
    """In hexadecimal. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
