"""Small data sets in the forms in which torchvision finds its own on the disk, whose checksums are not the real ones; and how the
tests load any."""

import gzip
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from nas.config import DataConfig
from nas.data.datasets import load_dataset
from nas.data.images import Dataset
from nas.errors import DataError

COUNTS = {"train": 40, "test": 20}


def images_and_labels(part: str, size: int, channels: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, H, W, C); labels from 0, each of which is there."""
    rng = np.random.default_rng(len(part))
    count = max(COUNTS[part], classes)
    return rng.integers(0, 256, (count, size, size, channels), np.uint8), np.arange(count) % classes


def load(folder: Path, labels: Path | None = None, dataset: str = "folder", **config: Any) -> Dataset:
    return load_dataset(DataConfig(dataset=dataset, folder=str(folder), labels=labels and str(labels), **config))


def refusal(folder: Path, labels: Path | None = None, **config: Any) -> DataError:
    with pytest.raises(DataError) as refused:
        load(folder, labels, **config)
    return refused.value


def write_arrays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All data sets whose images are one array, but digits."""
    write_cifar(root, datasets.CIFAR10, 10, "labels", "label_names", monkeypatch)
    write_cifar(root, datasets.CIFAR100, 100, "fine_labels", "fine_label_names", monkeypatch)
    for same_form in ("FashionMNIST", "MNIST", "KMNIST"):
        write_fashion(root, name=same_form)
    write_svhn(root, monkeypatch)
    write_stl10(root, monkeypatch)


def write_cifar(root: Path, known: type, classes: int, labels_key: str, names_key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / known.base_folder
    folder.mkdir(parents=True)
    for part in COUNTS:
        images, labels = images_and_labels(part, 32, 3, classes)
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        (folder / part).write_bytes(pickle.dumps({"data": rows, labels_key: labels.tolist()}))
        monkeypatch.setattr(known, f"{part}_list", [[part, None]])
    (folder / "meta").write_bytes(pickle.dumps({names_key: [f"class {i}" for i in range(classes)]}))
    monkeypatch.setattr(known, "meta", {"filename": "meta", "key": names_key, "md5": None})


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_fashion(root: Path, compressed: bool = False, name: str = "FashionMNIST") -> None:
    """`compressed`: as they are downloaded. `name`: torchvision's class, for others in the same form."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for part, name in (("train", "train"), ("test", "t10k")):
        images, labels = images_and_labels(part, 28, 1, 10)
        for kind, array in (("images-idx3", images[..., 0]), ("labels-idx1", labels.astype(np.uint8))):
            content = _idx(array)
            file = folder / f"{name}-{kind}-ubyte{'.gz' if compressed else ''}"
            file.write_bytes(gzip.compress(content) if compressed else content)


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the digit 0 has the label 10, and the images stand last."""
    root.mkdir(parents=True, exist_ok=True)
    listed: dict[str, Any] = {}
    for part in COUNTS:
        images, labels = images_and_labels(part, 32, 3, 10)
        file = f"{part}_32x32.mat"
        savemat(
            root / file, {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)}
        )
        listed[part] = [datasets.SVHN.split_list[part][0], file, None]
    monkeypatch.setattr(datasets.SVHN, "split_list", {**datasets.SVHN.split_list, **listed})


def write_stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where labels begin with 1, and images stand on their sides."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for part in COUNTS:
        images, labels = images_and_labels(part, 96, 3, 10)
        (folder / f"{part}_X.bin").write_bytes(np.ascontiguousarray(images.transpose(0, 3, 2, 1)).tobytes())
        (folder / f"{part}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
        monkeypatch.setattr(datasets.STL10, f"{part}_list", [[f"{part}_X.bin", None], [f"{part}_y.bin", None]])
    (folder / "class_names.txt").write_text("".join(f"class {i}\n" for i in range(10)))


def write_pictures(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images of each class in each split, but one of each flower."""
    rng = np.random.default_rng(0)

    def picture(*parts: str) -> str:
        file = root.joinpath(*parts)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 20, 3), np.uint8)).save(file)
        return file.stem

    def text(content: str, *parts: str) -> None:
        root.joinpath(*parts).parent.mkdir(parents=True, exist_ok=True)
        root.joinpath(*parts).write_text(content)

    kinds, splits = ("a_b", "c_d"), ("train", "val", "test")
    each = [(split, kind, f"{split}{i}") for split in splits for kind in kinds for i in range(2)]
    match name:
        case "dtd":
            for _, kind, image in each:
                picture("dtd/dtd/images", kind, f"{image}.jpg")
            for split in splits:
                listed = "".join(f"{kind}/{image}.jpg\n" for part, kind, image in each if part == split)
                text(listed, "dtd/dtd/labels", f"{split}1.txt")
        case "eurosat":
            for _, kind, image in each:
                picture("eurosat/2750", kind, f"{image}.jpg")
        case "fgvc-aircraft":
            data = "fgvc-aircraft-2013b/data"
            for split in splits:
                of_split = [(kind, picture(data, "images", f"{kind}{image}.jpg")) for part, kind, image in each if part == split]
                text("".join(f"{image} {kind}\n" for kind, image in of_split), data, f"images_variant_{split}.txt")
            text("\n".join(kinds), data, "variants.txt")
        case "flowers102":
            for i in range(306):
                picture("flowers-102/jpg", f"image_{i + 1:05d}.jpg")
            savemat(root / "flowers-102/imagelabels.mat", {"labels": np.arange(306) % 102 + 1})
            numbers = {key: np.arange(1 + 102 * i, 103 + 102 * i) for i, key in enumerate(("trnid", "valid", "tstid"))}
            savemat(root / "flowers-102/setid.mat", numbers)
            files = {key: (file, None) for key, (file, _) in datasets.Flowers102._file_dict.items()}
            monkeypatch.setattr(datasets.Flowers102, "_file_dict", files)
        case "food101":
            for split in ("train", "test"):
                listed = {kind: [f"{kind}/{split}{i}" for i in range(2)] for kind in kinds}
                text(json.dumps(listed), "food-101/meta", f"{split}.json")
                for image in (*listed["a_b"], *listed["c_d"]):
                    picture("food-101/images", f"{image}.jpg")
        case "gtsrb":
            rows = ["Filename;Width;Height;ClassId"]
            for i in range(4):
                picture("gtsrb/GTSRB/Training", f"{i // 2:05d}", f"{i}.ppm")
                picture("gtsrb/GTSRB/Final_Test/Images", f"{i}.ppm")
                rows.append(f"{i}.ppm;20;16;{i % 2}")
            text("\n".join(rows), "gtsrb/GT-final_test.csv")
        case "imagenette":
            for split, kind, image in each:
                picture("imagenette2", split, {"a_b": "n01440764", "c_d": "n02102040"}[kind], f"{image}.jpeg")
        case "oxford-iiit-pet":
            for split, part in (("trainval", "train"), ("test", "test")):
                found = [picture("oxford-iiit-pet/images", f"{kind}_{image}.jpg") for of, kind, image in each if of == part]
                text(
                    "".join(f"{image} {1 + (image[0] == 'c')} 1 1\n" for image in found),
                    "oxford-iiit-pet/annotations",
                    f"{split}.txt",
                )
