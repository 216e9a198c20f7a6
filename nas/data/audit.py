"""What a data set holds that its files do not tell: images twice or nearly so, within and across its splits, damaged ones, sizes,
compression, and what may belong together. For people to judge: nothing here changes a data set."""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from nas.config import DataConfig
from nas.data.cache import Progress, silent
from nas.data.decoding import Member, for_each, opened, squashed, with_channels
from nas.data.formats import open_container, open_test
from nas.data.formats.container import WORDS, Split, in_order
from nas.data.twins import LEAST, Twins, find_twins, first_of
from nas.errors import DataError

MOST_COMPARED, LEAST_COMPARED = 64, 16  # sides at which images are compared, and …
MOST_BYTES = 2**31  # … what all of them may take at that size
MOST_PAIRS = 100  # that are listed and shown
LOSSLESS = ("PNG", "BMP", "DIB", "GIF", "PPM", "TGA", "TIFF", "WEBP, lossless", "pixels")
EXIF, SERIAL = 0x8769, 0xA431  # what cameras write, and in it the number of the camera's body
LEAST_IN_GROUPS = 0.9  # share of the images that a suggestion must put together with others


class Seen(NamedTuple):
    """An image that can be read."""

    split: str  # in words
    place: str
    label: str  # empty where there is none
    size: str
    kind: str  # of file: `PNG`, `JPEG, quality 75`
    serial: str  # of the camera; empty where it does not say
    digest: bytes  # of its pixels


@dataclass(frozen=True)
class Pair:
    places: tuple[str, str]
    splits: tuple[str, str]
    labels: tuple[str, str]
    correlation: float
    identical: bool  # pixel for pixel
    mirrored: bool


@dataclass(frozen=True)
class Counts:
    """Of a class, or of all of them."""

    images: dict[str, int]  # by split
    identical: int  # images that equal another one, of whatever class and split
    near: int  # images that resemble another one, without being equal
    lossy: float  # share of the images that were compressed with loss


@dataclass(frozen=True)
class Suggestion:
    """Of what images may have in common that must not be on both sides of a split."""

    by: str
    groups: int
    largest: str
    images: int  # in the largest


@dataclass(frozen=True)
class Audit:
    data: str
    all: Counts
    classes: dict[str, Counts]
    damaged: dict[str, str]  # why an image cannot be read, by its place
    left_out: str  # which files are no images, in words
    sizes: dict[str, int]  # images by `width×height`, most first
    kinds: dict[str, dict[str, int]]  # images by kind of file, for each split, most first
    compared: int  # side at which images were compared, in pixels
    least: float  # correlation from which on images count as twins
    complete: bool  # whether all near twins were looked at; else the most alike, of too many
    other_class: int  # pairs of twins, identical or near, of two classes
    across: dict[str, int]  # images of each other split that have a twin among the training images
    together: int  # images in the largest chain of twins, …
    together_such_as: str  # … of which this is one
    pairs: list[Pair]  # of two classes first, then across splits, then by correlation
    suggestions: list[Suggestion]


