"""Data sets that torchvision finds on the disk, or downloads: CIFAR-10 and -100, Fashion-MNIST, SVHN.

Each is read once, into the cache, and normalised by its own training images; what may be done to them in training is
`UNMIRRORED`'s and the space's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.config import DataConfig
from nas.data.cache import Progress, entry_key, find_or_make, write_meta
from nas.data.images import Dataset, channel_statistics, dataset_of
from nas.errors import DataError

UNMIRRORED = frozenset({"digits", "svhn"})
"""Data sets whose images mean something else in the mirror, so that no training flips them."""


@dataclass(frozen=True)
class Source:
    """Of torchvision."""

    size: int
    """Height and width of its images."""
    open: Callable[[Path, bool, bool], Any]
    """(folder, whether the training part, whether it may be downloaded) → torchvision's data set."""
    read: Callable[[Any], tuple[np.ndarray, np.ndarray, list[str]]]
    """uint8 (N, H, W, C), int64 (N,), and the classes."""
    by_hand: Callable[[Any, Path], str]
    """How to bring its files to the folder without this program; of torchvision's class."""
    name: str
    """Of that class."""


def load_download(kind: str, config: DataConfig, progress: Progress) -> Dataset:
    """Raises DataError where it is neither on the disk nor to be had."""
    root, source = Path(config.folder or "data"), SOURCES[kind]

    def make(folder: Path) -> None:
        meta: dict[str, Any] = {}
        for part in ("train", "test"):
            images, labels, classes = source.read(_found(kind, root, part == "train"))
            np.save(folder / f"{part}-images.npy", images)
            np.save(folder / f"{part}-labels.npy", labels)
            if part == "train":
                mean, std = channel_statistics(images)
                meta = {"classes": classes, "mean": mean, "std": std}
        write_meta(folder, meta)

    return dataset_of(kind, find_or_make(kind, entry_key([kind]), make))


def _found(kind: str, root: Path, train: bool) -> Any:
    from torchvision import datasets

    source = SOURCES[kind]
    try:
        return source.open(root, train, False)
    except RuntimeError:
        pass  # not there, or its checksum is wrong
    try:
        root.mkdir(parents=True, exist_ok=True)
        return source.open(root, train, True)
    except (OSError, RuntimeError) as error:  # URLError and HTTPError are OSErrors
        raise DataError(
            f"{kind} is not under {root.absolute()}, and its download failed: {' '.join(str(error).split())}",
            hint=f"{source.by_hand(getattr(datasets, source.name), root)}, and run the command again; --dataset digits needs no "
            "download",
        ) from None


# ------------------------------------------------------------------------------------------------------------- each one


def _cifar(name: str) -> Source:
    def open_part(root: Path, train: bool, download: bool) -> Any:
        from torchvision import datasets

        return getattr(datasets, name)(root, train=train, **({"download": True} if download else {}))

    def read(part: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
        return part.data, np.asarray(part.targets, np.int64), list(part.classes)

    def by_hand(kind: Any, root: Path) -> str:
        unpacked = root / kind.base_folder
        return f"get {kind.filename} from {kind.url} on a machine with a network, unpack it so that {unpacked} exists"

    return Source(32, open_part, read, by_hand, name)


def _fashion() -> Source:
    def open_part(root: Path, train: bool, download: bool) -> Any:
        from torchvision import datasets

        return datasets.FashionMNIST(root, train=train, download=download)

    def read(part: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
        return part.data.numpy()[..., None], part.targets.numpy().astype(np.int64), list(part.classes)

    def by_hand(kind: Any, root: Path) -> str:
        files = ", ".join(name for name, _ in kind.resources)
        return f"get {files} from {kind.mirrors[0]} on a machine with a network, put them into {root / 'FashionMNIST' / 'raw'}"

    return Source(28, open_part, read, by_hand, "FashionMNIST")


def _svhn() -> Source:
    def open_part(root: Path, train: bool, download: bool) -> Any:
        from torchvision import datasets

        return datasets.SVHN(root, split="train" if train else "test", download=download)

    def read(part: Any) -> tuple[np.ndarray, np.ndarray, list[str]]:
        images = np.ascontiguousarray(part.data.transpose(0, 2, 3, 1))
        return images, part.labels.astype(np.int64), [str(digit) for digit in range(10)]

    def by_hand(kind: Any, root: Path) -> str:
        urls = " and ".join(kind.split_list[part][0] for part in ("train", "test"))
        return f"get {urls} on a machine with a network, put them into {root}"

    return Source(32, open_part, read, by_hand, "SVHN")


SOURCES: dict[str, Source] = {
    "cifar10": _cifar("CIFAR10"),
    "cifar100": _cifar("CIFAR100"),
    "fashion-mnist": _fashion(),
    "svhn": _svhn(),
}
"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 colour images of 32×32, in 10 and in 100 classes. Fashion-MNIST
(arXiv 1708.07747): 60,000 + 10,000 grey ones of 28×28 of clothes. SVHN (Netzer et al. 2011): 73,257 + 26,032 house numbers of
32×32, in colour; its 531,131 easier ones are left out."""
