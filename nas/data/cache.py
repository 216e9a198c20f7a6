"""Decoded images on disk: one memory-mapped uint8 array a split, made once and shared by every process that opens it.

Knows files and arrays; knows nothing of data sets, splits or training. An entry is a folder, written under a temporary name
and renamed when whole, so that a cache that was cut off is never taken for a finished one.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from nas.data.fitting import RESIZE, with_channels
from nas.errors import DataError
from nas.paths import cache_folder

# Raise when what is written changes its meaning, so that entries of an older version are made again.
FORMAT = 2
SHARED_FOLDER = 0o777
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
DECODED_TOGETHER = 64
"""Images: a task for each would cost as much as decoding a small one, and memory for as many as there are."""
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


class ImageFile(NamedTuple):
    path: str
    bytes: int
    changed: int
    """In nanoseconds since 1970."""


def image_files(folder: str) -> Iterator[ImageFile]:
    """The images in a folder and in those within it, ordered as their paths. Every start of every process lists them all, and
    pathlib would take more than twice as long."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {reason_of(error)}") from None
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from image_files(entry.path)
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
            try:
                status = entry.stat()
            except OSError:  # a link to nothing: whoever decodes it says so
                yield ImageFile(entry.path, 0, 0)
            else:
                yield ImageFile(entry.path, status.st_size, status.st_mtime_ns)


# PIL reports broken PNG chunks as SyntaxError.
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def reason_of(error: BaseException) -> str:
    return str(error) or type(error).__name__


def decode(path: Path, size: int, channels: int, resize: str = "squash") -> np.ndarray:
    """uint8 (size, size, channels); any other size is brought to it as one of `RESIZE` does."""
    with Image.open(path) as image:
        fitted = RESIZE[resize](with_channels(image, channels), size)
        return np.asarray(fitted, dtype=np.uint8).reshape(size, size, channels)


def decode_all(
    paths: Sequence[Path], out: np.ndarray, progress: Progress, what: str, resize: str = "squash"
) -> list[tuple[int, str]]:
    """Decodes into `out`, uint8 (N, size, size, channels), on every core. Returns (index, reason) of each unreadable file."""
    size, channels = out.shape[1], out.shape[3]

    def one(i: int) -> tuple[int, str] | None:
        try:
            out[i] = decode(paths[i], size, channels, resize)
        except UNREADABLE as error:
            return i, reason_of(error)
        return None

    def some(start: int) -> list[tuple[int, str] | None]:
        return [one(i) for i in range(start, min(start + DECODED_TOGETHER, len(paths)))]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = chain.from_iterable(pool.map(some, range(0, len(paths), DECODED_TOGETHER)))
        return [bad for bad in progress(results, what, len(paths)) if bad is not None]


def bad_images_error(
    bad: Sequence[tuple[Path, str]],
    total: int,
    hint: str = "repair or remove them, or leave them out with --skip-bad-images",
) -> DataError:
    first = "\n".join(f"  {path}: {reason}" for path, reason in bad[:5])
    more = f"\n  and {len(bad) - 5} more" if len(bad) > 5 else ""
    return DataError(f"{len(bad)} of {total} images cannot be read:\n{first}{more}", hint=hint)
