"""Data sets as people have them, one file a format: `container` is what each of them gives.

To add a format of files that have the images in them: a file with its `Split`, and an entry in `FORMATS`. The conformance test
holds it to the others.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from nas.config import DataConfig
from nas.data.decoding import listing_digest
from nas.data.formats import npz, parquet, pixels, tar
from nas.data.formats.container import FORMS, Container, Split, shards_of
from nas.data.formats.folders import has_class_folders, open_class_folders, open_labelled
from nas.errors import DataError

FORMATS: dict[tuple[str, ...], Callable[[dict[str, list[Path]], DataConfig, bool], dict[str, Split]]] = {
    parquet.SUFFIXES: parquet.open_parquets,
    npz.SUFFIXES: npz.open_npz,
    tar.SUFFIXES: tar.open_tars,
    pixels.SUFFIXES: pixels.open_pixels,
}
"""By the files' endings, the first ones that a folder has: (files of each split, configuration, whether there must be labels to
train by) → the splits, by `PARTS`. Each raises DataError."""
NAMING = ("image_column", "label_column", "label_columns", "group_column", "header")  # of the configuration: what columns mean
COLUMNS = (*parquet.SUFFIXES, *tar.SUFFIXES, *pixels.SUFFIXES)  # those of files that have columns, or keys like them


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
        found = open_shards(shards, config)
        if "train" not in found:
            raise DataError(f"{root} has no training images; its splits are: {', '.join(found)}", hint=FORMS)
        return found

    # Images may also lie beside the file that names them, in the folder of the data set.
    files = [str(file.absolute()) for of_part in shards.values() for file in of_part]
    files += [str(root.absolute())] if root.is_dir() else []
    return Container(files, splits, [listing_digest(files), *(getattr(config, name) for name in NAMING)])


def find_shards(path: Path) -> dict[str, list[Path]]:
    """The files at `path` that have images in them, by their splits; empty where there are none, or where a folder has the
    classes' folders. Raises DataError where only some say their split."""
    if not path.is_dir() or not has_class_folders(path):
        for suffixes in FORMATS:
            if shards := shards_of(path, partial(_holds_images, suffixes)):
                return shards
    return {}


def _holds_images(suffixes: tuple[str, ...], file: Path) -> bool:
    return file.suffix.lower() in suffixes and (suffixes != pixels.SUFFIXES or pixels.has_pixels(file))


def has_columns(path: Path) -> bool:
    """Whether there are files at `path` that have images and columns in them. Raises DataError."""
    return any(file.suffix.lower() in COLUMNS for files in find_shards(path).values() for file in files)


def open_shards(shards: dict[str, list[Path]], config: DataConfig, to_train: bool = True) -> dict[str, Split]:
    """Raises DataError."""
    suffix = next(iter(shards.values()))[0].suffix.lower()
    return next(opener for suffixes, opener in FORMATS.items() if suffix in suffixes)(shards, config, to_train)
