"""Data sets by name, each as uint8 arrays with labels.

To add one of torchvision's: an entry in ARRAYS where it holds its images as one array, else in PICTURES. To add any other: a
function `(DataConfig, Progress) -> Dataset` and an entry in DATASETS. The conformance test picks it up.
"""

import hashlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nas.config import DataConfig
from nas.data.cache import Progress, entry_key, find_or_make, silent
from nas.data.containers import decoded, load_folder
from nas.data.decoding import Member, image_files
from nas.data.formats import find_shards
from nas.data.formats.container import Container, Split
from nas.data.images import Dataset, channel_statistics, dataset_of
from nas.data.splits import stratified
from nas.data.twins import LEAST, find_twins, first_of
from nas.errors import DataError, choices_sentence, one_line

UNMIRRORED = frozenset({"digits", "mnist", "kmnist", "svhn", "gtsrb"})
"""Data sets whose images mean something else in the mirror, so that no training flips them."""


def load_dataset(config: DataConfig, progress: Progress = silent) -> Dataset:
    """Raises DataError where the data is missing, broken or not what its name says."""
    require_known(config.dataset)
    dataset = DATASETS[config.dataset](config, progress)
    return _with_twins_together(dataset, progress) if config.group_duplicates else dataset


def has_test_split(dataset: str) -> bool:
    """Whether a data set of this name has one; of a folder its files alone say so."""
    return dataset in ARRAYS or (dataset in PICTURES and "test" in PICTURES[dataset].splits)


def dataset_at(folder: str | None) -> str:
    """What `--data` alone means: images of one's own, or where CIFAR-10 lies or is downloaded to."""
    if folder is None or not os.path.exists(folder) or any((Path(folder) / place).exists() for place in PLACES.values()):
        return "cifar10"
    try:
        own = os.path.isfile(folder) or find_shards(Path(folder)) or next(image_files(folder), None)
    except DataError:  # whoever reads it says what is wrong
        own = True
    return "folder" if own else "cifar10"


def require_known(dataset: str) -> None:
    """Raises DataError, with the choices, for an unknown name."""
    if dataset not in DATASETS:
        hint = f"--dataset folder --data {dataset}" if Path(dataset).is_dir() else None
        raise DataError(f"{dataset!r} is not a data set.{choices_sentence(dataset, DATASETS)}", hint=hint)


MOST_TOGETHER = 0.1  # share of the images that may be one group of twins: more are no twins, but images of one kind


def _with_twins_together(dataset: Dataset, progress: Progress) -> Dataset:
    """Training images that are alike, and those of one group, become one group. Raises DataError where too many are alike."""
    train = dataset.train

    def make(folder: Path) -> dict[str, Any]:
        given = () if train.groups is None else (first_of(train.groups.tolist()),)
        np.save(folder / "groups.npy", find_twins(train.images, progress=progress).groups(*given))
        return {}

    content = hashlib.sha256()  # in their order, by which groups are numbered
    for start in range(0, len(train), 1000):
        content.update(np.ascontiguousarray(train.images[start : start + 1000]).tobytes())
    key = entry_key([dataset.fingerprint, content.hexdigest(), LEAST])
    groups = np.asarray(find_or_make("twins", key, make).array("groups"))
    largest = np.bincount(groups).max()
    if train.groups is None and largest > MOST_TOGETHER * len(train):
        raise DataError(
            f"--group-duplicates: {largest:,} of {len(train):,} training images would be one group, a chain of images that "
            f"correlate by {LEAST:g} or more: here correlation cannot separate twins from other images",
            hint="leave it out, or name groups with --group-column; nas doctor --data shows pairs",
        )
    names = tuple(f"training image {first} and its twins" for first in np.unique(groups, return_index=True)[1])
    return replace(dataset, train=replace(train, groups=groups), groups=names)


Arrays = tuple[np.ndarray, np.ndarray, list[str]]  # uint8 (N, H, W, C), int64 (N,), and the classes


@dataclass(frozen=True)
class Source:
    """A data set of torchvision, or scikit-learn's digits."""

    known: str  # torchvision's class; empty for digits
    size: int  # height and width of its images, or to which they are brought by default
    place: str  # of its files, under --data
    splits: Mapping[str, str | None] = field(default_factory=dict)
    """Of pictures in files: our splits → the `split` of that class, which not all have."""


