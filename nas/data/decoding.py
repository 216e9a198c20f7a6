"""Files of images: which there are in a folder, and how each becomes pixels of the network's size and channels."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from nas.cores import usable_cores
from nas.data.cache import Progress
from nas.errors import DataError, one_line

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".jfif", ".jpe", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".apng"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga", ".avif"),
)
DECODED_TOGETHER = 64  # images: a task for each would cost as much as decoding a small one, and memory for as many as there are
DECODING = "upright by EXIF, white beneath what is transparent, the upper 8 of 16 bits"
"""How images are decoded. Change it with that, so that no image decoded before stands beside new ones in the cache."""

# An exported network takes along what follows, down to `RESIZE`: it needs Pillow alone.


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """Upright, in grey (1) or RGB (3). What is transparent shows white; 16 bits of grey become the upper 8, where Pillow would
    cut off."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # damaged EXIF data; of damaged pixels the rest complains
        image.load()
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, and nothing says from where to where: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        image = image.convert("I")
        low, high = image.getextrema()
        if not 0 <= low <= high <= 65535:  # type: ignore[operator]
            raise ValueError(f"its pixels are from {low} to {high}, and 16 bits hold 0 to 65535: save it with 8 or 16 bits")
        image = image.point([level >> 8 for level in range(65536)], "L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("L" if channels == 1 else "RGB")


def squashed(image: Image.Image, size: int) -> Image.Image:
    """All of the image, its sides changed each by a factor of its own."""
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)


def cropped(image: Image.Image, size: int) -> Image.Image:
    """The largest square in its middle."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def padded(image: Image.Image, size: int) -> Image.Image:
    """All of the image in its own proportions, in the middle of a black square."""
    return ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC)


RESIZE = {"squash": squashed, "crop": cropped, "pad": padded}  # to squares, by name; each with an antialiasing filter


class ImageFile(NamedTuple):
    path: str
    bytes: int
    changed: int  # in nanoseconds since 1970, …
    replaced: int  # … and its inode, which no program can set back: another image may have the same name, size and time


def is_image(name: str) -> bool:
    """By a file's ending; hidden files are none, such as the `._cat.png` that macOS leaves beside `cat.png`."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def image_files(folder: str, others: Counter[str] | None = None, within: frozenset[str] = frozenset()) -> Iterator[ImageFile]:
    """The images in a folder and in its folders that are not hidden, linked ones among them, ordered by path. Every start of
    every process lists them all, and pathlib would take more than twice as long.

    `others` counts by their endings the files that are none. `within`: the folders whose links led here; none leads back.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {reason_of(error)}") from None
    for entry in entries:
        if entry.is_dir():
            inner = within
            if entry.is_symlink():
                inner, real = within | {os.path.realpath(folder)}, os.path.join(os.path.realpath(entry.path), "")
                if any(os.path.join(one, "").startswith(real) for one in inner):
                    continue
            if not entry.name.startswith("."):
                yield from image_files(entry.path, others, inner)
        elif is_image(entry.name):
            try:
                status = entry.stat()
            except OSError:  # a link to nothing: whoever decodes it says so
                yield ImageFile(entry.path, 0, 0, 0)
            else:
                yield ImageFile(entry.path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        elif others is not None and not entry.name.startswith("."):
            others[os.path.splitext(entry.name)[1].lower() or "no ending"] += 1


def listing_digest(folders: Iterable[str]) -> str:
    """64 hexadecimal digits of which images there are in these folders, how large and how old."""
    digest = hashlib.sha256()
    for file in chain.from_iterable(map(image_files, folders)):
        digest.update(f"\0{file.path}\0{file.bytes}\0{file.changed}\0{file.replaced}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def others_text(others: Counter[str]) -> str:
    """`3 files of the folder are left out: .heic (2), .txt (1)`; empty without any."""
    if not (total := others.total()):
        return ""
    kinds = ", ".join(f"{what} ({count:,})" for what, count in others.most_common(5)) + (", …" if len(others) > 5 else "")
    return f"{total:,} {'files' if total > 1 else 'file'} of the folder {'are' if total > 1 else 'is'} left out: {kinds}"


def reason_of(error: BaseException) -> str:
    return str(error) or type(error).__name__


def decoding_failure(error: Exception) -> str:
    """Why an image cannot be decoded. Pillow's decoders raise nearly anything; what is not usual names its type."""
    usual = OSError | SyntaxError | ValueError | Image.DecompressionBombError
    return reason_of(error) if isinstance(error, usual) else one_line(error)


def decode(path: Path, size: int, channels: int, resize: str = "squash") -> np.ndarray:
    """uint8 (size, size, channels), fitted by one of `RESIZE`. Raises whatever Pillow's decoders do."""
    with Image.open(path) as image:
        fitted = RESIZE[resize](with_channels(image, channels), size)
        return np.asarray(fitted, dtype=np.uint8).reshape(size, size, channels)


def decode_all(
    paths: Sequence[Path], out: np.ndarray, progress: Progress, what: str, resize: str = "squash"
) -> list[tuple[int, str]]:
    """Decodes into `out`, uint8 (N, size, size, channels), on every usable core. Returns (index, reason) where that fails."""
    size, channels = out.shape[1], out.shape[3]

    def one(i: int) -> tuple[int, str] | None:
        try:
            out[i] = decode(paths[i], size, channels, resize)
        except Exception as error:
            return i, decoding_failure(error)
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
