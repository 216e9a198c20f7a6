"""Data sets by name, made on the fly; nothing is downloaded."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

import nas.data.decoding
from nas.config import DataConfig, ImageShape
from nas.data.cache import silent
from nas.data.datasets import DATASETS, PICTURES, has_test_split, load_dataset, require_known
from nas.data.images import channel_statistics
from nas.errors import DataError
from tests.data.on_disk import load, refusal, write_arrays, write_pictures

FORMS = (
    "--data FOLDER takes FOLDER/train/<class>/*.png or FOLDER/<class>/*.png; with --labels FILE, any images; "
    "or a file with images inside: .parquet, .npz, .tar or .csv"
)


def write_image(path: Path, value: int, size: tuple[int, int] = (12, 12), mode: str = "RGB") -> None:
    """One colour, lossless in every format but JPEG, where grey stays grey too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size, value if mode == "L" else (value, value, value))
    if path.suffix == ".webp":
        image.save(path, lossless=True)
    else:
        image.save(path)


def fill(
    folder: Path, classes: dict[str, int], first: int = 10, suffixes: tuple[str, ...] = (".png",), mode: str = "RGB"
) -> None:
    """`classes` says how many images each class has; their grey values rise by 10 from `first`."""
    value = first
    for name, count in classes.items():
        for i in range(count):
            write_image(folder / name / f"{i}{suffixes[i % len(suffixes)]}", value, mode=mode)
            value += 10


def spoil(folder: Path, *images: str) -> None:
    for image in images:
        (folder / image).write_bytes(b"no image at all")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


