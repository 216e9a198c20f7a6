"""Predictions of a retrained network: of a test set, as the CSV that is handed in, and of single images."""

import hashlib
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nas.config import DataConfig
from nas.data.cache import Progress as DecodingProgress
from nas.data.cache import silent
from nas.data.datasets import has_test_split, load_dataset
from nas.data.decoding import IMAGE_SUFFIXES, decode, decoding_failure, image_files
from nas.data.formats import find_shards
from nas.data.loader import Resident
from nas.data.stream import pick_storage
from nas.data.unlabelled import TestSet, read_test_set
from nas.device import FULL_PRECISION, pick_device, with_its_threads
from nas.errors import ConfigError, DataError
from nas.files import sha256_of, write_whole
from nas.paths import StudyPaths, TrialPaths
from nas.predict.table import arranged, find_form, labels_for, verify, write_rows
from nas.runs.card import ModelCard
from nas.runs.ledger import Note, SubmissionEntry, append_submission, require_as_recorded, try_to_record
from nas.runs.load import load_network
from nas.runs.select import find_run
from nas.specs import PredictSpec, SubmitSpec
from nas.study.settings import Environment, read_settings
from nas.train.evaluate import predict_logits, reestimate_norm, require_tta


@dataclass(frozen=True)
class Adapted:
    """What statistics of the test set have changed."""

    changed: int  # predictions
    confidence_before: float  # mean of the highest probability
    confidence_after: float


@dataclass(frozen=True)
class Submission:
    output: Path
    run: str
    test: str  # what was predicted, in words
    tta: str
    images: int
    per_class: dict[str, int]
    card: ModelCard
    adapted: Adapted | None = None


@with_its_threads
def submit(request: SubmitSpec, progress: DecodingProgress = silent, note: Note = lambda text: None) -> Submission:
    """Predicts the test set and writes the CSV: a class for each image, by default its index from 0, in the test set's order.

    It is recorded beside the run and in the study's ledger. Raises NasError.
    """
    paths = request.paths
    form = find_form(request.like, request.id_column, request.label_column)
    run = find_run(paths, request.run, note)
    model, card = load_network(run)
    require_as_recorded(paths, run, card, note)
    tta = request.tta or card.tta
    require_tta(tta)
    test, described = find_test_set(request, card, form.id_column, progress)
    if test.others:
        note(test.others)
    if (brightest := int(test.images.max())) < min(card.mean):
        note(
            f"Warning: all pixels of {test.name} are at most {brightest}, but the mean of the training images is "
            f"{min(card.mean):.0f}. Pixels must be from 0 to 255."
        )
    order = arranged(test.ids, form)
    ids = [test.ids[i] for i in order] if form.order is None else list(form.order)
    names = labels_for(form, card.classes, request.names)
    output = request.output or (paths.folder if paths else Path()) / f"submission-{Path(test.name).stem}.csv"
    if request.probabilities is not None and request.probabilities.resolve() == output.resolve():
        raise ConfigError(
            f"the submission and --probabilities would both be written to {output}", hint="name another file with --probabilities"
        )
    data = _placed(test.images, model, card, request.device)
    logits = predict_logits(model, data, FULL_PRECISION, tta, progress=progress)
    adapted = None
    if request.adapt_norm:
        reestimate_norm(model, data, FULL_PRECISION, progress=progress)
        before, logits = logits, predict_logits(model, data, FULL_PRECISION, tta, progress=progress)
        adapted = _compared(before, logits)
    predicted = logits.argmax(1).cpu().numpy()
    if request.probabilities is not None:
        shares = torch.softmax(logits, 1).cpu().numpy()[order]
        rows = [(name, *(f"{share:.6f}" for share in row)) for name, row in zip(ids, shares, strict=True)]
        write_rows(request.probabilities, (form.id_column, *card.classes), rows, option="--probabilities")
    rows = [(name, names[label]) for name, label in zip(ids, predicted[order], strict=True)]
    write_rows(output, (form.id_column, form.label_column), rows, delimiter=form.delimiter)
    verify(output, form, ids, names)
    if request.test is not None and paths is not None:
        _remember(paths, request.test, note)
    environment = Environment.now()
    entry = SubmissionEntry(
        id=uuid.uuid4().hex,
        run=run.folder.name,
        output=_within(output, paths),
        test=described,
        test_sha256=hashlib.sha256(np.ascontiguousarray(test.images).data).hexdigest(),
        images=len(ids),
        tta=tta,
        adapted=request.adapt_norm,
        commit=environment.git,
        created=environment.created,
        weights_sha256=card.hashes.weights if card.hashes else sha256_of(run.weights),
        csv_sha256=sha256_of(output),
    )
    _record(paths, run, entry, note)
    counts = np.bincount(predicted, minlength=len(card.classes))
    return Submission(
        output=output,
        run=run.folder.name,
        test=described,
        tta=tta,
        images=len(ids),
        per_class=dict(zip(card.classes, counts.tolist(), strict=True)),
        card=card,
        adapted=adapted,
    )


def _placed(images: np.ndarray, model: nn.Module, card: ModelCard, name: str) -> Resident:
    """uint8 (N, H, W, C) on the device of this name, to which the network is moved, too."""
    device = pick_device(name)
    model.to(device)
    return pick_storage(images.nbytes, device)(images, card.mean, card.std, device)


def _compared(before: Tensor, after: Tensor) -> Adapted:
    """Of logits (N, classes)."""
    confidences = [float(torch.softmax(logits, 1).max(1).values.mean()) for logits in (before, after)]
    return Adapted(int((before.argmax(1) != after.argmax(1)).sum()), *confidences)


