"""`nas search` on images as people have them: labels from a table, groups, classes of few images, other metrics, digits."""

import csv
import json
from pathlib import Path

import numpy as np
import optuna
import pytest
from PIL import Image

from nas.config import DataConfig
from nas.data.datasets import load_dataset
from nas.data.splits import DataSelection, select_data, split
from nas.paths import study_paths
from nas.runs.card import read_card
from nas.runs.select import finished_runs
from nas.space.space_file import load_space
from nas.specs import SearchSpec
from nas.study.request import default_name, resolve_overrides
from nas.study.settings import read_settings
from tests.conftest import TINY_SPACE, Nas, unpooled

SEARCH = ("search", "--space", "tiny.yaml", "--trials", "2", "--finalists", "0", "--device", "cpu", "--study", "mine")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """480 images of 12×12, of patients of 10 each, a tenth of another class, which is brighter, and a twentieth of a third."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(480):
        kind = "rare" if i % 20 == 7 else "some" if i % 10 == 3 else "common"
        level = {"rare": 220, "some": 120, "common": 20}[kind]
        Image.fromarray((level + rng.integers(0, 30, (12, 12))).astype(np.uint8)).save(folder / f"{i:03d}.png")
        rows.append((f"{i:03d}", kind, f"patient {i // 10}"))
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "patient"), *rows])
    (tmp_path / "tiny.yaml").write_text(TINY_SPACE)
    return folder


def test_a_table_of_labels_is_searched_by_macro_f1_retrained_reported_and_submitted(nas: Nas, labelled: Path) -> None:
    options = ["--data", str(labelled), "--labels", "labels.csv", "--group-column", "patient"]
    done = nas(*SEARCH, *options, "--metric", "macro_f1", "--class-balance", "loss", "--resize", "pad", "--size", "16")
    assert done.code == 0, done.err
    assert "none of the 48 groups is split" in done.err
    assert "with the labels in " in done.err
    assert "tpe, for macro F1 under the budget" in done.err
    assert "Warning: the classes are imbalanced: 'common' has 408 images, 17 times as many as 'rare', which has 24\n" in done.err
    paths = study_paths("mine")
    settings = read_settings(paths)
    data = load_dataset(settings.data)
    parts = split(data, settings.data)
    assert parts.validation is not None
    assert not set(data.train.groups[parts.train]) & set(data.train.groups[parts.validation])
    assert set(data.train.labels[parts.validation]) == {0, 1, 2}
    assert data.shape.size == 16
    for row in nas("list", "--study", "mine", "--json").json["trials"]:
        lines = (paths.trial(row["number"]).metrics).read_text().splitlines()
        assert row["accuracy"] == json.loads(lines[-1])["ema_val_macro_f1"]
    assert nas("list", "--json").json[0]["metric"] == "macro_f1"
    assert "macro F1" in nas("list").out
    assert "macro F1" in nas("best").out
    again = nas(*SEARCH)
    assert again.code == 0, again.err
    assert "of which 2 are done" in again.err
    retrained = nas("retrain", "top:2", "--epochs", "1", "--hold-out", "0.2", "--device", "cpu")
    assert retrained.code == 0, retrained.err
    assert "(by macro F1)" in retrained.out
    assert "Next:  nas submit TEST --study " in retrained.out, "there are no test images"
    cards = [read_card(run) for run in finished_runs(paths)]
    scores = [card.held_out.clean for card in cards if card.held_out]
    assert scores == [card.held_out.score for card in cards if card.held_out]
    assert f"On the held-out images: macro F1 {max(scores):.2%}; under that shift " in retrained.out
    assert {(card.metric, card.candidate.train.class_balance) for card in cards} == {("macro_f1", "loss")}
    held_out = select_data(data, settings.data, DataSelection(hold_out=0.2)).hold_out
    assert not set(data.train.groups[held_out]) & set(np.delete(data.train.groups, held_out))
    counted = [card.held_out.effective_images for card in cards if card.held_out and card.held_out.effective_images]
    assert len(counted) == len(cards)
    assert all(1 <= images <= len(held_out) for images in counted)
    alike = "Images of one patient are similar: for the interval they count as "
    assert any(f"{alike}{images:,.0f} images." in retrained.out for images in counted), retrained.out
    listed = nas("runs", "--json").json["runs"]
    assert sorted((row["metric"], row["held_out_score"]) for row in listed) == sorted(("macro_f1", score) for score in scores)
    assert f", macro F1 {max(scores):.2%}  " in nas("runs").out
    assert nas("report").code == 0
    page = paths.report.read_text()
    assert "macro F1 on the validation images: the best, trial " in page
    assert "validation macro F1 (%)" in page
    assert "validation accuracy (%)" not in page
    submitted = nas("submit", str(labelled), "--device", "cpu", "--output", "mine.csv")
    assert submitted.code == 0, submitted.err
    assert len(Path("mine.csv").read_text().splitlines()) == 481


def test_copies_across_the_split_are_warned_of(nas: Nas, labelled: Path) -> None:
    for i in range(0, 400, 10):
        (labelled / f"{i:03d}.png").write_bytes((labelled / "000.png").read_bytes())
    done = nas(*SEARCH, "--data", str(labelled), "--labels", "labels.csv")
    settings = read_settings(study_paths("mine"))
    parts = split(load_dataset(settings.data), settings.data)
    copied = int(np.isin(np.arange(0, 400, 10), parts.validation).sum())
    assert 0 < copied < 40
    assert (
        f"Warning: 39 of 480 training images are exact copies of others, and {copied} of 48 validation images are copies of "
        "images that train: remove the copies, or keep them together with --group-duplicates; nas doctor --data shows them\n"
    ) in done.err
    together = load_dataset(settings.data.model_copy(update={"group_duplicates": True}))
    assert together.copies() == []
    assert load_dataset(DataConfig(dataset="digits")).copies() == []


def test_classes_that_differ_in_size_are_warned_of_with_what_can_be_done(nas: Nas, labelled: Path) -> None:
    done = nas(*SEARCH, "--data", str(labelled), "--labels", "labels.csv")
    assert (
        "Warning: the classes are imbalanced: 'common' has 408 images, 17 times as many as 'rare', which has 24; --metric "
        "macro_f1 or balanced_accuracy weights them equally; --class-balance loss or sampling trains them equally\n"
    ) in done.err


@pytest.mark.parametrize(
    ("typed", "message", "hint"),
    [
        (
            "--labels labels.csv --label-column kind",
            "{here}/labels.csv has no column 'kind'. Choices: image, label, patient.",
            "name the column: --label-column NAME",
        ),
        ("--label-column kind --dataset folder", "--label-column needs a table of labels", "name the table: --labels FILE"),
        ("--labels labels.csv --resize stretch", "--resize: must be 'squash', 'crop' or 'pad' (got 'stretch')", None),
        ("--labels labels.csv --channels blue", "--channels: must be 'grey' or 'rgb' (got 'blue')", None),
        (
            "--labels labels.csv --metric f1",
            "unknown value 'f1' for --metric. Did you mean 'macro_f1'? Choices: accuracy, balanced_accuracy, macro_f1.",
            None,
        ),
        (
            "--labels labels.csv --class-balance weights",
            "unknown value 'weights' for --class-balance. Choices: none, loss, sampling.",
            None,
        ),
        (
            "--labels labels.csv --dataset digits",
            "--labels {here}/labels.csv works with --dataset folder only, not with digits",
            None,
        ),
    ],
)
def test_errors_create_no_study(typed: str, message: str, hint: str | None, nas: Nas, labelled: Path, tmp_path: Path) -> None:
    done = nas(*SEARCH, "--data", str(labelled), *typed.split())
    assert done.code == 1
    lines = done.err.splitlines()
    assert f"Error: {message.format(here=tmp_path)}" in lines
    if hint is not None:
        assert lines[-1] == f"Next:  {hint}"
    assert not study_paths("mine").folder.exists()


def test_a_class_with_one_image_and_groups_that_leave_a_class_out_are_refused(nas: Nas, labelled: Path, tmp_path: Path) -> None:
    with (tmp_path / "labels.csv").open() as file:
        rows = list(csv.reader(file))
    for count, expected in (
        (1, "class 'odd' has only one image"),
        (2, "all 2 images of class 'odd' belong to the group 'patient 0'"),
    ):
        changed = [(name, "odd" if i < count else label, group) for i, (name, label, group) in enumerate(rows[1:])]
        with (tmp_path / "odd.csv").open("w", newline="") as file:
            csv.writer(file).writerows([rows[0], *changed])
        done = nas(*SEARCH, "--data", str(labelled), "--labels", "odd.csv", "--group-column", "patient")
        assert done.code == 1
        assert expected in done.err
    assert not study_paths("mine").folder.exists()


def test_a_study_cannot_change_its_metric_or_its_groups(nas: Nas, labelled: Path) -> None:
    assert nas(*SEARCH, "--data", str(labelled), "--labels", "labels.csv").code == 0
    assert "  metric: accuracy → macro_f1" in nas(*SEARCH, "--metric", "macro_f1").err.splitlines()
    assert '  class_balance: absent → "loss"' in nas(*SEARCH, "--class-balance", "loss").err.splitlines()
    lines = nas(*SEARCH, "--group-column", "patient").err.splitlines()
    assert "  data.group_column: None → patient" in lines
    assert "  data: the images or labels differ from those of the study" in lines


def test_another_folder_under_the_name_of_a_study_is_refused_with_both_folders(nas: Nas, labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").rename(labelled / "labels.csv")
    assert nas(*SEARCH, "--data", str(labelled), "--labels", str(labelled / "labels.csv")).code == 0
    (tmp_path / "second").mkdir()
    done = nas(*SEARCH, "--data", str(tmp_path / "second"))
    assert done.err.startswith(
        f"Error: --data {tmp_path / 'second'}: its labels are expected in {tmp_path / 'second'}/labels.csv"
    )
    assert "Next:  for the same images, name their table with --labels FILE; " in done.err


def test_a_labelled_folder_is_named_after_what_it_is(labelled: Path) -> None:
    assert default_name(SearchSpec(space="tiny.yaml", labels="labels.csv")) == "tiny-folder"


@pytest.mark.parametrize("dataset", ["digits", "svhn"])
def test_digits_are_never_mirrored(dataset: str) -> None:
    space = load_space("resnet-full")
    overrides = resolve_overrides(SearchSpec(dataset=dataset), None)
    found = overrides.applied_to(space).describe()
    assert found["augment.flip"] == '"none"'
    assert found["augment.vertical_flip"] == "0.0"
    for other in ("cifar10", "cifar100", "fashion-mnist"):
        assert resolve_overrides(SearchSpec(dataset=other), None).applied_to(space) == space


def test_a_study_of_digits_from_before_keeps_what_it_began_with(nas: Nas, tmp_path: Path) -> None:
    text = TINY_SPACE.replace("flip: none", "flip: horizontal")
    (tmp_path / "tiny.yaml").write_text(text)
    assert nas(*SEARCH, "--dataset", "digits", "--epochs", "1").code == 0
    paths = study_paths("mine")
    settings = json.loads(paths.settings.read_text())
    assert settings["parameters"]["augment.flip"] == '"none"'
    assert nas(*SEARCH).code == 0
    settings["parameters"]["augment.flip"] = '"horizontal"'
    del settings["overrides"]["unmirrored"]
    paths.settings.write_text(json.dumps(settings))
    optuna.load_study(study_name="mine", storage=unpooled(paths.database)).set_user_attr("settings", settings)
    assert nas(*SEARCH).code == 0


def test_images_much_larger_than_a_space_is_meant_for_are_warned_of() -> None:
    from nas.budget import Budget
    from nas.config import ImageShape
    from nas.space.feasibility import cost_warnings

    space = load_space("resnet")
    large = ImageShape(channels=3, size=224, classes=10)
    (warning,) = cost_warnings(space, Budget(space.budget, large), space.images)
    assert warning.startswith(
        "space resnet is meant for images of 32×32, and no budget limits the MACs of larger ones: on 224×224 half of"
    )
    assert warning.endswith("49 times as many; try --space resnet-224, or a budget with macs")
    assert cost_warnings(space, Budget(space.budget, space.images), space.images) == []
    digits = load_space("digits")
    (warning,) = cost_warnings(digits, Budget(digits.budget, space.images), digits.images)
    assert warning.endswith("times as many; try --space resnet, or a budget with macs")
    limited = load_space("resnet-224")
    assert cost_warnings(limited, Budget(limited.budget, large), limited.images) == []


def test_data_config_of_before_means_what_it_meant() -> None:
    old = '{"dataset": "folder", "folder": "/x", "image_size": null, "skip_bad_images": false, "validation": 0.1, "seed": 0}'
    assert DataConfig.from_json(old) == DataConfig(dataset="folder", folder="/x")
