"""Images in a folder, as data sets: a folder for each class, or a table that says each image's label and group."""

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from nas.config import DataConfig
from nas.data.cache import Entry, Progress, entry_key, find_or_make, write_meta
from nas.data.decoding import (
    IMAGE_SUFFIXES,
    UNREADABLE,
    ImageFile,
    bad_images_error,
    decode_all,
    image_files,
    listing_digest,
    reason_of,
)
from nas.data.images import Dataset, channel_statistics, dataset_of
from nas.data.tables import Columns, LabelTable, read_labels
from nas.errors import DataError

FORMS = "--data FOLDER takes FOLDER/train/<class>/*.png or FOLDER/<class>/*.png; --labels FILE says what any images are"
COPIED_BYTES = 2**26
"""In parts of about this size images are moved together on disk."""
GREY_MODES = ("1", "L", "I;16", "I;16L", "I;16B", "I")
DECODING = "white beneath what is transparent, the upper 8 of 16 bits"
"""Of images as they are decoded now. Change it when they are decoded otherwise, so that none of before stand beside new ones."""


def load_folder(config: DataConfig, progress: Progress) -> Dataset:
    """Images of `config.folder`, all brought to squares of `image_size`, by default the shorter side of the first readable
    image, and to its number of channels (1 for greyscale, 3 for anything else) unless `channels` says which.

    Their labels stand in the table `config.labels`; without one they are those of the folders they are in:
    FOLDER/train/<class>/* with optional FOLDER/val and FOLDER/test, or FOLDER/<class>/*.
    """
    if config.folder is None:
        raise DataError("--dataset folder needs the folder", hint="nas search --dataset folder --data FOLDER")
    root = Path(config.folder)
    if not root.is_dir():
        raise DataError(f"there is no folder {root.absolute()}", hint=f"{FORMS}; --dataset digits needs no folder")
    return _load_class_folders(root, config, progress) if config.labels is None else _load_labelled(root, config, progress)


def _load_class_folders(root: Path, config: DataConfig, progress: Progress) -> Dataset:
    parts = {"train": root}
    others = {part: root / part for part in ("val", "test") if (root / part).is_dir()}
    if (root / "train").is_dir():
        parts = {"train": root / "train", **others}
    elif others:
        raise DataError(f"{root} has the folder {' and '.join(others)}, but no folder train beside it", hint=FORMS)
    classes = _class_folders(parts["train"])
    files = {part: _class_files(folder, classes) for part, folder in parts.items()}
    shape = _image_shape([file.path for file, _ in files["train"]], config)
    facts = _facts(root, shape, config)
    for part, listed in files.items():
        facts += [part, *((*file, label) for file, label in listed)]

    def make(folder: Path) -> None:
        origin, skipped = _origin(parts.values()), 0
        for part, listed in files.items():
            paths = [Path(file.path) for file, _ in listed]
            kept = _write_images(folder, part, paths, shape, config, progress)
            labels = np.array([label for _, label in listed], np.int64)
            if lost := np.setdiff1d(labels, labels[kept]).tolist():
                raise DataError(
                    f"no image of class folder {parts[part] / classes[lost[0]]} can be read",
                    hint="repair them, or remove the folder",
                )
            np.save(folder / f"{part}-labels.npy", labels[kept])
            skipped += len(paths) - len(kept)
        statistics = {
            part: channel_statistics(np.load(folder / f"{part}-images.npy", mmap_mode="r")) for part in files.keys() - {"test"}
        }
        mean, std = statistics["train"]
        meta = {"classes": classes, "mean": mean, "std": std, "val": statistics.get("val"), "skipped": skipped, "origin": origin}
        write_meta(folder, meta)

    return dataset_of("folder", find_or_make("folder", entry_key(facts), make))


def _origin(folders: Iterable[Path]) -> dict[str, object]:
    """What an entry of the cache says of the folders that it was made of."""
    there = [str(folder.absolute()) for folder in folders]
    return {"folders": there, "listing": listing_digest(there)}


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


def _facts(root: Path, shape: tuple[int, int, int], config: DataConfig) -> list[object]:
    """What decoded images depend on beside their files."""
    return [root.absolute(), shape[0], shape[2], config.skip_bad_images, config.resize, DECODING]


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


