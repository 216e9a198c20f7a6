"""Tables as people have them, a CSV or a Parquet file: columns of text by name, and which images their rows are about."""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nas.config import DataConfig
from nas.data.decoding import ImageFile, first_five, image_files, reason_of
from nas.errors import DataError, choices_sentence

CSV_SUFFIXES = (".csv", ".tsv", ".txt")
PARQUET_SUFFIXES = (".parquet", ".pq")
FORMS = "--labels takes a CSV with a header line or a Parquet file"
DELIMITERS = (",", ";", "\t")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")
ZERO, ONE = frozenset({"0", "0.0"}), frozenset({"1", "1.0"})
MISSING = frozenset({"nan", "na", "n/a", "null", "none"})
ONE_LABEL = "Images with several labels are not supported: a network predicts one class for each image"
INSTEAD = ", or save it as a CSV"
SKIP_IMAGES = "label them, or skip these images with --skip-bad-images"


@dataclass(frozen=True)
class LabelTable:
    source: str
    images: list[str]
    labels: list[str]  # empty where there is none
    groups: list[str] | None
    first: int  # the number of the first row, as `row` counts them
    row: str  # "line" of a CSV, "row" of a Parquet file

    def place(self, i: int) -> str:
        return f"{self.row} {self.first + i}"


def moved(config: DataConfig, folder: str | None, labels: str | None = None) -> DataConfig:
    """The same data, its folder now elsewhere, or its table `labels`. A table that is not named has moved along where it was
    within the folder, and one beside the folder where it is no longer in its place."""
    before = config.labels
    if labels is None and before is not None and folder is not None and config.folder is not None:
        along = os.path.normpath(os.path.join(folder, os.path.relpath(before, config.folder)))
        if Path(before).is_relative_to(config.folder) or (not os.path.isfile(before) and os.path.isfile(along)):
            labels = along
    return config.model_copy(update={"folder": folder or config.folder, "labels": labels or before})


def read_labels(config: DataConfig) -> LabelTable:
    """The columns of `config.labels` that the configuration names. Raises DataError where the file is missing, is not what its
    name says, or lacks a column."""
    path, image, label, group = Path(config.labels or ""), config.image_column, config.label_column, config.group_column
    if not path.is_file():
        hint = f"{FORMS}; if it moved together with the images, --data FOLDER finds it"
        raise DataError(f"there is no file of labels {path}", hint=hint)
    suffix = path.suffix.lower()
    if not config.header and suffix in CSV_SUFFIXES:
        image, label = by_position(image, "image", 1), by_position(label, "label", 2)
    if suffix in PARQUET_SUFFIXES:
        first, row = 1, "row"
        with open_parquet(path, FORMS, INSTEAD) as file:
            names = file.schema_arrow.names
    elif suffix in CSV_SUFFIXES:
        first, row, names = 1 + config.header, "line", csv_names(path, FORMS, config.header)
    else:
        choices = ", ".join((*CSV_SUFFIXES, *PARQUET_SUFFIXES))
        raise DataError(f"{path} ends in {suffix!r}, which is not a format of tables. Choices: {choices}.", hint=FORMS)
    one_each = list(config.label_columns)
    if not one_each and label not in names and label == DataConfig.model_fields["label_column"].default and image in names:
        found = [name for name in names if name not in ("", image, group) and not name.startswith("Unnamed: ")]  # pandas' index
        with suppress(DataError):  # of columns that nobody has named
            one_each = found if len(found) > 1 and _are_marks(read_columns(path, found, config.header)) else []
    said = [("--image-column", image)] + ([] if group is None else [("--group-column", group)])
    said += [("--label-columns", name) for name in one_each] or [("--label-column", label)]
    require_columns(path, said, names)
    images, *rest = read_columns(path, [name for _, name in said], config.header)
    if not images:
        raise DataError(f"{path} has no rows", hint=FORMS)
    groups = None if group is None else rest.pop(0)
    table = LabelTable(str(path), images, [], groups, first, row)
    labels = marked(rest, one_each, lambda i: f"{path}, {table.place(i)}") if one_each else _without_missing(rest[0])
    return replace(table, labels=labels)


def by_position(column: str, default: str, position: int) -> str:
    """In a table without a header columns are called 1, 2, …"""
    return str(position) if column == default else column


def id_column(wanted: str, names: Sequence[str]) -> str | None:
    """The column that is called so, in whatever case, or else `id`."""
    return next((name for word in (wanted.lower(), "id") for name in names if name.lower() == word), None)


def _are_marks(columns: Sequence[Sequence[str]]) -> bool:
    """Whether all are 0 or 1, and most rows have a single 1."""
    values = {value for column in columns for value in column}
    ones = [sum(value in ONE for value in row) for row in zip(*columns, strict=True)]
    return bool(ones) and values <= ZERO | ONE and 2 * ones.count(1) > len(ones)


