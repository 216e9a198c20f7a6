"""Data sets that lie in files, whatever their format, decoded into the cache."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nas.config import DataConfig
from nas.data.cache import Entry, Progress, entry_key, find_or_make
from nas.data.decoding import (
    DECODING,
    GREY_MODES,
    bad_images_error,
    decode_all,
    decoding_failure,
    first_five,
    listing_digest,
    opened,
)
from nas.data.formats import has_columns, open_container
from nas.data.formats.container import WORDS, Container, Split, in_order
from nas.data.formats.tables import SKIP_IMAGES
from nas.data.images import Dataset, channel_statistics, dataset_of
from nas.data.twins import first_of
from nas.errors import DataError, choices_sentence

COPIED_BYTES = 2**26  # images are moved together on disk in parts of about this size


def load_folder(config: DataConfig, progress: Progress) -> Dataset:
    """The images of `config.folder`. Raises DataError."""
    container = open_container(config)
    return replace(decoded("folder", Path(config.folder or "").absolute(), container, config, progress), others=container.others)


def decoded(name: str, source: object, container: Container, config: DataConfig, progress: Progress) -> Dataset:
    """All images brought to squares of `image_size`, by default the shorter side of the first readable image, and to its number
    of channels (1 for greyscale, 3 for anything else) unless `channels` says which. `source`: what tells the data set from others
    of this name. Raises DataError."""

    def make(folder: Path) -> dict[str, Any]:
        # Listed before it is decoded: what changes meanwhile makes the entry outdated.
        origin, skipped = {"folders": container.files, "listing": listing_digest(container.files)}, container.skipped
        splits = container.splits()
        classes, numbered = _numbered(splits, config)
        shape, statistics = _image_shape(splits["train"], config), {}
        meta: dict[str, Any] = {"classes": classes, "origin": origin}
        for part, labels in numbered.items():
            split = splits[part]
            kept = _write_images(folder, part, split, labels >= 0, shape, config, progress)
            if lost := np.setdiff1d(labels[labels >= 0], labels[kept]).tolist():
                raise split.unreadable(classes[lost[0]])
            np.save(folder / f"{part}-labels.npy", labels[kept])
            if part == "train" and (groups := split.groups()) is not None:
                if lacking := [i for i in kept.tolist() if not groups[i]]:
                    hint = (
                        "name a group for each of them; if an image belongs with no other, write a name that no other image has"
                    )
                    raise DataError(f"{len(lacking):,} images have no group, the first is {split.place(lacking[0])}", hint=hint)
                meta["groups"] = list(dict.fromkeys(groups))
                numbers = {name: number for number, name in enumerate(meta["groups"])}
                np.save(folder / "train-groups.npy", np.array([numbers[name] for name in groups], np.int64)[kept])
            skipped += len(split) - len(kept)
            if part != "test":
                statistics[part] = channel_statistics(np.load(folder / f"{part}-images.npy", mmap_mode="r"))
        meta["mean"], meta["std"] = statistics["train"]
        return meta | {"val": statistics.get("val"), "skipped": skipped, "copies": _copies(folder, numbered)}

    said = [source, config.image_size, config.channels, config.skip_bad_images, config.resize]
    return dataset_of(name, find_or_make(name, entry_key([*said, DECODING, *container.facts]), make))


def is_outdated(entry: Path) -> bool:
    """Whether the images that this entry of the cache was made of have changed since, so that nothing opens it any more. Not
    where it does not say what it was made of, or where that cannot be looked at now."""
    try:
        origin = Entry(entry).meta().get("origin")
        if origin is None or not all(map(os.path.exists, origin["folders"])):
            return False
        return listing_digest(origin["folders"]) != origin["listing"]
    except (DataError, OSError, ValueError):
        return False


def _numbered(splits: Mapping[str, Split], config: DataConfig) -> tuple[list[str], dict[str, np.ndarray]]:
    """The classes, and of each split the labels, int64 (N,), −1 where there is none. A split other than `train` that has no
    label at all is left out: it is to be predicted. Raises DataError."""
    texts = {part: split.labels() for part, split in splits.items()}
    texts = {part: labels for part, labels in texts.items() if part == "train" or any(labels)}
    train = splits["train"]
    classes = in_order(set(texts["train"]) - {""}) if train.classes is None else list(train.classes)
    if len(classes) < 2:
        found = f"the labels in {config.folder} are: {', '.join(classes) or 'none'}"
        assert config.folder is not None
        in_array = "the array of the labels (train_labels, y_train or labels) must have at least two different values"
        hint = "name the column of the labels: --label-column NAME" if has_columns(Path(config.folder)) else in_array
        raise DataError(f"a classifier needs at least two classes, but {found}", hint=hint)
    numbers = {name: number for number, name in enumerate(classes)}
    if len(numbers) < len(classes):
        raise DataError(f"{config.folder} has two classes with the same name: {', '.join(classes)}")
    numbered = {}
    for part, labels in texts.items():
        if not config.skip_bad_images and (without := [i for i, label in enumerate(labels) if not label]):
            what = f"{len(without):,} of {len(labels):,} {WORDS[part]} images have no label:"
            raise DataError(first_five(what, list(map(splits[part].place, without))), hint=SKIP_IMAGES)
        if unknown := set(labels) - numbers.keys() - {""}:
            i = next(i for i, label in enumerate(labels) if label in unknown)
            raise DataError(
                f"{splits[part].place(i)} has the label {labels[i]!r}, which is not a class of the training images."
                f"{choices_sentence(labels[i], classes)}"
            )
        if lacking := set(classes) - set(labels):
            raise DataError(
                f"class {in_order(lacking)[0]!r} has no image among the {len(labels):,} {WORDS[part]} images, but each class "
                "needs at least one",
                hint="add images, or remove the class",
            )
        numbered[part] = np.array([numbers.get(label, -1) for label in labels], np.int64)
    return classes, numbered


def _image_shape(split: Split, config: DataConfig) -> tuple[int, int, int]:
    """(height, width, channels) for all images, as the first readable one has them or the configuration says."""
    bad: list[tuple[str, str]] = []
    for i, member in enumerate(split):
        try:
            with opened(member) as image:
                width, height = image.size
                channels = 1 if image.mode in GREY_MODES else 3
        except Exception as error:
            bad.append((split.place(i), decoding_failure(error)))
            continue
        if config.image_size is None and min(width, height) < 8:
            raise DataError(
                f"images must have at least 8×8 pixels, but {split.place(i)} has {width}×{height}",
                hint="enlarge them: --image-size 32",
            )
        if config.channels is not None:
            channels = {"grey": 1, "rgb": 3}[config.channels]
        size = config.image_size or min(width, height)
        return size, size, channels
    raise bad_images_error(bad, len(split))


def _write_images(
    folder: Path,
    part: str,
    split: Split,
    wanted: np.ndarray,
    shape: tuple[int, int, int],
    config: DataConfig,
    progress: Progress,
) -> np.ndarray:
    """Decodes one split into `<part>-images.npy`. Returns the indices of the images that are there, sorted: those that are
    `wanted`, bool (N,), and can be read."""
    target = folder / f"{part}-images.npy"
    out = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=(len(split), *shape))
    bad = decode_all(split, out, progress, f"decoding {part} images", config.resize)
    if bad and not config.skip_bad_images:
        raise bad_images_error([(split.place(i), reason) for i, reason in bad], len(split))
    out.flush()
    kept = np.setdiff1d(np.flatnonzero(wanted), [i for i, _ in bad])
    if len(kept) < len(split):
        whole = folder / f"{part}-whole.npy"
        together = np.lib.format.open_memmap(whole, mode="w+", dtype=np.uint8, shape=(len(kept), *shape))
        count = max(1, COPIED_BYTES // int(np.prod(shape)))
        for start in range(0, len(kept), count):
            together[start : start + count] = out[kept[start : start + count]]
        together.flush()
        whole.replace(target)
    return kept


def _copies(folder: Path, parts: Collection[str]) -> list[str]:
    """Looks for decoded images of these parts that are equal pixel for pixel: of each training image the first that is, into
    `train-same.npy` unless all differ; returns in sentences what concerns other classes and the other parts."""

    def digests(part: str) -> list[bytes]:
        images = np.load(folder / f"{part}-images.npy", mmap_mode="r")
        return [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images]

    train, classes = digests("train"), defaultdict[bytes, set[int]](set)
    for digest, label in zip(train, np.load(folder / "train-labels.npy").tolist(), strict=True):
        classes[digest].add(label)
    if len(classes) < len(train):
        np.save(folder / "train-same.npy", first_of(train))
    said = []
    if several := sum(len(of) > 1 for of in classes.values()):
        said.append(f"{several:,} training image{'s have' if several > 1 else ' has'} exact copies in another class")
    for part in sorted(set(parts) - {"train"}):
        found = digests(part)
        if known := sum(digest in classes for digest in found):
            said.append(
                f"{known:,} of {len(found):,} {WORDS[part]} images are exact copies of training images, so the {WORDS[part]} "
                "accuracy may be too high"
            )
    return said
