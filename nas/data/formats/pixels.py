"""Tables with the images in them, as CSV: a column of labels, or one a class, and a column a pixel, `pixel0`, `pixel1`, …; by
rows from the top left, and where there are colours, red, green and blue of each pixel."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import isqrt
from operator import itemgetter
from pathlib import Path

import numpy as np

from nas.config import DataConfig
from nas.data.formats.container import Shards
from nas.data.formats.tables import by_position, csv_names, csv_rows, id_column, marked, read_csv, require_columns
from nas.errors import DataError

FORMS = "a table of images has the columns label, pixel0, pixel1, … (or 1x1, 1x2, …)"
PIXEL = re.compile(r"(pixel|px|attr|p|x)?[ _-]?\d+|\d+x\d+", re.IGNORECASE)
LEAST = 64  # columns that look like pixels: fewer make no image
LEVELS = {str(level): level for level in range(256)}  # looked up in a tenth of the time that `float` takes


def has_pixels(file: Path) -> bool:
    """By the names of its columns, or what stands in their place."""
    with suppress(DataError):
        return sum(map(bool, map(PIXEL.fullmatch, csv_names(file, FORMS)))) >= LEAST
    return False


class PixelSplit(Shards):
    def __init__(self, files: Sequence[Path], config: DataConfig, part: str) -> None:
        self.header, self.first, self.row = config.header, 1 + config.header, "line"
        self.names = csv_names(files[0], FORMS, self.header)
        if len(set(self.names)) < len(self.names):
            raise DataError(f"{files[0]} has several columns with the same name", hint="if it has no header line: --no-header")
        self.marks, self.group = list(config.label_columns), config.group_column if part == "train" else None
        label = config.label_column if self.header else by_position(config.label_column, "label", 1)
        lacks = not set(self.marks or [label]) <= set(self.names) or (not self.header and _side(len(self.names)) is not None)
        if part == "test" and lacks:
            self.marks, label = [], ""
        self.label = label if label and not self.marks else None
        said = [("--label-columns", name) for name in self.marks]
        said += [(option, name) for option, name in (("--label-column", self.label), ("--group-column", self.group)) if name]
        require_columns(files[0], said, [name for name in self.names if not name.startswith("pixel")])
        others = {name for _, name in said}
        self.pixels = [i for i, name in enumerate(self.names) if PIXEL.fullmatch(name) and name not in others]
        if (side := _side(len(self.pixels))) is None:
            raise DataError(
                f"{files[0]} has {len(self.pixels)} columns of pixels, which do not make a square grey or RGB image",
                hint=FORMS,
            )
        self.shape = (side, side, len(self.pixels) // side**2)
        for file in files:
            if csv_names(file, FORMS, self.header) != self.names:
                raise DataError(
                    f"{file} has other columns than {files[0]}", hint="give all tables of a data set the same columns"
                )
        wanted = [*others] or self.names[:1]
        tables = [read_csv(file, wanted, FORMS, self.header).columns for file in files]
        super().__init__(files, [len(table[0]) for table in tables])
        self._columns = {name: [text for table in tables for text in table[i]] for i, name in enumerate(wanted)}

    def __iter__(self) -> Iterator[np.ndarray]:
        pixels_of = itemgetter(*self.pixels)
        for i, row in enumerate(row for file in self.files for row in self._rows(file)):
            texts = pixels_of(row)
            try:
                values = np.frombuffer(bytes(map(LEVELS.__getitem__, texts)), np.uint8)
            except KeyError:
                values = self._whole(texts, i)
            yield values.reshape(self.shape)

    def _rows(self, file: Path) -> Iterator[list[str]]:
        with csv_rows(file, FORMS, self.header) as (_, rows, _):
            yield from rows

    def _whole(self, texts: Sequence[str], i: int) -> np.ndarray:
        """Such as 255.0. Raises DataError."""
        try:
            values = np.array([float(text) for text in texts])
        except ValueError as error:
            raise DataError(f"{self.place(i)}: a pixel must be a number: {error}") from None
        if not ((values >= 0) & (values <= 255) & (values == values.round())).all():
            raise DataError(f"{self.place(i)}: pixels must be whole numbers from 0 to 255")
        return values.astype(np.uint8)

    def labels(self) -> Sequence[str]:
        if self.label is not None:
            return self._columns[self.label]
        return marked([self._columns[name] for name in self.marks], self.marks, self.place) if self.marks else [""] * len(self)

    def groups(self) -> Sequence[str] | None:
        return None if self.group is None else self._columns[self.group]

    def ids(self, column: str) -> Sequence[str] | None:
        name = id_column(column, self.names)
        if name is None:
            return None
        return [text for file in self.files for text in read_csv(file, [name], FORMS, self.header).columns[0]]


def _side(pixels: int) -> int | None:
    """Of a square of grey or RGB pixels."""
    return next((side for c in (1, 3) if (side := isqrt(pixels // c)) and side**2 * c == pixels), None)
