"""Options that several commands share, and how they are read."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.errors import ConfigError


def _known_studies(begun: str) -> list[str]:
    """For the shell's completion."""
    from nas.paths import known_studies

    return [name for name in known_studies() if name.startswith(begun)]


StudyOption = Annotated[
    str | None,
    typer.Option(
        "--study",
        help="The study's name, a folder under studies/. [default: the one used last]",
        autocompletion=_known_studies,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Data on standard output, as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings, faults and the result alone.")]
LogOption = Annotated[
    str | None, typer.Option("--log", help="Also send every epoch to a tracker: tensorboard or wandb (offline by default).")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cuda, cuda:1, mps or cpu.")]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of the data: of images for `folder`, of the download for the others.",
        show_default=False,
    ),
]

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_duration(text: str | None) -> float | None:
    """Seconds of `90`, `90s`, `15m`, `1h30m`. Raises ConfigError."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ConfigError(f"a time is written as 90s, 15m or 1h30m, but got {text!r}")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2))


def plain_path(path: Path | None) -> str | None:
    return None if path is None else str(path)
