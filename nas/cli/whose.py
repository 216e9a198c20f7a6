"""In which study networks are trained that are named on the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.options import absolute_path
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.display.terminal import TerminalDisplay
    from nas.paths import StudyPaths


def study_of_networks(
    command: str,
    words: Sequence[str],
    study: str | None,
    dataset: str | None,
    data: Path | None,
    labels: Path | None,
    display: "TerminalDisplay",
) -> "StudyPaths":
    """The named study or the one used last; for presets alone also one of a data set, which is made where there is none. Raises
    NasError."""
    from nas.config import DataConfig
    from nas.paths import PRESET, existing_study, known_studies
    from nas.runs.context import open_presets_study

    presets_alone = all(word.startswith(PRESET) for word in words)
    if dataset is None:
        if presets_alone and study is None and not known_studies():
            raise ConfigError("no study says which images to train on", hint=f"nas {command} {' '.join(words)} --dataset cifar10")
        return existing_study(study)
    if not presets_alone:
        raise ConfigError(
            "--dataset goes with preset:NAME alone: a study has its data",
            hint=f"nas {command} preset:robust-resnet64 --dataset cifar10; nas presets shows the names",
        )
    if labels is not None:
        raise ConfigError(
            "--labels names the moved table of a study, and --dataset a study that has none",
            hint="nas search --labels FILE begins one; then --study NAME",
        )
    return open_presets_study(DataConfig(dataset=dataset, folder=absolute_path(data)), study, display.decoding)
