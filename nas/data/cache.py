"""Decoded images on disk: one memory-mapped uint8 array a split, made once and shared by every process that opens it.

Knows files and arrays; knows nothing of data sets, splits or training. An entry is a folder, written under a temporary name and
renamed when whole. It is checked whenever it is opened, and made again where it is damaged.
"""

import hashlib
import json
import os
import shutil
import sys
import uuid
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.errors import DataError
from nas.paths import cache_folder

FORMAT = 3  # raise it when what is written changes its meaning, so that entries of an older version are made again
META = "meta.json"
CHECKED_BYTES, CHECKED_PARTS = 2**20, 64  # of a larger file so many parts of so many bytes are checked, spread evenly
Progress = Callable[[Iterable, str, int], Iterable]
"""Wraps an iterable to show its progress: (items, what, how many) → the same items."""


def silent(items: Iterable, what: str, count: int) -> Iterable:
    return items


@dataclass(frozen=True)
class Entry:
    folder: Path

    def has(self, name: str) -> bool:
        return (self.folder / f"{name}.npy").is_file()

    def array(self, name: str) -> np.ndarray:
        # Copy on write: torch refuses to share memory that it could not write to. Nothing does write.
        return np.load(self.folder / f"{name}.npy", mmap_mode="c")

    def meta(self) -> dict[str, Any]:
        return json.loads((self.folder / META).read_text())

    def damage(self) -> str | None:
        """What is wrong with it, in words. Raises PermissionError."""
        try:
            recorded = self.meta().get("files")
            if recorded is None:  # made before sizes were recorded
                for file in self.folder.glob("*.npy"):
                    np.load(file, mmap_mode="r")
                    other = file.name.replace("-images", "-labels") if "-images" in file.name else file.name
                    (self.folder / other).stat()
                    (self.folder / file.name.replace("-labels", "-images")).stat()
                return None
            damaged = [name for name, checksum in recorded.items() if _checksum(self.folder / name) != checksum]
            return f"{damaged[0]} has changed since it was written" if damaged else None
        except PermissionError:
            raise
        except FileNotFoundError as error:
            return f"{Path(error.filename).name} is missing"
        except (OSError, ValueError, EOFError, AttributeError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            return str(error)


def entry_key(parts: Iterable[object]) -> str:
    digest = hashlib.sha256(f"format {FORMAT}".encode())
    for part in parts:
        digest.update(f"\0{part}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:20]


def find_or_make(name: str, key: str, make: Callable[[Path], dict[str, Any]]) -> Entry:
    """The entry of this key. Where there is none, or a damaged one, `make(folder)` writes its arrays and returns its meta data.
    Two processes may race; the first one to finish wins."""
    entry = Entry(cache_folder() / f"{name}-{key}")
    unfinished = None
    try:
        if entry.folder.is_dir():
            damage = entry.damage()
            if damage is None:
                return entry
            print(f"the cache of decoded images is damaged and will be rebuilt: {entry.folder}: {damage}", file=sys.stderr)
            shutil.rmtree(entry.folder)
        entry.folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = entry.folder.parent / f".{name}-{uuid.uuid4().hex}"
        unfinished.mkdir()
        meta = make(unfinished)
        files = {file.name: _checksum(file, sync=True) for file in sorted(unfinished.iterdir())}
        (unfinished / META).write_text(json.dumps({**meta, "files": files}))
        try:
            os.rename(unfinished, entry.folder)
        except OSError:
            if not (entry.folder / META).is_file():
                raise
    except OSError as error:
        if error.errno is not None:
            raise DataError(
                f"the cache of decoded images under {entry.folder.parent} cannot be written: {error.strerror}",
                hint="free some space there, or set another folder with NAS_CACHE=FOLDER",
            ) from None
        raise
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
    return entry


def _checksum(file: Path, sync: bool = False) -> list[int]:
    """Bytes and CRC-32, the latter over evenly spread parts of a large file; `sync` first waits until the file is on the disk."""
    with open(file, "r+b" if sync else "rb") as opened:
        if sync:
            os.fsync(opened.fileno())
        size = os.fstat(opened.fileno()).st_size
        crc = 0
        for start in range(0, size, max(CHECKED_BYTES, size // CHECKED_PARTS)):
            opened.seek(start)
            crc = zlib.crc32(opened.read(CHECKED_BYTES), crc)
    return [size, crc]
