"""Data sets as torchvision finds them on the disk, and what is said where it does not."""

import inspect
import re
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from nas.config import DataConfig, ImageShape
from nas.data.datasets import PICTURES, load_dataset
from nas.errors import DataError
from nas.specs import SearchSpec
from tests.data.on_disk import images_and_labels, load, refusal, write_arrays, write_fashion, write_pictures

SHAPES = {
    "cifar10": ImageShape(channels=3, size=32, classes=10),
    "cifar100": ImageShape(channels=3, size=32, classes=100),
    "fashion-mnist": ImageShape(channels=1, size=28, classes=10),
    "mnist": ImageShape(channels=1, size=28, classes=10),
    "kmnist": ImageShape(channels=1, size=28, classes=10),
    "svhn": ImageShape(channels=3, size=32, classes=10),
    "stl10": ImageShape(channels=3, size=96, classes=10),
}


@pytest.mark.parametrize("name", SHAPES)
def test_downloaded_files_on_disk_are_read(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_arrays(tmp_path / "data", monkeypatch)
    data = load(tmp_path / "data", dataset=name)
    shape = SHAPES[name]
    assert data.shape == shape
    assert data.test is not None
    for part, found in (("train", data.train), ("test", data.test)):
        images, labels = images_and_labels(part, shape.size, shape.channels, shape.classes)
        np.testing.assert_array_equal(found.images, images)
        assert found.labels.tolist() == labels.tolist()
    names = {
        "fashion-mnist": ("T-shirt/top", "Trouser"),
        "mnist": ("0 - zero", "1 - one"),
        "kmnist": ("o", "ki"),
        "svhn": ("0", "1"),
    }
    assert data.classes[:2] == names.get(name, ("class 0", "class 1"))


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_in_files_are_what_torchvision_says_they_are(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_pictures(name, tmp_path, monkeypatch)
    data, pictures = load(tmp_path, dataset=name, image_size=12), PICTURES[name]
    found = {"train": data.train, "val": data.validation, "test": data.test}
    assert {part for part, images in found.items() if images is not None} == set(pictures.splits)
    for part, split in pictures.splits.items():
        theirs = getattr(datasets, pictures.known)(tmp_path, **({} if split is None else {"split": split}))
        resized = [np.asarray(image.resize((12, 12), Image.Resampling.BICUBIC)) for image, _ in theirs]
        np.testing.assert_array_equal(found[part].images, resized)
        names = [theirs.classes[label] if hasattr(theirs, "classes") else str(label) for _, label in theirs]
        ours = [data.classes[label] for label in found[part].labels.tolist()]
        assert ours == [name if isinstance(name, str) else name[0] for name in names]
    grey = load(tmp_path, dataset=name, channels="grey")
    assert grey.shape == ImageShape(channels=1, size=pictures.size, classes=len(data.classes))


def test_an_unreadable_picture_is_named_and_may_be_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_pictures("dtd", tmp_path, monkeypatch)
    file = tmp_path / "dtd/dtd/images/c_d/train1.jpg"
    file.write_bytes(b"")
    message = refusal(tmp_path, dataset="dtd").message
    if "loader" not in inspect.signature(datasets.DTD).parameters:  # torchvision 0.21 opens images by itself
        assert re.match(f"dtd, train image .* cannot be read: .*{file}", message)
        return
    assert message.startswith(f"1 of 4 images cannot be read:\n  {file}: ")
    assert load(tmp_path, dataset="dtd", skip_bad_images=True).counts == "11 images read, 1 left out"


def test_files_that_were_brought_by_hand_are_unpacked_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_fashion(tmp_path, compressed=True)
    monkeypatch.setattr(datasets.FashionMNIST, "resources", [(name, None) for name, _ in datasets.FashionMNIST.resources])
    assert len(load(tmp_path, dataset="fashion-mnist").train) == 40


AWAY = "on a machine with a network"
MNIST_FILES = ", ".join(f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))


HINTS = {
    "cifar10": f"download cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz {AWAY}, "
    "and unpack it, so that {}/cifar-10-batches-py exists",
    "cifar100": f"download cifar-100-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz {AWAY}, "
    "and unpack it, so that {}/cifar-100-python exists",
    "oxford-iiit-pet": f'{AWAY} run: python -c "from torchvision.datasets import OxfordIIITPet; '
    "OxfordIIITPet('data', download=True, split='trainval'); OxfordIIITPet('data', download=True, split='test')\", "
    "copy what is in its folder data to {}",
    "eurosat": f"{AWAY} run: python -c \"from torchvision.datasets import EuroSAT; EuroSAT('data', download=True)\", "
    "copy what is in its folder data to {}",
    "fashion-mnist": f"download {MNIST_FILES} from {datasets.FashionMNIST.mirrors[0]} {AWAY}, "
    "and put them into {}/FashionMNIST/raw",
    "kmnist": f"download {MNIST_FILES} from {datasets.KMNIST.mirrors[0]} {AWAY}, and put them into {{}}/KMNIST/raw",
    "svhn": "download http://ufldl.stanford.edu/housenumbers/train_32x32.mat and "
    f"http://ufldl.stanford.edu/housenumbers/test_32x32.mat {AWAY}, and put them into {{}}",
}


@pytest.mark.parametrize("name", HINTS)
def test_without_a_network_it_is_said_which_files_to_bring_and_where_to_put_them(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_network(*arguments: Any, **keywords: Any) -> None:
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", no_network)
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    folder = tmp_path / "data"
    error = refusal(folder, dataset=name)
    assert error.message.startswith(f"{name} is not in {folder}, and its download failed: ")
    assert "Temporary failure in name resolution" in error.message
    assert "\n" not in error.message
    assert error.hint == f"{HINTS[name].format(folder)}; then run the command again. --dataset digits needs no download"
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("there", "meant"),
    [
        ("train/a/1.png", "folder"),
        ("a/1.png", "folder"),
        ("data/train-00000-of-00001.parquet", "folder"),
        ("set.npz", "folder"),
        ("train-000.tar", "folder"),
        ("rules.txt", "cifar10"),
        ("cifar-10-batches-py/pictures/1.png", "cifar10"),
        ("dtd/dtd/images/a/1.jpg", "cifar10"),
    ],
)
def test_data_alone_means_ones_own_images_or_where_cifar10_is(there: str, meant: str, tmp_path: Path) -> None:
    file = tmp_path / there
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    assert SearchSpec(data_folder=str(tmp_path)).new_dataset == meant
    assert SearchSpec(data_folder=str(file)).new_dataset == "folder"
    assert SearchSpec(data_folder=str(tmp_path), dataset="mnist").new_dataset == "mnist"
    assert SearchSpec(data_folder=str(tmp_path / "new")).new_dataset == SearchSpec().new_dataset == "cifar10"


def test_unreadable_files_are_not_reported_as_a_cache_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def denied(root: Path, **asked: Any) -> None:
        raise PermissionError(13, "Permission denied", str(root / "train_32x32.mat"))

    monkeypatch.setattr(datasets, "SVHN", denied)
    monkeypatch.setattr(denied, "split_list", {"train": ["one"], "test": ["other"]}, raising=False)
    with pytest.raises(DataError, match=r"^svhn is not in .* Permission denied: .*train_32x32.mat"):
        load_dataset(DataConfig(dataset="svhn", folder=str(tmp_path)))


@pytest.mark.parametrize("option", [{"image_size": 64}, {"resize": "crop"}, {"channels": "grey"}, {"labels": "labels.csv"}])
def test_options_for_folders_are_refused_for_built_in_data_sets(option: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"works with (--dataset folder|images in files) only, not with svhn"):
        load_dataset(DataConfig(dataset="svhn", **option))