def audit(config: DataConfig, test: Path | None = None, progress: Progress = silent) -> tuple[Audit, np.ndarray]:
    """The images of `config.folder` and, as one more split, those at `test`, which need no labels. Returns also the pairs'
    images, uint8 (P, 2, H, W, 3). Raises DataError."""
    container = open_container(config.model_copy(update={"skip_bad_images": True}))
    splits = {WORDS[part]: split for part, split in container.splits().items()}
    if test is not None:
        hint = "--test takes a folder of images, or .parquet, .npz, .tar or .csv files"
        if (tested := open_test(test, config, hint)) is None:
            raise DataError(f"{test} holds no images", hint=hint)
        splits[str(test)] = tested
    seen, images, damaged = _read(splits, progress)
    twins = find_twins(images, first_of([one.digest for one in seen]), progress)
    ends, correlation, mirrored = _pairs_of(twins)
    label, split = (np.array(values) for values in zip(*((one.label, one.split) for one in seen), strict=True))
    other_class = (label[ends[:, 0]] != label[ends[:, 1]]) & (label[ends] != "").all(1)
    order = np.lexsort([-correlation, split[ends[:, 0]] == split[ends[:, 1]], ~other_class])[:MOST_PAIRS]
    chains = twins.groups()
    largest = int(np.bincount(chains).argmax())
    counts = _counter(seen, twins)
    found = Audit(
        data=str(config.folder),
        all=counts(np.ones(len(seen), bool)),
        classes={name: counts(label == name) for name in in_order(set(label.tolist()) - {""})},
        damaged=damaged,
        left_out=container.others,
        sizes=dict(Counter(one.size for one in seen).most_common()),
        kinds={name: dict(Counter(one.kind for one in seen if one.split == name).most_common()) for name in splits},
        compared=images.shape[1],
        least=LEAST,
        complete=twins.complete,
        other_class=int(other_class.sum()),
        across=_across(split, twins),
        together=int((chains == largest).sum()),
        together_such_as=seen[int((chains == largest).argmax())].place,
        pairs=[
            Pair(
                places=(seen[a].place, seen[b].place),
                splits=(seen[a].split, seen[b].split),
                labels=(seen[a].label, seen[b].label),
                correlation=round(float(correlation[i]), 4),
                identical=seen[a].digest == seen[b].digest,
                mirrored=bool(mirrored[i]),
            )
            for i in order.tolist()
            for a, b in [ends[i].tolist()]
        ],
        suggestions=[] if splits[WORDS["train"]].groups() is not None else _suggestions(seen),
    )
    return found, images[ends[order]]


# ---------------------------------------------------------------------------------------------------------- each image


def _read(splits: dict[str, Split], progress: Progress) -> tuple[list[Seen], np.ndarray, dict[str, str]]:
    """What can be read, its pixels, uint8 (N, H, W, 3), and what cannot."""
    places = [(name, split, i) for name, split in splits.items() for i in range(len(split))]
    labels = [label for split in splits.values() for label in split.labels()]
    size = MOST_COMPARED
    for member in chain.from_iterable(splits.values()):
        try:
            with opened(member) as image:
                size = min(size, *image.size)
            break
        except Exception:  # the next one may be readable
            continue
    while size >= 2 * LEAST_COMPARED and 3 * size**2 * len(places) > MOST_BYTES:
        size //= 2
    pixels, looks = np.empty((len(places), size, size, 3), np.uint8), dict[int, Seen]()

    def look(at: int, member: Member) -> None:
        name, split, i = places[at]
        with opened(member) as image:
            kind, serial = _kind(image, member), _serial(image)
            upright = with_channels(image, 3)
        shape = f"{upright.width}×{upright.height}"
        digest = hashlib.blake2b(shape.encode() + upright.tobytes(), digest_size=16).digest()
        pixels[at] = np.asarray(squashed(upright, size))
        looks[at] = Seen(name, split.place(i), labels[at], shape, kind, serial, digest)

    bad = for_each(chain.from_iterable(splits.values()), look, progress, "reading images", len(places))
    damaged = {split.place(i): reason for at, reason in bad for _, split, i in [places[at]]}
    if not looks:
        place, reason = next(iter(damaged.items()), ("the data set", "it is empty"))
        raise DataError(f"no image can be read, first {place}: {reason}")
    kept = sorted(looks)
    return [looks[at] for at in kept], pixels if len(kept) == len(places) else pixels[kept], damaged


def _kind(image: Image.Image, member: Member) -> str:
    """`PNG`, `JPEG, quality 75`"""
    if image.format in ("JPEG", "MPO"):
        return f"JPEG, quality {_quality(sum(image.quantization[0]))}"  # type: ignore[attr-defined]
    if image.format == "WEBP" and isinstance(member, Path | bytes):
        with io.BytesIO(member) if isinstance(member, bytes) else open(member, "rb") as file:
            return "WEBP, lossless" if b"VP8L" in file.read(64) else "WEBP, lossy"
    return image.format or "pixels"


