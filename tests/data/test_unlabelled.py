"""Test sets without labels: every form that is handed out is read, and a pickle runs nothing."""

import codecs
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas.config import ImageShape
from nas.data.unlabelled import FORMS, read_test_set
from nas.errors import DataError

SHAPE = ImageShape(channels=3, size=8, classes=10)
GREY = ImageShape(channels=1, size=8, classes=10)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
IDS = np.array([7, 3, 9, 1, 4])


def save(path: Path, tree: Any, protocol: int | None = None) -> Path:
    path.write_bytes(pickle.dumps(tree, protocol=protocol))
    return path


def refusal(path: Path, shape: ImageShape = SHAPE) -> DataError:
    with pytest.raises(DataError) as refused:
        read_test_set(path, shape)
    return refused.value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "test_nolabel.pkl"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("keys", ["bytes", "text"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickle_of_any_protocol_is_read(protocol: int, keys: str, order: Any, file: Path) -> None:
    images = np.array(IMAGES, order=order)
    tree = {b"data": images, b"ids": IDS} if keys == "bytes" else {"data": images, "ids": IDS}
    read = read_test_set(save(file, tree, protocol), SHAPE)
    np.testing.assert_array_equal(read.images, IMAGES)
    assert read.images.flags.c_contiguous
    assert (read.images.dtype, read.ids, read.name) == (np.uint8, ["7", "3", "9", "1", "4"], "test_nolabel.pkl")
    assert read_test_set(file.rename(file.with_suffix("")), SHAPE).ids == read.ids, "a file without a suffix is a pickle"


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes strings and numpy's names as Python 2 with numpy 1 did."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]  # noqa: RUF012

    def save_string(self, text: bytes | str) -> None:
        data = text if isinstance(text, bytes) else text.encode("latin-1")
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(text)

    dispatch[bytes] = dispatch[str] = save_string

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or obj.__name__}\n".encode())
        self.memoize(obj)

    dispatch[type] = dispatch[type(read_test_set)] = dispatch[type(len)] = save_global


def test_pickle_of_python_2_is_read(file: Path) -> None:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump({"data": IMAGES, "ids": IDS})
    content = buffer.getvalue()
    assert b"numpy.core.multiarray\n_reconstruct" in content
    assert pickle.BINUNICODE not in content.split(b"_reconstruct")[0]
    file.write_bytes(content)
    read = read_test_set(file, SHAPE)
    np.testing.assert_array_equal(read.images, IMAGES)
    assert read.ids == ["7", "3", "9", "1", "4"]


@pytest.mark.parametrize("dtype", ["u1", "i8", "<i4", ">i4"])
def test_rows_of_any_whole_numbers_are_read_channels_first(dtype: str, file: Path) -> None:
    images, rows = IMAGES.astype(dtype), IMAGES.transpose(0, 3, 1, 2).reshape(5, -1).astype(dtype)
    for data in (images, rows):
        read = read_test_set(save(file, {b"data": data, "ids": IDS.astype(dtype)}), SHAPE)
        np.testing.assert_array_equal(read.images, IMAGES)
        assert read.ids == ["7", "3", "9", "1", "4"]
    grey = images[..., 0]  # needs no axis for its channel
    for data in (grey, grey[..., None], grey.reshape(5, 64)):
        np.testing.assert_array_equal(read_test_set(save(file, {"data": data}), GREY).images, IMAGES[..., :1])


LETTERS = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("tree", "ids"),
    [
        *((tree, list("01234")) for tree in ({"data": IMAGES}, {"data": IMAGES, "ids": None}, IMAGES)),
        ({"data": IMAGES, "ids": np.arange(5.0)}, list("01234")),  # as numpy reads whole numbers
        *(
            ({"data": IMAGES, "ids": ids}, LETTERS)
            for ids in (
                LETTERS,
                tuple(LETTERS),
                [letter.encode() for letter in LETTERS],
                np.array(LETTERS),
                np.array(LETTERS).astype(bytes),
                np.array(LETTERS)[:, None],
                np.array(LETTERS, object),
            )
        ),
    ],
)
def test_ids_of_any_kind_become_text_in_their_order_and_are_counted_where_there_are_none(
    tree: Any, ids: list[str], file: Path
) -> None:
    assert read_test_set(save(file, tree), SHAPE).ids == ids


