"""Data sets by name, each as uint8 arrays with labels.

To add one of a fixed size, such as torchvision's: an entry in SOURCES. To add any other: a function `(DataConfig, Progress) ->
Dataset` and an entry in DATASETS. The conformance test picks it up.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nas.config import DataConfig
from nas.data.cache import Progress, entry_key, find_or_make, silent
from nas.data.containers import load_container
from nas.data.images import Dataset, channel_statistics, dataset_of
from nas.data.splits import stratified
from nas.errors import DataError, choices_sentence

UNMIRRORED = frozenset({"digits", "mnist", "kmnist", "svhn"})
"""Data sets whose images mean something else in the mirror, so that no training flips them."""


def load_dataset(config: DataConfig, progress: Progress = silent) -> Dataset:
    """Raises DataError where the data is missing, broken or not what its name says."""
    require_known(config.dataset)
    return DATASETS[config.dataset](config, progress)


def require_known(dataset: str) -> None:
    """Raises DataError, with the choices, for an unknown name."""
    if dataset not in DATASETS:
        hint = f"--dataset folder --data {dataset}" if Path(dataset).is_dir() else None
        raise DataError(f"{dataset!r} is no data set.{choices_sentence(dataset, DATASETS)}", hint=hint)


Arrays = tuple[np.ndarray, np.ndarray, list[str]]  # uint8 (N, H, W, C), int64 (N,), and the classes


@dataclass(frozen=True)
class Source:
    size: int  # height and width of its images
    read: Callable[[Path, str], Arrays]  # (folder, "train" or "test"); raises DataError where it is neither there nor to be had


def _load_source(name: str, config: DataConfig, progress: Progress) -> Dataset:
    """Read once, into the cache, and normalised by its own training images."""
    source = SOURCES[name]
    if config.image_size not in (None, source.size):
        raise DataError(
            f"the images of {name} are {source.size}×{source.size}; --image-size {config.image_size} works with --dataset folder "
            "only"
        )
    for option, value, default in (
        ("--labels", config.labels, None),
        ("--group-column", config.group_column, None),
        ("--resize", config.resize, "squash"),
        ("--channels", config.channels, None),
    ):
        if value != default:
            raise DataError(f"{option} {value} works with --dataset folder only, not with {name}")

    def make(folder: Path) -> dict[str, Any]:
        meta: dict[str, Any] = {}
        for part in ("train", "test"):
            images, labels, classes = source.read(Path(config.folder or "data"), part)
            np.save(folder / f"{part}-images.npy", images)
            np.save(folder / f"{part}-labels.npy", labels)
            if part == "train":
                mean, std = channel_statistics(images)
                meta = {"classes": classes, "mean": mean, "std": std}
        return meta

    return dataset_of(name, find_or_make(name, entry_key([name]), make))


def _read_digits(root: Path, part: str) -> Arrays:
    """Every fifth of each class, drawn once and for all, is the test split; the data set itself has none."""
    from sklearn.datasets import load_digits  # it takes a second to import

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    chosen = stratified(labels, 0.2, seed=0)
    if part == "train":
        chosen = np.setdiff1d(np.arange(len(labels)), chosen)
    return images[chosen], labels[chosen], [str(digit) for digit in range(10)]


def _read_torchvision(name: str, class_name: str, by_hand: Callable[[Any, Path], str], root: Path, part: str) -> Arrays:
    """From the disk, or downloaded. `by_hand`: (torchvision's class, folder) → how to bring its files there without this
    program."""
    from torchvision import datasets

    known = getattr(datasets, class_name)
    which = {"split": part} if class_name == "SVHN" else {"train": part == "train"}
    found = None
    with suppress(OSError, RuntimeError):  # not there or not readable, or its checksum is wrong
        found = known(root, download=False, **which)
    try:
        if found is None:
            root.mkdir(parents=True, exist_ok=True)
            found = known(root, download=True, **which)
    except (OSError, RuntimeError) as error:  # URLError and HTTPError are OSErrors
        raise DataError(
            f"{name} is not under {root.absolute()}, and its download failed: {' '.join(str(error).split())}",
            hint=f"{by_hand(known, root)}, and run the command again; --dataset digits needs no download",
        ) from None
    images = np.asarray(found.data)
    if class_name == "SVHN":  # (N, C, H, W), and its classes have no names
        return (
            np.ascontiguousarray(images.transpose(0, 2, 3, 1)),
            found.labels.astype(np.int64),
            [str(digit) for digit in range(10)],
        )
    return images[..., None] if images.ndim == 3 else images, np.asarray(found.targets, np.int64), list(found.classes)


def _cifar_by_hand(known: Any, root: Path) -> str:
    there = root / known.base_folder
    return f"get {known.filename} from {known.url} on a machine with a network, unpack it so that {there} exists"


def _mnist_by_hand(known: Any, root: Path) -> str:
    files = ", ".join(name for name, _ in known.resources)
    return f"get {files} from {known.mirrors[0]} on a machine with a network, put them into {root / known.__name__ / 'raw'}"


def _svhn_by_hand(known: Any, root: Path) -> str:
    urls = " and ".join(known.split_list[part][0] for part in ("train", "test"))
    return f"get {urls} on a machine with a network, put them into {root}"


def _torchvision(size: int, name: str, class_name: str, by_hand: Callable[[Any, Path], str]) -> Source:
    return Source(size, partial(_read_torchvision, name, class_name, by_hand))


SOURCES: dict[str, Source] = {
    "digits": Source(8, _read_digits),
    "cifar10": _torchvision(32, "cifar10", "CIFAR10", _cifar_by_hand),
    "cifar100": _torchvision(32, "cifar100", "CIFAR100", _cifar_by_hand),
    "fashion-mnist": _torchvision(28, "fashion-mnist", "FashionMNIST", _mnist_by_hand),
    "mnist": _torchvision(28, "mnist", "MNIST", _mnist_by_hand),
    "kmnist": _torchvision(28, "kmnist", "KMNIST", _mnist_by_hand),
    "svhn": _torchvision(32, "svhn", "SVHN", _svhn_by_hand),
}
"""digits: scikit-learn's 1,797 handwritten ones of 8×8 (UCI Optical Recognition of Handwritten Digits). CIFAR-10 and CIFAR-100
(Krizhevsky 2009): 50,000 + 10,000 colour images of 32×32, in 10 and in 100 classes. Fashion-MNIST (arXiv 1708.07747): 60,000 +
10,000 grey ones of 28×28 of clothes; so many and so large are MNIST's handwritten digits (LeCun et al. 1998) and KMNIST's cursive
Japanese characters (arXiv 1812.01718). SVHN (Netzer et al. 2011): 73,257 + 26,032 house numbers of 32×32, in colour; its 531,131
easier ones are left out."""

DATASETS: dict[str, Callable[[DataConfig, Progress], Dataset]] = {
    **{name: partial(_load_source, name) for name in SOURCES},
    "folder": load_container,
}
