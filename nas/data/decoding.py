"""Files of images: which there are in a folder, and their pixels."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from nas.cores import usable_cores
from nas.data.cache import Progress
from nas.data.fitting import RESIZE, with_channels
from nas.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
DECODED_TOGETHER = 64
"""Images: a task for each would cost as much as decoding a small one, and memory for as many as there are."""
# PIL reports broken PNG chunks as SyntaxError.
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class ImageFile(NamedTuple):
    path: str
    bytes: int
    changed: int
    """In nanoseconds since 1970."""


def is_image(name: str) -> bool:
    """By a file's ending; hidden files are none, such as the `._cat.png` that macOS leaves beside `cat.png`."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def image_files(folder: str) -> Iterator[ImageFile]:
    """The images in a folder and in those within it that are not hidden, ordered as their paths. Every start of every process
    lists them all, and pathlib would take more than twice as long."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {reason_of(error)}") from None
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if not entry.name.startswith("."):
                yield from image_files(entry.path)
        elif is_image(entry.name):
            try:
                status = entry.stat()
            except OSError:  # a link to nothing: whoever decodes it says so
                yield ImageFile(entry.path, 0, 0)
            else:
                yield ImageFile(entry.path, status.st_size, status.st_mtime_ns)


def listing_digest(folders: Iterable[str]) -> str:
    """64 hexadecimal digits of which images there are in these folders, how large and how old."""
    digest = hashlib.sha256()
    for file in chain.from_iterable(map(image_files, folders)):
        digest.update(f"\0{file.path}\0{file.bytes}\0{file.changed}".encode(errors="surrogateescape"))
    return digest.hexdigest()


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
    """Decodes into `out`, uint8 (N, size, size, channels), on every core there is for it. Returns (index, reason) of each file
    that is unreadable."""
    size, channels = out.shape[1], out.shape[3]

    def one(i: int) -> tuple[int, str] | None:
        try:
            out[i] = decode(paths[i], size, channels, resize)
        except UNREADABLE as error:
            return i, reason_of(error)
        return None

    def some(start: int) -> list[tuple[int, str] | None]:
        return [one(i) for i in range(start, min(start + DECODED_TOGETHER, len(paths)))]

    with ThreadPoolExecutor(usable_cores()) as pool:
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
