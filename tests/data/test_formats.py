"""Data sets as people have them: the same images are the same data set in every format, and what is wrong is named."""

import csv
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms.functional import to_tensor

import nas.data.containers
from nas.config import DataConfig, ImageShape
from nas.data.formats.parquet import ParquetSplit
from nas.data.given import file_of_given
from nas.data.unlabelled import read_test_set
from nas.errors import DataError, NasError
from tests.data import on_disk
from tests.data.on_disk import load

Parts = dict[str, tuple[np.ndarray, list[str]]]  # uint8 (N, 8, 8), and the classes' names
NAMES = ("eight", "nine", "seven")


@pytest.fixture(scope="module")
def parts() -> Parts:
    """60 real images of digits, 36 that train, 12 that validate, and 12 to test, in the order of their classes."""
    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    found: Parts = {}
    for part, (start, count) in {"train": (0, 12), "val": (12, 4), "test": (16, 4)}.items():
        places = [i for digit in (8, 9, 7) for i in np.flatnonzero(bunch.target == digit)[start : start + count]]
        found[part] = pixels[places], [NAMES[(8, 9, 7).index(bunch.target[i])] for i in places]
    return found


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write_folder(root: Path, parts: Parts) -> Path:
    for part, (images, labels) in parts.items():
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            (root / part / label).mkdir(parents=True, exist_ok=True)
            (root / part / label / f"{i:03}.png").write_bytes(png(image))
    return root


def write_npz(root: Path, parts: Parts) -> Path:
    """As MedMNIST: labels (N, 1)."""
    arrays = {f"{part}_images": images for part, (images, _) in parts.items()}
    arrays |= {f"{part}_labels": np.array([[NAMES.index(label)] for label in labels]) for part, (_, labels) in parts.items()}
    return save(root / "set.npz", classes=np.array(NAMES), **arrays)


def save(file: Path, **arrays: Any) -> Path:
    file.parent.mkdir(exist_ok=True)
    np.savez_compressed(file, **arrays)
    return file


