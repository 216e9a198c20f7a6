"""WebDataset's shards: in a tar an image KEY.jpg and its label, KEY.cls or KEY.json. Members of one folder and one key, up to the
first dot of their names, are one sample, wherever in the tar they stand. Nothing is unpacked to the disk."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import IO, Any, NamedTuple

from nas.config import DataConfig
from nas.data.decoding import is_image, reason_of
from nas.data.formats.container import Split
from nas.data.formats.tables import ONE_LABEL
from nas.errors import DataError, choices_sentence

SUFFIXES = (".tar",)
FORMS = "a shard contains for each KEY an image KEY.jpg and a label KEY.cls, or KEY.json with a key `label`"
MOST_TEXT_BYTES = 2**20
BLOCK = 512  # bytes of a header; what a member holds fills whole blocks
PLAIN, FOLDER, EXTENDED, LONG_NAME = ("0", "\0", "7"), "5", "x", "L"  # types of headers, …
BEFORE = (EXTENDED, LONG_NAME, "g", "K")  # … of which these say more of the member behind them


class Sample(NamedTuple):
    file: Path
    key: str
    image: str  # its member, …
    start: int  # … and where in the file that lies
    size: int
    label: str  # empty if there is none


class TarSplit(Split):
    def __init__(self, files: Sequence[Path], config: DataConfig, part: str) -> None:
        self.files, self.label_column = files, config.label_column

    @cached_property
    def _samples(self) -> list[Sample]:
        """In the order of the images. Raises DataError."""
        return [sample for file in self.files for sample in self._of_shard(file)]

    def _of_shard(self, file: Path) -> list[Sample]:
        images, labels, described = dict[str, Sample](), dict[str, str](), dict[str, str | DataError]()
        kinds: dict[str, dict[str, Any]] = {"cls": labels, "json": described}
        with _opened(file) as tar:
            for member in _members(tar):
                parts = [part for part in member.name.split("/") if part not in ("", ".")]
                if member.kind == FOLDER or not parts or parts[-1].startswith("."):
                    continue
                if member.kind not in PLAIN or member.name.startswith("/") or ".." in parts:
                    what = "has a path outside the folder" if member.kind in PLAIN else "is not a regular file"
                    raise DataError(f"{file}: member {member.name!r} {what}, which is not allowed", hint=FORMS)
                stem, _, ending = parts[-1].partition(".")
                key, ending = "/".join([*parts[:-1], stem]), ending.lower()
                found: dict[str, Any] | None = images if is_image(parts[-1]) else kinds.get(ending)
                if found is None:
                    continue
                if key in found:
                    both = f"two images, {images[key].image!r} and {member.name!r}" if found is images else f"two files .{ending}"
                    raise DataError(f"{file}: key {key!r} has {both}", hint="give each key one image and one label")
                if found is images:
                    images[key] = Sample(file, key, member.name, member.start, member.size, "")
                else:
                    text = _text(tar, member, file)
                    found[key] = text if found is labels else self._label_in(text, f"{file}: member {member.name!r}")
        for key, label in described.items():
            if isinstance(label, DataError) and key not in labels:
                raise label
            labels.setdefault(key, str(label))
        if lost := [key for key in labels if key not in images]:
            raise DataError(f"{file}: key {lost[0]!r} has a label but no image ({len(lost):,} such keys)", hint=FORMS)
        if not images:
            raise DataError(f"{file} contains no image", hint=FORMS)
        return [image._replace(label=labels.get(key, "")) for key, image in images.items()]

    def _label_in(self, text: str, place: str) -> str | DataError:
        """An error is none where the key has another label, too."""
        try:
            value = json.loads(text)
        except ValueError as error:
            return DataError(f"{place} cannot be read: {error}", hint=FORMS)
        if isinstance(value, dict):
            if self.label_column not in value:
                choices = choices_sentence(self.label_column, value)
                hint = "name the key of the label: --label-column NAME"
                return DataError(f"{place} has no key {self.label_column!r}.{choices}", hint=hint)
            value = value[self.label_column]
        if isinstance(value, list | dict):
            return DataError(f"{place}: a label must be text or a number, but is {value}. {ONE_LABEL}", hint=FORMS)
        return "" if value is None else str(value).strip()

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[bytes]:
        for path, samples in groupby(self._samples, lambda sample: sample.file):
            with _opened(path) as file:
                for sample in samples:
                    file.seek(sample.start)
                    yield file.read(sample.size)

    def labels(self) -> Sequence[str]:
        return [sample.label for sample in self._samples]

    def place(self, i: int) -> str:
        return f"{self._samples[i].file}, {self._samples[i].image}"

    def ids(self, column: str) -> Sequence[str] | None:
        keys = [sample.key for sample in self._samples]
        short = [key.rpartition("/")[2] for key in keys]
        return next((found for found in (short, keys) if len(set(found)) == len(found)), None)


class _Member(NamedTuple):
    name: str
    kind: str
    start: int  # where in the file its content lies
    size: int


def _members(tar: IO[bytes]) -> Iterator[_Member]:
    """`tarfile` takes four times as long for the four headers an image of WebDataset, and ends without a word at a damaged one.
    Raises ValueError."""
    at, length, extended = 0, os.fstat(tar.fileno()).st_size, dict[str, str]()
    while any(header := tar.read(BLOCK)):
        try:
            kind, name, size = _header(header)
            before = kind in BEFORE
            size = size if before else int(extended.get("size", size))
            if size < 0 or (before and size > MOST_TEXT_BYTES):
                raise ValueError
            if kind == EXTENDED:
                extended |= _records(tar.read(size))
            elif kind == LONG_NAME:
                extended["path"] = _text_in(tar.read(size))
        except ValueError:
            raise ValueError(f"the header at byte {at:,} is damaged") from None
        start, name = at + BLOCK, extended.get("path", name)
        if start + size > length:
            raise ValueError(f"{name!r} is truncated")
        if not before:
            sparse = any(key.startswith("GNU.sparse") for key in extended)
            yield _Member(name, FOLDER if name.endswith("/") else "sparse" if sparse else kind, start, size)
            extended = {}
        at = start + -(-size // BLOCK) * BLOCK
        tar.seek(at)
    if len(header) < BLOCK:
        raise ValueError("it is truncated")


def _header(header: bytes) -> tuple[str, str, int]:
    """The type, name and size of a member. Raises ValueError."""
    if _number(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise ValueError
    folder = _text_in(header[345:500]) if header[257:263] == b"ustar\0" else ""
    name, size = _text_in(header[:100]), _number(header[124:136])
    return chr(header[156]), f"{folder}/{name}" if folder else name, size


def _text_in(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _number(field: bytes) -> int:
    """Octal digits or, from 8 GiB on, GNU's binary form. Raises ValueError."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    return int(field.partition(b"\0")[0].strip() or b"0", 8)


def _records(content: bytes) -> dict[str, str]:
    """An extended header's lines, `LENGTH KEY=VALUE`. Raises ValueError."""
    found, at = dict[str, str](), 0
    while at < len(content):
        length = int(content[at : at + 20].partition(b" ")[0])
        key, equals, value = content[at : at + length].partition(b" ")[2].rstrip(b"\n").partition(b"=")
        if length < 0 or not equals:
            raise ValueError
        found[_text_in(key)], at = _text_in(value), at + length
    return found


def _text(tar: IO[bytes], member: _Member, file: Path) -> str:
    try:
        if member.size > MOST_TEXT_BYTES:
            raise ValueError(f"it has {member.size:,} bytes")
        tar.seek(member.start)
        return tar.read(member.size).decode().strip()
    except ValueError as error:
        raise DataError(f"{file}: member {member.name!r} is not a label: {error}", hint=FORMS) from None


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    try:
        with file.open("rb") as tar:
            yield tar
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} is not a complete tar file: {reason_of(error)}", hint="copy it again; if it is compressed, decompress it"
        ) from None