# --------------------------------------------------------------------------------------------- what each data set is


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_passes_the_conformance_checks(
    name: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_arrays(tmp_path / "downloads", monkeypatch)
    write_pictures(name, tmp_path / "downloads", monkeypatch)
    fill(pictures / "train", {"a": 3, "b": 3})
    fill(pictures / "val", {"a": 1, "b": 1})
    fill(pictures / "test", {"a": 2, "b": 1})
    folder, size = pictures if name == "folder" else tmp_path / "downloads", 16 if name in PICTURES else None
    data = load(folder, dataset=name, image_size=size)
    shape = data.shape
    assert data.name == name
    assert (data.test is not None) is has_test_split(name) or name == "folder"
    for part in (data.train, data.validation, data.test):
        if part is None:
            continue
        assert part.images.dtype == np.uint8
        assert part.images.shape == (len(part), shape.size, shape.size, shape.channels)
        assert part.labels.dtype == np.int64
        assert part.labels.shape == (len(part),)
        assert set(part.labels.tolist()) == set(range(shape.classes))
    assert len(data.classes) == shape.classes == len(set(data.classes))
    mean, std = data.train.images.mean((0, 1, 2)), data.train.images.std((0, 1, 2))
    np.testing.assert_allclose(data.mean, mean)
    np.testing.assert_allclose(data.std, np.where(std < 1e-6, 1, std))
    again = load(folder, dataset=name, image_size=size)
    assert again.fingerprint == data.fingerprint
    np.testing.assert_array_equal(again.train.images, data.train.images)


def test_unknown_data_set_is_refused_with_the_nearest_and_all_others_and_a_folder_with_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        load_dataset(DataConfig(dataset="cifar"))
    assert refused.value.message == (f"'cifar' is not a data set. Did you mean 'cifar10'? Choices: {', '.join(DATASETS)}.")
    with pytest.raises(DataError) as refused:
        require_known(str(tmp_path))
    assert refused.value.hint == f"--dataset folder --data {tmp_path}"


def test_digits_are_grey_images_of_8x8_with_a_test_split_of_a_fifth() -> None:
    data = load_dataset(DataConfig(dataset="digits"))
    assert data.shape == ImageShape(channels=1, size=8, classes=10)
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert data.classes == tuple("0123456789")
    assert data.train.images.max() == 255


# ------------------------------------------------------------------------------------------------------------ CIFAR


@pytest.mark.parametrize("there", [True, False], ids=["on the disk", "downloaded"])
def test_cifar_is_decoded_once_and_downloaded_where_it_is_not_there(
    there: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[tuple[bool, bool]] = []

    class Fake:
        filename, url, base_folder = "cifar.tar.gz", "https://example.org/cifar.tar.gz", "cifar-batches-py"
        data = np.arange(40 * 32 * 32 * 3, dtype=np.uint64).reshape(40, 32, 32, 3).astype(np.uint8)
        targets, classes = [i % 10 for i in range(40)], [f"class {i}" for i in range(10)]

        def __init__(self, root: Path, train: bool = True, download: bool = False) -> None:
            made.append((train, download))
            if not (there or download):
                raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
            assert there or root.is_dir()

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    data, again = (load(tmp_path / "new", dataset="cifar10") for _ in range(2))
    assert made == [(train, download) for train in (True, False) for download in (False, True)[: 2 - there]]
    assert isinstance(again.train.images, np.memmap)
    np.testing.assert_array_equal(again.train.labels, data.train.labels)
    assert again.classes == tuple(Fake.classes)


# ------------------------------------------------------------------------------------------------- a folder of images


def test_folder_of_classes_is_one_training_set(pictures: Path) -> None:
    fill(pictures, {"dev": 2, "ant": 3}, suffixes=(".png", ".webp", ".PNG"))  # a class may be called as a part is
    data = load(pictures)
    assert data.classes == ("ant", "dev")
    assert (data.validation, data.test) == (None, None)
    assert data.shape == ImageShape(channels=3, size=12, classes=2)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert data.train.images[:, 0, 0, 0].tolist() == [30, 40, 50, 10, 20]


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Training", "valid", "Testing"),
        ("TRAIN", "Validation", "Test"),
        ("train", "dev", None),
        ("train", "VAL", None),
    ],
)
def test_folder_of_parts_is_a_training_a_validation_and_a_test_set(
    train: str, validation: str, test: str | None, pictures: Path
) -> None:
    fill(pictures / train, {"a": 2, "b": 2})
    fill(pictures / validation, {"a": 1, "b": 1}, first=100)
    if test is not None:
        fill(pictures / test, {"a": 1, "b": 2}, first=200)
    data = load(pictures)
    assert data.classes == ("a", "b")
    assert data.train.images[:, 0, 0, 0].tolist() == [10, 20, 30, 40]
    assert data.validation.images[:, 0, 0, 0].tolist() == [100, 110]
    assert data.mean == pytest.approx((25, 25, 25))
    if test is None:
        assert data.test is None
    else:
        assert (data.test.images[:, 0, 0, 0].tolist(), data.test.labels.tolist()) == ([200, 210, 220], [0, 1, 1])


def test_test_images_without_classes_are_not_taken_for_training_images(pictures: Path) -> None:
    fill(pictures / "train", {"a": 2, "b": 2})
    write_image(pictures / "test" / "0.png", 1)
    error = refusal(pictures)
    assert error.message.startswith(
        f"{pictures / 'test'} has no class folders, but the test images need one folder for each class"
    )
    assert "predict them with nas submit" in error.hint


def test_every_image_that_pillow_reads_is_read_and_other_files_are_counted(pictures: Path) -> None:
    suffixes = (".png", ".jpg", ".tif", ".TIFF", ".jpeg", ".bmp", ".gif", ".JPG", ".jfif", ".jpe")
    suffixes += (".ppm", ".pgm", ".jp2", ".tga", ".webp")
    fill(pictures, {"a": 15, "b": 9}, suffixes=suffixes)
    write_image(pictures / "b" / "monday" / "1.png", 250)
    write_image(pictures / ".thumbnails" / "1.png", 1)
    for name in ("a/x.heic", "b/y.heic", "b/notes.txt", "c.png"):
        (pictures / name).write_bytes(b"")
    data = load(pictures)
    assert (len(data.train), data.train.images.shape[1:], data.classes) == (25, (12, 12, 3), ("a", "b"))
    assert np.bincount(data.train.labels).tolist() == [15, 10]
    assert sorted(data.train.images[:, 0, 0, 0].tolist()) == pytest.approx([10 * i for i in range(1, 26)], abs=2)
    assert data.others == "4 files of the folder are skipped: .heic (2), images outside the class folders (1), .txt (1)"