def write_shard(file: Path, images: list[Any], labels: list[Any], names: tuple[str, ...] | None = NAMES, **columns: Any) -> Path:
    """As `datasets` writes it: the classes' names are in the schema's metadata alone."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    values = [image if isinstance(image, dict) else {"bytes": image, "path": None} for image in images]
    struct = pyarrow.array(values, pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}))
    label = {"names": names, "_type": "ClassLabel"}
    meta = {b"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}, "label": label}}}).encode()}
    table = pyarrow.table({"image": struct, "label": labels, **columns})
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.replace_schema_metadata(meta if names else None), file)
    return file


def write_parquet(root: Path, parts: Parts) -> Path:
    """As the hub hands it out: two shards of each split."""
    for part, (images, labels) in parts.items():
        name, half = {"val": "validation"}.get(part, part), len(images) // 2
        for i, place in enumerate((slice(half), slice(half, None))):
            numbers = [NAMES.index(label) for label in labels[place]]
            write_shard(root / "data" / f"{name}-0000{i}-of-00002.parquet", [png(image) for image in images[place]], numbers)
    return root


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_tar(root: Path, parts: Parts) -> Path:
    """The images of a shard before its labels: what belongs together stands apart."""
    root.mkdir(exist_ok=True)
    for part, (images, labels) in parts.items():
        with tarfile.open(root / f"{part}-000.tar", "w") as tar:
            for i, image in enumerate(images):
                add(tar, f"a/{i}.png", png(image))
            for i, label in enumerate(labels):
                add(tar, *((f"a/{i}.cls", label.encode()) if i % 2 else (f"a/{i}.json", json.dumps({"label": label}).encode())))
    return root


def write_csv(file: Path, rows: list[Any]) -> Path:
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows(rows)
    return file


PIXELS = [f"pixel{i}" for i in range(64)]


def write_pixels(root: Path, parts: Parts) -> Path:
    for part, (images, labels) in parts.items():
        rows = [(i, label, *image.ravel()) for i, (image, label) in enumerate(zip(images, labels, strict=True))]
        write_csv(root / f"{part}.csv", [("", "label", *PIXELS), *rows])
    return root


class Items:
    """A `torch.utils.data.Dataset`, as far as one is needed."""

    classes = NAMES

    def __init__(self, images: np.ndarray, labels: list[str], kind: Callable[[np.ndarray], Any] = Image.fromarray) -> None:
        self.images, self.labels, self.kind = images, labels, kind

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return self.kind(self.images[i]), NAMES.index(self.labels[i])


def write_arrays(root: Path, parts: Parts) -> Path:
    given = {part: (torch.from_numpy(images), np.array(labels, object)) for part, (images, labels) in parts.items()}
    return file_of_given(given | {"train": (*given["train"], NAMES)})


def write_items(root: Path, parts: Parts) -> Path:
    """Of images of Pillow's, and of tensors as torchvision's ToTensor makes them."""
    kinds = {"train": Image.fromarray, "val": to_tensor, "test": lambda pixels: torch.from_numpy(pixels)[None]}
    return file_of_given({part: Items(*parts[part], kind) for part, kind in kinds.items()})


CROP = DataConfig(dataset="folder", resize="crop")
FORMATS: dict[str, Callable[[Path, Parts], Path]] = {
    "folder": write_folder,
    "npz": write_npz,
    "parquet": write_parquet,
    "tar": write_tar,
    "pixels": write_pixels,
    "arrays": write_arrays,
    "items": write_items,
}
"""Each writes all parts and returns what `--data` names."""


SHAPE = ImageShape(channels=1, size=8, classes=3)


def refusal(path: Path, **config: Any) -> str:
    return on_disk.refusal(path, **config).message


@pytest.mark.parametrize("size", [None, 12])
@pytest.mark.parametrize("name", FORMATS)
def test_the_same_images_are_the_same_data_set_in_every_format(
    name: str, size: int | None, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Splits, draws and weights follow from a data set's pixels, labels, names and shape, all of which are compared."""
    expected = load(write_folder(tmp_path / "expected", parts), image_size=size)
    path = FORMATS[name](tmp_path / "found", parts)
    found = load(path, image_size=size)
    assert (found.fingerprint, found.classes, found.shape) == (expected.fingerprint, NAMES, expected.shape)
    assert (found.mean, found.std, found.copies(), found.name) == (expected.mean, expected.std, expected.copies(), "folder")
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(found, part).images, getattr(expected, part).images)
        np.testing.assert_array_equal(getattr(found, part).labels, getattr(expected, part).labels)
    monkeypatch.setattr(nas.data.containers, "decode_all", None)  # from here on the cache has them
    assert load(path, image_size=size).fingerprint == expected.fingerprint


@pytest.mark.parametrize("size", [8, 12])
@pytest.mark.parametrize("name", FORMATS)
def test_the_test_images_of_every_format_are_predicted_in_their_order(name: str, size: int, parts: Parts, tmp_path: Path) -> None:
    path = FORMATS[name](tmp_path / "found", parts)
    test = read_test_set(path / "test" if name == "folder" else path, ImageShape(channels=1, size=size, classes=3), CROP)
    assert len(test.ids) == len(set(test.ids)) == 12
    np.testing.assert_array_equal(test.images, load(path, image_size=size, resize="crop").test.images)


# -------------------------------------------------------------------------------------------------------------- .npz


def test_plain_arrays_in_colour_are_a_data_set_and_a_test_set_with_ids(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 9, 10, 3), np.uint8)
    file = save(tmp_path / "set.npz", images=images, labels=np.arange(12) % 3, ids=np.arange(12) + 100)
    data = load(file, image_size=10)
    assert (len(data.train), data.classes, data.validation, data.test) == (12, ("0", "1", "2"), None, None)
    np.testing.assert_array_equal(data.train.labels, np.arange(12) % 3)
    assert read_test_set(file, ImageShape(channels=3, size=10, classes=3)).ids == [str(i) for i in range(100, 112)]
    file = save(tmp_path / "set.npz", images=images, labels=np.eye(3, dtype=int)[np.arange(12) % 3], classes=["x", "y", "z"])
    assert load(file, image_size=10).classes == ("x", "y", "z")


