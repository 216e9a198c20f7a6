"""From a finished study to the CSV: one tiny study is searched for all these tests, each of which works on its own copy."""

import csv
import json
import pickle
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nas.budget import count_params
from nas.config import DataConfig
from nas.data.datasets import load_dataset
from nas.data.images import Dataset, JoinedSet
from nas.data.loader import Resident
from nas.data.splits import labelled_images
from nas.device import FULL_PRECISION, Precision
from nas.errors import DataError, StudyError
from nas.models import build_model
from nas.paths import StudyPaths, TrialPaths
from nas.predict import submission
from nas.predict.submission import find_test_set, submit, unlabelled_in
from nas.runs import evaluation
from nas.runs.card import ModelCard, read_card
from nas.runs.load import load_network
from nas.runs.select import EPOCH_FACTOR, find_run, find_subject, finished_runs
from nas.specs import RetrainSpec, SubmitSpec
from nas.study.settings import REORDERED
from nas.train.evaluate import evaluate, predict_logits
from nas.train.loop import FitResult
from tests.runs.told import Told, refusal, train_one, trained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DataConfig(dataset="digits"))


def train(paths: StudyPaths, told: Told | None = None, **spec: object) -> tuple[TrialPaths, ModelCard]:
    return trained(replace(RetrainSpec(paths, epochs=1, device="cpu"), **spec), told)  # type: ignore[arg-type]


def save(path: Path, images: np.ndarray, ids: list[str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({b"data": np.array(images), b"ids": ids}))
    return path


def rows(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_best_network_of_a_study_in_which_none_has_finished_is_refused(study: StudyPaths) -> None:
    for file in study.folder.glob("study.db*"):
        file.unlink()
    assert "is not in" in refusal(lambda: train(study)).message, "its trials' folders are there"
    shutil.rmtree(study.trials)
    error = refusal(lambda: train(study))
    assert error.message == "study 'tiny' has no completed trial yet"
    assert error.hint == "nas search --study tiny   continues; nas list --study tiny   shows the trials"
    shutil.rmtree(study.retrained)
    error = refusal(lambda: submit(SubmitSpec(study)))
    assert error.message == "study 'tiny' has no retrained network yet"
    assert error.hint == "nas retrain best --study tiny   creates one"


def test_best_network_is_the_trained_one_of_highest_validation_accuracy(study: StudyPaths) -> None:
    best = find_subject(study, "best")
    trained = [int(folder.name) for folder in (study.folder / "trials").iterdir()]
    others = [find_subject(study, str(number)) for number in trained]
    assert best.accuracy is not None
    assert best.accuracy == max(other.accuracy for other in others if other.accuracy is not None)
    assert best.title in {other.title for other in others}
    assert best.default_epochs == EPOCH_FACTOR * 2


@pytest.mark.parametrize("which", ["9999", "bets", "-1"])
def test_trial_that_did_not_train_is_refused_with_those_that_did(which: str, study: StudyPaths) -> None:
    error = refusal(lambda: train(study, which=which))
    assert error.message.startswith(f"{which!r} is not a trained trial of study 'tiny'.")
    trained = sorted(int(folder.name) for folder in (study.folder / "trials").iterdir())
    assert error.message.endswith(f"Choices: best, {', '.join(map(str, trained))}, preset:NAME.")
    assert error.hint == "nas list --study tiny   shows the trials"


def test_preset_is_trained_as_long_as_its_report_says(study: StudyPaths) -> None:
    subject = find_subject(study, "preset:light-resnet18")
    assert (subject.title, subject.slug, subject.default_epochs) == ("preset:light-resnet18", "light-resnet18", 300)
    assert "'preset:x'" not in refusal(lambda: find_subject(study, "preset:light-resnet19")).message
    assert "Did you mean 'light-resnet18'?" in refusal(lambda: find_subject(study, "preset:light-resnet19")).message


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"epochs": 0}, "--epochs must be at least 1 and at most 100,000, but is 0"),
        ({"seed": 1, "train_subset": 9}, "--train-subset must be between 10 and 1438, but is 9"),
        ({"seed": 1, "train_subset": 1439}, "--train-subset must be between 10 and 1438, but is 1439"),
    ],
)
def test_what_cannot_be_trained_is_refused(asked: dict[str, int], message: str, study: StudyPaths) -> None:
    assert refusal(lambda: train(study, **asked)).message == message


