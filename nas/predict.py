"""From a retrained network and a test set to the CSV that is handed in."""

import csv
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.config import DataConfig
from nas.data.cache import Progress as DecodingProgress
from nas.data.cache import silent
from nas.data.datasets import load_dataset
from nas.data.stream import pick_storage
from nas.data.unlabelled import TestSet, read_test_set
from nas.errors import ConfigError, DataError, choices_sentence
from nas.paths import StudyPaths
from nas.retrain import ModelCard, find_run, load_network
from nas.search.settings import read_settings
from nas.train.device import pick_device, pick_precision
from nas.train.evaluate import TTA, predict_logits

HEADER = ("ID", "Labels")


@dataclass(frozen=True)
class SubmitRequest:
    paths: StudyPaths
    test: Path | None = None
    run: str | None = None
    """Of `retrained/`; None takes the latest."""
    output: Path | None = None
    tta: str | None = None
    """One of `TTA`; None takes what fits the network's training."""
    device: str = "auto"


@dataclass(frozen=True)
class Submission:
    output: Path
    run: str
    test: str
    """What was predicted, in words."""
    tta: str
    images: int
    per_class: dict[str, int]
    card: ModelCard


def submit(request: SubmitRequest, decoding: DecodingProgress = silent) -> Submission:
    """Predicts the test set and writes the CSV `ID,Labels`, a class index from 0 for each image in the test set's order.

    Raises NasError.
    """
    paths = request.paths
    run = find_run(paths, request.run)
    model, card = load_network(run)
    tta = request.tta or card.tta
    if tta not in TTA:
        raise ConfigError(f"{tta!r} is no test-time augmentation.{choices_sentence(tta, TTA)}")
    test, described = find_test_set(request, card, decoding)
    device = pick_device(request.device)
    data = pick_storage(test.images.nbytes, device)(test.images, None, card.mean, card.std, device)
    logits = predict_logits(model.to(device), data, pick_precision(device), tta, progress=decoding)
    labels = logits.argmax(1).cpu().numpy()
    output = request.output or paths.folder / f"submission-{Path(test.name).stem}.csv"
    write_csv(output, test.ids, labels)
    if request.test is not None:
        _remembered(paths).write_text(str(request.test.absolute()) + "\n")
    counts = np.bincount(labels, minlength=len(card.classes))
    return Submission(
        output=output,
        run=run.folder.name,
        test=described,
        tta=tta,
        images=len(labels),
        per_class=dict(zip(card.classes, counts.tolist(), strict=True)),
        card=card,
    )


def find_test_set(request: SubmitRequest, card: ModelCard, decoding: DecodingProgress) -> tuple[TestSet, str]:
    """The test set that was named; else the one named for this study before, else the single `*_nolabel.pkl` in the data folder,
    else the data set's own test images. With it, which of these it is, in words."""
    if request.test is not None:
        return read_test_set(request.test, card.shape), str(request.test)
    remembered = _remembered(request.paths)
    if remembered.is_file():
        path = Path(remembered.read_text().strip())
        if not path.exists():
            raise DataError(f"{path}, the test set given to this study before, is gone", hint="name it: nas submit TEST")
        return read_test_set(path, card.shape), f"{path}, as given to this study before"
    data = read_settings(request.paths).data
    if found := unlabelled_in(data):
        return read_test_set(found, card.shape), f"{found}, the only *_nolabel.pkl in the data folder"
    dataset = load_dataset(data, decoding)
    if dataset.test is None:
        raise DataError(
            f"data set {dataset.name} has no test images, and none were named before",
            hint="name them: nas submit TEST, a pickle, a .npy or .npz file, or a folder of images",
        )
    images = np.ascontiguousarray(dataset.test.images)
    return TestSet(f"{dataset.name}-test", images, [str(i) for i in range(len(images))]), f"the test split of {dataset.name}"


def unlabelled_in(data: DataConfig) -> Path | None:
    """The single `*_nolabel.pkl` in the data folder; `digits` has none unless one was named."""
    if data.folder is None and data.dataset == "digits":
        return None
    folder = Path(data.folder or "data")
    found = sorted(folder.glob("*_nolabel.pkl"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{folder} holds {len(found)} unlabelled test sets: {names}", hint=f"name one: nas submit {found[0]}")
    return found[0] if found else None


def write_csv(path: Path, ids: list[str], labels: np.ndarray) -> None:
    """Whole or not at all."""
    if path.is_dir():
        raise DataError(f"{path} cannot be written: it is a folder", hint="name a file in it with --output")
    unfinished = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows(zip(ids, labels.tolist(), strict=True))
        os.replace(unfinished, path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise DataError(f"{path} cannot be written: {error.strerror}", hint="name another file with --output") from None


def _remembered(paths: StudyPaths) -> Path:
    return paths.folder / "test-set.txt"