def marked(columns: Sequence[Sequence[str]], names: Sequence[str], place: Callable[[int], str]) -> list[str]:
    """The class of each row, of columns that hold 0 or 1, one a class. Raises DataError."""
    for name, column in zip(names, columns, strict=True):
        for i, value in enumerate(column):
            if value not in ZERO | ONE:
                raise DataError(f"{place(i)}: column {name!r} of a class must contain 0 or 1, but contains {value!r}")
    return one_class(np.array([[value in ONE for value in column] for column in columns]).T, names, place)


def one_class(marks: np.ndarray, names: Sequence[str], place: Callable[[int], str]) -> list[str]:
    """The class of each row of `marks` (N, classes), which are 0 or 1; empty where none is 1. Raises DataError for several."""
    if not np.isin(marks, (0, 1)).all() or len(names) != marks.shape[1]:
        raise DataError(
            f"{place(0)}: the {marks.shape[1]} labels of an image must be 0 or 1, one for each of {len(names)} classes"
        )
    counts = marks.sum(1)
    if several := np.flatnonzero(counts > 1).tolist():
        found = ", ".join(names[label] for label in marks[several[0]].nonzero()[0].tolist())
        raise DataError(
            f"{len(several):,} of {len(marks):,} images have several labels, the first is {place(several[0])}: {found}. "
            f"{ONE_LABEL}",
            hint="keep only images with one label, or make a class of each combination",
        )
    return [names[label] if count else "" for label, count in zip(marks.argmax(1).tolist(), counts.tolist(), strict=True)]


def classes_by_number(texts: Sequence[str], classes: Sequence[str], place: Callable[[int], str]) -> list[str]:
    """The names of labels that count classes from 0; −1 is no label, as is nothing. Raises DataError for others."""
    numbers = {str(number): name for number, name in enumerate(classes)} | {"": "", "-1": ""}
    if unknown := set(texts) - numbers.keys():
        i = next(i for i, text in enumerate(texts) if text in unknown)
        raise DataError(
            f"{place(i)}: label {texts[i]} is not a class; the labels of the {len(classes)} classes are 0 to {len(classes) - 1}",
            hint="list the names of all classes, or correct the label",
        )
    return [numbers[text] for text in texts]


def _without_missing(labels: list[str]) -> list[str]:
    """With nothing in place of what programs write for a number that is missing, where all others are numbers."""
    others = [label for label in labels if label and label.lower() not in MISSING]
    if not others or not all(map(NUMBER.fullmatch, others)):
        return labels
    return ["" if label.lower() in MISSING else label for label in labels]


class CsvTable(NamedTuple):
    names: list[str]  # of all columns
    columns: list[list[str]]  # the values of those asked for
    delimiter: str