def test_a_test_split_without_labels_is_no_test_set_and_is_submitted(parts: Parts, tmp_path: Path) -> None:
    images = {f"{part}_images": pixels for part, (pixels, _) in parts.items()}
    file = save(tmp_path / "set.npz", **images, train_labels=np.arange(36) % 3, val_labels=np.arange(12) % 3)
    assert load(file).test is None
    assert read_test_set(file, SHAPE).ids == [str(i) for i in range(12)]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"labels": np.array(["a", None] * 18, object)}, "labels contains Python objects, which are not unpickled"),
        *(
            ({"labels": labels}, f"must be one label for each of the 36 images, but the labels have the shape {labels.shape}")
            for labels in (np.zeros(35, int), np.array(3))
        ),
        ({"labels": np.arange(36) % 3 - 1, "classes": np.array(["a", "b", "c"])}, "12 of 36 training images have no label"),
        ({"classes": np.array(["a", "b"])}, "labels[2]: label 2 is not a class; the labels of the 2 classes are 0 to 1"),
        ({"images": np.zeros((36, 8, 8), np.float32)}, "pixels must be uint8, from 0 to 255, but are float32"),
        ({"images": np.zeros((36, 3, 8, 8), np.uint8)}, "their shape is (36, 3, 8, 8)"),
        ({"images": np.asfortranarray(np.ones((36, 8, 9), np.uint8))}, "images is in Fortran order"),
        ({"labels": np.ones((36, 2), int)}, "36 of 36 images have several labels, the first is "),
    ],
)
def test_arrays_that_are_no_data_set_are_refused(changed: dict[str, Any], said: str, parts: Parts, tmp_path: Path) -> None:
    arrays = {"images": parts["train"][0], "labels": np.arange(36) % 3, **changed}
    assert said in refusal(save(tmp_path / "set.npz", **arrays))


def test_one_class_in_an_npz_is_refused_without_naming_a_column(tmp_path: Path) -> None:
    file = save(tmp_path / "set.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.zeros(4, int))
    error = on_disk.refusal(file)
    assert error.message == f"a classifier needs at least two classes, but the labels in {file} are: 0"
    assert error.hint == "the array of the labels (train_labels, y_train or labels) must have at least two different values"


@pytest.mark.parametrize("whole", [True, False])
def test_a_header_that_claims_more_than_there_is_is_refused(whole: bool, parts: Parts, tmp_path: Path) -> None:
    """8.8 TB are claimed by the array's own header, in an archive whose checksums are right, or 64 GB by the archive."""
    file = save(tmp_path / "set.npz", labels=np.arange(36) % 3)
    content = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (137438953472 if whole else 10**9, 8, 8)}
    np.lib.format.write_array_header_1_0(content, header)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("images.npy", content.getvalue() + parts["train"][0].tobytes())
        if not whole:
            archive.getinfo("images.npy").file_size = len(content.getvalue()) + 64 * 10**9
    claimed = "8,796,093,022,208" if whole else "64,000,000,000"
    assert refusal(file).endswith(f"images: its header claims {claimed} bytes, but the file does not have them")


def test_files_that_are_no_data_set_are_told_from_those_that_are(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"")
    endings = ".parquet, .pq, .npz, .tar, .csv, .tsv, .txt"
    assert refusal(tmp_path / "x.bin") == f"{tmp_path / 'x.bin'} is not a file of images; such files end in {endings}"
    path = write_npz(tmp_path, {"test": parts["test"], "val": parts["val"]})
    assert refusal(path) == f"{path} has no training images; its splits are: val, test"
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(path).startswith(f"{path} cannot be read as numpy arrays: ")
    write_npz(tmp_path, parts).rename(tmp_path / "other.npz")
    assert load(tmp_path).classes == NAMES, "the one in a folder needs no name"
    write_npz(tmp_path, parts)
    assert refusal(tmp_path) == f"{tmp_path} contains several .npz files, and each is a data set: other.npz, set.npz"


# ----------------------------------------------------------------------------------------------------------- Parquet


def shard(
    file: Path, parts: Parts, images: dict[int, Any] | None = None, labels: list[Any] | None = None, **changed: Any
) -> Path:
    """The training images, but for `images`, by their places."""
    contents: list[Any] = [png(image) for image in parts["train"][0]]
    for i, image in (images or {}).items():
        contents[i] = image
    return write_shard(file, contents, [NAMES.index(name) for name in parts["train"][1]] if labels is None else labels, **changed)


