"""The CSV of a submission: its columns, IDs and labels as a sample submission has them, and a check of what was written."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.data.decoding import IMAGE_SUFFIXES
from nas.data.formats.tables import read_csv
from nas.errors import ConfigError, DataError
from nas.files import write_whole

ID_COLUMN, LABEL_COLUMN = "ID", "Labels"
NO_SAMPLE = "leave --like out, and name the columns with --id-column and --label-column"


@dataclass(frozen=True)
class Form:
    """How a submission has to look."""

    id_column: str = ID_COLUMN
    label_column: str = LABEL_COLUMN
    order: tuple[str, ...] | None = None  # IDs in the order of the rows; None takes that of the test set
    labels: frozenset[str] = frozenset()  # those of the sample that are not empty
    delimiter: str = ","
    source: str = ""  # the sample's file


def find_form(like: Path | None, id_column: str | None, label_column: str | None) -> Form:
    """That of the sample submission `like`, or with these columns. Raises NasError, also where both name the columns."""
    if like is None:
        return Form(id_column or ID_COLUMN, label_column or LABEL_COLUMN)
    columns = {"--id-column": id_column, "--label-column": label_column}
    if named := [option for option, value in columns.items() if value is not None]:
        raise ConfigError(
            f"--like uses the columns of {like}, and cannot be combined with {' and '.join(named)}", hint="leave one out"
        )
    return read_sample(like)


def read_sample(path: Path) -> Form:
    """Of a sample submission: its two columns, its IDs, their order, and which labels it holds. Raises DataError."""
    table = read_csv(path, None, "name a sample submission, a CSV in UTF-8: --like FILE")
    if len(table.names) != 2:
        found = f"{len(table.names)}: {', '.join(table.names)}"
        raise DataError(f"a sample submission has two columns, the ID and the label, but {path} has {found}", hint=NO_SAMPLE)
    ids, labels = table.columns
    _require_unique(ids, str(path))
    id_column, label_column = table.names
    return Form(id_column, label_column, tuple(ids), frozenset(labels) - {""}, table.delimiter, str(path))


def _without_ending(name: str) -> str:
    return name[: name.rindex(".")] if name.lower().endswith(IMAGE_SUFFIXES) else name


def _as_number(name: str) -> str:
    bare = _without_ending(name)
    return bare.lstrip("0") or "0" if bare.isdecimal() else bare


MATCHES: tuple[Callable[[str], str], ...] = (str, _without_ending, _as_number)
"""What of the IDs is compared: all of each; else without an image's ending; else without leading zeros, too."""


def arranged(ids: Sequence[str], form: Form) -> list[int]:
    """Indices into `ids`, in the order of the rows. Raises DataError where the sample does not hold the same IDs, not even
    with or without the endings of image files and leading zeros."""
    _require_unique(ids, "the test set")
    if form.order is None:
        return list(range(len(ids)))
    for same in MATCHES:
        places = {same(name): i for i, name in enumerate(ids)}
        wanted = [same(name) for name in form.order]
        if len(places) == len(ids) and len(wanted) == len(ids) and places.keys() == set(wanted):
            return [places[name] for name in wanted]
    there, asked = set(ids), set(form.order)
    missing, beyond = [name for name in form.order if name not in there], [name for name in ids if name not in asked]
    parts = [f"only in the sample: {len(missing)} ({_few(missing)})"] if missing else []
    parts += [f"only in the test set: {len(beyond)} ({_few(beyond)})"] if beyond else []
    raise DataError(
        f"{form.source} and the test set have different IDs; {', '.join(parts)}",
        hint="use the test set of this sample: nas submit TEST --like FILE",
    )


def labels_for(form: Form, classes: Sequence[str], names: bool) -> list[str]:
    """What is written for each class: its name where that was asked for or the sample holds names, else its index from 0. Raises
    DataError where the sample holds neither."""
    indices = [str(i) for i in range(len(classes))]
    if names or (form.labels and form.labels <= set(classes)):
        return list(classes)
    if form.labels <= set(indices):
        return indices
    strange = sorted(form.labels - set(classes)) or sorted(form.labels)
    raise DataError(
        f"{form.source}: column {form.label_column!r} holds {_few(strange)}: neither the network's classes ({_few(classes)}) nor "
        f"their indices from 0 to {len(classes) - 1}",
        hint=f"use the network that this sample belongs to: nas submit TEST --run RUN --like FILE, or {NO_SAMPLE}",
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _require_unique(ids: Sequence[str], source: str) -> None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise DataError(f"{source} has the ID {name!r} more than once")
        seen.add(name)


def write_rows(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[object]], option: str = "--output", delimiter: str = ","
) -> None:
    """Whole or not at all. Raises DataError with the `option` that names the file."""
    if path.is_dir():
        raise DataError(f"{path} cannot be written: it is a folder", hint=f"choose a file in it with {option}")
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
    try:
        write_whole(path, text.getvalue().encode(errors="surrogateescape"))  # an ID is a file's name as it is
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}", hint=f"choose another file with {option}") from None


def verify(path: Path, form: Form, ids: Sequence[str], classes: Sequence[str]) -> None:
    """Reads the file again: its columns, one row an image in the given order, no unknown class. Raises DataError."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.reader(file, delimiter=form.delimiter))
    expected = [form.id_column, form.label_column]
    if rows[:1] != [expected]:
        raise DataError(f"{path}: the columns are {rows[:1]}, not {expected}")
    if [row[0] for row in rows[1:]] != list(ids):
        raise DataError(
            f"{path}: its {len(rows) - 1} IDs or their order differ from the {len(ids)} expected; run nas submit again"
        )
    strange = next((row[1] for row in rows[1:] if row[1] not in set(classes)), None)
    if strange is not None:
        raise DataError(f"{path}: {strange!r} is not a class. Choices: {', '.join(classes)}.")
