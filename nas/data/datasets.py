"""Data sets by name, each as uint8 arrays with labels. To add one: a function `(DataConfig, Progress) -> Dataset`, an entry
in DATASETS; the conformance test picks it up.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nas.config import DataConfig
from nas.data.cache import Progress, entry_key, find_or_make, silent, write_meta
from nas.data.downloads import SOURCES, load_download
from nas.data.folders import load_folder
from nas.data.images import Dataset, channel_statistics, dataset_of
from nas.data.splits import stratified
from nas.errors import DataError, choices_sentence

UNMIRRORED = frozenset({"digits", "svhn"})
"""Data sets whose images mean something else in the mirror, so that no training flips them."""


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


def _download(kind: str) -> Callable[[DataConfig, Progress], Dataset]:
    def load(config: DataConfig, progress: Progress) -> Dataset:
        _require_as_it_is(config, SOURCES[kind].size)
        return load_download(kind, config)

    return load


DATASETS: dict[str, Callable[[DataConfig, Progress], Dataset]] = {
    "digits": load_digits,
    **{kind: _download(kind) for kind in SOURCES},
    "folder": load_folder,
}