def test_an_undecodable_image_in_parquet_is_named_by_shard_and_row_and_may_be_skipped(parts: Parts, tmp_path: Path) -> None:
    file = shard(tmp_path / "train.parquet", parts, {14: b"no image", 20: None})
    message = refusal(file)
    assert message.startswith(f"2 of 36 images cannot be read:\n  {file}, row 15: cannot identify image file")
    assert f"\n  {file}, row 21: " in message
    data = load(file, skip_bad_images=True)
    assert (len(data.train), data.skipped) == (34, 2)


def test_an_undecodable_image_is_named_behind_batches_in_the_second_shard(parts: Parts, tmp_path: Path) -> None:
    images, labels = [png(image) for image in parts["train"][0]] * 4, [NAMES.index(name) for name in parts["train"][1]] * 4
    images[20 + 100] = images[120][:40]
    write_shard(tmp_path / "train-00000-of-00002.parquet", images[:20], labels[:20])
    second = write_shard(tmp_path / "train-00001-of-00002.parquet", images[20:], labels[20:])
    assert refusal(tmp_path).startswith(f"1 of 144 images cannot be read:\n  {second}, row 101: ")
    data = load(tmp_path, skip_bad_images=True)
    assert (len(data.train), data.skipped) == (143, 1)
    np.testing.assert_array_equal(data.train.images[..., 0], np.delete(np.concatenate([parts["train"][0]] * 4), 120, axis=0))


def test_parquet_labels_that_are_missing_or_beyond_the_names_are_named(parts: Parts, tmp_path: Path) -> None:
    numbers: list[Any] = [NAMES.index(label) for label in parts["train"][1]]
    file = shard(tmp_path / "train.parquet", parts, labels=[*numbers[:4], 3, *numbers[5:]])
    assert refusal(file) == f"{file}, row 5: label 3 is not a class; the labels of the 3 classes are 0 to 2"
    shard(file, parts, labels=[*numbers[:4], None, -1, *numbers[6:]])
    assert refusal(file) == f"2 of 36 training images have no label:\n  {file}, row 5\n  {file}, row 6"
    assert load(file, skip_bad_images=True).skipped == 2
    shard(file, parts, labels=[[number, 1] for number in numbers], names=None)
    assert refusal(file).endswith(
        "contains list. Images with several labels are not supported: a network predicts one class for each image"
    )