def test_numpy_files_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    np.savez(tmp_path / "x.npz", data=IMAGES, ids=IDS)
    np.savez_compressed(tmp_path / "y.npz", data=IMAGES)
    for name, ids in (("x.npy", "01234"), ("x.npz", "73914"), ("y.npz", "01234")):
        read = read_test_set(tmp_path / name, SHAPE)
        np.testing.assert_array_equal(read.images, IMAGES)
        assert read.ids == list(ids)


def test_folder_of_images_is_read_in_the_order_of_its_names_and_resized(tmp_path: Path) -> None:
    folder = tmp_path / "holiday"
    folder.mkdir()
    for name, value, size in (("b.png", 20, 8), ("a.JPG", 10, 20), ("c.webp", 30, 9), ("d.tif", 40, 9), ("more/e.png", 50, 8)):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (size, size), (value, value, value)).save(folder / name)
    (folder / "list.txt").write_text("not an image")
    (folder / "._b.png").write_bytes(b"what macOS leaves")
    read = read_test_set(folder, SHAPE)
    assert (read.name, read.ids) == ("holiday", ["a", "b", "c", "d", "e"])
    assert read.others == "1 file of the folder is skipped: .txt (1)"
    assert read.images.shape == (5, 8, 8, 3)
    assert read.images[:, 4, 4, 0].tolist() == pytest.approx([10, 20, 30, 40, 50], abs=2)


def test_test_set_that_is_not_there_or_of_another_form_is_named(tmp_path: Path) -> None:
    error = refusal(tmp_path / "none.pkl")
    assert (error.message, error.hint) == (f"there is no test set {tmp_path / 'none.pkl'}", FORMS)
    (tmp_path / "test.csv").write_text("1,2")
    error = refusal(tmp_path / "test.csv")
    assert error.message == f"{tmp_path / 'test.csv'} ends in '.csv', which is not a format of test sets"
    assert error.hint == FORMS
    with zipfile.ZipFile(tmp_path / "x.npz", "w"):
        pass
    error = refusal(tmp_path / "x.npz")
    assert error.message == f"{tmp_path / 'x.npz'} has no array with a known name; its arrays are: none"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_pickle_is_refused(share: float, file: Path) -> None:
    content = pickle.dumps({"data": IMAGES})
    file.write_bytes(content[: int(share * len(content))])
    error = refusal(file)
    assert error.message.startswith(f"{file} is not a complete pickle: ")
    assert error.hint == "copy it again; it may be truncated"


def test_file_that_is_not_a_pickle_is_refused(file: Path) -> None:
    for content in (b"ID,Labels\n0,3\n", b"\x89PNG\r\n", b"PK\x03\x04", b"\x80\x09."):
        file.write_bytes(content)
        assert refusal(file).message.startswith(f"{file} is not a complete pickle: ")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "y.npz"])