def test_data_that_is_not_what_was_searched_with_is_refused(study: StudyPaths) -> None:
    settings = json.loads(study.settings.read_text())
    study.settings.write_text(json.dumps(settings | {"data_fingerprint": "0" * 16}))
    error = refusal(lambda: train(study, seed=1))
    assert isinstance(error, DataError)
    assert error.message == "the images or labels of digits are not those of the search"
    assert error.hint == "give their folder with --data FOLDER, or start a new study under another name"
    study.settings.write_text(json.dumps(settings | {"data_order": "0" * 16}))
    error = refusal(lambda: train(study, seed=1))
    assert error.message == REORDERED
    assert error.hint == "give the files their former names, or start a new study under another name"


def test_everything_labelled_trains_but_the_official_test_set_only_where_asked(digits: Dataset) -> None:
    assert len(labelled_images(digits, include_test=False)) == 1438
    with_test = labelled_images(digits, include_test=True)
    assert len(with_test) == 1797
    assert isinstance(with_test, JoinedSet)
    assert with_test.arrays[1] is digits.test.images
    np.testing.assert_array_equal(with_test.labels[1438:], digits.test.labels)
    error = refusal(lambda: labelled_images(replace(digits, test=None), include_test=True))
    assert error.message == "--include-test-labels: data set digits has no labelled test images"


def test_card_says_what_was_trained_how_and_on_what(study: StudyPaths, digits: Dataset) -> None:
    (run,) = finished_runs(study)
    card = read_card(run)
    subject = find_subject(study, "best")
    assert run.folder.name == f"{subject.slug}-1-epochs-seed-0"
    assert (card.study, card.subject) == ("tiny", subject.title)
    assert card.candidate.arch == subject.candidate.arch
    assert card.candidate.train == subject.candidate.train.model_copy(update={"epochs": 1})
    assert card.params == count_params(card.candidate.arch, card.shape)
    assert (card.mean, card.std, card.classes) == (digits.mean, digits.std, digits.classes)
    assert (card.train_images, card.test_images, card.includes_test_labels) == (1438, 359, False)
    assert card.search_accuracy == subject.accuracy
    assert card.data_fingerprint == digits.fingerprint
    assert card.environment.packages["torch"] == version("torch")
    assert not run.checkpoint.exists()
    assert len(run.metrics.read_text().splitlines()) == 1


def test_card_and_weights_rebuild_the_network_with_the_score_that_was_claimed(study: StudyPaths, digits: Dataset) -> None:
    (run,) = finished_runs(study)
    card = ModelCard.from_json((run.folder / "model.json").read_text())
    model = build_model(card.candidate.arch, card.shape)
    model.load_state_dict(load_file(run.folder / "model.safetensors"))
    assert digits.test is not None
    data = Resident(digits.test, card.mean, card.std, CPU)
    assert evaluate(model, data, FULL_PRECISION)[1] == card.test_accuracy
    loaded, again = load_network(run)
    assert again == card
    images = data.normalise(data.take(torch.arange(50))[0])
    assert not loaded.training
    assert torch.equal(loaded(images), model.eval()(images))


def test_what_is_judged_and_handed_in_is_computed_in_float32(
    study: StudyPaths, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Precision] = []

    def watched(model: nn.Module, data: Resident, precision: Precision, *more: Any, **named: Any) -> torch.Tensor:
        seen.append(precision)
        return predict_logits(model, data, precision, *more, **named)

    for module in (evaluation, submission):
        monkeypatch.setattr(module, "predict_logits", watched)
    assert digits.test is not None
    train(study, seed=1)
    submit(SubmitSpec(study, test=save(tmp_path / "test.pkl", digits.test.images[:20]), device="cpu", adapt_norm=True))
    assert len(seen) >= 3
    assert set(seen) == {FULL_PRECISION}
    assert FULL_PRECISION.autocast is None


