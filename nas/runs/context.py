"""What the trainings of a command share: the study, its images and those of them that train, the devices, and locks on the
folders."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
import torch

from nas.config import DataConfig
from nas.data.cache import Progress, silent
from nas.data.datasets import load_dataset, require_known
from nas.data.formats.tables import moved
from nas.data.images import Dataset, ImageSet, JoinedSet
from nas.data.loader import Resident
from nas.data.splits import SelectedData, select_data
from nas.data.stream import place
from nas.device import Precision, pick_precision, tune_process
from nas.errors import ConfigError, DataError, StudyError
from nas.files import write_whole
from nas.jobs.placement import DeviceGroup, Placement, device_group, devices_of
from nas.paths import StudyPaths, shipped_names, study_paths
from nas.space.space_file import load_preset
from nas.specs import RetrainSpec
from nas.study.settings import PRESETS_SPACE, REORDERED, Environment, Overrides, StudySettings, git_state, read_settings


@dataclass(frozen=True)
class TrainingContext:
    spec: RetrainSpec  # Of several trainings the first
    settings: StudySettings
    data: DataConfig  # Where the images lie now
    dataset: Dataset
    selected: SelectedData  # The images that the spec selects
    devices: DeviceGroup
    precision: Precision
    compiled: bool  # Whether networks are compiled for training
    progress: Progress  # Shows how far a pass over images is

    @property
    def device(self) -> torch.device:
        return self.devices.device

    @property
    def held_out(self) -> int:
        """Number of held-out images."""
        return 0 if self.selected.hold_out is None else len(self.selected.hold_out)

    @property
    def test_images(self) -> int:
        """Number of images of the official test set."""
        return 0 if self.dataset.test is None else len(self.dataset.test)

    def place(self, images: ImageSet | JoinedSet, indices: np.ndarray | None = None) -> Resident:
        return place(images, self.dataset.mean, self.dataset.std, self.device, indices)


def open_context(spec: RetrainSpec, where: DeviceGroup | Placement, decoding: Progress = silent) -> TrainingContext:
    """`where`: the devices that train one network together, or those that train several, each one network. Raises NasError."""
    devices = where if isinstance(where, DeviceGroup) else device_group(devices_of(where)[0], None)
    settings = read_settings(spec.paths)
    git_state()  # of the code that is imported now, even if the checkout changes before a card records it
    data = settings.data
    if spec.labels is not None and data.labels is None:
        raise ConfigError(
            f"--labels {spec.labels}: study {spec.paths.name!r} has no table of labels",
            hint="leave it out; nas search --labels FILE starts a study with one",
        )
    data = moved(data, spec.data_folder, spec.labels)
    tune_process(devices.device)
    dataset = study_data(settings, data, decoding)
    compiled = devices.device.type == "cuda" if spec.compiled is None else spec.compiled
    return TrainingContext(
        spec=spec,
        settings=settings,
        data=data,
        dataset=dataset,
        selected=select_data(dataset, settings.data, spec.selection),
        devices=devices,
        precision=pick_precision(devices.device),
        compiled=compiled and devices.processes == 1,
        progress=decoding,
    )


def chooses_threads(threads: int | None, device: str, processes: int) -> bool:
    """Whether a long training chooses its number of CPU threads by timing. `threads`: as requested."""
    return threads is None and device == "cpu" and processes == 1


def study_data(settings: StudySettings, data: DataConfig, decoding: Progress) -> Dataset:
    """The study's data set, read from the place in `data`. Raises DataError if it is not the data set of the search."""
    dataset = load_dataset(data, decoding)
    if dataset.fingerprint != settings.data_fingerprint:
        table = "" if data.labels is None else ", and its table with --labels FILE"
        raise DataError(
            f"the images or labels of {data.folder or data.dataset} are not those of the search",
            hint=f"give their folder with --data FOLDER{table}, or start a new study under another name",
        )
    if settings.data_order not in (None, dataset.order):
        raise DataError(REORDERED, hint="give the files their former names, or start a new study under another name")
    return dataset


def open_presets_study(data: DataConfig, name: str | None = None, decoding: Progress = silent) -> StudyPaths:
    """A study without trials, by default `presets-<data set>`, for presets that belong to no search.

    Raises StudyError if a study of that name has another data set.
    """
    require_known(data.dataset)
    paths = study_paths(name or f"{PRESETS_SPACE}-{data.dataset}")
    if paths.settings.is_file():
        theirs = read_settings(paths).data
        if theirs.dataset != data.dataset or (data.folder and theirs.folder != data.folder):
            raise StudyError(
                f"study {paths.name!r} is for {_where(theirs)}, not for {_where(data)}",
                hint="use another study with --study NAME; if the same images have moved, name the study and leave out --dataset",
            )
    else:
        dataset = load_dataset(data, decoding)
        settings = StudySettings(
            space=PRESETS_SPACE,
            overrides=Overrides(),
            parameters={},
            budget=load_preset(shipped_names("preset")[0]).budget,
            data=data,
            data_fingerprint=dataset.fingerprint,
            data_order=dataset.order,
            shape=dataset.shape,
            seed=0,
            environment=Environment.now(),
        )
        paths.folder.mkdir(parents=True, exist_ok=True)
        write_whole(paths.settings, settings.to_json().encode())
    return paths


def _where(data: DataConfig) -> str:
    return f"{data.dataset} in {data.folder}" if data.folder else data.dataset


OTHER_RUN = "wait for it, or train another network: --seed N, --epochs N, --recipe NAME"


@contextmanager
def locked(folders: Iterable[Path], what: str = "run", command: str = "nas retrain", hint: str = OTHER_RUN) -> Iterator[None]:
    """Creates the folders if necessary and locks them for this process. `what` is in them, `command` trains it, and `hint` says
    what to do while another process has the lock.

    Raises StudyError if another process has it, or if a folder cannot be written.
    """
    with ExitStack() as locks:
        for folder in folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                locks.enter_context(filelock.FileLock(folder / f"{what}.lock", timeout=0))
            except filelock.Timeout:
                raise StudyError(f"{what} {folder.name!r} is being trained by another {command}", hint=hint) from None
            except OSError as error:
                raise StudyError(
                    f"the {what}'s folder {folder.absolute()} cannot be written: {error.strerror}",
                    hint="free some space, or use another folder: NAS_STUDIES=FOLDER",
                ) from None
        yield