def test_folders_beside_those_of_the_parts_are_counted(pictures: Path) -> None:
    for part, first in (("train", 10), ("evaluation/x", 100)):
        fill(pictures / part, {"a": 2, "b": 2}, first)
    data = load(pictures)
    assert data.others == "4 files of the folder are skipped: images in evaluation (4)"
    assert data.counts == f"4 images read; {data.others}"


def test_images_that_are_there_twice_are_counted(pictures: Path) -> None:
    fill(pictures / "train", {"a": 3, "b": 2})
    assert load(pictures).copies() == []
    write_image(pictures / "train" / "a" / "again.png", 10)
    write_image(pictures / "train" / "b" / "mixed up.png", 20)
    fill(pictures / "test", {"a": 2, "b": 1}, first=30)
    twice, mixed, known = load(pictures).copies()
    assert twice.startswith("2 of 7 training images are exact copies of others, so the validation set ")
    assert mixed == "1 training image has exact copies in another class"
    assert known.startswith("3 of 3 test images are exact copies of training images, ")
    data = load(pictures)  # in the order of their names: 10, 20, 30, 10; then 40, 50, 20
    for validation, copied in (([1], 1), ([3, 6], 2), ([2, 4], 0)):
        across, *others = data.copies(np.setdiff1d(np.arange(7), validation), np.array(validation))
        assert f", and {copied} of {len(validation)} validation images are copies of images that train: " in across
        assert others == [mixed, known]


def test_linked_folders_are_followed_and_circles_are_not(pictures: Path, tmp_path: Path) -> None:
    fill(pictures, {"a": 2, "b": 2})
    fill(tmp_path / "store", {"more": 2}, first=100)
    (pictures / "b" / "more").symlink_to(tmp_path / "store" / "more")
    for place, target in (("a/self", "a"), ("a/up", "."), ("a/root", "..")):
        (pictures / place).symlink_to((pictures / target).resolve())
    (tmp_path / "store" / "more" / "back").symlink_to(pictures / "b")
    assert load(pictures).train.images[:, 0, 0, 0].tolist() == [10, 20, 30, 40, 100, 110]


def test_images_are_in_the_order_of_their_paths(pictures: Path) -> None:
    for value, name in enumerate(["a/b.png", "a/b/2.png", "a/b.c/1.png", "a/B.png", "a/10.png", "a/9.png", "b/1.png"]):
        write_image(pictures / name, 10 * value)
    expected = sorted(path.relative_to(pictures) for path in pictures.rglob("*.png"))
    assert [str(path) for path in expected[2:5]] == ["a/B.png", "a/b/2.png", "a/b.c/1.png"]
    assert load(pictures).train.images[:, 0, 0, 0].tolist() == [40, 50, 30, 10, 20, 0, 60]


def test_a_link_to_an_image_is_an_image_and_a_link_to_nothing_is_unreadable(pictures: Path) -> None:
    fill(pictures, {"a": 2, "b": 2})
    (pictures / "b" / "2.png").symlink_to(pictures / "a" / "0.png")
    assert load(pictures).train.images[:, 0, 0, 0].tolist() == [10, 20, 30, 40, 10]
    (pictures / "b" / "3.png").symlink_to(pictures / "nowhere.png")
    assert str(pictures / "b" / "3.png") in refusal(pictures).message