@contextmanager
def csv_rows(path: Path, hint: str, header: bool = True) -> Iterator[tuple[list[str], Iterator[list[str]], str]]:
    """The names of the columns, which are 1, 2, … without a `header`; the rows, each as wide; and the delimiter, the one that the
    first line has most of. A byte order mark and empty lines at the end are skipped. Raises DataError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            line = file.readline()
            file.seek(0)
            delimiter = max(DELIMITERS, key=line.count)
            rows = csv.reader(file, delimiter=delimiter)
            names = [name.strip() for name in next(rows, [])]
            if not names:
                raise DataError(f"{path} is empty", hint=hint)
            if not header:
                file.seek(0)
                names, rows = [str(i + 1) for i in range(len(names))], csv.reader(file, delimiter=delimiter)
            yield names, _as_wide(rows, path, len(names), 1 + header), delimiter
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint=hint) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV in UTF-8: {error}", hint=hint) from None


def _as_wide(rows: Iterator[list[str]], path: Path, width: int, first: int) -> Iterator[list[str]]:
    empty: int | None = None
    for line, row in enumerate(rows, first):
        if not row:
            empty = empty or line  # at the end of the file, unless another row follows
        elif empty or len(row) != width:
            there = 0 if empty else len(row)
            what = "the header" if first > 1 else "the first line"
            raise DataError(f"{path}, line {empty or line}: {what} has {width} columns, but this line has {there}")
        else:
            yield row


def csv_names(path: Path, hint: str, header: bool = True) -> list[str]:
    with csv_rows(path, hint, header) as (names, _, _):
        return names


def read_csv(path: Path, columns: Sequence[str] | None, hint: str, header: bool = True) -> CsvTable:
    """The columns of these names, or all of them. Keeps no other in memory, of which each worker would have a copy. Raises
    DataError."""
    with csv_rows(path, hint, header) as (names, rows, delimiter):
        places = range(len(names)) if columns is None else [names.index(name) for name in columns]
        found: list[list[str]] = [[] for _ in places]
        for row in rows:
            for values, place in zip(found, places, strict=True):
                values.append(row[place].strip())
        return CsvTable(names, found, delimiter)


def read_columns(path: Path, columns: Sequence[str], header: bool = True) -> list[list[str]]:
    """Of a CSV or a Parquet file, as text."""
    if path.suffix.lower() not in PARQUET_SUFFIXES:
        return read_csv(path, columns, FORMS, header).columns
    with open_parquet(path, FORMS, INSTEAD) as file:
        table = file.read(columns=list(dict.fromkeys(columns)))
    return [texts_of(f"{path}: column {name!r}", table.column(name).to_pylist()) for name in columns]


def require_columns(path: Path, columns: Sequence[tuple[str, str]], there: Sequence[str]) -> None:
    """`columns`: (option, name). Raises DataError."""
    for option, name in columns:
        if name not in there:
            raise DataError(
                f"{path} has no column {name!r}.{choices_sentence(name, there)}", hint=f"name the column: {option} NAME"
            )
        if there.count(name) > 1:
            raise DataError(f"{path} has {there.count(name)} columns {name!r}", hint=f"give them different names; {option} NAME")


@contextmanager
def open_parquet(path: Path, hint: str, instead: str = "") -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile`, which reads a page at a time. `instead`: what else helps where pyarrow is not installed.
    Raises DataError, also for what cannot be read of it later."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"{path} needs the package pyarrow, which is not installed", hint=f"pip install 'nas-under-budget[parquet]'{instead}"
        ) from None
    try:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            yield file
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is not a complete Parquet file: {reason_of(error).splitlines()[0]}", hint=hint) from None


_TEXT_OF: dict[type, Callable[[Any], str]] = {
    str: str.strip,
    bool: str,
    int: str,
    float: lambda value: "" if value != value else str(int(value)) if value.is_integer() else str(value),
    bytes: lambda value: value.decode("utf-8", "replace").strip(),
    type(None): lambda _: "",
}
"""Numbers as they are written; a whole number that is kept as a fraction, since others are missing, as a whole one."""


def texts_of(source: str, values: list[Any]) -> list[str]:
    """`source`: what messages call the column. Raises DataError."""
    for value in values:
        if type(value) not in _TEXT_OF:
            several = f". {ONE_LABEL}" if isinstance(value, list) else ""
            raise DataError(
                f"{source} must contain text or numbers, but contains {type(value).__name__}{several}",
                hint="name images by their paths within --data FOLDER; labels are text or numbers",
            )
    return [_TEXT_OF[type(value)](value) for value in values]


def matched(
    root: Path, table: LabelTable, skip: bool, others: Counter[str] | None = None
) -> tuple[list[ImageFile], list[int], int]:
    """The images that have a label, in the order of their paths, the row of each, and how many images and rows were left out.

    An image is named by its path within `root`, by that without its ending, or, where no other has it, by its file's name alone.
    Raises DataError for a row without an image or a label and for an image without a row unless these are to be skipped; always
    for a name that several images have, for an image that has several rows, and for a missing group. `others` counts, by
    their endings, the files that are no images.
    """
    beyond = len(os.path.join(root, ""))
    files = [file for file in image_files(str(root), others) if f"{os.sep}." not in os.sep + file.path[beyond:]]  # no thumbnails
    paths = [file.path[beyond:] for file in files]
    named = [_within(root, name) for name in table.images]
    meant = names_of(paths, named)
    lost: list[str] = []
    row_of: dict[int, int] = {}
    for row, name in enumerate(table.images):
        found = meant.get(named[row], [])
        if len(found) > 1:
            several = " and ".join(paths[i] for i in found[:2])
            raise DataError(
                f"{table.source}, {table.place(row)}: {name!r} could be {several}",
                hint=f"name images by their paths within {root}",
            )
        if not found:
            lost.append(f"{table.place(row)}: {name or 'no name'}")
        elif (before := row_of.setdefault(found[0], row)) != row:
            raise DataError(
                f"{table.source}: {table.place(before)} and {table.place(row)} name the same image, {files[found[0]].path}",
                hint="remove one of them: an image has one label",
            )
    rows_of_table = f"of {len(table.images):,} rows of {table.source}"
    if not skip or not row_of:
        either = ", or skip these rows with --skip-bad-images" if row_of else ""
        _refuse(lost, f"{rows_of_table} name an image that is not in {root}", f"check --data and --image-column{either}")
    if not skip:
        unlabelled = [f"{table.place(row)}: {table.images[row]}" for row in row_of.values() if not table.labels[row]]
        _refuse(unlabelled, f"{rows_of_table} have no label", SKIP_IMAGES)
        without = [path for i, path in enumerate(paths) if i not in row_of]
        _refuse(without, f"of {len(files):,} images in {root} have no row in {table.source}", SKIP_IMAGES)
    used = [i for i in range(len(files)) if i in row_of and table.labels[row_of[i]]]
    rows = [row_of[i] for i in used]
    if table.groups is not None:
        alone = [f"{table.place(row)}: {table.images[row]}" for row in sorted(rows) if not table.groups[row]]
        _refuse(
            alone,
            f"{rows_of_table} have no group",
            "name a group for each; if an image belongs with no other, write a name that no other image has",
        )
    return [files[i] for i in used], rows, len(lost) + len(files) - len(used)


def _within(root: Path, name: str) -> str:
    path = os.path.normpath(name) if name else ""
    return os.path.relpath(path, root.absolute()) if os.path.isabs(path) else path


def names_of(paths: Sequence[str], names: Sequence[str]) -> dict[str, list[int]]:
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
        raise DataError(first_five(f"{len(found):,} {what}:", found), hint=hint)