def in_order(names: Collection[str]) -> list[str]:
    """Classes in the order of their labels: by number where all are numbers, so that class 10 is not label 2. The same in every
    process, also where 1 and 01 are two of them."""
    named = sorted(names)
    return sorted(named, key=int) if all(name.isdecimal() for name in named) else named


def _class_folders(folder: Path) -> list[str]:
    names = [p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    classes = in_order(names)
    if len(classes) < 2:
        raise DataError(
            f"a classifier needs at least two classes, each a folder of images, but the folders in {folder} are: "
            f"{', '.join(classes) or 'none'}",
            hint=FORMS,
        )
    return classes


def _class_files(folder: Path, classes: list[str]) -> list[tuple[ImageFile, int]]:
    extra = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name not in classes)
    if extra:
        raise DataError(f"{folder / extra[0]} is no class of the training images. Choices: {', '.join(classes)}.")
    listed: list[tuple[ImageFile, int]] = []
    for label, name in enumerate(classes):
        before = len(listed)
        if (folder / name).is_dir():
            listed += [(file, label) for file in image_files(str(folder / name))]
        if len(listed) == before:
            raise DataError(
                f"there is no image in {folder / name}; each class of the training images needs some, in files that end in "
                f"{', '.join(IMAGE_SUFFIXES)}",
                hint="add images, or leave the class out",
            )
    return listed


def _image_shape(paths: Sequence[str], config: DataConfig) -> tuple[int, int, int]:
    """(height, width, channels) for all images, as the first readable one has them or the configuration says."""
    bad: list[tuple[Path, str]] = []
    for path in map(Path, paths):
        try:
            with Image.open(path) as image:
                width, height = image.size
                channels = 1 if image.mode in GREY_MODES else 3
        except UNREADABLE as error:
            bad.append((path, reason_of(error)))
            continue
        if config.image_size is None and min(width, height) < 8:
            raise DataError(f"images must have at least 8×8 pixels, but {path} has {width}×{height}", hint="--image-size 32")
        if config.channels is not None:
            channels = {"grey": 1, "rgb": 3}[config.channels]
        size = config.image_size or min(width, height)
        return size, size, channels
    raise bad_images_error(bad, len(paths))


# ---------------------------------------------------------------------------------------------------- a table of labels


def _load_labelled(root: Path, config: DataConfig, progress: Progress) -> Dataset:
    assert config.labels is not None
    table = read_labels(Path(config.labels), Columns(config.image_column, config.label_column, config.group_column))
    files, rows, left_out = matched(root, table, config.skip_bad_images)
    classes = in_order({table.labels[row] for row in rows})
    if len(classes) < 2:
        raise DataError(
            f"a classifier needs at least two classes, but the labels in column {config.label_column!r} of {table.source} are: "
            f"{', '.join(classes) or 'none'}",
            hint="name the column of the labels: --label-column NAME",
        )
    numbers = {name: label for label, name in enumerate(classes)}
    labels = np.array([numbers[table.labels[row]] for row in rows], np.int64)
    # Numbered as they come in the order of the files, so that neither their names nor the table's order matter.
    ordered = [] if table.groups is None else dict.fromkeys(table.groups[row] for row in rows)
    groups = {name: number for number, name in enumerate(ordered)}
    owners = None if table.groups is None else np.array([groups[table.groups[row]] for row in rows], np.int64)
    shape = _image_shape([file.path for file in files], config)
    facts = [*_facts(root, shape, config), "labels", left_out, *classes]
    facts += [
        (*file, label, None if owners is None else owners[i]) for i, (file, label) in enumerate(zip(files, labels, strict=True))
    ]

    def make(folder: Path) -> None:
        origin = _origin([root])
        kept = _write_images(folder, "train", [Path(file.path) for file in files], shape, config, progress)
        if lost := np.setdiff1d(labels, labels[kept]).tolist():
            raise DataError(f"no image of class {classes[lost[0]]!r} can be read", hint="repair them, or leave the class out")
        np.save(folder / "train-labels.npy", labels[kept])
        if owners is not None:
            np.save(folder / "train-groups.npy", owners[kept])
        mean, std = channel_statistics(np.load(folder / "train-images.npy", mmap_mode="r"))
        skipped = left_out + len(files) - len(kept)
        write_meta(folder, {"classes": classes, "mean": mean, "std": std, "skipped": skipped, "origin": origin})

    # The images are the same whatever the groups are called, so that their names are the table's as it is now.
    return replace(dataset_of("folder", find_or_make("folder", entry_key(facts), make)), groups=tuple(groups))


