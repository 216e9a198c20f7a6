"""Which images train and which validate, decided here once, because searching, retraining and reporting must agree on it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.config import DataConfig
from nas.data.images import Dataset, ImageSet, JoinedSet
from nas.errors import ConfigError, DataError

MOST_HELD_OUT = 0.5


@dataclass(frozen=True)
class Split:
    """Of a search: disjoint sorted int64 indices into `Dataset.train`."""

    train: np.ndarray
    validation: np.ndarray | None  # None where the data set has its own validation images


def split(dataset: Dataset, config: DataConfig) -> Split:
    """The same for the same labels, groups and `config.seed`, whatever else changes; every group is wholly on one side. Raises
    DataError where a class is too small, or its groups too few."""
    labels = dataset.train.labels
    validation = _validation(dataset, config) if dataset.validation is None else None
    train = np.arange(len(labels))
    if validation is not None:
        train = np.setdiff1d(train, validation)
    if config.subset is not None:
        if not len(dataset.classes) <= config.subset <= len(train):
            judging = "" if validation is None else f" beside {len(validation)} validation images"
            raise DataError(
                f"--train-subset must be between {len(dataset.classes)} (one image for each class) and {len(train)} (all "
                f"training images{judging}), but is {config.subset}"
            )
        train = train[stratified(labels[train], config.subset, config.seed + 1, leave=0)]
    return Split(train, validation)


def _validation(dataset: Dataset, config: DataConfig) -> np.ndarray:
    """Sorted int64 indices of the training images that choose."""
    labels, groups, wanted = dataset.train.labels, dataset.train.groups, config.validation
    for label in np.flatnonzero(np.bincount(labels) == 1):
        raise DataError(
            f"class {dataset.classes[label]!r} has only one image; each class needs at least two, one for training and "
            "one for validation",
            hint="add images to it, or remove the class",
        )
    least, most = len(dataset.classes), len(labels) - len(dataset.classes)
    if wanted >= 1 and not least <= wanted <= most:
        raise DataError(
            f"--validation must be between {least} and {most} of the {len(labels)} training images, so that each of the "
            f"{least} classes has a training and a validation image, but is {wanted}"
        )
    if groups is None:
        return stratified(labels, wanted, config.seed)
    validation = grouped(labels, groups, wanted / len(labels) if wanted >= 1 else wanted, config.seed)
    _require_both_sides(dataset, validation)
    return validation


VALIDATION = 0.1  # share of the training images that chooses where no number is asked for, …


def default_validation(dataset: Dataset, subset: int | None) -> float | int:
    """… but not more images than train, by `subset`: to judge 5,000 would take longer than to train on 500."""
    return VALIDATION if subset is None or subset >= VALIDATION * len(dataset.train) else subset


def validation_images(dataset: Dataset, parts: Split) -> int:
    """How many there are: set aside from the training set, or the data set's own."""
    return len(dataset.validation or ()) if parts.validation is None else len(parts.validation)


IMBALANCE = 10.0  # the largest class is worth a warning from so many times the images of the smallest


def imbalance(dataset: Dataset) -> str | None:
    """A sentence with the counts where the largest class of the training images is so many times the smallest; else None."""
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.classes))
    largest, smallest = int(counts.argmax()), int(counts.argmin())
    if counts[largest] < IMBALANCE * counts[smallest]:
        return None
    return (
        f"the classes are imbalanced: {dataset.classes[largest]!r} has {counts[largest]:,} images, "
        f"{counts[largest] / counts[smallest]:.0f} times as many as {dataset.classes[smallest]!r}, which has {counts[smallest]:,}"
    )


def stratified(labels: np.ndarray, amount: float, seed: int, leave: int = 1) -> np.ndarray:
    """Sorted indices of one share of each class, at least one image of each, and at most all but `leave`. `amount`: about that
    share below 1, exactly so many images from 1 on.

    Every class gives floor(share × its size); what is missing to the total goes to the largest remainders.
    """
    total = int(amount) if amount >= 1 else None
    share = amount if total is None else total / len(labels)
    counts = np.bincount(labels)
    present = np.flatnonzero(counts)
    most = np.maximum(counts - leave, 0)
    assert (most[present] >= 1).all()
    assert total is None or len(present) <= total <= most.sum()
    wanted = round(share * len(labels)) if total is None else total
    exact = counts * share
    take = np.where(counts > 0, np.clip(np.floor(exact), 1, most), 0).astype(int)
    by_remainder = present[np.argsort(-(exact - np.floor(exact))[present], kind="stable")]
    while True:
        for c in by_remainder:
            if take.sum() >= wanted:
                break
            take[c] = min(take[c] + 1, most[c])
        if total is None or take.sum() >= total:
            break
    while total is not None and take.sum() > total:  # small classes were rounded up to one image
        take[np.argmax(np.where(take > 1, take - exact, -np.inf))] -= 1
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    chosen = [order[labels[order] == c][: take[c]] for c in present]
    return np.sort(np.concatenate(chosen))


