"""Data sets that torchvision finds on the disk, or downloads: CIFAR-10 and -100, Fashion-MNIST, SVHN.

Each is read once, into the cache, and normalised by its own training images. To add one: an entry in SOURCES.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.config import DataConfig
from nas.data.cache import entry_key, find_or_make, write_meta
from nas.data.images import Dataset, channel_statistics, dataset_of
from nas.errors import DataError

Arrays = tuple[np.ndarray, np.ndarray, list[str]]
"""uint8 (N, H, W, C), int64 (N,), and the classes."""


@dataclass(frozen=True)
class Source:
    """Of torchvision."""

    name: str
    """Of its class."""
    size: int
    """Height and width of its images."""
    part: Callable[[bool], dict[str, Any]]
    """How that class is asked for the training part, or else for the test part."""
    read: Callable[[Any], Arrays]
    """Of an instance."""
    by_hand: Callable[[Any, Path], str]
    """How to bring its files to the folder without this program; of the class."""


def load_download(kind: str, config: DataConfig) -> Dataset:
    """Raises DataError where it is neither on the disk nor to be had."""
    root, source = Path(config.folder or "data"), SOURCES[kind]

    def make(folder: Path) -> None:
        meta: dict[str, Any] = {}
        for part in ("train", "test"):
            images, labels, classes = source.read(_found(kind, source, root, part == "train"))
            np.save(folder / f"{part}-images.npy", images)
            np.save(folder / f"{part}-labels.npy", labels)
            if part == "train":
                mean, std = channel_statistics(images)
                meta = {"classes": classes, "mean": mean, "std": std}
        write_meta(folder, meta)

    return dataset_of(kind, find_or_make(kind, entry_key([kind]), make))


def _found(kind: str, source: Source, root: Path, train: bool) -> Any:
    from torchvision import datasets

    known = getattr(datasets, source.name)
    with suppress(OSError, RuntimeError):  # not there or not readable, or its checksum is wrong
        return known(root, download=False, **source.part(train))
    try:
        root.mkdir(parents=True, exist_ok=True)
        return known(root, download=True, **source.part(train))
    except (OSError, RuntimeError) as error:  # URLError and HTTPError are OSErrors
        raise DataError(
            f"{kind} is not under {root.absolute()}, and its download failed: {' '.join(str(error).split())}",
            hint=f"{source.by_hand(known, root)}, and run the command again; --dataset digits needs no download",
        ) from None


# ------------------------------------------------------------------------------------------------------------- each one


def _by_flag(train: bool) -> dict[str, Any]:
    return {"train": train}


def _read_cifar(part: Any) -> Arrays:
    return part.data, np.asarray(part.targets, np.int64), list(part.classes)


def _cifar_by_hand(known: Any, root: Path) -> str:
    unpacked = root / known.base_folder
    return f"get {known.filename} from {known.url} on a machine with a network, unpack it so that {unpacked} exists"


def _read_fashion(part: Any) -> Arrays:
    return part.data.numpy()[..., None], part.targets.numpy().astype(np.int64), list(part.classes)


def _fashion_by_hand(known: Any, root: Path) -> str:
    files = ", ".join(name for name, _ in known.resources)
    return f"get {files} from {known.mirrors[0]} on a machine with a network, put them into {root / 'FashionMNIST' / 'raw'}"


def _split_of_svhn(train: bool) -> dict[str, Any]:
    return {"split": "train" if train else "test"}


def _read_svhn(part: Any) -> Arrays:
    images = np.ascontiguousarray(part.data.transpose(0, 2, 3, 1))
    return images, part.labels.astype(np.int64), [str(digit) for digit in range(10)]


def _svhn_by_hand(known: Any, root: Path) -> str:
    urls = " and ".join(known.split_list[part][0] for part in ("train", "test"))
    return f"get {urls} on a machine with a network, put them into {root}"


SOURCES: dict[str, Source] = {
    "cifar10": Source("CIFAR10", 32, _by_flag, _read_cifar, _cifar_by_hand),
    "cifar100": Source("CIFAR100", 32, _by_flag, _read_cifar, _cifar_by_hand),
    "fashion-mnist": Source("FashionMNIST", 28, _by_flag, _read_fashion, _fashion_by_hand),
    "svhn": Source("SVHN", 32, _split_of_svhn, _read_svhn, _svhn_by_hand),
}
"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 colour images of 32×32, in 10 and in 100 classes. Fashion-MNIST
(arXiv 1708.07747): 60,000 + 10,000 grey ones of 28×28 of clothes. SVHN (Netzer et al. 2011): 73,257 + 26,032 house numbers of
32×32, in colour; its 531,131 easier ones are left out."""