def matched(root: Path, table: LabelTable, skip: bool) -> tuple[list[ImageFile], list[int], int]:
    """The images that have a label, in the order of their paths, the row of each, and how many images and rows were left out.

    An image is named by its path within `root`, by that without its ending, or, where no other has it, by its file's name alone.
    Raises DataError for a row without an image or a label and for an image without a row unless these are to be skipped; always
    for a name that several images have, for an image that has several rows, and for a missing group.
    """
    beyond = len(os.path.join(root, ""))
    files = [file for file in image_files(str(root)) if f"{os.sep}." not in os.sep + file.path[beyond:]]  # no thumbnails
    paths = [file.path[beyond:] for file in files]
    named = [_within(root, name) for name in table.images]
    meant = _meant(paths, named)
    lost: list[str] = []
    unlabelled: list[str] = []
    row_of: dict[int, int] = {}
    for row, name in enumerate(table.images):
        found = meant.get(named[row], [])
        if len(found) > 1:
            several = " and ".join(paths[i] for i in found[:2])
            raise DataError(
                f"{table.source}, {table.place(row)}: {name!r} may mean {several}",
                hint=f"name images by their paths within {root}",
            )
        if not found:
            lost.append(f"{table.place(row)}: {name or 'no name'}")
        elif found[0] in row_of:
            before = table.place(row_of[found[0]])
            raise DataError(
                f"{table.source}: {before} and {table.place(row)} are about the same image, {files[found[0]].path}",
                hint="leave one of them out: an image has one label",
            )
        else:
            row_of[found[0]] = row
            if not table.labels[row]:
                unlabelled.append(f"{table.place(row)}: {name}")
    if not skip or not row_of:
        either = ", or leave these rows out with --skip-bad-images" if row_of else ""
        _refuse(
            lost,
            f"of {len(table.images):,} rows of {table.source} name an image that is not under {root}",
            f"check --data and --image-column{either}",
        )
    if not skip:
        _refuse(unlabelled, f"of {len(table.images):,} rows of {table.source} have no label", SKIP_IMAGES)
        without = [path for i, path in enumerate(paths) if i not in row_of]
        _refuse(without, f"of {len(files):,} images under {root} have no row in {table.source}", SKIP_IMAGES)
    used = [i for i in range(len(files)) if i in row_of and table.labels[row_of[i]]]
    rows = [row_of[i] for i in used]
    if table.groups is not None:
        alone = [f"{table.place(row)}: {table.images[row]}" for row in sorted(rows) if not table.groups[row]]
        _refuse(
            alone,
            f"of {len(table.images):,} rows of {table.source} have no group",
            "write which group each belongs to, if need be one of its own",
        )
    return [files[i] for i in used], rows, len(lost) + len(files) - len(used)


SKIP_IMAGES = "label them, or leave these images out with --skip-bad-images"


def _within(root: Path, name: str) -> str:
    path = os.path.normpath(name) if name else ""
    return os.path.relpath(path, root.absolute()) if os.path.isabs(path) else path


def _meant(paths: Sequence[str], names: Sequence[str]) -> dict[str, list[int]]:
    """Which images, by their paths within the folder, each of the names may mean. A path means that image alone, even if others
    have it for a name."""
    exact = {path: [i] for i, path in enumerate(paths)}
    if all(name in exact for name in names):
        return exact
    loose: dict[str, list[int]] = {}
    for i, path in enumerate(paths):
        whole, name = os.path.splitext(path)[0], os.path.basename(path)
        for other in {whole, name, os.path.splitext(name)[0]} - {path}:
            loose.setdefault(other, []).append(i)
    return loose | exact


def _refuse(found: Sequence[str], what: str, hint: str) -> None:
    if found:
        more = [f"and {len(found) - 5:,} more"] if len(found) > 5 else []
        raise DataError("\n  ".join([f"{len(found):,} {what}:", *found[:5], *more]), hint=hint)