@cache
def _quality(steps: int) -> int:
    """At which libjpeg quantises luminance by steps of about this sum."""

    def sum_at(quality: int) -> int:
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            return sum(image.quantization[0])  # type: ignore[attr-defined]

    return min(range(1, 101), key=lambda quality: abs(sum_at(quality) - steps))


def _serial(image: Image.Image) -> str:
    if image.format is not None:
        with suppress(Exception):  # damaged EXIF data
            return str(image.getexif().get_ifd(EXIF).get(SERIAL, "")).strip("\0 ")
    return ""


# ------------------------------------------------------------------------------------------------------- all of them


def _pairs_of(twins: Twins) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Identical ones, each copy with the first, and near ones: int64 (P, 2), their correlations, and whether one is mirrored."""
    copies = np.flatnonzero(twins.same != np.arange(len(twins.same)))
    return (
        np.concatenate([np.stack([twins.same[copies], copies], 1), twins.pairs]),
        np.concatenate([np.ones(len(copies), np.float32), twins.correlation]),
        np.concatenate([np.zeros(len(copies), bool), twins.mirrored]),
    )


def _counter(seen: Sequence[Seen], twins: Twins) -> Callable[[np.ndarray], Counts]:
    """Counts what a mask, bool (N,), says."""
    several = np.bincount(twins.same, minlength=len(seen))[twins.same] > 1
    near = np.isin(twins.same, twins.pairs)
    lossy = np.array([one.kind not in LOSSLESS for one in seen])

    def count(mask: np.ndarray) -> Counts:
        images = Counter(seen[i].split for i in np.flatnonzero(mask).tolist())
        return Counts(dict(images), int(several[mask].sum()), int(near[mask].sum()), round(float(lossy[mask].mean()), 4))

    return count


def _across(split: np.ndarray, twins: Twins) -> dict[str, int]:
    trains = split == WORDS["train"]
    known = np.zeros(len(split), bool)  # of the first of equal images: whether one of them trains
    known[twins.same[trains]] = True
    twin_trains = known.copy()
    for one, other in ((0, 1), (1, 0)):
        twin_trains[twins.pairs[known[twins.pairs[:, other]], one]] = True
    has_twin = twin_trains[twins.same]
    return {str(name): int(has_twin[split == name].sum()) for name in dict.fromkeys(split[~trains].tolist())}


PREFIXES: dict[str, Callable[[str], str]] = {
    "the part of the file name before the first separator (_ - . or a space)": lambda stem: re.split(r"[_\-. ]", stem)[0],
    "the part of the file name before the last separator (_ - . or a space)": lambda stem: re.split(
        r"[_\-. ](?=[^_\-. ]*$)", stem
    )[0],
}


def _suggestions(seen: Sequence[Seen]) -> list[Suggestion]:
    """More groups than classes, with nearly all images in some group of at least two, and none with a quarter of all."""
    trains = [one for one in seen if one.split == WORDS["train"]]
    stems = [Path(one.place.rpartition(", ")[2]).stem for one in trains]  # behind a file that has images in it
    keys = {"the camera's serial number in their EXIF data": [one.serial for one in trains]}
    keys |= {by: [prefix(stem) for stem in stems] for by, prefix in PREFIXES.items()}
    found, classes, known = list[Suggestion](), {one.label for one in trains}, set[int]()
    for by, values in keys.items():
        groups = Counter(value for value in values if value)
        together = sum(count for count in groups.values() if count > 1)
        if not groups or len(groups) in known:
            continue
        name, most = groups.most_common(1)[0]
        least = 1 if by.startswith("the camera") else len(classes)
        if len(groups) > least and together >= LEAST_IN_GROUPS * len(trains) and 4 * most <= len(trains):
            known.add(len(groups))
            found.append(Suggestion(by, len(groups), name, most))
    return found
