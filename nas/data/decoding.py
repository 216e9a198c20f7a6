"""Images: which files of a folder are some, and how each becomes pixels of the network's size and channels."""

import hashlib
import io
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
DECODED_TOGETHER, TOGETHER_BYTES = 64, 2**22  # images, or bytes, of a task: one for each image would cost as much as to decode it
DECODING = "upright by EXIF, white beneath what is transparent, the upper 8 of 16 bits"
"""How images are decoded. Change it with that, so that no image decoded before stands beside new ones in the cache."""

GREY_MODES = ("1", "L", "I;16", "I;16L", "I;16B", "I")  # of Pillow's images; all others are of colours

Member = Path | bytes | np.ndarray | Image.Image
"""An image before it is decoded: a file, the content of one, uint8 pixels (H, W) or (H, W, C), or Pillow's."""

# An exported network takes along what follows, down to `RESIZE`: it needs Pillow alone.


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """Upright, in grey (1) or RGB (3). What is transparent shows white; 16 bits of grey become the upper 8, where Pillow would
    cut off."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # damaged EXIF data; of damaged pixels the rest complains
        image.load()
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        image = image.convert("I")
        low, high = image.getextrema()
        if not 0 <= low <= high <= 65535:  # type: ignore[operator]
            raise ValueError(f"its pixels are from {low} to {high}, but 16 bits hold 0 to 65535: save it with 8 or 16 bits")
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
            yield file_of(entry.path)
        elif others is not None and not entry.name.startswith("."):
            others[os.path.splitext(entry.name)[1].lower() or "no ending"] += 1


def file_of(path: str | os.PathLike[str]) -> ImageFile:
    """Nothing but its path where there is no such file: whoever reads it says so."""
    try:
        status = os.stat(path)
    except OSError:
        return ImageFile(os.fspath(path), 0, 0, 0)
    return ImageFile(os.fspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def listing_digest(origin: Iterable[str]) -> str:
    """64 hexadecimal digits of these files and of the images in these folders: which there are, how large and how old."""
    digest = hashlib.sha256()
    for file in chain.from_iterable(image_files(path) if os.path.isdir(path) else [file_of(path)] for path in origin):
        digest.update(f"\0{file.path}\0{file.bytes}\0{file.changed}\0{file.replaced}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def others_text(others: Counter[str]) -> str:
    """`3 files of the folder are skipped: .heic (2), .txt (1)`; empty without any."""
    if not (total := others.total()):
        return ""
    kinds = ", ".join(f"{what} ({count:,})" for what, count in others.most_common(5)) + (", …" if len(others) > 5 else "")
    return f"{total:,} {'files' if total > 1 else 'file'} of the folder {'are' if total > 1 else 'is'} skipped: {kinds}"


def reason_of(error: BaseException) -> str:
    return str(error) or type(error).__name__


def decoding_failure(error: Exception) -> str:
    """Why an image cannot be decoded. Pillow's decoders raise nearly anything; what is not usual names its type."""
    usual = OSError | SyntaxError | ValueError | Image.DecompressionBombError
    return reason_of(error) if isinstance(error, usual) else one_line(error)


def opened(member: Member) -> Image.Image:
    """For `with`; nothing of the member changes. Raises whatever Pillow's decoders do."""
    if isinstance(member, np.ndarray):
        return Image.fromarray(member[..., 0] if member.ndim == 3 and member.shape[2] == 1 else member)
    if isinstance(member, Image.Image):
        return member.copy()
    return Image.open(io.BytesIO(member) if isinstance(member, bytes) else member)


def decode(member: Member, size: int, channels: int, resize: str = "squash") -> np.ndarray:
    """uint8 (size, size, channels), fitted by one of `RESIZE`. Raises whatever Pillow's decoders do."""
    with opened(member) as image:
        fitted = RESIZE[resize](with_channels(image, channels), size)
        return np.asarray(fitted, dtype=np.uint8).reshape(size, size, channels)


def decode_all(
    members: Iterable[Member], out: np.ndarray, progress: Progress, what: str, resize: str = "squash"
) -> list[tuple[int, str]]:
    """Decodes into `out`, uint8 (N, size, size, channels). Returns (index, reason) where that fails."""
    size, channels = out.shape[1], out.shape[3]

    def one(i: int, member: Member) -> None:
        out[i] = decode(member, size, channels, resize)

    return for_each(members, one, progress, what, len(out))


def for_each(
    members: Iterable[Member], act: Callable[[int, Member], None], progress: Progress, what: str, count: int
) -> list[tuple[int, str]]:
    """`act` on each with its index, on every usable core; of the members a few are in memory at a time. Returns (index, reason)
    where that raises an error."""

    def one(i: int, member: Member) -> tuple[int, str] | None:
        try:
            act(i, member)
        except Exception as error:
            return i, decoding_failure(error)
        return None

    def some(start: int, members: list[Member]) -> list[tuple[int, str] | None]:
        return [one(i, member) for i, member in enumerate(members, start)]

    def results() -> Iterator[tuple[int, str] | None]:
        waiting: deque[Future[list[tuple[int, str] | None]]] = deque()
        with ThreadPoolExecutor(cores := usable_cores()) as pool:
            for start, group in _groups(members):
                waiting.append(pool.submit(some, start, group))
                if len(waiting) > 2 * cores:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    return [bad for bad in progress(results(), what, count) if bad is not None]


def _groups(members: Iterable[Member]) -> Iterator[tuple[int, list[Member]]]:
    """Members with the number of their first, so many as one task decodes."""
    start, group, held = 0, list[Member](), 0
    for i, member in enumerate(members):
        group.append(member)
        held += len(member) if isinstance(member, bytes) else member.nbytes if isinstance(member, np.ndarray) else 0
        if len(group) == DECODED_TOGETHER or held >= TOGETHER_BYTES:
            yield start, group
            start, group, held = i + 1, [], 0
    if group:
        yield start, group


def bad_images_error(
    bad: Sequence[tuple[str | Path, str]],
    total: int,
    hint: str = "repair or remove them, or skip them with --skip-bad-images",
) -> DataError:
    found = [f"{path}: {reason}" for path, reason in bad]
    return DataError(first_five(f"{len(bad)} of {total} images cannot be read:", found), hint=hint)


def first_five(what: str, found: Sequence[str]) -> str:
    """`what`, below it the first five, and how many more there are."""
    more = [f"and {len(found) - 5:,} more"] if len(found) > 5 else []
    return "\n  ".join([what, *found[:5], *more])
