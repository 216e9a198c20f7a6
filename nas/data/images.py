"""What a data set is: decoded images with their labels, by parts, and what a network must know of them."""

import hashlib
from dataclasses import dataclass

import numpy as np

from nas.config import ImageShape
from nas.data.cache import Entry

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of each channel, in [0, 255]
SUMMED_TOGETHER = 2**22  # values: images of any size are read in parts of about so many


@dataclass(frozen=True)
class ImageSet:
    images: np.ndarray  # uint8 (N, H, W, C)
    labels: np.ndarray  # int64 (N,)
    groups: np.ndarray | None = None  # int64 (N,): which images belong together, such as those of one patient

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return (self.images,)

    def only(self, indices: np.ndarray) -> "ImageSet":
        """Those, copied into memory."""
        return ImageSet(self.images[indices], self.labels[indices], None if self.groups is None else self.groups[indices])


@dataclass(frozen=True)
class JoinedSet:
    """Several sets as if concatenated; their images stay in their files."""

    parts: tuple[ImageSet, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """uint8 (N, H, W, C) each"""
        return tuple(part.images for part in self.parts)

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,)"""
        return np.concatenate([part.labels for part in self.parts])


@dataclass(frozen=True)
class Dataset:
    name: str
    classes: tuple[str, ...]
    train: ImageSet
    validation: ImageSet | None  # the data set's own; None where a share of `train` has to serve
    test: ImageSet | None
    mean: tuple[float, ...]  # of each channel over the training images, in [0, 255]
    std: tuple[float, ...]
    skipped: int = 0  # images that were left out: unreadable, or without a label
    others: str = ""  # which files of the folder are no images, in words
    same: np.ndarray | None = None  # int64 (N,): of each training image the first that is equal; None where all differ
    copied: tuple[str, ...] = ()  # what the images of a folder hold twice in other classes and other parts, in sentences
    validation_statistics: Statistics | None = None
    groups: tuple[str, ...] = ()  # names of what `train.groups` counts

    @property
    def shape(self) -> ImageShape:
        _, height, _, channels = self.train.images.shape
        return ImageShape(channels=channels, size=height, classes=len(self.classes))

    @property
    def counts(self) -> str:
        """Of images in a folder, how many were read and what was not; empty of other data sets that were read whole."""
        if self.name != "folder" and not self.skipped:
            return ""
        read = sum(len(part) for part in (self.train, self.validation, self.test) if part is not None)
        skipped = f", {self.skipped:,} left out" if self.skipped else ""
        return "; ".join([f"{read:,} images read{skipped}", *filter(None, [self.others]), *self.copies()])

    def copies(self, train: np.ndarray | None = None, validation: np.ndarray | None = None) -> list[str]:
        """What the images of a folder hold twice, pixel for pixel, in sentences; copies of one group are not counted. `train` and
        `validation`: int64 indices of training images, by which they are split."""
        if self.same is None:
            return list(self.copied)
        owners = np.arange(len(self.same)) if self.train.groups is None else self.train.groups
        more = len(np.unique(np.stack([self.same, owners], 1), axis=0)) - len(np.unique(self.same))
        across = "" if self.validation is not None else ", so the validation set may contain copies of training images"
        if train is not None and validation is not None:
            copied = np.isin(self.same[validation], self.same[train]).sum()
            across = f", and {copied:,} of {len(validation):,} validation images are copies of images that train"
        twice = (
            f"{more:,} of {len(self.same):,} training images are exact copies of others{across}: remove the copies, or keep them "
            "together with --group-duplicates; nas doctor --data shows them"
        )
        return [*[twice] * (more > 0), *self.copied]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the classes, the training labels in their order and the pixel statistics; likewise of the data
        set's own validation images, and of the groups, whatever they are called."""
        digest = hashlib.sha256(repr((self.classes, self.mean, self.std, self.train.images.shape)).encode())
        digest.update(np.ascontiguousarray(self.train.labels).tobytes())
        if self.validation is not None:
            statistics = self.validation_statistics or channel_statistics(self.validation.images)
            digest.update(repr((self.validation.images.shape, statistics)).encode())
            digest.update(np.ascontiguousarray(self.validation.labels).tobytes())
        if self.train.groups is not None:
            digest.update(np.ascontiguousarray(self.train.groups).tobytes())
        return digest.hexdigest()[:16]

    @property
    def order(self) -> str:
        """16 hexadecimal digits of up to 256 evenly spaced training images. Unlike `fingerprint` they usually change if files are
        renamed within a class: then the same images are in another order, and the indices of a split mean other images."""
        return hashlib.sha256(np.ascontiguousarray(self.train.images[evenly(len(self.train), 256)]).tobytes()).hexdigest()[:16]


def evenly(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count` images, from the first to the last, since images may be ordered by class."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def dataset_of(name: str, entry: Entry) -> Dataset:
    """The data set that a finished entry of the cache holds."""
    meta = entry.meta()

    def part(which: str) -> ImageSet | None:
        if not entry.has(f"{which}-labels"):
            return None
        groups = np.asarray(entry.array(f"{which}-groups")) if entry.has(f"{which}-groups") else None
        return ImageSet(entry.array(f"{which}-images"), np.asarray(entry.array(f"{which}-labels")), groups)

    train = part("train")
    assert train is not None
    return Dataset(
        name=name,
        classes=tuple(meta["classes"]),
        train=train,
        validation=part("val"),
        test=part("test"),
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        skipped=meta.get("skipped", 0),
        same=np.asarray(entry.array("train-same")) if entry.has("train-same") else None,
        copied=tuple(meta.get("copies", ())),
        groups=tuple(meta.get("groups", ())),
        validation_statistics=None if meta.get("val") is None else (tuple(meta["val"][0]), tuple(meta["val"][1])),
    )


def channel_statistics(images: np.ndarray) -> Statistics:
    """Of uint8 (N, H, W, C); a constant channel has deviation 1.

    The sums are of whole numbers, exact in double precision up to 10¹¹ pixels, so that their order does not matter.
    """
    channels = images.shape[3]
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    together = max(1, SUMMED_TOGETHER // int(np.prod(images.shape[1:])))
    for start in range(0, len(images), together):
        part = images[start : start + together].reshape(-1, channels).astype(np.float64)
        total += part.sum(0)
        squares += (part**2).sum(0)
        count += len(part)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std[std < 1e-6] = 1.0
    return tuple(map(float, mean)), tuple(map(float, std))
