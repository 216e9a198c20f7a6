"""What each format of a data set gives: its splits, each of them images in an order, with their labels, groups, names and IDs.

A format knows files. It knows nothing of decoded pixels, of the cache, or of what the labels are numbered.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from re import split as split_text

from nas.data.decoding import Member
from nas.data.formats.tables import NUMBER
from nas.errors import DataError

FORMS = (
    "--data FOLDER takes FOLDER/train/<class>/*.png or FOLDER/<class>/*.png; with --labels FILE, any images; "
    "or a file with images inside: .parquet, .npz, .tar or .csv"
)
PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
"""What the splits of a data set are called, in whatever case."""
WORDS = {"train": "training", "val": "validation", "test": "test"}


class Split(ABC):
    """The images of one split, in their order."""

    classes: Sequence[str] | None = None  # in the order of their labels, where the container says it

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[Member]:
        """Each image in turn; no more than a few are in memory. Raises DataError where a file is damaged."""

    @abstractmethod
    def labels(self) -> Sequence[str]:
        """The class of each image; empty where there is none. Raises DataError."""

    @abstractmethod
    def place(self, i: int) -> str:
        """What messages call an image: its path, or its file and its row."""

    def groups(self) -> Sequence[str] | None:
        """Which images belong together, such as those of one patient."""
        return None

    def ids(self, column: str) -> Sequence[str] | None:
        """What a submission calls each image, by the column of that name where there are columns; None for its position."""
        return None

    def unreadable(self, name: str) -> DataError:
        """No image of this class can be read."""
        return DataError(f"no image of class {name!r} can be read", hint="repair them, or remove the class")


class Shards(Split):
    """A split that lies in several files, one after the other."""

    row, first = "row", 1  # what messages call a place in a file, and the number of the first

    def __init__(self, files: Sequence[Path], counts: Sequence[int]) -> None:
        self.files, self.counts = files, counts

    def __len__(self) -> int:
        return sum(self.counts)

    def place(self, i: int) -> str:
        for file, count in zip(self.files, self.counts, strict=True):
            if i < count:
                return f"{file}, {self.row} {self.first + i}"
            i -= count
        raise IndexError(i)


@dataclass(frozen=True)
class Container:
    """A data set before it is decoded. Opening one looks at names and sizes of files alone; `splits` reads labels."""

    files: list[str]  # files and folders that it is made of
    splits: Callable[[], Mapping[str, Split]]  # by `PARTS`; raises DataError
    facts: list[object] = field(default_factory=list)  # what the decoded images depend on, beside the files and the configuration
    skipped: int = 0  # images and rows that were left out
    others: str = ""  # which files are no images, in words


def in_order(names: Collection[str]) -> list[str]:
    """Classes in the order of their labels: by number where all are numbers, so that class 10 is not label 2. The same in every
    process, also where 1 and 01 are two of them."""
    named = sorted(names)
    return sorted(named, key=Decimal) if all(map(NUMBER.fullmatch, named)) else named


def part_of(name: str) -> str | None:
    """The split of a shard: of `cifar10-train-00000-of-00001.parquet` it is train."""
    words = set(split_text(r"[^a-z]+", name.lower()))
    found = [part for part, names in PARTS.items() if words & set(names)]
    return found[0] if len(found) == 1 else None


def shards_of(path: Path, holds_images: Callable[[Path], bool]) -> dict[str, list[Path]]:
    """The files that a data set is made of, by their splits: the file itself; or those in a folder, in its `data`, or in folders
    named like splits. Empty without any. Raises DataError where only some say their split."""
    if path.is_file():
        return {"train": [path]} if holds_images(path) else {}
    for home in (path, path / "data"):
        for folders in ([home], [home / name for name in _names_in(home) if part_of(name)]):
            files = [folder / name for folder in folders for name in _names_in(folder) if holds_images(folder / name)]
            parts = [part_of(file.stem) or (None if file.parent == home else part_of(file.parent.name)) for file in files]
            if files and not any(parts):
                return {"train": files}
            if None in parts:
                raise DataError(
                    f"{files[parts.index(None)]} has no split in its name (train, val or test), but other files in the folder do",
                    hint="rename it, for example train-1, val-1 or test-1, or move it away",
                )
            if files:
                return {
                    part: [file for file, of in zip(files, parts, strict=True) if of == part] for part in PARTS if part in parts
                }
    return {}


def _names_in(folder: Path) -> list[str]:
    """Sorted, without hidden ones; empty of what is no folder or cannot be read, of which whoever reads the images says so."""
    with suppress(OSError):
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return []