def test_training_that_was_cut_off_goes_on_to_the_very_same_network(study: StudyPaths) -> None:
    before = finished_runs(study)
    run, _ = train(study, epochs=3)
    expected = load_file(run.folder / "model.safetensors")
    shutil.rmtree(run.folder)
    told = Told(stop_after=1)
    assert train_one(RetrainSpec(study, epochs=3, device="cpu"), told).suspended == 1
    assert finished_runs(study) == before
    assert run.checkpoint.is_file()
    train(study, again := Told(), epochs=3)
    assert f"{run.folder.name} resumes" in again.notes[0]
    assert len({*told.epochs, *again.epochs}) == 3
    found = load_file(run.folder / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.usefixtures("trained_here")
def test_training_that_diverges_is_refused_and_leaves_no_network(study: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.jobs.worker.fit", lambda model, *rest, **keywords: FitResult("diverged", [], model))
    error = refusal(lambda: train(study, seed=1))
    assert isinstance(error, StudyError)
    assert error.message.startswith("the loss became infinite or NaN in epoch 1, at a peak learning rate of ")
    assert error.hint == "retrain another trial (nas list shows them), or try another --seed"
    assert len(finished_runs(study)) == 1


def test_unknown_network_is_refused_with_those_there_are(study: StudyPaths) -> None:
    (run,) = finished_runs(study)
    error = refusal(lambda: find_run(study, "trial"))
    assert error.message.startswith("'trial' is not a retrained network of study 'tiny'.")
    assert error.message.endswith(f"Choices: {run.folder.name}.")
    assert find_run(study, run.folder.name) == find_run(study, None) == run


def test_latest_network_predicts_unless_another_is_named(study: StudyPaths) -> None:
    (first,) = finished_runs(study)
    second, _ = train(study, seed=1)
    assert finished_runs(study) == [first, second]
    assert submit(SubmitSpec(study, device="cpu")).run == second.folder.name
    assert submit(SubmitSpec(study, run=first.folder.name, device="cpu")).run == first.folder.name


def test_csv_has_a_row_for_each_image_in_the_order_of_the_test_set(study: StudyPaths, digits: Dataset, tmp_path: Path) -> None:
    ids = [f"image-{i}" for i in range(358, -1, -1)]
    file = save(tmp_path / "hand in.pkl", digits.test.images, ids)
    done = submit(SubmitSpec(study, test=file, device="cpu"))
    header, *body = rows(done.output)
    assert done.output == study.folder / "submission-hand in.csv"
    assert header == ["ID", "Labels"]
    assert [row[0] for row in body] == ids
    labels = np.array([int(row[1]) for row in body])
    # The same network on the same images: the claimed accuracy is the CSV's.
    assert np.mean(labels == digits.test.labels) == pytest.approx(done.card.test_accuracy)
    assert done.images == 359
    assert list(done.per_class.values()) == np.bincount(labels, minlength=10).tolist()
    assert done.output.read_bytes().startswith(b"ID,Labels\nimage-358,")
    assert b"\r" not in done.output.read_bytes()


def test_images_are_normalised_as_in_training(study: StudyPaths, digits: Dataset) -> None:
    model, card = load_network(finished_runs(study)[0])
    images = torch.from_numpy(digits.test.images.copy()).permute(0, 3, 1, 2).float()
    logits = model((images - card.mean[0]) / card.std[0])
    done = submit(SubmitSpec(study, device="cpu"))
    predicted = [int(label) for _, label in rows(done.output)[1:]]
    assert np.mean(np.array(predicted) == logits.argmax(1).numpy()) > 0.99  # the CPU may compute in bf16


def test_test_set_that_is_named_is_taken_and_remembered(study: StudyPaths, digits: Dataset, tmp_path: Path) -> None:
    file = save(tmp_path / "few.pkl", digits.train.images[:5])
    named = submit(SubmitSpec(study, test=file, device="cpu"))
    assert (named.images, named.test) == (5, str(file))
    again = submit(SubmitSpec(study, device="cpu"))
    assert (again.images, again.test) == (5, f"{file}, the last test set of this study")
    file.unlink()  # another set must not be predicted in its stead
    error = refusal(lambda: submit(SubmitSpec(study, device="cpu")))
    assert error.message == f"{file}, the last test set of this study, is gone"
    assert "nas submit TEST" in error.hint


def with_data_folder(paths: StudyPaths, folder: Path) -> None:
    settings = json.loads(paths.settings.read_text())
    settings["data"]["folder"] = str(folder)
    paths.settings.write_text(json.dumps(settings))


def test_test_sets_are_looked_for_in_their_order(study: StudyPaths, digits: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with_data_folder(study, folder)
    card = read_card(finished_runs(study)[0])

    def found() -> tuple[int, str]:
        images, words = find_test_set(SubmitSpec(study), card, "image_id", lambda items, what, count: items)
        return len(images.ids), words

    assert found() == (359, "the test split of digits")
    only = save(folder / "cifar_test_nolabel.pkl", digits.train.images[:3])
    assert found() == (3, f"{only}, the only *_nolabel.pkl in the data folder")
    another = save(folder / "another_nolabel.pkl", digits.train.images[:3])
    error = refusal(found)
    assert error.message == f"{folder} holds 2 unlabelled test sets: another_nolabel.pkl, cifar_test_nolabel.pkl"
    assert error.hint == f"name one: nas submit {another}"
    other = save(tmp_path / "other.pkl", digits.train.images[:4])
    submit(SubmitSpec(study, test=other, device="cpu"))
    assert found() == (4, f"{other}, the last test set of this study")


def test_digits_without_a_folder_do_not_look_into_other_data(digits: Dataset, tmp_path: Path) -> None:
    file = save(tmp_path / "data" / "cifar_test_nolabel.pkl", digits.train.images[:3])
    assert unlabelled_in(DataConfig(dataset="digits")) is None
    found = unlabelled_in(DataConfig(dataset="cifar10"))
    assert found.resolve() == file


def test_data_set_without_test_images_asks_for_them(study: StudyPaths, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.predict.submission.load_dataset", lambda config, decoding: replace(digits, test=None))
    error = refusal(lambda: submit(SubmitSpec(study, device="cpu")))
    assert error.message == "data set digits has no test images, and no test set was named before"
    assert error.hint == "name them: nas submit TEST, a pickle, a .npy or .npz file, or a folder of images"


def test_images_of_another_size_are_refused_and_not_remembered(study: StudyPaths, tmp_path: Path) -> None:
    file = save(tmp_path / "large.pkl", np.zeros((3, 32, 32, 3), np.uint8))
    error = refusal(lambda: submit(SubmitSpec(study, test=file, device="cpu")))
    assert error.message == (
        f"{file}: the array must have the shape (N, 8, 8, 1), 8×8 images with 1 channels, but has the shape (3, 32, 32, 3)"
    )
    done = submit(SubmitSpec(study, device="cpu"))
    assert (done.test, done.tta) == ("the test split of digits", "none"), "the network never saw a flip"
    assert submit(SubmitSpec(study, tta="flip", device="cpu")).tta == "flip"


def test_csv_goes_where_it_is_asked_to_and_replaces_what_is_there(study: StudyPaths, digits: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "new" / "mine.csv"
    for count in (9, 4):
        file = save(tmp_path / "few.pkl", digits.train.images[:count])
        assert submit(SubmitSpec(study, test=file, output=output, device="cpu")).output == output
        assert len(rows(output)) == count + 1
    assert [path.name for path in output.parent.iterdir()] == ["mine.csv"]


@pytest.mark.parametrize(
    ("asked", "message", "hint"),
    [
        ({"output": Path()}, ". cannot be written: it is a folder", "choose a file in it with --output"),
        ({"output": Path("..")}, ".. cannot be written: it is a folder", "choose a file in it with --output"),
        ({"output": Path("file/x.csv")}, "file/x.csv cannot be written: ", "choose another file with --output"),
        (
            {"tta": "flips"},
            "'flips' is not a test-time augmentation. Did you mean 'flip'? Choices: none, flip, flip_shift.",
            None,
        ),
    ],
)
def test_what_cannot_be_submitted_is_refused(asked: dict[str, Any], message: str, hint: str | None, study: StudyPaths) -> None:
    Path("file").touch()
    error = refusal(lambda: submit(SubmitSpec(study, device="cpu", **asked)))
    assert error.message.startswith(message)
    assert hint is None or error.hint == hint
