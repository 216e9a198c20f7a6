"""Options that several commands share, and how they are read."""

import re
from pathlib import Path
from typing import Annotated

import typer

from nas.cli.completion import complete_dataset, complete_device, complete_study, complete_tracker
from nas.errors import ConfigError

StudyOption = Annotated[
    str | None,
    typer.Option(
        "--study",
        help="The study's name, a folder under studies/. [default: the one used last]",
        autocompletion=complete_study,
    ),
]
RUN_HELP = (
    "A retrained network: its name, as nas runs shows it; its folder, wherever that lies; or `best`, a trial's number or "
    "preset:NAME for its latest run. [default: the latest]"
)
RunOption = Annotated[str | None, typer.Option("--run", help=RUN_HELP, show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Data on standard output, as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings, faults and the result alone.")]
LogOption = Annotated[
    str | None,
    typer.Option(
        "--log",
        help="Also send every epoch to a tracker: tensorboard or wandb (offline by default).",
        autocompletion=complete_tracker,
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cuda, cuda:1, mps or cpu.", autocompletion=complete_device)]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of the data: of images for `folder`, of the download for the others.",
        show_default=False,
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Of a preset of no study: digits, cifar10, cifar100, fashion-mnist, svhn, folder.",
        autocompletion=complete_dataset,
    ),
]
TrainSubsetOption = Annotated[int | None, typer.Option("--train-subset", help="Train on so many images only, stratified.", min=1)]
WorkersOption = Annotated[int | None, typer.Option("--workers", help="On the CPU: so many trainings at a time. [default: 1]")]
LabelsOption = Annotated[
    Path | None,
    typer.Option(
        "--labels", help="The study's table of labels, if it has moved without the folder of the images.", show_default=False
    ),
]

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_duration(text: str | None) -> float | None:
    """Seconds of `90`, `90s`, `15m`, `1h30m`. Raises ConfigError."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ConfigError(f"a time is written as 90s, 15m or 1h30m, but got {text!r}", hint="for example 15m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def parse_timeout(text: str) -> float:
    """Seconds above 0. Raises ConfigError."""
    seconds = parse_duration(text)
    if not seconds:
        raise ConfigError(f"--timeout must be above 0 seconds, but is {text}", hint="--timeout 60s is the default")
    return seconds


def parse_seeds(text: str | None, first: int) -> tuple[int, ...]:
    """`3` is so many from `first` on, `0,3,4` those. Raises ConfigError."""
    if text is None:
        return (first,)
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or (len(parts) == 1 and not int(parts[0])):
        raise ConfigError(f"--seeds takes how many, or a list of them, but got {text!r}", hint="--seeds 3, or --seeds 0,3,4")
    if len(parts) == 1:
        return tuple(range(first, first + int(parts[0])))
    seeds = [int(part) for part in parts]
    if first and first not in seeds:
        raise ConfigError(f"--seed {first} and --seeds {text} both say which", hint="leave --seed out")
    if repeated := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise ConfigError(
            f"--seeds {text} repeats {', '.join(map(str, repeated))}: the same seed trains the same network again",
            hint=f"--seeds {','.join(map(str, dict.fromkeys(seeds)))}, or --seeds {len(seeds)} for as many different ones",
        )
    return tuple(seeds)


def absolute_path(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
