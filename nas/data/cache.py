"""Decoded images on disk: one memory-mapped uint8 array a split, made once and shared by every process that opens it.

Knows files and arrays; knows nothing of data sets, splits or training. An entry is a folder, written under a temporary name
and renamed when whole, so that a cache that was cut off is never taken for a finished one.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.errors import DataError
from nas.paths import cache_folder

# Raise when what is written changes its meaning, so that entries of an older version are made again.
FORMAT = 2
SHARED_FOLDER = 0o777
Progress = Callable[[Iterable, str, int], Iterable]
"""Wraps an iterable to show its progress: (items, what, how many) → the same items."""


def silent(items: Iterable, what: str, count: int) -> Iterable:
    return items


@dataclass(frozen=True)
class Entry:
    folder: Path

    def array(self, name: str) -> np.ndarray:
        # Copy on write: torch refuses to share memory that it could not write to. Nothing does write.
        return np.load(self.folder / f"{name}.npy", mmap_mode="c")

    def meta(self) -> dict:
        return json.loads((self.folder / "meta.json").read_text())


def entry_key(parts: Iterable[object]) -> str:
    digest = hashlib.sha256(f"format {FORMAT}".encode())
    for part in parts:
        digest.update(f"\0{part}".encode())
    return digest.hexdigest()[:20]


def find_or_make(name: str, key: str, make: Callable[[Path], None]) -> Entry:
    """The entry of this key, made by `make(folder)` where there is none. Two processes may race; the first one to finish wins."""
    folder = cache_folder() / f"{name}-{key}"
    unfinished = None
    try:
        if (folder / "meta.json").is_file():
            return Entry(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        make(unfinished)
        unfinished.chmod(SHARED_FOLDER & ~_umask())  # mkdtemp's are for one user alone; a cache may be shared
        try:
            os.rename(unfinished, folder)
        except OSError:
            if not (folder / "meta.json").is_file():
                raise
    except OSError as error:
        if error.errno is not None:
            raise DataError(
                f"the cache of decoded images under {folder.parent} cannot be written: {error.strerror}",
                hint="free some space there, or name another folder with NAS_CACHE=FOLDER",
            ) from None
        raise
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
    return Entry(folder)


def _umask() -> int:
    """The one way to read it is to set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_meta(folder: Path, meta: dict) -> None:
    """Last of all: an entry with a meta.json is a finished one."""
    (folder / "meta.json").write_text(json.dumps(meta))
