"""Test sets without labels, as they are handed out: a pickle, a .npy or .npz file, a folder of images, or a data set in files.

A pickle may come from anybody, so that it is read by an unpickler that can build dicts, strings, numbers and numpy arrays
and nothing else.
"""

import codecs
import io
import pickle
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nas.config import DataConfig, ImageShape
from nas.data.cache import silent
from nas.data.decoding import IMAGE_SUFFIXES, bad_images_error, decode_all, others_text, reason_of
from nas.data.formats import npz, open_test
from nas.errors import DataError

FORMS = (
    "a test set is a pickle {'data': uint8 (N, H, W, C), 'ids': (N,)}, a .npy or .npz file of such images, a folder of images, "
    "or a data set in .parquet, .npz, .tar or .csv files, whose test images are used"
)
OF_NO_STUDY = DataConfig(dataset="folder")


@dataclass(frozen=True)
class TestSet:
    name: str
    images: np.ndarray  # uint8 (N, H, W, C)
    ids: list[str]
    others: str = ""  # which files of a folder are no images, in words

    __test__ = False  # no test class for pytest


def read_test_set(path: Path, shape: ImageShape, config: DataConfig = OF_NO_STUDY, id_column: str = "ID") -> TestSet:
    """A folder's images, and the test images of a data set in files, are brought to the network's size as `config.resize` says;
    the array `data` of a pickle, a .npy or a .npz is taken as it is. `config` names the columns, but for the IDs'. Raises
    DataError where the file is missing, damaged, not admitted, or holds images of another shape than the network's."""
    if not path.exists():
        raise DataError(f"there is no test set {path}", hint=FORMS)
    suffix, others = path.suffix.lower(), Counter[str]()
    if suffix == ".npz" and path.is_file() and "data" in (there := npz.members(path)):
        data, ids = (npz.read_array(path, name) if name in there else None for name in ("data", "ids"))
    elif (split := open_test(path, config, FORMS, others)) is not None:
        names = as_ids(split.ids(id_column), len(split), str(path))
        images = np.empty((len(split), shape.size, shape.size, shape.channels), np.uint8)
        if bad := decode_all(split, images, silent, "decoding the test images", config.resize):
            hint = "repair or remove them; every image of a test set must be predicted"
            raise bad_images_error([(split.place(i), reason) for i, reason in bad], len(split), hint)
        return TestSet(path.name, images, names, others_text(others))
    elif path.is_dir():
        raise DataError(f"{path} contains no image; image files end in {', '.join(IMAGE_SUFFIXES)}", hint=FORMS)
    elif suffix == ".npy":
        data, ids = _read_npy(path), None
    elif suffix in (".pkl", ".pickle", ""):
        data, ids = _read_pickle(path)
    else:
        raise DataError(f"{path} ends in {suffix!r}, which is not a format of test sets", hint=FORMS)
    images = as_images(data, shape, str(path))
    return TestSet(path.name, images, as_ids(ids, len(images), str(path)))


def as_images(data: Any, shape: ImageShape, source: str) -> np.ndarray:
    """uint8 (N, H, W, C) of an array in that form, without its channel axis if it is grey, or of flat rows in CIFAR's order
    (N, C·H·W), channels first. Raises DataError for any other."""
    if not isinstance(data, np.ndarray) or data.dtype == object:
        raise DataError(f"{source}: the images must be one numpy array, but are {type(data).__name__}", hint=FORMS)
    if data.dtype != np.uint8:
        whole = np.issubdtype(data.dtype, np.integer)
        if not whole or (data.size and (data.min() < 0 or data.max() > 255)):
            span = f" from {data.min()} to {data.max()}" if data.size and np.issubdtype(data.dtype, np.number) else ""
            raise DataError(f"{source}: pixels must be uint8, from 0 to 255, but the array is {data.dtype}{span}")
        data = data.astype(np.uint8)
    c, size = shape.channels, shape.size
    if data.ndim == 2 and data.shape[1] == c * size * size:
        data = data.reshape(-1, c, size, size).transpose(0, 2, 3, 1)
    elif data.ndim == 3 and c == 1:
        data = data[..., None]
    if data.ndim != 4 or data.shape[1:] != (size, size, c):
        raise DataError(
            f"{source}: the array must have the shape (N, {size}, {size}, {c}), {size}×{size} images with {c} channels, "
            f"but has the shape {data.shape}",
            hint="resize the array, or use a folder of images, which will be resized",
        )
    if len(data) == 0:
        raise DataError(f"{source} contains no image")
    return np.ascontiguousarray(data)


