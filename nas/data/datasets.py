"""Data sets by name, each as uint8 arrays with labels. To add one: a function `(DataConfig, Progress) -> Dataset`, an entry
in DATASETS; the conformance test picks it up.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nas.config import DataConfig
from nas.data.cache import Progress, entry_key, find_or_make, silent, write_meta
from nas.data.folders import load_folder
from nas.data.images import Dataset, ImageSet, channel_statistics, dataset_of
from nas.data.splits import Split, split, stratified, validation_images
from nas.errors import DataError, choices_sentence

__all__ = [
    "DATASETS",
    "Dataset",
    "ImageSet",
    "Split",
    "channel_statistics",
    "load_dataset",
    "require_known",
    "split",
    "stratified",
    "validation_images",
]


def load_dataset(config: DataConfig, progress: Progress = silent) -> Dataset:
    """Raises DataError where the data is missing, broken or not what its name says."""
    require_known(config.dataset)
    return DATASETS[config.dataset](config, progress)


def require_known(dataset: str) -> None:
    """Raises DataError, with the choices, for a name that is no data set's."""
    if dataset not in DATASETS:
        hint = f"--dataset folder --data {dataset}" if Path(dataset).is_dir() else None
        raise DataError(f"{dataset!r} is no data set.{choices_sentence(dataset, DATASETS)}", hint=hint)


# ---------------------------------------------------------------------------------------------------- the data sets


def _require_as_it_is(config: DataConfig, size: int) -> None:
    """Raises DataError for what only images in a folder can be asked for."""
    if config.image_size not in (None, size):
        raise DataError(
            f"the images of {config.dataset} are {size}×{size}; --image-size {config.image_size} works with --dataset folder only"
        )
    for option, value, default in (
        ("--labels", config.labels, None),
        ("--group-column", config.group_column, None),
        ("--resize", config.resize, "squash"),
        ("--channels", config.channels, None),
    ):
        if value != default:
            raise DataError(f"{option} {value} works with --dataset folder only, not with {config.dataset}")


def load_digits(config: DataConfig, progress: Progress) -> Dataset:
    """scikit-learn's 1,797 handwritten digits of 8×8 (UCI Optical Recognition of Handwritten Digits). Every fifth of each
    class, drawn once and for all, is the test split; the data set itself has none."""
    _require_as_it_is(config, 8)

    def make(folder: Path) -> None:
        from sklearn.datasets import load_digits as load  # it takes a second to import

        bunch = load()
        images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
        labels = bunch.target.astype(np.int64)
        test = stratified(labels, 0.2, seed=0)
        train = np.setdiff1d(np.arange(len(labels)), test)
        for part, chosen in (("train", train), ("test", test)):
            np.save(folder / f"{part}-images.npy", images[chosen])
            np.save(folder / f"{part}-labels.npy", labels[chosen])
        mean, std = channel_statistics(images[train])
        write_meta(folder, {"classes": [str(digit) for digit in range(10)], "mean": mean, "std": std})

    return dataset_of("digits", find_or_make("digits", entry_key(["digits"]), make))


def _load_cifar(config: DataConfig, progress: Progress, kind: str) -> Dataset:
    _require_as_it_is(config, 32)
    root = Path(config.folder or "data")

    def make(folder: Path) -> None:
        meta = {}
        for part in ("train", "test"):
            source = _torchvision_cifar(kind, root, train=part == "train")
            np.save(folder / f"{part}-images.npy", source.data)
            np.save(folder / f"{part}-labels.npy", np.asarray(source.targets, np.int64))
            if part == "train":
                mean, std = channel_statistics(source.data)
                meta = {"classes": source.classes, "mean": mean, "std": std}
        write_meta(folder, meta)

    return dataset_of(kind, find_or_make(kind, entry_key([kind]), make))


def _torchvision_cifar(kind: str, root: Path, train: bool):  # type: ignore[no-untyped-def]
    from torchvision import datasets

    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[kind]
    try:
        return source(root, train=train)
    except RuntimeError:
        pass  # not there, or its checksum is wrong
    try:
        root.mkdir(parents=True, exist_ok=True)
        return source(root, train=train, download=True)
    except (OSError, RuntimeError) as error:  # URLError and HTTPError are OSErrors
        raise DataError(
            f"{kind} is not under {root.absolute()}, and its download failed: {error}",
            hint=f"get {source.filename} from {source.url} on a machine with a network, unpack it so that "
            f"{root / source.base_folder} exists, and run the command again; --dataset digits needs no download",
        ) from None


def load_cifar10(config: DataConfig, progress: Progress) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour images of 32×32 in 10 classes, by torchvision."""
    return _load_cifar(config, progress, "cifar10")


def load_cifar100(config: DataConfig, progress: Progress) -> Dataset:
    """CIFAR-100 (Krizhevsky 2009): as CIFAR-10, in 100 classes."""
    return _load_cifar(config, progress, "cifar100")


DATASETS: dict[str, Callable[[DataConfig, Progress], Dataset]] = {
    "digits": load_digits,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "folder": load_folder,
}