def _load_arrays(name: str, config: DataConfig, progress: Progress) -> Dataset:
    """Read once, into the cache, and normalised by its own training images."""
    own = ARRAYS[name].size
    size = None if config.image_size == own else config.image_size
    _refuse(name, config)
    for option, value, default in (
        ("--image-size", size, None),
        ("--resize", config.resize, "squash"),
        ("--channels", config.channels, None),
    ):
        if value != default:
            raise DataError(f"{option} {value} works with images in files only, not with {name}, whose images are {own}×{own}")

    def make(folder: Path) -> dict[str, Any]:
        meta: dict[str, Any] = {}
        for part in ("train", "test"):
            read = _read_digits if name == "digits" else _read_torchvision
            images, labels, classes = read(name, Path(config.folder or "data"), part)
            np.save(folder / f"{part}-images.npy", images)
            np.save(folder / f"{part}-labels.npy", labels)
            if part == "train":
                mean, std = channel_statistics(images)
                meta = {"classes": classes, "mean": mean, "std": std}
        return meta

    return dataset_of(name, find_or_make(name, entry_key([name]), make))


def _load_pictures(name: str, config: DataConfig, progress: Progress) -> Dataset:
    """Decoded once, into the cache, as a folder's images are; in colour unless `config.channels` says otherwise."""
    pictures, folder = PICTURES[name], Path(config.folder or "data")
    _refuse(name, config)

    def splits() -> dict[str, Split]:
        return {part: _PicturesSplit(name, part, _open_pictures(name, folder, part)) for part in pictures.splits}

    shaped = {"image_size": config.image_size or pictures.size, "channels": config.channels or "rgb"}
    return decoded(name, name, Container([], splits), config.model_copy(update=shaped), progress)


def _refuse(name: str, config: DataConfig) -> None:
    """Raises DataError for what only a folder can be asked for."""
    for option, value in (("--labels", config.labels), ("--group-column", config.group_column)):
        if value is not None:
            raise DataError(f"{option} {value} works with --dataset folder only, not with {name}")


class _PicturesSplit(Split):
    def __init__(self, name: str, part: str, found: Any) -> None:
        """`found`: a Dataset of (image or its path, label)."""
        self.name, self.part, self.found = name, part, found
        names = getattr(found, "classes", None)  # of ImageNet's each has several
        self.classes = names and [name if isinstance(name, str) else name[0] for name in names]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Member]:
        return (self._item(i)[0] for i in range(len(self)))

    def labels(self) -> list[str]:
        labels = [int(self._item(i)[1]) for i in range(len(self))]
        return [str(label) if self.classes is None else self.classes[label] for label in labels]

    def place(self, i: int) -> str:
        image = self._item(i)[0]
        return str(image) if isinstance(image, Path) else f"{self.name}, {self.part} image {i}"

    def _item(self, i: int) -> Any:
        """(Image or its path, label). Raises DataError where torchvision's class opens the image, and it cannot be read."""
        try:
            return self.found[i]
        except OSError as error:
            raise DataError(
                f"{self.name}, {self.part} image {i} cannot be read: {one_line(error)}",
                hint="replace it, or update torchvision: a newer one leaves the image out with --skip-bad-images",
            ) from None


def _read_digits(name: str, folder: Path, part: str) -> Arrays:
    """Every fifth of each class, drawn once and for all, is the test split; the data set itself has none."""
    from sklearn.datasets import load_digits  # it takes a second to import

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    chosen = stratified(labels, 0.2, seed=0)
    if part == "train":
        chosen = np.setdiff1d(np.arange(len(labels)), chosen)
    return images[chosen], labels[chosen], [str(digit) for digit in range(10)]


def _read_torchvision(name: str, folder: Path, part: str) -> Arrays:
    from torchvision import datasets

    known = getattr(datasets, ARRAYS[name].known)
    by_split = ARRAYS[name].known in ("SVHN", "STL10")
    found = _from_torchvision(
        name, known, folder, _by_hand(known, folder), {"split": part} if by_split else {"train": part == "train"}
    )
    images = np.asarray(found.data)
    if by_split:  # (N, C, H, W), and SVHN's classes have no names
        names = getattr(found, "classes", None) or [str(number) for number in range(10)]
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1)), found.labels.astype(np.int64), names
    return images[..., None] if images.ndim == 3 else images, np.asarray(found.targets, np.int64), list(found.classes)


def _by_hand(known: Any, folder: Path) -> str:
    """How to bring the files of torchvision's class there without this program."""
    if hasattr(known, "resources"):  # MNIST and its kin
        files = ", ".join(name for name, _ in known.resources)
        there = folder / known.__name__ / "raw"
        return f"download {files} from {known.mirrors[0]} on a machine with a network, and put them into {there}"
    if hasattr(known, "split_list"):  # SVHN
        urls = " and ".join(known.split_list[part][0] for part in ("train", "test"))
        return f"download {urls} on a machine with a network, and put them into {folder}"
    there = folder / known.base_folder
    return f"download {known.filename} from {known.url} on a machine with a network, and unpack it, so that {there} exists"


