"""Files of images: a folder for each class, or a table that says each image's label and group."""

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from nas.config import DataConfig
from nas.data.decoding import IMAGE_SUFFIXES, ImageFile, image_files, is_image, others_text
from nas.data.formats.container import FORMS, PARTS, WORDS, Container, Split, in_order
from nas.data.formats.tables import matched, read_labels
from nas.errors import DataError
from nas.files import is_utf8


class Files(Split):
    def __init__(
        self, files: list[ImageFile], labels: list[str], groups: list[str] | None = None, folder: Path | None = None
    ) -> None:
        """`folder`: what has the folders of the classes."""
        self.files, self._labels, self._groups, self._folder = files, labels, groups, folder

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Path]:
        return (Path(file.path) for file in self.files)

    def labels(self) -> list[str]:
        return self._labels

    def groups(self) -> list[str] | None:
        return self._groups

    def place(self, i: int) -> str:
        return self.files[i].path

    def ids(self, column: str) -> list[str]:
        """The files' names without their endings. Raises DataError where two have the same."""
        named: dict[str, Path] = {}
        for path in self:
            if (other := named.setdefault(path.stem, path)) is not path:
                raise DataError(
                    f"{other} and {path} both have the ID {path.stem!r}, the file name without its ending",
                    hint="rename one of them, or remove it",
                )
        return list(named)

    def unreadable(self, name: str) -> DataError:
        if self._folder is None:
            return super().unreadable(name)
        return DataError(f"no image of class folder {self._folder / name} can be read", hint="repair them, or remove the folder")


def has_class_folders(root: Path) -> bool:
    """Whether there are images in at least two of the folders that would be classes."""
    try:
        train = _part_folders(root)["train"]
        filled = (name for name in _folders_in(train) if next(image_files(str(train / name)), None) is not None)
        return len(list(islice(filled, 2))) > 1
    except DataError:
        return False


def _part_folders(root: Path) -> dict[str, Path]:
    """`train`, `val` and `test`, as far as they are there; the folder itself as `train` where it has the classes. Raises
    DataError where two folders mean the same, or some are there without train."""
    folders = _folders_in(root)
    named = {part: [name for name in folders if name.lower() in names] for part, names in PARTS.items()}
    for part, found in named.items():
        if len(found) > 1 and (named["train"] or part == "train"):
            raise DataError(
                f"{root} has the folders {' and '.join(found)}, which both mean {part}", hint="keep one of them, or merge them"
            )
    parts = {part: root / found[0] for part, found in named.items() if found}
    if "train" in parts:
        return parts
    # `dev` or `Test` may be classes, too, where others are beside them.
    if parts and ({"val", "test"} & set(folders) or len(parts) == len(folders)):
        names = " and ".join(path.name for path in parts.values())
        raise DataError(f"{root} has the folder {names}, but no folder train", hint=FORMS)
    return {"train": root}


def open_class_folders(root: Path) -> Container:
    """FOLDER/train/<class>/* with optional FOLDER/val and FOLDER/test (or another of `PARTS`), or FOLDER/<class>/*. Raises
    DataError."""
    parts, others = _part_folders(root), Counter[str]()
    classes = in_order(_folders_in(parts["train"]))
    if len(classes) < 2:
        raise DataError(
            f"a classifier needs at least two classes, one folder each, but the folders in {parts['train']} are: "
            f"{', '.join(classes) or 'none'}",
            hint=FORMS,
        )
    if broken := [name for name in classes if not is_utf8(name)]:
        raise DataError(
            f"the folder name of a class must be UTF-8, but {broken[0]!r} in {parts['train']} is not",
            hint="rename it; for names from Windows: convmv -r -f cp1252 -t utf-8 --notest FOLDER",
        )
    splits = {part: _class_files(folder, classes, part, others) for part, folder in parts.items()}
    for name in _folders_in(root) if parts["train"] != root else ():
        if root / name not in parts.values() and (count := sum(1 for _ in image_files(str(root / name)))):
            others[f"images in {name}"] = count
    facts: list[object] = []
    for part, split in splits.items():
        facts += [part, *((*file, name) for file, name in zip(split.files, split.labels(), strict=True))]
    return Container([str(folder.absolute()) for folder in parts.values()], lambda: splits, facts, others=others_text(others))


def _folders_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_files(folder: Path, classes: list[str], part: str, others: Counter[str]) -> Files:
    there = _folders_in(folder)
    if part != "train" and not there:
        raise DataError(
            f"{folder} has no class folders, but the {WORDS[part]} images need one folder for each class",
            hint=f"sort them into {folder / classes[0]}, …; or, if they have no labels, move the folder out of {folder.parent} "
            "and predict them with nas submit",
        )
    if extra := [name for name in there if name not in classes]:
        raise DataError(f"{folder / extra[0]} is not a class of the training images. Choices: {', '.join(classes)}.")
    if loose := sum(is_image(name) for name in os.listdir(folder)):
        others["images outside the class folders"] += loose
    files, labels = list[ImageFile](), list[str]()
    for name in classes:
        found = list(image_files(str(folder / name), others)) if (folder / name).is_dir() else []
        files += found
        labels += [name] * len(found)
        if not found:
            raise DataError(
                f"there is no image in {folder / name}, but each class needs {WORDS[part]} images; image files end in "
                f"{', '.join(IMAGE_SUFFIXES)}",
                hint="add images, or remove the class",
            )
    return Files(files, labels, folder=folder)


def open_labelled(root: Path, config: DataConfig) -> Container:
    """Images under `root` by the table `config.labels`. Raises DataError."""
    assert config.labels is not None
    table = read_labels(config)
    others = Counter[str]()
    files, rows, left_out = matched(root, table, config.skip_bad_images, others)
    if Path(config.labels).parent.resolve().is_relative_to(root.resolve()):
        others[Path(config.labels).suffix.lower()] -= 1  # the table itself
    labels = [table.labels[row] for row in rows]
    if len(set(labels)) < 2:
        raise DataError(
            f"a classifier needs at least two classes, but the labels in column {config.label_column!r} of {table.source} are: "
            f"{', '.join(set(labels)) or 'none'}",
            hint="name the column of the labels: --label-column NAME",
        )
    groups = None if table.groups is None else [table.groups[row] for row in rows]
    owners = [None] * len(files) if groups is None else groups
    return Container(
        [str(root.absolute())],
        lambda: {"train": Files(files, labels, groups)},
        ["labels", left_out, *((*file, label, group) for file, label, group in zip(files, labels, owners, strict=True))],
        left_out,
        others_text(+others),
    )
