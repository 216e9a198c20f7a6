"""Which labelled images a chosen network trains on, and on which it is judged afterwards."""

from dataclasses import dataclass

import numpy as np

from nas.config import DataConfig
from nas.data.images import Dataset, ImageSet, JoinedSet
from nas.data.splits import grouped, one_sided, split, stratified
from nas.errors import ConfigError, DataError

MOST_HELD_OUT = 0.5


@dataclass(frozen=True)
class Material:
    """What a user asked for."""

    include_test_labels: bool = False
    subset: int | None = None
    """So many images train, stratified."""
    hold_out: float = 0.0
    """Share of the training images that is set aside, of each class, in whole groups where there are any; 0 for none."""

    @property
    def suffix(self) -> str:
        """What a run's name says of it."""
        held_out = f"-hold-out-{100 * self.hold_out:g}" if self.hold_out else ""
        subset = "" if self.subset is None else f"-subset-{self.subset}"
        return held_out + subset + ("-with-test-labels" if self.include_test_labels else "")


@dataclass(frozen=True)
class Chosen:
    images: ImageSet | JoinedSet
    train: np.ndarray | None
    """int64 indices into `images`, sorted; None for all of them."""
    hold_out: np.ndarray | None
    """Likewise, all among the data set's training images and disjoint from `train`; None where nothing is set aside."""

    @property
    def train_indices(self) -> np.ndarray:
        return np.arange(len(self.images)) if self.train is None else self.train

    @property
    def train_images(self) -> int:
        return len(self.train_indices)


def choose_material(dataset: Dataset, config: DataConfig, wanted: Material) -> Chosen:
    """The same for the same labels and `config.seed`. Nothing that chose in the search is held out, so that the choice made there
    does not flatter the figure. Raises ConfigError and DataError."""
    images = labelled_images(dataset, wanted.include_test_labels)
    train = np.arange(len(images))
    hold_out = None
    if wanted.hold_out:
        hold_out = _held_out(dataset, config, wanted.hold_out)
        train = np.setdiff1d(train, hold_out)
    if wanted.subset is not None:
        if not len(dataset.classes) <= wanted.subset <= len(train):
            raise ConfigError(f"--train-subset takes {len(dataset.classes)} to {len(train)} images, not {wanted.subset}")
        share = wanted.subset / len(train)
        train = train[stratified(images.labels[train], share, config.seed, total=wanted.subset)]
    return Chosen(images, None if len(train) == len(images) else train, hold_out)


def _held_out(dataset: Dataset, config: DataConfig, share: float) -> np.ndarray:
    if not 0 < share <= MOST_HELD_OUT:
        raise ConfigError(f"--hold-out takes a share of the images above 0 and up to {MOST_HELD_OUT:g}, not {share:g}")
    never_chose = split(dataset, config.model_copy(update={"subset": None})).train
    labels = dataset.train.labels[never_chose]
    of_these = min(0.9, share * len(dataset.train) / len(never_chose))
    if dataset.train.groups is not None:
        return never_chose[_held_out_groups(dataset, labels, dataset.train.groups[never_chose], of_these, config.seed + 2)]
    for label in np.flatnonzero(np.bincount(labels, minlength=len(dataset.classes)) < 2):
        raise DataError(
            f"class {dataset.classes[label]!r} has too few images to hold one out beside those by which the search chose",
            hint="leave --hold-out away, or add images to the class",
        )
    return never_chose[stratified(labels, of_these, config.seed + 2)]


def _held_out_groups(dataset: Dataset, labels: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Indices into `labels` and `groups`, which are of the images that never chose."""
    held_out = grouped(labels, np.unique(groups, return_inverse=True)[1], share, seed)
    chosen = np.isin(np.arange(len(labels)), held_out)
    for label in one_sided(labels, chosen):
        raise DataError(
            f"the groups of class {dataset.classes[label]!r} are too few to hold some out and train on others, beside those by "
            "which the search chose",
            hint="leave --hold-out away, or add images of other groups to the class",
        )
    return held_out


def labelled_images(dataset: Dataset, include_test: bool) -> ImageSet | JoinedSet:
    """Everything that may train: the training images, which come first, and those that chose in the search; with `include_test`
    also the official test set."""
    parts = [dataset.train] + ([dataset.validation] if dataset.validation else [])
    if include_test:
        if dataset.test is None:
            raise DataError(f"--include-test-labels: data set {dataset.name} has no labelled test images")
        parts.append(dataset.test)
    if len(parts) == 1:
        return parts[0]
    return JoinedSet(tuple(parts))
