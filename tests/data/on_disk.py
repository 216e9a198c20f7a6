"""Small data sets in the forms in which torchvision finds its own on the disk; their checksums are not the real ones."""

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from torchvision import datasets

COUNTS = {"train": 40, "test": 20}


def images_and_labels(part: str, size: int, channels: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, H, W, C); labels from 0, each of which is there."""
    rng = np.random.default_rng(len(part))
    count = max(COUNTS[part], classes)
    return rng.integers(0, 256, (count, size, size, channels), np.uint8), np.arange(count) % classes


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / datasets.CIFAR100.base_folder
    folder.mkdir(parents=True)
    for part in COUNTS:
        images, labels = images_and_labels(part, 32, 3, 100)
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        (folder / part).write_bytes(pickle.dumps({"data": rows, "fine_labels": labels.tolist()}))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class {i}" for i in range(100)]}))
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", None]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", None]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": None})


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
