"""Images that a script holds, written into a .npz in the cache, where workers, other commands and later runs find them.

The file is named by a digest of what it holds, so that the same images are the same file. What is written is read by
`formats.npz`, as a file of somebody else's would be.
"""

import hashlib
import io
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nas.data.decoding import GREY_MODES, with_channels
from nas.data.formats.container import PARTS
from nas.data.formats.npz import labels_of, require_pixels
from nas.errors import ConfigError, DataError
from nas.paths import cache_folder

FORMS = (
    "(images, labels) or (images, labels, names of the classes), arrays or tensors of uint8 (N, H, W) or (N, H, W, C); a Dataset "
    "of (image, label) with a length; or a dict of these for train, val and test"
)


def file_of_given(data: Any, part: str = "train") -> Path:
    """Writes it where it is not there yet. `data`: as in `FORMS`, or without labels, images alone. `part`: the split of what is
    no dict. Raises NasError."""
    splits = dict(data) if isinstance(data, Mapping) else {part: data}
    names = {name: part for part, named in PARTS.items() for name in named}
    if unknown := [name for name in splits if name not in names]:
        raise ConfigError(f"{unknown[0]!r} is not a split of a data set. Choices: {', '.join(names)}", hint=FORMS)
    folder = cache_folder()
    unfinished, digest = folder / f".given-{uuid.uuid4().hex}", hashlib.sha256()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(unfinished, "w") as archive:
            classes: list[str] | None = None
            for part, one in sorted(((names[name], one) for name, one in splits.items()), key=lambda named: named[0] != "train"):
                for member, array in _arrays(part, one, classes):
                    classes = array.tolist() if member == "classes" else classes
                    with archive.open(zipfile.ZipInfo(f"{member}.npy"), "w", force_zip64=True) as out:
                        for content in _content(array):
                            out.write(content)
                            digest.update(content)
                    digest.update(member.encode())
        target = folder / f"given-{digest.hexdigest()[:20]}.npz"
        if not target.is_file():  # the file that is there stays, and so what was decoded of it
            unfinished.replace(target)
        return target
    except OSError as error:
        raise DataError(
            f"the images cannot be written into the cache, {folder}: {error.strerror}",
            hint="free some space there, or set another folder with NAS_CACHE=FOLDER",
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)


def _arrays(part: str, data: Any, classes: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
    """The members of the file, in order: of a split the images, the labels, and the names of the classes. `classes`: those of the
    training images."""
    labels = None
    if hasattr(data, "shape"):
        images: np.ndarray | _Items = _array(data)
    elif isinstance(data, tuple | list) and len(data) in (2, 3) and hasattr(data[0], "shape"):
        images, labels, classes = _array(data[0]), data[1], data[2] if len(data) == 3 else classes
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, str | bytes) and len(data):
        images, classes = _Items(data, part), classes or getattr(data, "classes", None)
    else:
        raise ConfigError(f"images and labels cannot be given as a {type(data).__name__}", hint=FORMS)
    require_pixels(images.dtype, images.shape, part)
    yield f"{part}_images", images
    labels = images.labels if isinstance(images, _Items) else labels
    if labels is None:
        return
    values, names = _array(labels), None if classes is None else [str(name) for name in classes]
    if values.dtype == object and all(isinstance(value, str) for value in values.ravel().tolist()):
        values = values.astype(str)
    if names is not None and values.dtype.kind == "U":
        texts, names = values.ravel().tolist(), [*dict.fromkeys(names)]
        if unknown := set(texts) - set(names):
            raise DataError(f"{part}: label {min(unknown)!r} is not a class. Choices: {', '.join(names)}.")
        values = np.array([names.index(text) for text in texts])
    if values.dtype == object:
        raise DataError(f"{part}: labels must be numbers or strings", hint=FORMS)
    labels_of(values, images.shape[0], names, f"{part}: labels")
    yield f"{part}_labels", values
    if names is not None and part == "train":
        yield "classes", np.array(names)


class _Items:
    """A Dataset's images as one array would be, each read when it is written; the labels are known afterwards."""

    dtype = np.dtype(np.uint8)

    def __init__(self, items: Any, part: str) -> None:
        self.items, self.part, self.labels = items, part, list[Any]()
        self.shape = (len(items), *self._item(0)[0].shape)

    def _item(self, i: int) -> tuple[np.ndarray, Any]:
        item, place = self.items[i], f"{self.part}[{i}]"
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ConfigError(f"{place} must be a pair (image, label), but is a {type(item).__name__}", hint=FORMS)
        image, label = item
        return _pixels(image, place), label.item() if hasattr(label, "item") else label

    def __iter__(self) -> Iterator[np.ndarray]:
        for i in range(len(self.items)):
            pixels, label = self._item(i)
            if pixels.shape != self.shape[1:]:
                raise DataError(
                    f"{self.part}[{i}] has the shape {pixels.shape}, but the first image has {self.shape[1:]}",
                    hint="resize the images in the data set's transform, or write them into a folder of images",
                )
            self.labels.append(label)
            yield pixels


def _pixels(image: Any, place: str) -> np.ndarray:
    """uint8 (H, W) or (H, W, C) of an image of Pillow's, an array, or a tensor (C, H, W), also one of ToTensor's from 0 to 1."""
    if isinstance(image, Image.Image):
        return np.asarray(with_channels(image.copy(), 1 if image.mode in GREY_MODES else 3))
    pixels = _array(image)
    if hasattr(image, "detach") and pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.dtype.kind == "f":
        if not 0 <= pixels.min() <= pixels.max() <= 1:
            raise DataError(
                f"{place}: pixels must be uint8 or from 0 to 1, but are from {pixels.min():g} to {pixels.max():g}",
                hint="leave out the normalisation; it is done during the training",
            )
        pixels = np.round(255 * pixels).astype(np.uint8)
    require_pixels(pixels.dtype, (1, *pixels.shape), place)
    return pixels


def _array(values: Any) -> np.ndarray:
    """Of an array, a tensor on any device, or a list."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _content(array: np.ndarray | _Items) -> Iterator[bytes]:
    """A .npy file, an image at a time."""
    header = io.BytesIO()
    described = np.lib.format.dtype_to_descr(array.dtype)
    np.lib.format.write_array_header_1_0(header, {"descr": described, "fortran_order": False, "shape": tuple(array.shape)})
    yield header.getvalue()
    images = [array] if isinstance(array, np.ndarray) and array.ndim < 3 else array
    yield from (np.ascontiguousarray(image).tobytes() for image in images)
