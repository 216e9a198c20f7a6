"""Tables of labels as people have them, a CSV or a Parquet file: columns of text by name."""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.config import DataConfig
from nas.data.decoding import reason_of
from nas.errors import DataError, choices_sentence

CSV_SUFFIXES = (".csv", ".tsv", ".txt")
PARQUET_SUFFIXES = (".parquet", ".pq")
FORMS = "--labels takes a CSV with a header line or a Parquet file"
DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table say what, each by its option."""

    image: str
    label: str
    group: str | None = None

    def by_option(self) -> dict[str, str]:
        named = {"--image-column": self.image, "--label-column": self.label}
        return named if self.group is None else named | {"--group-column": self.group}


@dataclass(frozen=True)
class LabelTable:
    source: str
    images: list[str]
    labels: list[str]
    """Empty where there is none."""
    groups: list[str] | None
    first: int
    """What `source` calls its first row: the line of a CSV, the row of a Parquet file."""
    row: str
    """`line` or `row`."""

    def place(self, i: int) -> str:
        return f"{self.row} {self.first + i}"


def moved(config: DataConfig, folder: str | None, labels: str | None = None) -> DataConfig:
    """The same data, its folder now elsewhere, or its table `labels`. One that is not named has moved along where it was within
    the folder, and one beside it where it is not as before."""
    before = config.labels
    if labels is None and before is not None and folder is not None and config.folder is not None:
        along = os.path.normpath(os.path.join(folder, os.path.relpath(before, config.folder)))
        if Path(before).is_relative_to(config.folder) or (not os.path.isfile(before) and os.path.isfile(along)):
            labels = along
    return config.model_copy(update={"folder": folder or config.folder, "labels": labels or before})


def read_labels(path: Path, columns: Columns) -> LabelTable:
    """Raises DataError where the file is missing, is not what its name says, or lacks a column."""
    if not path.is_file():
        raise DataError(f"there is no file of labels {path}", hint=f"{FORMS}; --data FOLDER finds one that moved with its folder")
    suffix = path.suffix.lower()
    if suffix in PARQUET_SUFFIXES:
        first, row, found = 1, "row", _read_parquet(path, columns)
    elif suffix in CSV_SUFFIXES:
        first, row, found = 2, "line", _read_csv(path, columns)
    else:
        choices = ", ".join((*CSV_SUFFIXES, *PARQUET_SUFFIXES))
        raise DataError(f"{path} ends in {suffix!r}, which is no form of a table. Choices: {choices}.", hint=FORMS)
    if not found[0]:
        raise DataError(f"{path} has no rows", hint=FORMS)
    return LabelTable(str(path), found[0], found[1], found[2] if columns.group is not None else None, first, row)


def _require_columns(path: Path, columns: Columns, there: Sequence[str]) -> None:
    for option, name in columns.by_option().items():
        if name not in there:
            raise DataError(
                f"{path} has no column {name!r}.{choices_sentence(name, there)}", hint=f"name the column: {option} NAME"
            )


def _read_csv(path: Path, columns: Columns) -> list[list[str]]:
    """The asked columns, with what separates them read off the header."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            return _columns_of(csv.reader(file, delimiter=max(DELIMITERS, key=header.count)), path, columns)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint=FORMS) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV in UTF-8: {error}", hint=FORMS) from None


def _columns_of(rows: Iterator[list[str]], path: Path, columns: Columns) -> list[list[str]]:
    """Keeps no other column in memory, of which each worker would have a copy."""
    names = [name.strip() for name in next(rows, [])]
    if not names:
        raise DataError(f"{path} is empty", hint=FORMS)
    _require_columns(path, columns, names)
    places = [names.index(name) for name in columns.by_option().values()]
    found: list[list[str]] = [[] for _ in places]
    empty: int | None = None
    for line, row in enumerate(rows, 2):
        if not row:
            empty = empty or line  # at the end of the file, unless another row follows
        elif empty or len(row) != len(names):
            there = 0 if empty else len(row)
            raise DataError(f"{path}, line {empty or line}: the header has {len(names)} columns, but there are {there}")
        else:
            for values, place in zip(found, places, strict=True):
                values.append(row[place].strip())
    return found


def _read_parquet(path: Path, columns: Columns) -> list[list[str]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"to read {path} pyarrow is needed, which is not installed", hint="pip install 'nas[parquet]', or write it as a CSV"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            _require_columns(path, columns, file.schema_arrow.names)
            wanted = list(columns.by_option().values())
            table = file.read(columns=list(dict.fromkeys(wanted)))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is no whole Parquet file: {reason_of(error).splitlines()[0]}", hint=FORMS) from None
    return [_texts(path, name, table.column(name).to_pylist()) for name in wanted]


def _texts(path: Path, column: str, values: list[Any]) -> list[str]:
    """Numbers as they are written; a whole number that is kept as a fraction, since others are missing, as a whole one."""
    converts: dict[type, Callable[[Any], str]] = {
        str: str.strip,
        bool: str,
        int: str,
        float: lambda value: "" if value != value else str(int(value)) if value.is_integer() else str(value),
        bytes: lambda value: value.decode("utf-8", "replace").strip(),
        type(None): lambda _: "",
    }
    for value in values:
        if type(value) not in converts:
            raise DataError(
                f"{path}: column {column!r} must hold text or numbers, but holds {type(value).__name__}",
                hint="images are named by their paths within --data FOLDER",
            )
    return [converts[type(value)](value) for value in values]
