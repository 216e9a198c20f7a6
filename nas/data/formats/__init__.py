"""Data sets as people have them, one file a format: `container` is what each of them gives.

To add a format of files that have the images in them: a file with its `Split`, and an entry in `FORMATS`. The conformance test
holds it to the others.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from nas.config import DataConfig
from nas.data.decoding import image_files, listing_digest
from nas.data.formats import npz, pixels, tables, tar
from nas.data.formats.container import FORMS, Container, Split, shards_of
from nas.data.formats.folders import Files, has_class_folders, open_class_folders, open_labelled
from nas.data.formats.parquet import ParquetSplit
from nas.errors import DataError

Shards = dict[str, list[Path]]  # the files of each split


def _each(
    kind: Callable[[list[Path], DataConfig, str], Split], shards: Shards, config: DataConfig, to_train: bool
) -> dict[str, Split]:
    """`kind`: (files, configuration, split). Test images need no labels, and only training images have groups."""
    return {part: kind(files, config, part if to_train else "test") for part, files in shards.items()}


FORMATS: dict[tuple[str, ...], Callable[[Shards, DataConfig, bool], dict[str, Split]]] = {
    tables.PARQUET_SUFFIXES: partial(_each, ParquetSplit),
    npz.SUFFIXES: npz.open_npz,
    tar.SUFFIXES: partial(_each, tar.TarSplit),
    tables.CSV_SUFFIXES: partial(_each, pixels.PixelSplit),
}
"""By the files' endings, the first ones that a folder has: (files, configuration, whether there must be labels to train by) → the
splits, by `PARTS`. Each raises DataError."""
NAMING = ("image_column", "label_column", "label_columns", "group_column", "header")  # of the configuration: what columns mean


def open_container(config: DataConfig) -> Container:
    """What lies at `config.folder`. Raises DataError."""
    if config.folder is None:
        raise DataError("--dataset folder needs a folder", hint="nas search --dataset folder --data FOLDER")
    root = Path(config.folder)
    if not root.is_dir() and (config.labels is not None or not root.is_file()):
        raise DataError(f"there is no folder {root.absolute()}", hint=f"{FORMS}; --dataset digits needs no folder")
    if config.labels is not None:
        return open_labelled(root, config)
    if not (shards := find_shards(root)):
        if root.is_file():
            endings = ", ".join(suffix for suffixes in FORMATS for suffix in suffixes)
            raise DataError(f"{root} is not a file of images; such files end in {endings}", hint=FORMS)
        return open_class_folders(root)

    def splits() -> dict[str, Split]:
        found = _open_shards(shards, config)
        if "train" not in found:
            raise DataError(f"{root} has no training images; its splits are: {', '.join(found)}", hint=FORMS)
        return found

    # Images may also lie beside the file that names them, in the folder of the data set.
    files = [str(file.absolute()) for of_part in shards.values() for file in of_part]
    files += [str(root.absolute())] if root.is_dir() else []
    return Container(files, splits, [listing_digest(files), *(getattr(config, name) for name in NAMING)])


def open_test(path: Path, config: DataConfig, hint: str, others: Counter[str] | None = None) -> Split | None:
    """All images of a folder, whatever its folders are called. Else, of files with images inside, their test images, or all their
    images if no file says its split. None where there is neither. `config` names columns; `others` counts the files of a folder
    of images that are none. Raises DataError."""
    skipped = Counter[str]()
    if path.is_dir() and (files := list(image_files(str(path), skipped))):
        if others is not None:
            others.update(skipped)
        return Files(files, [""] * len(files))
    if not (shards := find_shards(path)):
        return None
    splits = _open_shards(shards, config.model_copy(update={"folder": str(path)}), to_train=False)
    if "test" not in splits and len(splits) > 1:
        raise DataError(f"{path} has no test images; its splits are: {', '.join(splits)}", hint=hint)
    return splits["test"] if "test" in splits else next(iter(splits.values()))


def find_shards(path: Path) -> Shards:
    """The files at `path` that have images in them, by their splits; empty where there are none, or where a folder has the
    classes' folders. Raises DataError where only some say their split."""
    if not path.is_dir() or not has_class_folders(path):
        for suffixes in FORMATS:
            if shards := shards_of(path, partial(_holds_images, suffixes)):
                return shards
    return {}


def _holds_images(suffixes: tuple[str, ...], file: Path) -> bool:
    return file.suffix.lower() in suffixes and (suffixes != tables.CSV_SUFFIXES or pixels.has_pixels(file))


def has_columns(path: Path) -> bool:
    """Whether there are files at `path` that have images and columns, or keys like them, in them. Raises DataError."""
    return any(file.suffix.lower() not in npz.SUFFIXES for files in find_shards(path).values() for file in files)


def _open_shards(shards: Shards, config: DataConfig, to_train: bool = True) -> dict[str, Split]:
    """Raises DataError."""
    suffix = next(iter(shards.values()))[0].suffix.lower()
    return next(opener for suffixes, opener in FORMATS.items() if suffix in suffixes)(shards, config, to_train)