# ------------------------------------------------------------------------------------------------------------- groups


def grouped(labels: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Sorted indices of whole groups that hold about `share` of each class.

    The greedy assignment of scikit-learn's StratifiedGroupKFold, to two sides of unequal size instead of folds of equal size:
    the groups whose classes are the most uneven come first, and each goes where it leaves the classes' shares of the two sides
    nearest to each other. Then groups change sides one by one: first for each class that one side lacks, if there is one that
    leaves no other class behind, then as long as that brings the classes nearer to their shares. It is written out here, so that
    no version of scikit-learn changes a study's split.
    """
    from scipy.sparse import coo_array

    # (groups, classes): how many images there are. Sparse, since most groups hold few classes.
    held = coo_array((np.ones(len(labels), np.int64), (groups, labels))).tocsr()
    # Of each group the variance of its images over the classes, times the classes' number squared: a whole number.
    unevenness = held.shape[1] * held.power(2).sum(axis=1) - held.sum(axis=1) ** 2
    totals = np.bincount(labels).astype(np.float64)
    totals[totals == 0] = 1.0  # of a class that is not there nothing is held
    # A column for each class: how much of what each side should have of it is there. Row 0 trains, row 1 chooses.
    filled = np.zeros((2, len(totals)))
    weights = np.array([(1.0 - share) * totals, share * totals])
    side = np.zeros(held.shape[0], np.int64)
    lots = np.random.default_rng(seed).permutation(len(side))
    for group in lots[np.argsort(-unevenness[lots], kind="stable")]:
        classes, counts = _held_by(held, group)
        here = filled[:, classes]
        apart = [np.abs((here[0] + counts / weights[0, classes]) - here[1]).sum()]
        apart.append(np.abs((here[1] + counts / weights[1, classes]) - here[0]).sum())
        side[group] = chosen = int(np.argmin(apart))
        filled[chosen, classes] += counts / weights[chosen, classes]
    _improve(held, side, totals, share)
    return np.flatnonzero(side[groups] == 1)


def _held_by(held: Any, group: int) -> tuple[np.ndarray, np.ndarray]:
    """A group's classes, and its images of each."""
    place = slice(held.indptr[group], held.indptr[group + 1])
    return held.indices[place], held.data[place]


def _improve(held: Any, side: np.ndarray, totals: np.ndarray, share: float) -> None:
    """Changes `side`: a group moves if it leaves no class behind, and either brings one that its new side lacks, or lessens the
    sum of the classes' distances from their share, the one that lessens it most first."""
    owners = np.repeat(np.arange(len(side)), np.diff(held.indptr))
    there = np.zeros((2, len(totals)), np.int64)
    np.add.at(there, (side[owners], held.indices), held.data)
    for _ in range(2 * len(side)):
        here = side[owners]
        chosen = there[1, held.indices]
        after = chosen + np.where(here == 1, -held.data, held.data)
        change = np.abs(after / totals[held.indices] - share) - np.abs(chosen / totals[held.indices] - share)
        cost = np.bincount(owners, weights=change, minlength=len(side))
        cost[owners[there[here, held.indices] == held.data]] = np.inf  # it would leave its class behind
        brings = owners[there[1 - here, held.indices] == 0]
        brings = brings[np.isfinite(cost[brings])]
        group = int(brings[np.argmin(cost[brings])]) if len(brings) else int(np.argmin(cost))
        if not len(brings) and cost[group] > -1e-9:
            return
        classes, counts = _held_by(held, group)
        there[side[group], classes] -= counts
        side[group] = 1 - side[group]
        there[side[group], classes] += counts


def one_sided(labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Classes of which all images or none are `chosen`, bool (N,)."""
    there, counts = (np.bincount(labels, weights=weights) for weights in (None, chosen))
    return np.flatnonzero((there > 0) & ((counts == 0) | (counts == there)))


def _require_both_sides(dataset: Dataset, validation: np.ndarray) -> None:
    """Raises DataError where the groups leave a class without images on one side."""
    labels, groups = dataset.train.labels, dataset.train.groups
    assert groups is not None
    chooses = np.zeros(len(labels), bool)
    chooses[validation] = True
    for label in one_sided(labels, chooses):
        mine = labels == label
        name, owners = dataset.classes[label], np.unique(groups[mine])
        hint = "add images of other groups to the class, remove the class, or leave out --group-column or --group-duplicates"
        if len(owners) == 1:
            raise DataError(
                f"all {mine.sum():,} images of class {name!r} belong to the group {dataset.groups[owners[0]]!r}; each class "
                "needs at least two groups, one for training and one for validation",
                hint=hint,
            )
        lacking, other = ("training", "validation") if chooses[mine].any() else ("validation", "training")
        raise DataError(
            f"class {name!r} has no {lacking} images: if one of its {len(owners)} groups were used for {lacking}, another class "
            f"would have no {other} images left",
            hint=hint,
        )


# ------------------------------------------------------------------------------------ of a run: what a network is trained on


@dataclass(frozen=True)
class DataSelection:
    """What a user asked for."""

    include_test_labels: bool = False
    subset: int | None = None  # images that train, stratified
    hold_out: float = 0.0  # share of each class of the training images that is set aside, in whole groups; 0 for none

    @property
    def suffix(self) -> str:
        """What a run's name says of it."""
        held_out = f"-hold-out-{100 * self.hold_out:g}" if self.hold_out else ""
        subset = "" if self.subset is None else f"-subset-{self.subset}"
        return held_out + subset + ("-with-test-labels" if self.include_test_labels else "")


@dataclass(frozen=True)
class SelectedData:
    images: ImageSet | JoinedSet
    train: np.ndarray | None  # int64 indices into `images`, sorted; None for all of them
    hold_out: np.ndarray | None  # likewise, into the training images, disjoint from `train`; None where nothing is set aside

    @property
    def train_indices(self) -> np.ndarray:
        return np.arange(len(self.images)) if self.train is None else self.train

    @property
    def train_images(self) -> int:
        return len(self.train_indices)


def select_data(dataset: Dataset, config: DataConfig, wanted: DataSelection) -> SelectedData:
    """The same for the same labels and `config.seed`. No validation image of the search is held out, since it selected the
    network and would flatter the figure. Raises ConfigError and DataError."""
    images = labelled_images(dataset, wanted.include_test_labels)
    train = np.arange(len(images))
    hold_out = None
    if wanted.hold_out:
        hold_out = _held_out(dataset, config, wanted.hold_out)
        train = np.setdiff1d(train, hold_out)
    if wanted.subset is not None:
        if not len(dataset.classes) <= wanted.subset <= len(train):
            raise ConfigError(f"--train-subset must be between {len(dataset.classes)} and {len(train)}, but is {wanted.subset}")
        train = train[stratified(images.labels[train], wanted.subset, config.seed, leave=0)]
    return SelectedData(images, None if len(train) == len(images) else train, hold_out)


def _held_out(dataset: Dataset, config: DataConfig, share: float) -> np.ndarray:
    if not 0 < share <= MOST_HELD_OUT:
        raise ConfigError(f"--hold-out must be a share above 0 and at most {MOST_HELD_OUT:g}, but is {share:g}")
    never_chose = split(dataset, config.model_copy(update={"subset": None})).train
    labels, groups, seed = dataset.train.labels[never_chose], dataset.train.groups, config.seed + 2
    of_these = min(0.9, share * len(dataset.train) / len(never_chose))
    if groups is not None:
        held_out = grouped(labels, np.unique(groups[never_chose], return_inverse=True)[1], of_these, seed)
        for label in one_sided(labels, np.isin(np.arange(len(labels)), held_out)):
            raise DataError(
                f"class {dataset.classes[label]!r} has too few groups for training and held-out images, beside the validation "
                "images of the search",
                hint="leave out --hold-out, or add images of other groups to the class",
            )
        return never_chose[held_out]
    for label in np.flatnonzero(np.bincount(labels, minlength=len(dataset.classes)) < 2):
        raise DataError(
            f"class {dataset.classes[label]!r} has too few images to hold one out beside the validation images of the search",
            hint="leave out --hold-out, or add images to the class",
        )
    return never_chose[stratified(labels, of_these, seed)]


def labelled_images(dataset: Dataset, include_test: bool) -> ImageSet | JoinedSet:
    """Everything that may train: the training images, which come first, and the data set's own validation images; with
    `include_test` also the official test set."""
    parts = [dataset.train] + ([dataset.validation] if dataset.validation else [])
    if include_test:
        if dataset.test is None:
            raise DataError(f"--include-test-labels: data set {dataset.name} has no labelled test images")
        parts.append(dataset.test)
    return parts[0] if len(parts) == 1 else JoinedSet(tuple(parts))
