"""NumPy's `.npz`: `train_images` and `train_labels` as MedMNIST has them, `x_train` and `y_train` as Keras has, or `images` and
`labels`. Nothing is unpickled, and no member is allocated before its header is held against the file's bytes."""

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from nas.config import DataConfig
from nas.data.decoding import reason_of
from nas.data.formats.container import PARTS, Split
from nas.data.formats.tables import classes_by_number, one_class, texts_of
from nas.errors import DataError

SUFFIXES = (".npz",)
FORMS = (
    "a .npz contains train_images and train_labels, optionally also val_… and test_…; or x_train and y_train; or images and "
    "labels"
)
NAMED = (("{}_images", "{}_labels"), ("x_{}", "y_{}"), ("X_{}", "y_{}"))
PLAIN = (("images", "labels"), ("x", "y"), ("data", "labels"))
CLASSES = ("classes", "class_names")
DEFLATED_MOST = 1032  # times its size: more than that deflate cannot unpack
READ_BYTES = 2**20
FAULTS = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


def open_npz(shards: dict[str, list[Path]], config: DataConfig, to_train: bool) -> dict[str, Split]:
    """Raises DataError."""
    files = [file for of_part in shards.values() for file in of_part]
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise DataError(
            f"{files[0].parent} contains several .npz files, and each is a data set: {names}", hint=f"choose one: {files[0]}"
        )
    file, there = files[0], members(files[0])
    named = {
        part: (images.format(word), labels.format(word))
        for part, words in PARTS.items()
        for word in words
        for images, labels in NAMED
        if images.format(word) in there
    }
    plain = next((pair for pair in PLAIN if pair[0] in there), None)
    if plain is not None and "train" not in named:
        named["train"] = plain
    if not named:
        raise DataError(f"{file} has no array with a known name; its arrays are: {', '.join(there) or 'none'}", hint=FORMS)
    classes = next((read_array(file, name).ravel().tolist() for name in CLASSES if name in there), None)
    return {
        part: NpzSplit(file, images, labels if labels in there else None, classes, "ids" if "ids" in there else None)
        for part, (images, labels) in named.items()
    }


def members(file: Path) -> list[str]:
    """The names of its arrays. Raises DataError."""
    try:
        with zipfile.ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except FAULTS as error:
        raise DataError(f"{file} cannot be read as numpy arrays: {reason_of(error)}", hint="copy it again") from None


class NpzSplit(Split):
    def __init__(self, file: Path, images: str, labels: str | None, classes: list[str] | None, ids: str | None) -> None:
        self.file, self.images, self._labels, self._ids = file, images, labels, ids
        self.classes = None if classes is None else list(map(str, classes))
        with _opened(file, images) as (_, dtype, self.shape, fortran):
            require_pixels(dtype, self.shape, f"{file}, {images}")
            if fortran:
                raise DataError(
                    f"{file}, {images} is in Fortran order, but must be in C order",
                    hint="save it as numpy.ascontiguousarray(images)",
                )

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        one = math.prod(self.shape[1:])
        with _opened(self.file, self.images) as (stream, _, shape, _):
            together = max(1, READ_BYTES // one)
            for start in range(0, len(self), together):
                count = min(together, len(self) - start)
                yield from np.frombuffer(stream.read(count * one), np.uint8).reshape(count, *shape[1:])
            stream.read(1)  # at the end the checksum is compared

    def labels(self) -> Sequence[str]:
        if self._labels is None:
            return [""] * len(self)
        source = f"{self.file}, {self._labels}"
        return labels_of(read_array(self.file, self._labels), len(self), self.classes, source)

    def ids(self, column: str) -> Sequence[str] | None:
        return None if self._ids is None else texts_of(f"{self.file}, ids", read_array(self.file, self._ids).ravel().tolist())

    def place(self, i: int) -> str:
        return f"{self.file}, {self.images}[{i}]"


def require_pixels(dtype: object, shape: Sequence[int], source: str) -> None:
    """Raises DataError for all but uint8 (N, H, W) or (N, H, W, C)."""
    if dtype != np.uint8:
        raise DataError(
            f"{source}: pixels must be uint8, from 0 to 255, but are {dtype}",
            hint="if pixels are from 0 to 1, convert them: (255 * images).round().astype('uint8')",
        )
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)) or 0 in shape:
        raise DataError(
            f"{source}: images must be (N, height, width) or (N, height, width, channels) with 1, 3 or 4 channels, but their "
            f"shape is {tuple(shape)}",
            hint="channels come last: images.transpose(0, 2, 3, 1)",
        )


def labels_of(values: np.ndarray, count: int, classes: Sequence[str] | None, source: str) -> list[str]:
    """The class of each image of an array (N,), (N, 1), or (N, C) with a single 1 in each row. Raises DataError."""
    if values.shape[:1] != (count,) or values.ndim > 2:
        raise DataError(
            f"{source}: there must be one label for each of the {count:,} images, but the labels have the shape {values.shape}"
        )
    if values.ndim == 2 and values.shape[1] > 1:
        names = list(map(str, range(values.shape[1]))) if classes is None else classes
        return one_class(values, names, lambda i: f"{source}[{i}]")
    texts = texts_of(source, values.ravel().tolist())
    return texts if classes is None else classes_by_number(texts, classes, lambda i: f"{source}[{i}]")


def read_array(file: Path, name: str) -> np.ndarray:
    """Raises DataError."""
    with _opened(file, name) as (stream, dtype, shape, fortran):
        return np.frombuffer(bytearray(stream.read()), dtype).reshape(shape, order="F" if fortran else "C")


@contextmanager
def _opened(file: Path, name: str) -> Iterator[tuple[IO[bytes], np.dtype, tuple[int, ...], bool]]:
    """A member behind its header: its bytes, type, shape, and whether it is in Fortran's order. Raises DataError."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
            header = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = header(stream)
            if dtype.hasobject:
                raise DataError(
                    f"{file}, {name} contains Python objects, which are not unpickled because that could run any code",
                    hint="save numbers or strings: numpy.savez(FILE, images=images.astype('uint8'), labels=labels)",
                )
            info = archive.getinfo(f"{name}.npy")
            claimed, there = math.prod(shape) * dtype.itemsize, info.file_size - stream.tell()
            if claimed != there or info.file_size > DEFLATED_MOST * min(info.compress_size, file.stat().st_size):
                raise ValueError(f"its header claims {claimed:,} bytes, but the file does not have them")
            yield stream, dtype, shape, fortran
    except FAULTS as error:
        raise DataError(f"{file} cannot be read as numpy arrays: {name}: {reason_of(error)}", hint="copy it again") from None