def test_columns_of_parquet_go_by_their_names(parts: Parts, tmp_path: Path) -> None:
    columns = {"Id": [f"x{i}" for i in range(36)], "kind": parts["train"][1], "patient": [str(i // 2) for i in range(36)]}
    file = shard(tmp_path / "a.parquet", parts, **columns)
    data = load(file, label_column="kind", group_column="patient")
    assert (data.classes, data.groups[:2], data.train.groups.tolist()[:4]) == (tuple(sorted(NAMES)), ("0", "1"), [0, 0, 1, 1])
    known = "Did you mean 'kind'? Choices: label, Id, kind, patient."
    assert refusal(file, label_column="kinds") == f"{file} has no column 'kinds'. {known}"
    columns_said = "Columns with images: image. All columns: image, label, Id, kind, patient"
    assert refusal(file, image_column="picture").endswith(columns_said)
    shard(file, parts, patient=[*columns["patient"][:35], None])
    assert refusal(file, group_column="patient") == f"1 images have no group, the first is {file}, row 36"
    shard(file, parts, **columns)
    assert read_test_set(file, SHAPE).ids == columns["Id"]
    with pytest.raises(DataError, match="each image needs its own ID"):
        read_test_set(file, SHAPE, id_column="KIND")


def test_images_that_parquet_names_by_their_paths_lie_in_the_folder_of_the_data_set(parts: Parts, tmp_path: Path) -> None:
    root, beside = tmp_path / "here", tmp_path / "here" / "more" / "x.png"
    beside.parent.mkdir(parents=True)
    beside.write_bytes(png(parts["train"][0][3]))
    file = shard(root / "train.parquet", parts, {3: {"bytes": None, "path": "more/x.png"}})
    assert load(root).fingerprint == load(shard(tmp_path / "whole.parquet", parts)).fingerprint
    beside.write_bytes(png(255 - parts["train"][0][3]))
    assert load(root).train.images[3, 0, 0] == 255, "a changed image is decoded again"
    assert refusal(file) == f"{file}, row 4: the file has only a path to the image, more/x.png"
    for path in ("../x.png", "https://example.org/x.png", "/etc/hostname"):
        shard(file, parts, {3: {"bytes": None, "path": path}})
        assert refusal(root) == (
            f"{file}, row 4: the file has only a path to the image, {path!r}, which does not exist in {root}"
        )
    named = [{"bytes": png(image), "path": f"some/where/{i}.png"} for i, image in enumerate(parts["train"][0])]
    assert read_test_set(write_shard(file, named, [0] * 36), SHAPE).ids[:2] == ["0", "1"]


def test_shards_that_are_damaged_or_of_another_data_set_are_named(parts: Parts, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    root = write_parquet(tmp_path / "set", parts)
    first, second = (root / "data" / f"train-0000{i}-of-00002.parquet" for i in range(2))
    table = parquet.read_table(second)
    parquet.write_table(table.rename_columns(["image", "kind"]), second)
    assert refusal(root) == f"{second} has no column 'label'. Choices: image, kind."
    shard(second, parts, labels=["eight"] * 36)
    assert refusal(root) == f"{second}: column 'label' has the type string, but int64 in {first}"
    shard(second, parts, names=("eight", "nine", "ten"))
    assert refusal(root) == f"{second}: the class names differ from those in {first}"
    parquet.write_table(table, second)
    whole = second.read_bytes()
    second.write_bytes(whole[:-90])
    assert refusal(root).startswith(f"{second} is not a complete Parquet file: ")
    second.write_bytes(whole[:200] + bytes(200) + whole[400:])
    assert str(second) in refusal(root), "its last bytes are whole"
    second.write_bytes(whole)
    (root / "data" / "more.parquet").write_bytes(whole)
    assert refusal(root).startswith(f"{root / 'data' / 'more.parquet'} has no split in its name (train, val or test)")
    parquet.write_table(pyarrow.table({"image": ["https://example.org/1.png"], "label": [1]}), tmp_path / "urls.parquet")
    assert "contains URLs, such as 'https://example.org/1.png', not images" in refusal(tmp_path / "urls.parquet")


def test_without_pyarrow_parquet_is_refused_with_what_to_install(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shard(tmp_path / "train.parquet", parts)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    error = on_disk.refusal(file)
    assert error.message.endswith("needs the package pyarrow, which is not installed")
    assert error.hint == "pip install 'nas-under-budget[parquet]'"


def test_a_row_group_of_all_images_is_read_a_few_at_a_time(tmp_path: Path) -> None:
    """20,000 images of 4 kB in one row group are 80 MB; read at once, they would all be in pyarrow's memory."""
    pyarrow = pytest.importorskip("pyarrow")
    noise = np.random.default_rng(0)
    images = [noise.bytes(4096) for _ in range(20_000)]
    file = write_shard(tmp_path / "train.parquet", images, [0] * len(images))
    split = ParquetSplit([file], DataConfig(dataset="folder"), "train")
    before = pyarrow.total_allocated_bytes()
    most = max(pyarrow.total_allocated_bytes() for _ in split) - before
    assert most < 20_000_000


# --------------------------------------------------------------------------------------------------------------- tar


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_a_tar_says_long_names_in_its_own_way(form: int, parts: Parts, tmp_path: Path) -> None:
    """And folders, modification times of a fraction of a second, and names that are not ASCII, each with a header of its own."""
    names = [f"./{'folder/' * 12}{'é' * 30}{i}" for i in range(36)]
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, image, label in zip(names, *parts["train"], strict=True):
            for ending, content in (("png", png(image)), ("cls", label.encode())):
                member = tarfile.TarInfo(f"{name}.{ending}")
                member.size, member.mtime = len(content), 1.5
                tar.addfile(member, io.BytesIO(content))
    data = load(tmp_path)
    np.testing.assert_array_equal(data.train.images[..., 0], parts["train"][0])
    test = read_test_set(tmp_path, SHAPE)
    assert test.ids == [f"{'é' * 30}{i}" for i in range(36)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../x.png", "member '../x.png' has a path outside the folder"),
        ("/x.png", "member '/x.png' has a path outside the folder"),
        ("a/1.jpg", "key 'a/1' has two images, 'a/1.png' and 'a/1.jpg'"),
        ("a/1.cls", "key 'a/1' has two files .cls"),
        ("a/99.cls", "key 'a/99' has a label but no image"),
        ("a/0.2.png", "key 'a/0' has two images, 'a/0.png' and 'a/0.2.png'"),
        ("a/99.png", "1 of 37 training images have no label:"),
    ],
)
def test_tar_members_that_make_no_sample_are_named(name: str, said: str, parts: Parts, tmp_path: Path) -> None:
    root = write_tar(tmp_path / "tars", parts)
    with tarfile.open(root / "train-000.tar", "a") as tar:
        add(tar, name, b"eight")
    assert said in refusal(root)


def test_a_tar_that_is_cut_off_has_links_or_labels_under_another_key_is_named(parts: Parts, tmp_path: Path) -> None:
    file = write_tar(tmp_path / "tars", parts) / "train-000.tar"
    whole = file.read_bytes()
    with tarfile.open(file) as tar:
        second, last = tar.getmembers()[1], tar.getmembers()[-1]
    for kept in (0, 100, 600, 700, second.offset, second.offset + 100, last.offset_data + 512, len(whole) - 10_000):
        file.write_bytes(whole[:kept])
        assert refusal(file).startswith(f"{file} is not a complete tar file: "), kept
    file.write_bytes(whole[: second.offset + 3] + b"!" + whole[second.offset + 4 :])
    assert refusal(file) == f"{file} is not a complete tar file: the header at byte {second.offset:,} is damaged"
    file.write_bytes(whole)
    assert refusal(file, label_column="kind") == f"{file}: member 'a/0.json' has no key 'kind'. Choices: label."
    with tarfile.open(file, "a") as tar:
        link = tarfile.TarInfo("a/passwd.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert refusal(file) == f"{file}: member 'a/passwd.png' is not a regular file, which is not allowed"


# ------------------------------------------------------------------------------------------------------------ tables


@pytest.mark.parametrize("columns", [{"label_columns": NAMES}, {}])
def test_one_column_for_each_class_equals_a_column_of_labels(columns: dict[str, Any], parts: Parts, tmp_path: Path) -> None:
    labels = parts["train"][1]
    write_folder(tmp_path / "all", {"train": parts["train"]})
    rows = [(i, f"{i:03}", *(int(label == name) for name in NAMES)) for i, label in enumerate(labels)]
    table = write_csv(tmp_path / "labels.csv", [("", "image", *NAMES), *rows])
    data = load(tmp_path / "all", labels=str(table), **columns)
    assert data.fingerprint == load(tmp_path / "all").fingerprint
    write_csv(table, [("", "image", *NAMES), *rows[:5], (5, "005", 1, 1, 0), *rows[6:]])
    message = refusal(tmp_path / "all", labels=str(table), **columns)
    assert message.startswith(
        f"1 of 36 images have several labels, the first is {table}, line 7: eight, nine. Images with several labels"
    )
    write_csv(table, [("", "image", *NAMES), *rows[:5], (5, "005", 1, 2, 0), *rows[6:]])
    wrong = "column 'nine' of a class must contain 0 or 1, but contains '2'" if columns else "has no column 'label'"
    assert wrong in refusal(tmp_path / "all", labels=str(table), **columns)
    write_csv(table, [(f"{i:03}", label) for i, label in enumerate(labels)])
    assert load(tmp_path / "all", labels=str(table), header=False).fingerprint == data.fingerprint


def test_a_table_of_pixels_needs_no_header_and_test_images_no_labels(parts: Parts, tmp_path: Path) -> None:
    images, labels = parts["train"]
    rows = [[label, *image.ravel()] for image, label in zip(images, labels, strict=True)]
    file = write_csv(tmp_path / "x.csv", rows)
    np.testing.assert_array_equal(load(file, header=False).train.images[..., 0], images)
    without = DataConfig(dataset="folder", header=False)
    test = read_test_set(write_csv(tmp_path / "y.csv", [row[1:] for row in rows]), SHAPE, without)
    np.testing.assert_array_equal(test.images[..., 0], images)
    assert refusal(file) == f"{file} has several columns with the same name"
    rows[7][9] = 256
    write_csv(file, rows)
    assert refusal(file, header=False) == f"{file}, line 8: pixels must be whole numbers from 0 to 255"
    write_csv(file, [[*row, 0] for row in rows])
    assert refusal(file, header=False).startswith(
        f"{file} has 65 columns of pixels, which do not make a square grey or RGB image"
    )


def test_shards_of_a_table_have_the_same_columns_and_pixels_may_be_written_as_fractions(parts: Parts, tmp_path: Path) -> None:
    images, labels = parts["train"]
    rows = [[label, *image.ravel()] for image, label in zip(images, labels, strict=True)]
    write_csv(tmp_path / "set" / "train-1.csv", [("label", *PIXELS), *rows[:20]])
    second = write_csv(tmp_path / "set" / "train-2.csv", [("label", *PIXELS), *([r[0], *map(float, r[1:])] for r in rows[20:])])
    np.testing.assert_array_equal(load(tmp_path / "set").train.images[..., 0], images)
    rows[21][3] = "?"
    write_csv(second, [("label", *PIXELS), *rows[20:]])
    assert refusal(tmp_path / "set").startswith(f"{second}, line 3: a pixel must be a number: ")
    write_csv(second, [("label", *reversed(PIXELS)), *rows[20:]])
    assert refusal(tmp_path / "set") == f"{second} has other columns than {tmp_path / 'set' / 'train-1.csv'}"


def test_a_folder_of_a_competition_has_its_training_and_its_test_table(parts: Parts, tmp_path: Path) -> None:
    root = write_pixels(tmp_path / "set", {"train": parts["train"]})
    write_csv(root / "test.csv", [("Id", *PIXELS), *((f"t{i}", *image.ravel()) for i, image in enumerate(parts["test"][0]))])
    write_csv(root / "sample_submission.csv", [("Id", "Label"), ("t0", "eight")])
    (root / "rules.txt").write_text("be fair")
    data = load(root)
    assert (len(data.train), data.test) == (36, None)
    test = read_test_set(root, SHAPE)
    assert test.ids == [f"t{i}" for i in range(12)]
    np.testing.assert_array_equal(test.images[..., 0], parts["test"][0])


# ------------------------------------------------------------------------------------------- images that a script holds


def test_the_same_images_are_the_same_file_and_others_another(parts: Parts) -> None:
    images, labels = parts["train"]
    file = file_of_given((images, labels))
    written = file.stat()
    assert file_of_given((torch.from_numpy(images), labels)) == file
    assert file.stat() == written, "it is not written again, so that what was decoded of it is still found"
    assert file_of_given((images, labels[::-1])) != file
    turned = torch.from_numpy(np.ascontiguousarray(images.transpose(2, 1, 0))).permute(2, 1, 0)
    for other in (np.asfortranarray(images), images.transpose(0, 2, 1).copy().transpose(0, 2, 1), turned):
        assert file_of_given((other, np.repeat(labels, 2)[::2])) == file, "whatever the order of its bytes"
    assert not list(file.parent.glob(".given-*"))


BLACK, GREY = np.zeros((4, 8, 8), np.uint8), Image.new("L", (8, 8))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((np.zeros((4, 8, 8)), [0, 1, 0, 1]), "train: pixels must be uint8, from 0 to 255, but are float64"),
        ((BLACK, [0, 1]), "train: labels: there must be one label for each of the 4 images, but the labels have"),
        ((BLACK, [0, 1, 2, 1], ["a", "b"]), "label 2 is not a class; the labels of the 2 classes are 0 to 1"),
        ((BLACK, ["a", "c"] * 2, ["a", "b"]), "train: label 'c' is not a class. Choices: a, b."),
        ((BLACK, [0, None] * 2), "train: labels must be numbers or strings"),
        ({"train": (BLACK, [0, 1] * 2), "more": ()}, "'more' is not a split of a data set. Choices: train, "),
        ("cifar", "images and labels cannot be given as a str"),
        ([GREY], "train[0] must be a pair (image, label), but is a Image"),
        ([(GREY, 0), (GREY.resize((9, 8)), 1)], "train[1] has the shape (8, 9), but the first image has (8, 8)"),
        ([(torch.full((3, 8, 8), 1.5), 0)], "train[0]: pixels must be uint8 or from 0 to 1, but are from 1.5 to 1.5"),
    ],
)
def test_invalid_data_of_a_script_is_refused(given: Any, said: str) -> None:
    with pytest.raises(NasError) as refused:
        file_of_given(given)
    assert said in refused.value.message
