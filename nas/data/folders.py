"""Images in a folder, as data sets: a folder for each class, or a table that says each image's label and group."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nas.config import DataConfig
from nas.data.cache import Entry, Progress, entry_key, find_or_make
from nas.data.decoding import (
    DECODING,
    IMAGE_SUFFIXES,
    ImageFile,
    bad_images_error,
    decode_all,
    decoding_failure,
    image_files,
    is_image,
    listing_digest,
    others_text,
)
from nas.data.images import Dataset, channel_statistics, dataset_of
from nas.data.tables import NUMBER, matched, read_labels
from nas.errors import DataError
from nas.files import is_utf8

FORMS = "--data FOLDER takes FOLDER/train/<class>/*.png or FOLDER/<class>/*.png; --labels FILE says what any images are"
COPIED_BYTES = 2**26  # images are moved together on disk in parts of about this size
GREY_MODES = ("1", "L", "I;16", "I;16L", "I;16B", "I")


@dataclass(frozen=True)
class Listing:
    """The images of a data set before they are decoded."""

    classes: list[str]
    parts: dict[str, tuple[list[ImageFile], np.ndarray]]  # train, val, test: files with their labels, int64 (N,)
    folders: list[str]  # where these lie
    facts: list[object]  # what else the decoded images depend on
    unreadable: Callable[[str, str], DataError]  # (part, class) of which no image can be read
    skipped: int = 0  # images and rows that were left out
    owners: np.ndarray | None = None  # int64 (N,): the group of each training image
    groups: tuple[str, ...] = ()
    others: str = ""  # which files are no images, in words


def load_folder(config: DataConfig, progress: Progress) -> Dataset:
    """Images of `config.folder`, all brought to squares of `image_size`, by default the shorter side of the first readable
    image, and to its number of channels (1 for greyscale, 3 for anything else) unless `channels` says which.

    Their labels are in the table `config.labels`; without one they are the names of their folders:
    FOLDER/train/<class>/* with optional FOLDER/val and FOLDER/test (or another of `PARTS`), or FOLDER/<class>/*.
    """
    if config.folder is None:
        raise DataError("--dataset folder needs the folder", hint="nas search --dataset folder --data FOLDER")
    root = Path(config.folder)
    if not root.is_dir():
        raise DataError(f"there is no folder {root.absolute()}", hint=f"{FORMS}; --dataset digits needs no folder")
    listing = _list_class_folders(root) if config.labels is None else _list_labelled(root, config)
    shape = _image_shape([file.path for file in listing.parts["train"][0]], config)

    def make(folder: Path) -> dict[str, Any]:
        # Listed before it is decoded: what changes meanwhile makes the entry outdated.
        origin, skipped = {"folders": listing.folders, "listing": listing_digest(listing.folders)}, listing.skipped
        statistics = {}
        for part, (files, labels) in listing.parts.items():
            kept = _write_images(folder, part, [Path(file.path) for file in files], shape, config, progress)
            if lost := np.setdiff1d(labels, labels[kept]).tolist():
                raise listing.unreadable(part, listing.classes[lost[0]])
            np.save(folder / f"{part}-labels.npy", labels[kept])
            if part == "train" and listing.owners is not None:
                np.save(folder / "train-groups.npy", listing.owners[kept])
            skipped += len(files) - len(kept)
            if part != "test":
                statistics[part] = channel_statistics(np.load(folder / f"{part}-images.npy", mmap_mode="r"))
        mean, std = statistics["train"]
        copies = _copies(folder, listing.parts)
        named = {"classes": listing.classes, "mean": mean, "std": std, "val": statistics.get("val")}
        return {**named, "skipped": skipped, "origin": origin, "copies": copies}

    decoded = [root.absolute(), shape[0], shape[2], config.skip_bad_images, config.resize, DECODING]
    found = dataset_of("folder", find_or_make("folder", entry_key([*decoded, *listing.facts]), make))
    # The images are the same whatever the groups are called, so that their names are the table's as it is now.
    return replace(found, groups=listing.groups, others=listing.others)


def is_outdated(entry: Path) -> bool:
    """Whether the images that this entry of the cache was made of have changed since, so that nothing opens it any more. Not
    where it does not say what it was made of, or where that cannot be looked at now."""
    try:
        origin = Entry(entry).meta().get("origin")
        if origin is None or not all(map(os.path.isdir, origin["folders"])):
            return False
        return listing_digest(origin["folders"]) != origin["listing"]
    except (DataError, OSError, ValueError):
        return False


def _image_shape(paths: Sequence[str], config: DataConfig) -> tuple[int, int, int]:
    """(height, width, channels) for all images, as the first readable one has them or the configuration says."""
    bad: list[tuple[Path, str]] = []
    for path in map(Path, paths):
        try:
            with Image.open(path) as image:
                width, height = image.size
                channels = 1 if image.mode in GREY_MODES else 3
        except Exception as error:
            bad.append((path, decoding_failure(error)))
            continue
        if config.image_size is None and min(width, height) < 8:
            raise DataError(f"images must have at least 8×8 pixels, but {path} has {width}×{height}", hint="--image-size 32")
        if config.channels is not None:
            channels = {"grey": 1, "rgb": 3}[config.channels]
        size = config.image_size or min(width, height)
        return size, size, channels
    raise bad_images_error(bad, len(paths))


def _write_images(
    folder: Path, part: str, paths: Sequence[Path], shape: tuple[int, int, int], config: DataConfig, progress: Progress
) -> np.ndarray:
    """Decodes one part into `<part>-images.npy`. Returns the indices of the images that are there, sorted."""
    target = folder / f"{part}-images.npy"
    out = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=(len(paths), *shape))
    bad = decode_all(paths, out, progress, f"decoding {part} images", config.resize)
    if bad and not config.skip_bad_images:
        raise bad_images_error([(paths[i], reason) for i, reason in bad], len(paths))
    out.flush()
    kept = np.setdiff1d(np.arange(len(paths)), [i for i, _ in bad])
    if bad:
        whole = folder / f"{part}-whole.npy"
        together = np.lib.format.open_memmap(whole, mode="w+", dtype=np.uint8, shape=(len(kept), *shape))
        count = max(1, COPIED_BYTES // int(np.prod(shape)))
        for start in range(0, len(kept), count):
            together[start : start + count] = out[kept[start : start + count]]
        together.flush()
        whole.replace(target)
    return kept


def _copies(folder: Path, parts: Collection[str]) -> list[str]:
    """What the decoded images of these parts hold twice, pixel for pixel, in sentences."""

    def digests(part: str) -> list[bytes]:
        images = np.load(folder / f"{part}-images.npy", mmap_mode="r")
        return [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images]

    train, labels = digests("train"), np.load(folder / "train-labels.npy").tolist()
    groups, classes = defaultdict[bytes, set[int]](set), defaultdict[bytes, set[int]](set)
    alone = range(len(train))  # in a group of its own each, where nobody said what belongs together
    owners = np.load(folder / "train-groups.npy").tolist() if (folder / "train-groups.npy").is_file() else alone
    for digest, label, owner in zip(train, labels, owners, strict=True):
        classes[digest].add(label)
        groups[digest].add(owner)
    said = []
    if more := sum(len(of) - 1 for of in groups.values()):
        said.append(
            f"{more:,} of {len(train):,} training images are copies of others, pixel for pixel, so that copies of what trains "
            "may judge: remove them, or keep them together with --group-column"
        )
    if several := sum(len(of) > 1 for of in classes.values()):
        said.append(f"{several:,} training image{'s are' if several > 1 else ' is'} in more than one class, pixel for pixel")
    for part in sorted(set(parts) - {"train"}):
        found = digests(part)
        if known := sum(digest in classes for digest in found):
            said.append(
                f"{known:,} of {len(found):,} {WORDS[part]} images are training images, too, pixel for pixel: what they measure "
                "says little of others"
            )
    return said


def in_order(names: Collection[str]) -> list[str]:
    """Classes in the order of their labels: by number where all are numbers, so that class 10 is not label 2. The same in every
    process, also where 1 and 01 are two of them."""
    named = sorted(names)
    return sorted(named, key=Decimal) if all(map(NUMBER.fullmatch, named)) else named


PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
"""What the folders of a data set's own parts are called, in whatever case."""


WORDS = {"train": "training", "val": "validation", "test": "test"}


def _part_folders(root: Path) -> dict[str, Path]:
    """`train`, `val` and `test`, as far as they are there; the folder itself as `train` where it has the classes. Raises
    DataError where two folders mean the same, or some are there without train."""
    folders = _folders_in(root)
    named = {part: [name for name in folders if name.lower() in names] for part, names in PARTS.items()}
    for part, found in named.items():
        if len(found) > 1 and (named["train"] or part == "train"):
            raise DataError(
                f"{root} has the folders {' and '.join(found)}, which both mean {part}", hint="leave one of them, or join them"
            )
    parts = {part: root / found[0] for part, found in named.items() if found}
    if "train" in parts:
        return parts
    # `dev` or `Test` may be classes, too, where others are beside them.
    if parts and ({"val", "test"} & set(folders) or len(parts) == len(folders)):
        names = " and ".join(path.name for path in parts.values())
        raise DataError(f"{root} has the folder {names}, but no folder train beside it", hint=FORMS)
    return {"train": root}


def _list_class_folders(root: Path) -> Listing:
    parts, others = _part_folders(root), Counter[str]()
    classes = in_order(_folders_in(parts["train"]))
    if len(classes) < 2:
        raise DataError(
            f"a classifier needs at least two classes, each a folder of images, but the folders in {parts['train']} are: "
            f"{', '.join(classes) or 'none'}",
            hint=FORMS,
        )
    if broken := [name for name in classes if not is_utf8(name)]:
        raise DataError(
            f"the name of a class's folder must be UTF-8, but that of {broken[0]!r} in {parts['train']} is not",
            hint="rename it; convmv -r -f cp1252 -t utf-8 --notest FOLDER does so for names from Windows",
        )
    files = {part: _class_files(folder, classes, part, others) for part, folder in parts.items()}
    for name in _folders_in(root) if parts["train"] != root else ():
        if root / name not in parts.values() and (count := sum(1 for _ in image_files(str(root / name)))):
            others[f"images in {name}"] = count
    facts: list[object] = []
    for part, listed in files.items():
        facts += [part, *((*file, label) for file, label in listed)]

    def unreadable(part: str, name: str) -> DataError:
        folder = parts[part] / name
        return DataError(f"no image of class folder {folder} can be read", hint="repair them, or remove the folder")

    return Listing(
        classes,
        {part: ([file for file, _ in one], np.array([label for _, label in one], np.int64)) for part, one in files.items()},
        [str(folder.absolute()) for folder in parts.values()],
        facts,
        unreadable,
        others=others_text(others),
    )


def _folders_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_files(folder: Path, classes: list[str], part: str, others: Counter[str]) -> list[tuple[ImageFile, int]]:
    there = _folders_in(folder)
    if part != "train" and not there:
        raise DataError(
            f"{folder} has no folder for each class, as the {WORDS[part]} images of a data set need: which class is each of?",
            hint=f"sort them into {folder / classes[0]}, …; or move the folder out of {folder.parent}: nas submit takes images "
            "without labels",
        )
    if extra := [name for name in there if name not in classes]:
        raise DataError(f"{folder / extra[0]} is no class of the training images. Choices: {', '.join(classes)}.")
    if loose := sum(is_image(name) for name in os.listdir(folder)):
        others["images in no class folder"] += loose
    listed: list[tuple[ImageFile, int]] = []
    for label, name in enumerate(classes):
        found = image_files(str(folder / name), others) if (folder / name).is_dir() else ()
        before = len(listed)
        listed += [(file, label) for file in found]
        if len(listed) == before:
            raise DataError(
                f"there is no image in {folder / name}; each class of the {WORDS[part]} images needs some, in files that end in "
                f"{', '.join(IMAGE_SUFFIXES)}",
                hint="add images, or leave the class out",
            )
    return listed


def _list_labelled(root: Path, config: DataConfig) -> Listing:
    assert config.labels is not None
    table = read_labels(Path(config.labels), config.image_column, config.label_column, config.group_column)
    others = Counter[str]()
    files, rows, left_out = matched(root, table, config.skip_bad_images, others)
    if Path(config.labels).parent.resolve().is_relative_to(root.resolve()):
        others[Path(config.labels).suffix.lower()] -= 1  # the table itself
    classes = in_order({table.labels[row] for row in rows})
    if len(classes) < 2:
        raise DataError(
            f"a classifier needs at least two classes, but the labels in column {config.label_column!r} of {table.source} are: "
            f"{', '.join(classes) or 'none'}",
            hint="name the column of the labels: --label-column NAME",
        )
    numbers = {name: label for label, name in enumerate(classes)}
    labels = np.array([numbers[table.labels[row]] for row in rows], np.int64)
    groups: dict[str, int] = {}
    owners = None
    if table.groups is not None:
        # Numbered as they come in the order of the files, so that neither their names nor the table's order matter.
        owners = np.array([groups.setdefault(table.groups[row], len(groups)) for row in rows], np.int64)
    owned = [None] * len(files) if owners is None else owners
    return Listing(
        classes,
        {"train": (files, labels)},
        [str(root.absolute())],
        ["labels", left_out, *classes, *((*file, label, owner) for file, label, owner in zip(files, labels, owned, strict=True))],
        lambda _, name: DataError(f"no image of class {name!r} can be read", hint="repair them, or leave the class out"),
        left_out,
        owners,
        tuple(groups),
        others_text(+others),
    )
