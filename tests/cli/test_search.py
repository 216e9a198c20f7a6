"""`nas search` on a study that is there: what it means cannot change, what it is worth can grow."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nas.config import DataConfig, default_crop_padding
from nas.data.datasets import load_dataset
from nas.errors import ConfigError
from nas.paths import StudyPaths, studies_folder
from nas.space.space import UniformDraw
from nas.specs import SearchSpec
from nas.study.request import default_name, resolve
from nas.study.settings import read_settings
from tests.conftest import TINY_SPACE, Done, Nas

FINISHED = "2 networks trained in study tiny: 2 completed."


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for label in "ab":
        for i in range(20):
            path = folder / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), i).save(path)
    return folder


def differences(done: Done) -> list[str]:
    lines = done.err.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("Error:"))
    assert lines[first] == "Error: study 'tiny' was started with other settings, so its trials would not be comparable:"
    assert lines[-1] == "Next:  resume it with `nas search --study tiny`, or use another name with --study NAME"
    assert done.code == 1
    return [line.strip() for line in lines[first + 1 : -1]]


def test_finished_study_says_so_and_how_to_go_on(nas: Nas, study: StudyPaths) -> None:
    done = nas("search", "--study", "tiny", "--trials", "2")
    assert done.code == 0
    assert FINISHED in done.out
    assert "candidates" in done.out
    assert "Best of the search: trial" in done.out
    assert done.out.endswith(
        "Next:  nas retrain best --study tiny   or continue:  nas search --study tiny --trials 4\n"
        "Report:  nas report --study tiny\n"
    )
    assert "goal      2 trained networks, of which 2 are done" in done.err
    assert FINISHED in nas("search", "--study", "tiny", "--trials", "1").out
    assert (study.space.read_text(), read_settings(study).space) == (TINY_SPACE, "tiny")


def test_a_search_limited_by_compute_names_the_compute_of_what_follows(nas: Nas) -> None:
    Path("mine.yaml").write_text(TINY_SPACE.replace("params: 3k", "params: 3k, macs: 1M"))
    limits = "--trial-compute 100MFLOP --final-compute 2GFLOP --compute 150MFLOP --finalists 0"
    done = nas("search", *f"--study mine --space mine.yaml --dataset digits --train-subset 200 --device cpu {limits}".split())
    assert done.code == 0, done.err
    assert "at most 0.1 GFLOP in 2 epochs, less for smaller networks, to rank for 2 GFLOP; " in done.err
    again = "nas search --study mine --compute 0.3GFLOP --finalists 0 --device cpu --trials"
    assert f"Next:  nas retrain best --study mine --compute 2GFLOP   or continue:  {again} 100\n" in done.out


@pytest.mark.parametrize(
    "again", ["--epochs 2", "--max-params 3k", "--seed 0", "--validation 0.1", "--dataset digits", "--space same.yaml", ""]
)
def test_study_goes_on_where_nothing_that_it_means_changes(again: str, nas: Nas, study: StudyPaths) -> None:
    Path("same.yaml").write_text("# the same ranges in other words\n" + TINY_SPACE.replace("3k", "3000"))
    before = study.settings.read_text()
    assert FINISHED in nas("search", "--study", "tiny", "--trials", "2", *again.split()).out
    assert study.settings.read_text() == before


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        ("--seed 5", ["data.seed: 0 → 5", "seed: 0 → 5"]),
        ("--max-params 4k", ["budget.params: 3000 → 4000"]),
        ("--epochs 3", ["epochs: 2 → 3"]),
        ("--train-subset 500", ["data.subset: None → 500"]),
        ("--train-subset 100", ["data.subset: None → 100"]),
        ("--validation 0.2", ["data.validation: 0.1 → 0.2"]),
        ("--validation 144", ["data.validation: 0.1 → 144"]),
        ("--skip-bad-images", ["data.skip_bad_images: False → True"]),
        (
            "--group-duplicates",
            ["data.group_duplicates: False → True", "data: the images or labels differ from those of the study"],
        ),
    ],
)
def test_change_of_a_studys_meaning_is_refused_with_the_difference(
    change: str, listed: list[str], nas: Nas, study: StudyPaths
) -> None:
    before = study.settings.read_text()
    assert differences(nas("search", "--study", "tiny", *change.split())) == listed
    assert study.settings.read_text() == before


def test_another_space_is_refused_with_every_range_that_differs(nas: Nas, study: StudyPaths) -> None:
    other = (
        TINY_SPACE.replace("high: 12", "high: 10")
        .replace("[basic, preact]", "[basic]")
        .replace("crop_padding: 1", "crop_padding: 2")
    )
    Path("other.yaml").write_text(other + "  label_smoothing: 0.1\n")
    assert differences(nas("search", "--study", "tiny", "--space", "other.yaml")) == [
        "augment.crop_padding: 1 → 2",
        'block: one of "basic", "preact" → one of "basic"',
        "label_smoothing: absent → 0.1",
        "stage0.channels: int 4 to 12 → int 4 to 10",
        "stage1.channels: int 4 to 12 → int 4 to 10",
    ]


@pytest.mark.parametrize(
    ("asked", "stored", "images"),
    [
        ({}, 0.1, (1294, 144)),
        ({"train_subset": 144}, 0.1, (144, 144)),
        ({"train_subset": 60}, 60, (60, 60)),
        ({"train_subset": 60, "validation": 0.1}, 0.1, (60, 144)),
        ({"train_subset": 60, "validation": 30}, 30, (60, 30)),
        ({"validation": 0.5}, 0.5, (719, 719)),
    ],
)
def test_as_many_images_choose_as_were_asked_for_else_no_more_than_train_by_a_subset(
    asked: dict[str, Any], stored: float, images: tuple[int, int]
) -> None:
    digits = load_dataset(DataConfig(dataset="digits"))
    request = SearchSpec(space="digits", dataset="digits", **asked)
    settings, parts = resolve(request).on(digits)[2:]
    assert (settings.data.validation, settings.train_images, settings.validation_images) == (stored, *images)
    assert parts.validation is not None
    assert (len(parts.train), len(parts.validation)) == images
    before = settings.model_copy(update={"data": settings.data.model_copy(update={"validation": 0.1}), "validation_images": None})
    again = replace(resolve(request), stored=before, data=before.data, validation_asked=False)
    assert again.on(digits)[2].data == before.data, "a study that has begun keeps what it has"


def test_a_data_set_with_validation_images_of_its_own_takes_no_number_of_them() -> None:
    digits = load_dataset(DataConfig(dataset="digits"))
    own = replace(digits, validation=digits.test)
    with pytest.raises(ConfigError) as refused:
        resolve(SearchSpec(space="digits", dataset="digits", validation=50)).on(own)
    assert refused.value.message == "--validation 50: data set digits has 359 validation images of its own"
    settings = resolve(SearchSpec(space="digits", dataset="digits", train_subset=60)).on(own)[2]
    assert (settings.data.validation, settings.train_images, settings.validation_images) == (0.1, 60, 359)


def test_crop_that_a_space_leaves_open_goes_by_the_size_of_the_images(study: StudyPaths) -> None:
    Path("open.yaml").write_text(TINY_SPACE.replace("crop_padding: 1, ", ""))
    digits = load_dataset(DataConfig(dataset="digits"))
    asked = resolve(SearchSpec(space="open.yaml", dataset="digits"))
    space, _, settings, _ = asked.on(digits)
    assert space.draw(UniformDraw(0)).train.augment.crop_padding == 1
    assert settings.parameters["augment.crop_padding"] == "1"
    assert asked.stored is None
    as_before = settings.model_copy(update={"parameters": {"epochs": "2"}})
    old = replace(asked, stored=as_before).on(digits)[0]
    assert old.draw(UniformDraw(0)).train.augment.crop_padding == 4, "in a study from before that, as it was"
    assert replace(asked, stored=settings).on(digits)[2].parameters == settings.parameters


@pytest.mark.parametrize(("size", "padding"), [(8, 1), (28, 4), (32, 4), (64, 8), (224, 28), (512, 32)])
def test_crop_by_size(size: int, padding: int) -> None:
    assert default_crop_padding(size) == padding


def test_other_data_is_refused(nas: Nas, study: StudyPaths, pictures: Path) -> None:
    found = differences(nas("search", "--study", "tiny", "--dataset", "folder", "--data", str(pictures)))
    assert found == ["data.dataset: digits → folder", "data: the images or labels differ from those of the study"]


def test_study_is_named_after_its_space_and_its_data() -> None:
    Path("same.yaml").write_text(TINY_SPACE)
    assert default_name(SearchSpec(space="same.yaml", dataset="digits")) == "same-digits"
    assert default_name(SearchSpec()) == "resnet-cifar10"


def test_nothing_is_founded_by_a_mistake(nas: Nas, tmp_path: Path) -> None:
    for typed in ("--max-params 10", "--train-subset 5000", "--validation 9", "--image-size 16"):
        assert nas("search", "--space", "digits", "--dataset", "digits", *typed.split()).code == 1
    assert not studies_folder().exists()
