"""A preset is trained without any search, in a study of its own."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from nas.config import DataConfig
from nas.errors import ConfigError, DataError, NasError, StudyError
from nas.paths import StudyPaths, existing_study
from nas.predict.submission import submit
from nas.runs.context import open_presets_study
from nas.specs import RetrainSpec, SearchSpec, SubmitSpec
from nas.study.run import run_search
from tests.runs.told import Told, train_one, trained


@pytest.fixture
def paths() -> StudyPaths:
    return open_presets_study(DataConfig(dataset="digits"))


def test_its_network_predicts_like_any_other(paths: StudyPaths) -> None:
    assert existing_study(None) == open_presets_study(DataConfig(dataset="digits")) == paths
    assert paths.name == "presets-digits"
    run, card = trained(RetrainSpec(paths, "preset:resnet-2222-slim", epochs=1, train_subset=60, device="cpu"))
    assert run.folder.name == "resnet-2222-slim-1-epochs-seed-0-subset-60"
    assert card.subject == "preset:resnet-2222-slim"
    assert card.train_images == 60
    assert card.candidate.train.epochs == 1
    assert card.candidate.train.lr == 0.1
    assert card.search_accuracy is None
    assert (card.candidate.train.augment.flip, card.tta) == ("none", "none"), "a mirrored digit is another digit"
    assert card.params == 1_891_658 - 2 * 64 * 9  # one channel instead of three
    written = submit(SubmitSpec(paths, device="cpu"))
    assert written.images == card.test_images == len(written.output.read_text().splitlines()) - 1


def test_its_epochs_are_those_of_its_recipe_unless_told_otherwise(paths: StudyPaths) -> None:
    told = Told(stop_after=0)
    assert train_one(RetrainSpec(paths, "preset:robust-resnet64", train_subset=20, device="cpu"), told).suspended == 1
    assert told.planned[0][0].train.epochs == 300


def test_such_a_study_has_no_search(paths: StudyPaths) -> None:
    with pytest.raises(StudyError) as refused:
        train_one(RetrainSpec(paths, device="cpu"))
    assert refused.value.hint == "this study only has presets: nas retrain preset:NAME; nas presets shows the names"

    class Silent:
        def decoding(self, items, what, count, /):  # type: ignore[no-untyped-def]
            return items

    with pytest.raises(StudyError, match="has only retrained presets and no search"):
        run_search(SearchSpec(study=paths.name, device="cpu"), Silent())  # type: ignore[arg-type]


def test_a_table_of_labels_that_moved_alone_is_named(paths: StudyPaths, tmp_path: Path) -> None:
    pictures, table = tmp_path / "pictures", tmp_path / "labels.csv"
    pictures.mkdir()
    names = [f"{number:02d}.png" for number in range(24)]
    for number, name in enumerate(names):
        Image.new("L", (8, 8), 10 * number).save(pictures / name)
    table.write_text("image,label\n" + "".join(f"{name},{number % 2}\n" for number, name in enumerate(names)))
    data = DataConfig(dataset="folder", folder=str(pictures), labels=str(table))
    labelled = open_presets_study(data, "labelled")
    moved = tmp_path / "elsewhere.csv"
    table.rename(moved)
    request = RetrainSpec(labelled, "preset:resnet-1111", epochs=1, device="cpu")
    with pytest.raises(DataError, match="there is no file of labels"):
        train_one(request)
    _, card = trained(replace(request, labels=str(moved)))
    assert (card.classes, card.data) == (("0", "1"), data), "the card has what the study says"

    moved.write_text(moved.read_text().replace("00.png,0", "00.png,1"))
    with pytest.raises(DataError, match="are not those of the search") as refused:
        train_one(replace(request, labels=str(moved), seed=1))
    assert "its table with --labels FILE" in refused.value.hint
    with pytest.raises(ConfigError, match="has no table of labels"):
        train_one(RetrainSpec(paths, "preset:resnet-1111", labels=str(moved), device="cpu"))


def test_another_data_set_needs_a_study_of_its_own(paths: StudyPaths, tmp_path: Path) -> None:
    with pytest.raises(NasError, match="'data/images' is not a data set"):
        open_presets_study(DataConfig(dataset="data/images"))
    with pytest.raises(StudyError, match="is for digits, not for folder in") as caught:
        open_presets_study(DataConfig(dataset="folder", folder=str(tmp_path)), paths.name)
    assert "--study NAME" in caught.value.hint
    assert open_presets_study(DataConfig(dataset="digits"), "apart").name == "apart"