def _open_pictures(name: str, folder: Path, part: str) -> Any:
    """A Dataset of (path, label), or of (image, label) where torchvision's class opens images by itself. Raises DataError."""
    from torchvision import datasets

    pictures = PICTURES[name]
    known = getattr(datasets, pictures.known)
    split = pictures.splits[part]
    which: dict[str, Any] = {} if split is None else {"split": split}
    if "loader" in inspect.signature(known).parameters:
        which["loader"] = Path
    calls = [
        f"{pictures.known}('data', download=True{'' if one is None else f', split={one!r}'})" for one in pictures.splits.values()
    ]
    by_hand = (
        f'on a machine with a network run: python -c "from torchvision.datasets import {pictures.known}; {"; ".join(calls)}", '
        f"copy what is in its folder data to {folder}"
    )
    return _from_torchvision(name, known, folder, by_hand, which)


def _from_torchvision(name: str, known: Any, folder: Path, by_hand: str, which: Mapping[str, Any]) -> Any:
    """torchvision's data set from the disk, or downloaded. `by_hand`: how to bring its files there without this program. Raises
    DataError."""
    with suppress(OSError, RuntimeError):  # not there or not readable, or its checksum is wrong
        return known(folder, download=False, **which)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return known(folder, download=True, **which)
    except (OSError, RuntimeError) as error:  # URLError and HTTPError are OSErrors
        raise DataError(
            f"{name} is not in {folder.absolute()}, and its download failed: {' '.join(str(error).split())}",
            hint=f"{by_hand}; then run the command again. --dataset digits needs no download",
        ) from None


ARRAYS: dict[str, Source] = {
    "digits": Source("", 8, ""),
    "cifar10": Source("CIFAR10", 32, "cifar-10-batches-py"),
    "cifar100": Source("CIFAR100", 32, "cifar-100-python"),
    "fashion-mnist": Source("FashionMNIST", 28, "FashionMNIST/raw"),
    "mnist": Source("MNIST", 28, "MNIST/raw"),
    "kmnist": Source("KMNIST", 28, "KMNIST/raw"),
    "svhn": Source("SVHN", 32, "train_32x32.mat"),
    "stl10": Source("STL10", 96, "stl10_binary"),
}
"""digits: scikit-learn's 1,797 handwritten ones of 8×8 (UCI Optical Recognition of Handwritten Digits). CIFAR-10 and CIFAR-100
(Krizhevsky 2009): 50,000 + 10,000 colour images of 32×32, in 10 and in 100 classes. Fashion-MNIST (arXiv 1708.07747): 60,000 +
10,000 grey ones of 28×28 of clothes; so many and so large are MNIST's handwritten digits (LeCun et al. 1998) and KMNIST's cursive
Japanese characters (arXiv 1812.01718). SVHN (Netzer et al. 2011): 73,257 + 26,032 house numbers of 32×32, in colour; its 531,131
easier ones are left out. STL-10 (Coates et al. 2011): 5,000 + 8,000 of 96×96 in 10 classes, without those that have no label."""

TWO = {"train": "train", "test": "test"}
THREE = {"train": "train", "val": "val", "test": "test"}
PICTURES: dict[str, Source] = {
    "dtd": Source("DTD", 224, "dtd/dtd", THREE),
    "eurosat": Source("EuroSAT", 64, "eurosat/2750", {"train": None}),
    "fgvc-aircraft": Source("FGVCAircraft", 224, "fgvc-aircraft-2013b", THREE),
    "flowers102": Source("Flowers102", 224, "flowers-102/jpg", THREE),
    "food101": Source("Food101", 224, "food-101", TWO),
    "gtsrb": Source("GTSRB", 32, "gtsrb/GTSRB", TWO),
    "imagenette": Source("Imagenette", 224, "imagenette2", {"train": "train", "val": "val"}),
    "oxford-iiit-pet": Source("OxfordIIITPet", 224, "oxford-iiit-pet/images", {"train": "trainval", "test": "test"}),
}
"""What they are is in torchvision's documentation, of the class of that name."""

PLACES = {name: source.place for name, source in (ARRAYS | PICTURES).items() if source.place}
"""What lies under `--data` where a data set has been downloaded."""

DATASETS: dict[str, Callable[[DataConfig, Progress], Dataset]] = {
    **{name: partial(_load_arrays, name) for name in ARRAYS},
    **{name: partial(_load_pictures, name) for name in PICTURES},
    "folder": load_folder,
}
