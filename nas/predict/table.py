"""The CSV that is handed in: which columns, which order, and that what was written is what was meant."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.errors import ConfigError, DataError
from nas.files import write_whole

ID_COLUMN, LABEL_COLUMN = "ID", "Labels"
NO_SAMPLE = "leave --like out, and name the columns with --id-column and --label-column"


@dataclass(frozen=True)
class Form:
    """How a submission has to look."""

    id_column: str = ID_COLUMN
    label_column: str = LABEL_COLUMN
    order: tuple[str, ...] | None = None
    """IDs in the order of the rows; None takes that of the test set."""


def find_form(like: Path | None, id_column: str | None, label_column: str | None) -> Form:
    """That of the sample submission `like`, or with these columns. Raises NasError, also where both say what they are called."""
    if like is None:
        return Form(id_column or ID_COLUMN, label_column or LABEL_COLUMN)
    columns = {"--id-column": id_column, "--label-column": label_column}
    if named := [option for option, value in columns.items() if value is not None]:
        raise ConfigError(
            f"--like takes the columns from {like}, so that {' and '.join(named)} means nothing", hint="leave one out"
        )
    return read_sample(like)


def read_sample(path: Path) -> Form:
    """Of a sample submission: its two columns, its IDs, their order. Raises DataError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except OSError as error:
        raise DataError(f"the sample submission {path} cannot be read: {error.strerror}", hint="name it: --like FILE") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the sample submission {path} is no CSV in UTF-8: {error}", hint="save it as one") from None
    if not rows or len(rows[0]) != 2:
        found = "nothing" if not rows else f"{len(rows[0])}: {', '.join(rows[0])}"
        raise DataError(f"a sample submission has two columns, the ID and the label, but {path} has {found}", hint=NO_SAMPLE)
    wrong = next((i for i, row in enumerate(rows, 1) if len(row) != 2), None)
    if wrong is not None:
        raise DataError(f"{path}, line {wrong}: two columns are expected, but there are {len(rows[wrong - 1])}")
    ids = tuple(row[0] for row in rows[1:])
    _require_unique(ids, str(path))
    return Form(rows[0][0], rows[0][1], ids)


def arranged(ids: Sequence[str], form: Form, sample: str) -> list[int]:
    """Indices into `ids`, in the order of the rows. Raises DataError where both do not hold the same IDs; `sample` names the
    file that gave the order."""
    _require_unique(ids, "the test set")
    if form.order is None:
        return list(range(len(ids)))
    places = {name: i for i, name in enumerate(ids)}
    missing = [name for name in form.order if name not in places]
    wanted = set(form.order)
    beyond = [name for name in ids if name not in wanted]
    if missing or beyond:
        parts = [f"{len(missing)} that the test set has not ({_few(missing)})"] if missing else []
        parts += [f"not {len(beyond)} that it has ({_few(beyond)})"] if beyond else []
        raise DataError(
            f"{sample} and the test set are not about the same images: it has {' and '.join(parts)}",
            hint="name the test set that the sample belongs to: nas submit TEST --like FILE",
        )
    return [places[name] for name in form.order]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _require_unique(ids: Sequence[str], source: str) -> None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise DataError(f"{source} has the ID {name!r} more than once, so that no row could be told from another")
        seen.add(name)


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]], option: str = "--output") -> None:
    """Whole or not at all. Raises DataError with the `option` that names the file."""
    if path.is_dir():
        raise DataError(f"{path} cannot be written: it is a folder", hint=f"name a file in it with {option}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    try:
        write_whole(path, text.getvalue().encode())
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}", hint=f"name another file with {option}") from None


def verify(path: Path, form: Form, ids: Sequence[str], classes: Sequence[str]) -> None:
    """Reads the file again: its columns, one row an image in the given order, no class that there is not. Raises DataError."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    known = set(classes)
    expected = [form.id_column, form.label_column]
    if rows[:1] != [expected]:
        raise DataError(f"{path}: the columns are {rows[:1]}, not {expected}")
    if [row[0] for row in rows[1:]] != list(ids):
        raise DataError(f"{path}: its {len(rows) - 1} IDs are not the {len(ids)} that were to be written, in their order")
    strange = next((row[1] for row in rows[1:] if row[1] not in known), None)
    if strange is not None:
        raise DataError(f"{path}: {strange!r} is no class; choices: {', '.join(classes)}")