def as_ids(ids: Any, count: int, source: str) -> list[str]:
    """The IDs as text, 0 to N − 1 where there are none. Raises DataError where they are not one for each image, or repeat."""
    if ids is None:
        return [str(i) for i in range(count)]
    listed = ids.ravel().tolist() if isinstance(ids, np.ndarray) else ids
    if not isinstance(listed, list | tuple) or len(listed) != count:
        found = len(listed) if isinstance(listed, list | tuple) else type(ids).__name__
        raise DataError(f"{source}: there must be one ID for each of the {count} images, but ids has {found}")
    try:
        texts = [_id_text(i) for i in listed]
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: IDs must be UTF-8, but {error.object!r} is not") from None
    if len(set(texts)) < count:
        repeated = next(t for t in texts if texts.count(t) > 1)
        raise DataError(f"{source}: each image needs its own ID, but {repeated} is used more than once")
    return texts


def _id_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    # As numpy reads whole numbers from a text file.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _read_npy(path: Path) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise DataError(f"{path} cannot be read as numpy arrays: {error}", hint=FORMS) from None


def _read_pickle(path: Path) -> tuple[Any, Any]:
    try:
        # Of Python 2's strings some are binary; keys and names are read as bytes and decoded below.
        tree = _array_or_self(_Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load())
        if isinstance(tree, dict):
            tree = {key: _array_or_self(value) for key, value in tree.items()}
    except _Forbidden as error:
        raise DataError(
            f"{path} contains {error}, which no test set needs; it is not opened, because unpickling could run any code",
            hint="use a test set that you trust; " + FORMS,
        ) from None
    except Exception as error:  # a damaged pickle may raise nearly anything
        reason = reason_of(error)
        raise DataError(f"{path} is not a complete pickle: {reason}", hint="copy it again; it may be truncated") from None
    if isinstance(tree, np.ndarray):
        return tree, None
    if not isinstance(tree, dict):
        raise DataError(f"{path} contains a {type(tree).__name__}, not a dict", hint=FORMS)
    named = {key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key): value for key, value in tree.items()}
    if "data" not in named:
        raise DataError(f"{path} has no key 'data'; its keys are {', '.join(sorted(named)) or 'none'}", hint=FORMS)
    return named["data"], named.get("ids")


# ---------------------------------------------------------------------------------------------- the safe unpickler
#
# Stand-ins build the arrays: numpy's own `__setstate__` trusts what it is given, down to the flags that say which bytes are
# pointers.


class _Forbidden(pickle.UnpicklingError):
    pass


class _Dtype:
    """Stands in for `numpy.dtype`: numbers, text, and objects that the pickle itself builds."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        text = code.decode("latin-1") if isinstance(code, bytes) else str(code)
        if not re.fullmatch(r"b1|[iu][1248]|f[248]|[SU][0-9]+|O8?", text):
            raise _Forbidden(f"numpy.dtype of {text!r}")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", b"<"):
            self.dtype = self.dtype.newbyteorder("<")
        elif state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """Stands in for `numpy.ndarray`."""

    value: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        self.value = _built(content, dtype, shape, "F" if fortran else "C")


def _built(content: Any, dtype: _Dtype, shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
    if dtype.dtype != object:
        return np.frombuffer(content, dtype.dtype).reshape(shape, order=order).copy()
    listed = np.empty(len(content), object)
    for i, value in enumerate(content):
        listed[i] = value
    return listed.reshape(shape, order=order)


def _scalar(dtype: _Dtype, content: bytes) -> Any:
    return _built(content, dtype, (1,), "C").tolist()[0]


def _frombuffer(content: Any, dtype: _Dtype, shape: tuple[int, ...], order: Literal["C", "F"], *_: Any) -> _Array:
    """A stand-in, too: numpy's own array on the pickle's stack would take a state from it."""
    array = _Array()
    array.value = _built(content, dtype, shape, order)
    return array


def _latin1_only(text: str, encoding: str = "latin1") -> bytes:
    """Stands in for `_codecs.encode`, by which protocols 0 to 2 carry bytes; as text to latin-1 it is harmless."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise _Forbidden(f"_codecs.encode to {encoding!r}")
    return codecs.latin_1_encode(text)[0]


_STAND_INS: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _latin1_only,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
}


class _Unpickler(pickle.Unpickler):
    """Admits by name what numpy's arrays and scalars are made of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        known = (module.replace("numpy._core", "numpy.core"), name)  # written by numpy 2 or by numpy 1
        if known not in _STAND_INS:
            raise _Forbidden(f"{module}.{name}")
        return _STAND_INS[known]


def _array_or_self(value: Any) -> Any:
    return value.value if isinstance(value, _Array) else value
