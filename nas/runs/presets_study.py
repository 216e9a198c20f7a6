"""The study in which presets are trained that belong to no search."""

from nas.config import DataConfig
from nas.data.cache import Progress as DecodingProgress
from nas.data.cache import silent
from nas.data.datasets import load_dataset, require_known
from nas.errors import StudyError
from nas.files import write_whole
from nas.paths import StudyPaths, study_paths
from nas.space.presets import load_preset, preset_names
from nas.study.settings import PRESETS_SPACE, Environment, Overrides, StudySettings, read_settings


def found_presets_study(data: DataConfig, name: str | None = None, decoding: DecodingProgress = silent) -> StudyPaths:
    """A study without trials, by default `presets-<data set>`, where presets are trained that belong to no search.

    Raises StudyError where that study was made for another data set.
    """
    require_known(data.dataset)
    paths = study_paths(name or f"{PRESETS_SPACE}-{data.dataset}")
    if paths.settings.is_file():
        theirs = read_settings(paths).data
        if theirs.dataset != data.dataset or (data.folder and theirs.folder != data.folder):
            raise StudyError(
                f"study {paths.name!r} is for {_where(theirs)}, not for {_where(data)}",
                hint="keep them apart with --study NAME; if the same images have moved, name the study and leave --dataset out",
            )
    else:
        dataset = load_dataset(data, decoding)
        settings = StudySettings(
            space=PRESETS_SPACE,
            overrides=Overrides(),
            parameters={},
            budget=load_preset(preset_names()[0]).budget,
            data=data,
            data_fingerprint=dataset.fingerprint,
            shape=dataset.shape,
            seed=0,
            environment=Environment.now(),
        )
        paths.folder.mkdir(parents=True, exist_ok=True)
        write_whole(paths.settings, settings.to_json().encode())
    return paths


def _where(data: DataConfig) -> str:
    return f"{data.dataset} in {data.folder}" if data.folder else data.dataset
