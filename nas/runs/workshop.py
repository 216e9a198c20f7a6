"""What every training of a command shares: the study, its images, which of them train, and where that is computed."""

from dataclasses import dataclass

import numpy as np
import torch

from nas.config import DataConfig
from nas.data.cache import Progress as DecodingProgress
from nas.data.cache import silent
from nas.data.datasets import load_dataset
from nas.data.images import Dataset, ImageSet, JoinedSet
from nas.data.loader import Resident
from nas.data.splits import SelectedData, select_data
from nas.data.stream import place
from nas.data.tables import moved
from nas.errors import ConfigError, DataError
from nas.paths import StudyPaths
from nas.runs.places import Places, pick_places
from nas.runs.request import RetrainRequest
from nas.study.settings import StudySettings, git_state, read_settings
from nas.train.device import Precision, pick_precision, tune_process


@dataclass(frozen=True)
class Workshop:
    paths: StudyPaths
    settings: StudySettings
    data: DataConfig
    """Where the images lie now."""
    dataset: Dataset
    chosen: SelectedData
    places: Places
    precision: Precision
    compiled: bool
    """By torch.compile, where one process trains."""

    @property
    def device(self) -> torch.device:
        return self.places.device

    @property
    def held_out(self) -> int:
        """Images that judge instead of training."""
        return 0 if self.chosen.hold_out is None else len(self.chosen.hold_out)

    @property
    def test_images(self) -> int:
        """Of the official test set."""
        return 0 if self.dataset.test is None else len(self.dataset.test)

    def place(self, images: ImageSet | JoinedSet, indices: np.ndarray | None = None) -> Resident:
        return place(images, self.dataset.mean, self.dataset.std, self.device, indices)


def open_workshop(request: RetrainRequest, decoding: DecodingProgress = silent) -> Workshop:
    """Raises NasError."""
    settings = read_settings(request.paths)
    git_state()  # of the code that is imported now, whatever becomes of the checkout until a card states it
    data = _where_it_lies(settings.data, request)
    places = pick_places(request.device, request.gpus, request.compiled)
    tune_process(places.device)
    dataset = study_data(settings, data, decoding)
    return Workshop(
        paths=request.paths,
        settings=settings,
        data=data,
        dataset=dataset,
        chosen=select_data(dataset, settings.data, request.selection),
        places=places,
        precision=pick_precision(places.device),
        compiled=places.device.type == "cuda" if request.compiled is None else request.compiled,
    )


def _where_it_lies(data: DataConfig, request: RetrainRequest) -> DataConfig:
    if request.labels is not None and data.labels is None:
        raise ConfigError(
            f"--labels {request.labels}: study {request.paths.name!r} takes its labels from no table",
            hint="leave it out; nas search --labels FILE begins a study that does",
        )
    return moved(data, request.data_folder, request.labels)


def study_data(settings: StudySettings, data: DataConfig, decoding: DecodingProgress) -> Dataset:
    """The study's data set, from where `data` says that it lies. Raises DataError where it is not the one that was searched
    with."""
    dataset = load_dataset(data, decoding)
    if dataset.fingerprint != settings.data_fingerprint:
        table = "" if data.labels is None else ", and its table with --labels FILE"
        raise DataError(
            f"the images or labels of {data.folder or data.dataset} are not those that the study was searched with",
            hint=f"name the folder that holds them with --data FOLDER{table}, or search anew under another name",
        )
    return dataset