def test_damaged_numpy_file_is_refused(name: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    np.savez(tmp_path / "x.npz", data=IMAGES)
    np.savez_compressed(tmp_path / "y.npz", data=IMAGES)
    whole = (tmp_path / name).read_bytes()
    middle = len(whole) // 2
    for content in (whole[:middle], b"", b"junk", whole[:middle] + bytes(64) + whole[middle + 64 :] if name != "x.npy" else b""):
        (tmp_path / name).write_bytes(content)
        error = refusal(tmp_path / name)
        assert error.message.startswith(f"{tmp_path / name} cannot be read as numpy arrays: ")
        assert error.hint == (FORMS if name == "x.npy" else "copy it again")


def test_numpy_file_of_python_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([Trap(os.system, "exit")], dtype=object))
    np.savez(tmp_path / "x.npz", data=np.array([Trap(os.system, "exit")], dtype=object))
    assert "allow_pickle=False" in refusal(tmp_path / "x.npy").message
    assert "data contains Python objects, which are not unpickled" in refusal(tmp_path / "x.npz").message


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({b"images": IMAGES, "ids": IDS}, "has no key 'data'; its keys are ids, images"),
        ({}, "has no key 'data'; its keys are none"),
        ([IMAGES], "contains a list, not a dict"),
        ({"data": [1, 2]}, "the images must be one numpy array, but are list"),
        ({"data": np.array([IMAGES, None], dtype=object)}, "the images must be one numpy array, but are ndarray"),
        (
            {"data": IMAGES.astype(np.float32)},
            "pixels must be uint8, from 0 to 255, but the array is float32 from 0.0 to 255.0",
        ),
        (
            {"data": IMAGES.astype(np.int16) - 128},
            "pixels must be uint8, from 0 to 255, but the array is int16 from -128 to 127",
        ),
        ({"data": IMAGES > 3}, "pixels must be uint8, from 0 to 255, but the array is bool"),
        ({"data": IMAGES[:, :7]}, "the array must have the shape (N, 8, 8, 3), 8×8 images with 3 channels, but has the "),
        ({"data": IMAGES.transpose(0, 3, 1, 2)}, "the array must have the shape (N, 8, 8, 3)"),
        ({"data": IMAGES[..., 0]}, "the array must have the shape (N, 8, 8, 3)"),
        ({"data": IMAGES.reshape(5, -1)[:, 1:]}, "the array must have the shape (N, 8, 8, 3)"),
        ({"data": IMAGES[0, 0, 0, 0]}, "the images must be one numpy array, but are int"),
        ({"data": IMAGES[:0]}, "contains no image"),
        ({"data": IMAGES, "ids": IDS[:4]}, "there must be one ID for each of the 5 images, but ids has 4"),
        ({"data": IMAGES, "ids": np.stack([IDS, IDS])}, "there must be one ID for each of the 5 images, but ids has 10"),
        ({"data": IMAGES, "ids": [b"caf\xe9", b"b", b"c", b"d", b"e"]}, "IDs must be UTF-8, but b'caf\\xe9' is not"),
        ({"data": IMAGES, "ids": 5}, "there must be one ID for each of the 5 images, but ids has int"),
        ({"data": IMAGES, "ids": [1, 2, 3, 2, 4]}, "each image needs its own ID, but 2 is used more than once"),
    ],
)
def test_content_that_cannot_be_predicted_is_refused_with_what_was_found(tree: Any, message: str, file: Path) -> None:
    error = refusal(save(file, tree))
    assert error.message.startswith(str(file))
    assert message in error.message


def test_folder_with_no_image_a_broken_one_or_two_of_one_name_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    assert refusal(folder).message.startswith(f"{folder} contains no image; image files end in .jpg, .jpeg, ")
    (folder / "a.png").write_bytes(b"no image at all")
    error = refusal(folder)
    assert error.message.startswith(f"1 of 1 images cannot be read:\n  {folder / 'a.png'}: ")
    assert error.hint == "repair or remove them; every image of a test set must be predicted"
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (8, 8)).save(folder / name)
    assert refusal(folder).message == (
        f"{folder / 'a.jpg'} and {folder / 'a.png'} both have the ID 'a', the file name without its ending"
    )


