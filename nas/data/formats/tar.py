"""WebDataset's shards: in a tar an image KEY.jpg and its label, KEY.cls or KEY.json. Members of one folder and one key, up to the
first dot of their names, are one sample, wherever in the tar they stand. Nothing is unpacked to the disk."""

import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from nas.config import DataConfig
from nas.data.decoding import is_image, reason_of
from nas.data.formats.container import Split
from nas.data.formats.tables import ONE_LABEL
from nas.errors import DataError, choices_sentence

SUFFIXES = (".tar",)
FORMS = "a shard holds an image KEY.jpg and a label KEY.cls, or KEY.json with a key `label`, for each KEY"
MOST_LABEL_BYTES = 2**20


def open_tars(shards: dict[str, list[Path]], config: DataConfig, to_train: bool) -> dict[str, Split]:
    return {part: TarSplit(files, config) for part, files in shards.items()}


class Sample(NamedTuple):
    file: Path
    key: str
    image: str  # its member, …
    start: int  # … and where in the file that lies
    size: int
    label: str  # empty if there is none


class TarSplit(Split):
    def __init__(self, files: Sequence[Path], config: DataConfig) -> None:
        self.files, self.label_column = files, config.label_column

    @cached_property
    def _samples(self) -> list[Sample]:
        """In the order of the images. Raises DataError."""
        return [sample for file in self.files for sample in self._of_shard(file)]

    def _of_shard(self, file: Path) -> list[Sample]:
        images, labels, described = dict[str, Sample](), dict[str, str](), dict[str, str | DataError]()
        length = file.stat().st_size
        with _opened(file) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would remember all of them
                name = PurePosixPath(member.name)
                if member.isdir() or name.name.startswith("."):
                    continue
                if not member.isreg() or member.issparse() or name.is_absolute() or ".." in name.parts:
                    what = "is no plain file" if not member.isreg() or member.issparse() else "points outside"
                    raise DataError(f"{file}: member {member.name!r} {what}, as none of a data set does", hint=FORMS)
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError(f"{member.name!r} is cut off")
                stem, _, ending = name.name.partition(".")
                key, ending = str(name.parent / stem), ending.lower()
                kinds: dict[str, dict[str, Any]] = {"cls": labels, "json": described}
                found: dict[str, Any] | None = images if is_image(name.name) else kinds.get(ending)
                if found is None:
                    continue
                if key in found:
                    both = (
                        f"two images, {images[key].image!r} and {member.name!r}" if found is images else f"two members .{ending}"
                    )
                    raise DataError(f"{file}: key {key!r} has {both}", hint="a key has one image and one label")
                if found is images:
                    images[key] = Sample(file, key, member.name, member.offset_data, member.size, "")
                else:
                    text = _text(tar, member, file)
                    found[key] = text if found is labels else self._label_in(text, f"{file}: member {member.name!r}")
        for key, label in described.items():
            if isinstance(label, DataError) and key not in labels:
                raise label
            labels.setdefault(key, str(label))
        if lost := [key for key in labels if key not in images]:
            raise DataError(f"{file}: key {lost[0]!r} has a label and no image ({len(lost):,} such keys)", hint=FORMS)
        if not images:
            raise DataError(f"{file} holds no image", hint=FORMS)
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
                return DataError(f"{place} has no key {self.label_column!r}.{choices}", hint="name it: --label-column NAME")
            value = value[self.label_column]
        if isinstance(value, list | dict):
            return DataError(f"{place}: a label must be text or a number, but is {value}. {ONE_LABEL}", hint=FORMS)
        return "" if value is None else str(value).strip()

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[bytes]:
        for path, samples in groupby(self._samples, lambda sample: sample.file):
            with open(path, "rb") as file:
                for sample in samples:
                    file.seek(sample.start)
                    yield file.read(sample.size)

    def labels(self) -> Sequence[str]:
        return [sample.label for sample in self._samples]

    def place(self, i: int) -> str:
        return f"{self._samples[i].file}, {self._samples[i].image}"

    def ids(self, column: str) -> Sequence[str] | None:
        keys = [sample.key for sample in self._samples]
        short = [PurePosixPath(key).name for key in keys]
        return next((found for found in (short, keys) if len(set(found)) == len(found)), None)


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> str:
    opened = tar.extractfile(member)
    try:
        if opened is None or member.size > MOST_LABEL_BYTES:
            raise ValueError(f"it has {member.size:,} bytes")
        return opened.read().decode().strip()
    except ValueError as error:
        raise DataError(f"{file}: member {member.name!r} is no label: {error}", hint=FORMS) from None


@contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(file, "r:") as tar:
            yield tar
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"{file} is no whole tar file: {reason_of(error)}", hint="copy it again; a compressed one has to be unpacked"
        ) from None
