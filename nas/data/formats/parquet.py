"""Parquet with the images inside, as `datasets` writes it: a column of structs {bytes, path}, or of bytes. It is read by batches:
a row group may hold the whole set."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nas.config import DataConfig
from nas.data.decoding import Member
from nas.data.formats.container import Shards
from nas.data.formats.tables import classes_by_number, id_column, open_parquet, texts_of
from nas.errors import DataError, choices_sentence

BATCH = 16  # images in memory at a time, beside those that are being decoded
FORMS = "all shards of a data set must have the same columns: copy the file again, or move it away if it is not a shard"
ELSEWHERE = "put the image files into a folder, then: --data FOLDER --labels THIS_FILE"
EMBED = (
    "write the images into it: from datasets.table import embed_table_storage; "
    'dataset.with_format("arrow").map(embed_table_storage, batched=True).to_parquet(FILE)'
)


class ParquetSplit(Shards):
    def __init__(self, files: Sequence[Path], config: DataConfig, part: str) -> None:
        """Reads what the files say of themselves, and no row."""
        schemas, counts = [], []
        for file in files:
            with open_parquet(file, FORMS) as opened:
                schemas.append(opened.schema_arrow)
                counts.append(opened.metadata.num_rows)
        super().__init__(files, counts)
        first = schemas[0]
        self.image = _image_column(files[0], first, config.image_column)
        self.label = _label_column(files[0], first, config.label_column, self.image, required=part != "test")
        self.group = config.group_column if part == "train" else None
        self.names, self.classes = first.names, _class_names(first, self.label)
        self.beside = Path(config.folder or "").is_dir()
        for file, schema in zip(files, schemas, strict=True):
            for name in filter(None, (self.image, self.label, self.group)):
                if name not in schema.names:
                    raise DataError(f"{file} has no column {name!r}.{choices_sentence(name, schema.names)}", hint=FORMS)
                if schema.field(name).type != first.field(name).type:
                    raise DataError(
                        f"{file}: column {name!r} has the type {schema.field(name).type}, but {first.field(name).type} in "
                        f"{files[0]}",
                        hint=FORMS,
                    )
            if _class_names(schema, self.label) != self.classes:
                raise DataError(f"{file}: the class names differ from those in {files[0]}", hint=FORMS)

    def __iter__(self) -> Iterator[Member]:
        for file in self.files:
            for row, value in enumerate(_values(file, self.image, BATCH), 1):
                content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
                yield content if content is not None else self._named(file, path, row)

    def _named(self, file: Path, path: str | None, row: int) -> Member:
        """The file that `path` names in place of an image's bytes. Raises DataError where none is in the shard's folder."""
        if path is None:
            return b""  # no image: whoever decodes it says so
        folder = file.parent.resolve()
        found = (folder / path).resolve()
        if "://" in path or not found.is_relative_to(folder) or not found.is_file():
            raise DataError(
                f"{file}, row {row}: the file has only a path to the image, {path!r}, which does not exist in {folder}",
                hint=EMBED,
            )
        if not self.beside:
            raise DataError(f"{file}, row {row}: the file has only a path to the image, {path}", hint=f"--data {folder}")
        return found

    def labels(self) -> Sequence[str]:
        if self.label is None:
            return [""] * len(self)
        texts = self._texts(self.label)
        return texts if self.classes is None else classes_by_number(texts, self.classes, self.place)

    def groups(self) -> Sequence[str] | None:
        return None if self.group is None else self._texts(self.group)

    def ids(self, column: str) -> Sequence[str] | None:
        name = id_column(column, [name for name in self.names if name not in (self.image, self.label)])
        if name is not None:
            return self._texts(name)
        paths = [value.get("path") for file in self.files for value in _values(file, f"{self.image}.path", 2**16)]
        stems = [Path(path).stem for path in paths if path]
        return stems if len(stems) == len(self) == len(set(stems)) else None

    def _texts(self, column: str) -> list[str]:
        return [
            text for file in self.files for text in texts_of(f"{file}: column {column!r}", list(_values(file, column, 2**16)))
        ]


def _values(file: Path, column: str, together: int) -> Iterator[Any]:
    """Of a column, or of a field of its structs, `image.path`. A row group may hold all rows, and is not read at once."""
    with open_parquet(file, FORMS) as opened:
        for batch in opened.iter_batches(batch_size=together, columns=[column], use_threads=False):
            yield from batch.column(0).to_pylist() if batch.num_columns else ()


def _image_column(file: Path, schema: Any, wanted: str) -> str:
    from pyarrow import types

    def holds_images(kind: Any) -> bool:
        has_bytes = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        return has_bytes or types.is_binary(kind) or types.is_large_binary(kind)

    there = [field.name for field in schema if holds_images(field.type)]
    if wanted in there:
        return wanted
    if wanted in schema.names and (
        types.is_string(schema.field(wanted).type) or types.is_large_string(schema.field(wanted).type)
    ):
        first = next(_values(file, wanted, 1), None) or ""
        what = "URLs" if "://" in first else "text"
        raise DataError(f"{file}: column {wanted!r} contains {what}, such as {first!r}, not images", hint=ELSEWHERE)
    if len(there) == 1 and wanted == DataConfig.model_fields["image_column"].default:
        return there[0]
    raise DataError(
        f"{file} has no column {wanted!r} of images. Columns with images: {', '.join(there) or 'none'}. All columns: "
        f"{', '.join(schema.names)}",
        hint="name the column: --image-column NAME" if there else ELSEWHERE,
    )


def _label_column(file: Path, schema: Any, wanted: str, image: str, required: bool) -> str | None:
    if wanted in schema.names:
        return wanted
    found = [name for name in schema.names if _class_names(schema, name) is not None]
    if len(found) == 1 and wanted == DataConfig.model_fields["label_column"].default:
        return found[0]
    if not required:
        return None
    others = [name for name in schema.names if name != image]
    hint = "name the column: --label-column NAME"
    raise DataError(f"{file} has no column {wanted!r}.{choices_sentence(wanted, others)}", hint=hint)


def _class_names(schema: Any, column: str | None) -> list[str] | None:
    """Those of a `ClassLabel`, as `datasets` keeps them in the schema's metadata."""
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        return list(map(str, feature["names"])) if feature.get("_type") == "ClassLabel" else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