class Trap:
    """Asks whoever unpickles it to call a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def raw(module: str, name: str, *arguments: str) -> bytes:
    """A pickle of protocol 0 that calls a function by its names, for what cannot be pickled from here."""
    values = b"".join(b"V" + a.encode() + b"\n" for a in arguments)
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n(" + values + b"tR."


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_that_runs_a_command_is_refused_and_runs_nothing(protocol: int, file: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    tree = {"data": IMAGES, "ids": Trap(os.system, f"touch {witness}")}
    pickle.loads(pickle.dumps(tree, protocol))
    assert witness.is_file()  # the attack itself works
    witness.unlink()
    error = refusal(save(file, tree, protocol))
    assert error.message == (
        f"{file} contains {os.name}.system, which no test set needs; it is not opened, because unpickling could run any code"
    )
    assert error.hint == "use a test set that you trust; " + FORMS
    assert not witness.exists()


ATTACKS = {
    "eval": raw("builtins", "eval", "open('witness', 'w')"),
    "exec": raw("builtins", "exec", "open('witness', 'w')"),
    "open": raw("builtins", "open", "witness", "w"),
    "eval by its old name": raw("__builtin__", "eval", "open('witness', 'w')"),
    "getattr": raw("builtins", "getattr", "witness", "upper"),
    "import": raw("builtins", "__import__", "os"),
    "subprocess": raw("subprocess", "getoutput", "touch witness"),
    "runpy": raw("runpy", "run_path", "witness.py"),
    "pickle itself": raw("_pickle", "loads", "x"),
    "torch": raw("torch", "load", "witness"),
    "numpy's loader": raw("numpy", "load", "witness"),
    "numpy's loader of objects": raw("numpy.lib.npyio", "load", "witness"),
    "numpy's writer": raw("numpy", "savetxt", "witness", "x"),
    "numpy's test runner": raw("numpy.testing._private.utils", "runstring", "open('witness','w')", "x"),
    "numpy's f2py": raw("numpy.f2py.capi_maps", "getinit", "x"),
    "name inside a module": raw("numpy.core.multiarray", "_reconstruct.__globals__", "x"),
    "name behind a dot": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",
    "another codec": raw("_codecs", "encode", "witness", "rot13"),
    "another codec by its other name": raw("codecs", "encode", "witness", "zlib"),
    "decoding": raw("_codecs", "decode", "witness", "unicode_escape"),
    "operator": raw("operator", "attrgetter", "system"),
    "functools": raw("functools", "partial", "x"),
    "this program": raw("nas.cli.main", "main"),
    "an extension code": b"\x80\x02\x82\x01.",
    "a persistent name": b"\x80\x04\x8c\x01xQ.",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_pickle_that_asks_for_anything_but_arrays_is_refused(attack: str, file: Path, tmp_path: Path) -> None:
    file.write_bytes(ATTACKS[attack])
    error = refusal(file)
    assert error.message.startswith((f"{file} contains ", f"{file} is not a complete pickle: "))
    if attack not in ("an extension code", "a persistent name"):
        assert "which no test set needs" in error.message
    assert {path.name for path in tmp_path.iterdir()} <= {file.name}


def test_codec_that_pickles_need_cannot_be_turned_into_another(file: Path) -> None:
    """Protocols 0 to 2 carry bytes as text in latin-1, by `_codecs.encode`; any other codec is refused."""
    assert b"_codecs" in pickle.dumps(b"\xff", protocol=2)
    for encoding in ("utf-16", "rot13", "hex", "zlib_codec"):
        error = refusal(save(file, {"data": Trap(codecs.encode, "text", encoding)}, protocol=2))
        assert error.message.startswith(f"{file} contains _codecs.encode to {encoding!r}, which no test set needs")


class Disguised:
    """An array whose dtype says that the bytes it brings are addresses of Python objects."""

    def __init__(self, flags: int) -> None:
        self.dtype = Crafted(np.dtype, ("V8",), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, flags))

    def __reduce__(self) -> tuple[Any, ...]:
        reconstruct, arguments, _ = IMAGES.__reduce__()  # type: ignore[misc]
        return reconstruct, arguments, (1, (5,), self.dtype, False, b"\x41" * 40)


class Crafted:
    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


@pytest.mark.parametrize("flags", [0, 27, 63])
@pytest.mark.parametrize("key", ["data", "ids"])
def test_array_that_passes_its_bytes_off_as_objects_is_refused(flags: int, key: str, file: Path) -> None:
    error = refusal(save(file, {"data": IMAGES, key: Disguised(flags)}))
    assert error.message.startswith(f"{file} contains numpy.dtype of 'V8', which no test set needs")


def test_array_that_is_not_filled_as_its_shape_says_is_no_whole_pickle(file: Path) -> None:
    reconstruct, arguments, (version, _, dtype, fortran, content) = IMAGES.__reduce__()  # type: ignore[misc]
    never = Crafted(reconstruct, arguments)
    wrong = [(50, 8, 8, 3), (4, 8, 8, 3), (10**12,)]
    other = [Crafted(reconstruct, arguments, (version, shape, dtype, fortran, content)) for shape in wrong]
    for tree in (never, *({"data": crafted} for crafted in (never, *other))):
        assert refusal(save(file, tree)).message.startswith(f"{file} is not a complete pickle: ")


def test_ids_that_are_numpy_scalars_are_read(file: Path) -> None:
    for ids in (list(IDS), list(IDS.astype("U2")), list(IDS.astype(np.uint16))):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            read = read_test_set(save(file, {"data": IMAGES, "ids": ids}, protocol), SHAPE)
            assert read.ids == ["7", "3", "9", "1", "4"]


def test_array_whose_state_is_malicious_is_refused(file: Path, tmp_path: Path) -> None:
    objects = np.array([Trap(os.system, f"touch {tmp_path / 'witness'}")], dtype=object)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert "contains" in refusal(save(file, {"data": objects}, protocol)).message
    assert not (tmp_path / "witness").exists()