def test_a_folder_that_may_not_be_read_is_named(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(pictures, {"a": 2, "b": 2})
    (pictures / "b" / "private").mkdir()
    scandir = os.scandir

    def guarded(path: str) -> Any:  # root may read everything
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert refusal(pictures).message.startswith(f"the folder {pictures / 'b' / 'private'} cannot be read: ")


def test_images_are_resized_to_the_shorter_side_of_the_first_or_to_what_is_asked_for(pictures: Path) -> None:
    write_image(pictures / "a" / "0.png", 10, size=(20, 16))
    write_image(pictures / "b" / "0.png", 30, size=(9, 40))
    assert load(pictures).shape.size == 16
    resized = load(pictures, image_size=24)
    assert resized.shape.size == 24
    assert np.unique(resized.train.images).tolist() == [10, 30]


def test_images_below_8_pixels_are_refused_unless_a_size_is_given(pictures: Path) -> None:
    write_image(pictures / "a" / "0.png", 10, size=(6, 9))
    write_image(pictures / "b" / "0.png", 30)
    error = refusal(pictures)
    assert error.message == f"images must have at least 8×8 pixels, but {pictures / 'a' / '0.png'} has 6×9"
    assert error.hint == "enlarge them: --image-size 32"
    assert load(pictures, image_size=8).shape.size == 8


# --------------------------------------------------------------------------------------------- what is wrong with one


def test_folder_that_is_not_there_or_not_named_is_asked_for(pictures: Path) -> None:
    error = refusal(pictures)
    assert (error.message, error.hint) == (f"there is no folder {pictures}", f"{FORMS}; --dataset digits needs no folder")
    with pytest.raises(DataError, match="--dataset folder needs a folder") as refused:
        load_dataset(DataConfig(dataset="folder"))
    assert refused.value.hint == "nas search --dataset folder --data FOLDER"


TWO = "a classifier needs at least two classes, one folder each"


@pytest.mark.parametrize(
    ("there", "message", "hint"),
    [
        ({"loose": {}}, f"{TWO}, but the folders in {{}} are: loose", FORMS),
        ({"train": {"cats": 3}}, f"{TWO}, but the folders in {{}}/train are: cats", FORMS),
        ({"val": {"a": 1}, "test": {"a": 1}}, "{} has the folder val and test, but no folder train", FORMS),
        ({"valid": {"a": 1}}, "{} has the folder valid, but no folder train", FORMS),
        (
            {"train": {"a": 1, "b": 1}, "Training": {"a": 1, "b": 1}},
            "{} has the folders Training and train, which both mean train",
            "keep one of them, or merge them",
        ),
        (
            {"train": {"a": 2, "b": 2}, "test": {"a": 1, "b": 1, "c": 1}},
            "{}/test/c is not a class of the training images. Choices: a, b.",
            None,
        ),
    ],
    ids=["no classes", "one class", "no training images", "other words", "two folders of one part", "another class"],
)
def test_folders_of_another_form_are_refused(
    there: dict[str, dict[str, int]], message: str, hint: str | None, pictures: Path
) -> None:
    for part, classes in there.items():
        (pictures / part).mkdir(parents=True)
        fill(pictures / part, classes)
    error = refusal(pictures)
    assert (error.message, error.hint) == (message.format(pictures), hint)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_class_folder_without_images_is_named(part: str, pictures: Path) -> None:
    for each in ("train", "val", "test"):
        fill(pictures / each, {"a": 2, "b": 2})
    shutil.rmtree(pictures / part / "b")
    (pictures / part / "b").mkdir()
    (pictures / part / "b" / "readme.txt").write_bytes(b"")
    error = refusal(pictures)
    word = {"train": "training", "val": "validation"}.get(part, part)
    assert error.message.startswith(
        f"there is no image in {pictures / part / 'b'}, but each class needs {word} images; image files end in "
        ".jpg, .jpeg, .png, .webp, "
    )
    assert error.hint == "add images, or remove the class"


def test_corrupt_images_are_counted_named_and_explained(pictures: Path) -> None:
    fill(pictures, {"a": 5, "b": 5})
    spoil(pictures, "a/1.png", "a/2.png", "a/3.png")
    whole = (pictures / "b" / "2.png").read_bytes()
    (pictures / "b" / "2.png").write_bytes(whole[: len(whole) // 2])
    error = refusal(pictures)
    lines = error.message.splitlines()
    assert lines[0] == "4 of 10 images cannot be read:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        str(pictures / place) for place in ("a/1.png", "a/2.png", "a/3.png", "b/2.png")
    ]
    assert "cannot identify image file" in lines[1]
    assert error.hint == "repair or remove them, or skip them with --skip-bad-images"
    assert list((pictures.parent / "cache").iterdir()) == []


def test_corrupt_images_are_left_out_where_that_is_asked_for(pictures: Path) -> None:
    fill(pictures / "train", {"a": 3, "b": 3})
    fill(pictures / "test", {"a": 2, "b": 2})
    spoil(pictures, "train/a/1.png", "test/b/0.png")
    data = load(pictures, skip_bad_images=True)
    assert data.skipped == 2
    assert data.train.images[:, 0, 0, 0].tolist() == [10, 30, 40, 50, 60]
    assert data.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.test.labels.tolist() == [0, 0, 1]
    assert data.mean[0] == pytest.approx(38)
    assert load(pictures, skip_bad_images=True).skipped == 2  # from the cache, too


def test_corrupt_first_image_is_one_among_others(pictures: Path) -> None:
    fill(pictures, {"a": 2, "b": 2}, mode="L")
    spoil(pictures, "a/0.png")
    for config in ({}, {"image_size": 16}):
        assert refusal(pictures, **config).message.startswith("1 of 4 images cannot be read:")
    skipped = load(pictures, skip_bad_images=True)
    assert skipped.shape == ImageShape(channels=1, size=12, classes=2)
    assert skipped.train.labels.tolist() == [0, 1, 1]
    spoil(pictures, "a/1.png", "b/0.png", "b/1.png")
    for config in ({}, {"skip_bad_images": True}, {"image_size": 16}):
        assert refusal(pictures, **config).message.startswith("4 of 4 images cannot be read:")


@pytest.mark.parametrize("part", ["train", "val"])
def test_class_that_loses_all_its_images_is_named(part: str, pictures: Path) -> None:
    for each in ("train", "val"):
        fill(pictures / each, {"a": 2, "b": 1})
    spoil(pictures, f"{part}/b/0.png")
    assert refusal(pictures, skip_bad_images=True).message == f"no image of class folder {pictures / part / 'b'} can be read"


# ------------------------------------------------------------------------------------------------------------ caching


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that is decoded."""
    files: list[Path] = []
    original = nas.data.decoding.decode

    def decode(path: Path, size: int, channels: int, resize: str) -> np.ndarray:
        files.append(path)
        return original(path, size, channels, resize)

    monkeypatch.setattr(nas.data.decoding, "decode", decode)
    return files


def test_images_are_decoded_once(pictures: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    fill(pictures, {"a": 2, "b": 2})
    first, second = load(pictures), load(pictures)
    assert len(decoded) == 4
    assert isinstance(second.train.images, np.memmap)
    np.testing.assert_array_equal(second.train.images, first.train.images)
    assert (second.mean, second.classes, second.fingerprint) == (first.mean, first.classes, first.fingerprint)
    monkeypatch.setattr(nas.data.containers, "DECODING", "otherwise")
    load(pictures)
    assert len(decoded) == 8, "the program decodes them otherwise now"


@pytest.mark.parametrize(
    "change", ["another picture", "a new picture", "one picture less", "replaced", "another size", "skipping"]
)
def test_images_are_decoded_again_where_something_changed(change: str, pictures: Path, decoded: list[Path]) -> None:
    fill(pictures, {"a": 3, "b": 2})
    if change == "replaced":  # by one of the same size, which those of PNG are not
        Image.new("RGB", (12, 12), (10, 10, 10)).save(pictures / "a" / "0.png", format="BMP")
    before = load(pictures)
    count = len(decoded)
    config: dict[str, Any] = {}
    if change == "another picture":
        write_image(pictures / "a" / "0.png", 200)
    elif change == "a new picture":
        write_image(pictures / "b" / "9.png", 200)
    elif change == "one picture less":
        (pictures / "a" / "0.png").unlink()
    elif change == "replaced":  # as cp -p and rsync do: under the same name, of the same size and time
        other, status = pictures / "a" / "0.png", (pictures / "a" / "0.png").stat()
        Image.new("RGB", (12, 12), (200, 200, 200)).save(other, format="BMP")
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert (other.stat().st_size, other.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    elif change == "another size":
        config["image_size"] = 16
    else:
        config["skip_bad_images"] = True
    after = load(pictures, **config)
    assert len(decoded) > count
    assert (after.fingerprint == before.fingerprint) == (change == "skipping")


def test_progress_counts_the_images_of_each_part(pictures: Path) -> None:
    fill(pictures / "train", {"a": 2, "b": 2})
    fill(pictures / "test", {"a": 1, "b": 1})
    seen: list[tuple[str, int]] = []

    def progress(items: Iterable, what: str, count: int) -> Iterable:
        seen.append((what, count))
        return silent(items, what, count)

    load_dataset(DataConfig(dataset="folder", folder=str(pictures)), progress)
    assert seen == [("decoding train images", 4), ("decoding test images", 2)]


# -------------------------------------------------------------------------------------------------------- fingerprint


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_fingerprint_sees_training_and_validation_images_wherever_they_lie_and_no_test_images(part: str, pictures: Path) -> None:
    for each in ("train", "val", "test"):
        fill(pictures / each, {"a": 2, "b": 2})
    before = load(pictures).fingerprint
    moved = pictures.rename(pictures.with_name("moved"))
    assert load(moved).fingerprint == before
    write_image(moved / part / "a" / "0.png", 222)
    assert (load(moved).fingerprint == before) == (part == "test")


def test_files_renamed_within_a_class_keep_the_fingerprint_and_change_the_order(pictures: Path) -> None:
    fill(pictures / "train", {"a": 3, "b": 3})
    before = load(pictures)
    assert load(pictures.rename(pictures.with_name("moved"))).order == before.order
    (pictures.with_name("moved") / "train" / "a" / "0.png").rename(pictures.with_name("moved") / "train" / "a" / "9.png")
    after = load(pictures.with_name("moved"))
    assert after.fingerprint == before.fingerprint
    assert after.order != before.order


def test_statistics_that_are_kept_are_those_of_the_images(pictures: Path) -> None:
    for part, first in (("train", 10), ("val", 100)):
        fill(pictures / part, {"a": 2, "b": 3}, first=first)
    for _ in range(2):  # decoded, and read from the cache
        data = load(pictures)
        assert data.validation_statistics == channel_statistics(data.validation.images)
        assert data.fingerprint == replace(data, validation_statistics=None).fingerprint


def test_statistics_of_many_images_are_those_of_all_at_once() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5000, 8, 8, 3), np.uint8)
    images[..., 2] = 7
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)))
    np.testing.assert_allclose(std[:2], images[..., :2].std((0, 1, 2)))
    assert std[2] == 1.0


def test_classes_that_are_numbers_are_in_their_order_as_numbers(pictures: Path) -> None:
    fill(pictures, {str(number): 2 for number in (10, 2, 0, 1)})
    dataset = load(pictures)
    assert dataset.classes == ("0", "1", "2", "10")
    grey_of_ten = 10  # written first
    assert dataset.train.images[dataset.train.labels == 3].min() == grey_of_ten


def test_a_class_whose_name_is_not_utf_8_is_refused_and_an_image_called_so_is_not(pictures: Path) -> None:
    fill(pictures, {"a": 2, "b": 2})
    os.rename(pictures / "a" / "0.png", os.fsencode(pictures / "a") + b"/caf\xe9.png")
    assert len(load(pictures).train) == 4
    os.rename(pictures / "a", os.fsencode(pictures) + b"/caf\xe9")
    error = refusal(pictures)
    assert "the folder name of a class must be UTF-8, but 'caf\\udce9'" in error.message
    assert "convmv" in str(error.hint)