def _within(output: Path, paths: StudyPaths | None) -> str:
    """As `SubmissionEntry.output` is written."""
    whole = output.resolve()
    folder = None if paths is None else paths.folder.resolve()
    return str(whole.relative_to(folder)) if folder is not None and whole.is_relative_to(folder) else str(whole)


def _record(paths: StudyPaths | None, run: TrialPaths, entry: SubmissionEntry, note: Note) -> None:
    try:
        append_submission(run, entry)
    except OSError as error:
        note(f"the submission could not be recorded in the run's folder {run.folder}: {error.strerror}")
    if paths is not None:
        try_to_record(paths, entry, note)


def find_test_set(request: SubmitSpec, card: ModelCard, id_column: str, progress: DecodingProgress) -> tuple[TestSet, str]:
    """The test set that was named; else the one named for this study before, else the single `*_nolabel.pkl` in the data folder,
    else the data set's own test images. With it, which of these it is, in words."""
    if request.test is not None:
        return read_test_set(request.test, card.shape, card.data, id_column), str(request.test)
    paths = request.paths
    if paths is not None and (remembered := _remembered(paths)).is_file():
        path = Path(os.fsdecode(remembered.read_bytes()).strip())
        if not path.exists():
            raise DataError(f"{path}, the last test set of this study, is gone", hint="name a test set: nas submit TEST")
        return read_test_set(path, card.shape, card.data, id_column), f"{path}, the last test set of this study"
    data = card.data if paths is None else read_settings(paths).data  # whose folder may have moved since
    if found := unlabelled_in(data):
        return read_test_set(found, card.shape, card.data), f"{found}, the only *_nolabel.pkl in the data folder"
    dataset = load_dataset(data, progress)
    if dataset.test is None:
        raise DataError(
            f"data set {dataset.name} has no test images, and no test set was named before",
            hint="name them: nas submit TEST, a pickle, a .npy or .npz file, or a folder of images",
        )
    images = np.ascontiguousarray(dataset.test.images)
    return TestSet(f"{dataset.name}-test", images, [str(i) for i in range(len(images))]), f"the test split of {dataset.name}"


def knows_test_set(paths: StudyPaths, card: ModelCard) -> bool:
    """Whether `submit` finds one for a study of this data set without being told which."""
    if _remembered(paths).is_file() or has_test_split(card.data.dataset) or card.test_images is not None:
        return True
    with suppress(DataError):  # several: one has to be named
        return unlabelled_in(read_settings(paths).data) is not None
    return False


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


def _remembered(paths: StudyPaths) -> Path:
    return paths.folder / "test-set.txt"


def _remember(paths: StudyPaths, test: Path, note: Note) -> None:
    try:
        write_whole(_remembered(paths), os.fsencode(f"{test.absolute()}\n"))
    except OSError as error:
        note(f"the test set could not be stored for study {paths.name!r}, in {_remembered(paths)}: {error.strerror}")


# ------------------------------------------------------------------------------------------------------ single images


@dataclass(frozen=True)
class Guess:
    image: Path
    classes: tuple[tuple[str, float], ...]  # the most probable ones with their probabilities, the most probable first


@with_its_threads
def predict_images(request: PredictSpec, progress: DecodingProgress = silent, note: Note = lambda text: None) -> list[Guess]:
    """Each brought to the network's size as in training. Raises NasError."""
    if request.top < 1:
        raise ConfigError(f"--top must be at least 1, but is {request.top}")
    model, card = load_network(find_run(request.paths, request.run, note))
    sets = {path: read_test_set(path, card.shape, card.data) for path in request.images if path.is_file() and find_shards(path)}
    files = [file for named in request.images if named not in sets for file in _images_of(named)]
    read = [_read(path, card)[None] for path in progress(files, "reading images", len(files))]
    paths = [*files, *(Path(name) for test in sets.values() for name in test.ids)]
    images = np.concatenate([*read, *(test.images for test in sets.values())])
    data = _placed(images, model, card, request.device)
    logits = predict_logits(model, data, FULL_PRECISION, card.tta, progress=progress)
    found = torch.softmax(logits, 1).topk(min(request.top, len(card.classes)))
    guesses = [
        Guess(path, tuple((card.classes[i], share) for share, i in zip(shares, which, strict=True)))
        for path, shares, which in zip(paths, found.values.tolist(), found.indices.tolist(), strict=True)
    ]
    if request.output is not None:
        ranks = range(1, len(guesses[0].classes) + 1)
        header = ("image", *(f"{what} {rank}" for rank in ranks for what in ("class", "probability")))
        rows = [(guess.image, *(value for name, share in guess.classes for value in (name, f"{share:.6f}"))) for guess in guesses]
        write_rows(request.output, header, rows)
    return guesses


def _images_of(path: Path) -> list[Path]:
    """The image, or those in a folder. Raises DataError."""
    if not path.is_dir():
        return [path]
    if found := [Path(file.path) for file in image_files(str(path))]:
        return found
    raise DataError(f"{path} contains no image; image files end in {', '.join(IMAGE_SUFFIXES)}")


def _read(path: Path, card: ModelCard) -> np.ndarray:
    if not path.is_file():
        raise DataError(f"there is no file {path}", hint="name images: nas predict IMAGE…")
    try:
        return decode(path, card.shape.size, card.shape.channels, card.data.resize)
    except Exception as error:
        raise DataError(f"{path} cannot be read as an image: {decoding_failure(error)}") from None
