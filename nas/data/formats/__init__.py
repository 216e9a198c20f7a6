"""Data sets as people have them, one file a format: `container` is what each of them gives.

To add a format: a file with an `open_…`, and its place in `open_container`. The conformance test holds it to the others.
"""

from pathlib import Path

from nas.config import DataConfig
from nas.data.formats.container import FORMS, Container
from nas.data.formats.folders import open_class_folders, open_labelled
from nas.errors import DataError


def open_container(config: DataConfig) -> Container:
    """What lies at `config.folder`. Raises DataError."""
    if config.folder is None:
        raise DataError("--dataset folder needs the folder", hint="nas search --dataset folder --data FOLDER")
    root = Path(config.folder)
    if not root.is_dir():
        raise DataError(f"there is no folder {root.absolute()}", hint=f"{FORMS}; --dataset digits needs no folder")
    return open_class_folders(root) if config.labels is None else open_labelled(root, config)
