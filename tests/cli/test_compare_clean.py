"""`nas compare`, `nas clean`, `nas rename`, `nas remove`."""

import os
import re
import shutil
import time
from pathlib import Path

import optuna
import pytest
from PIL import Image

from nas.config import DataConfig
from nas.data.datasets import load_dataset
from nas.paths import StudyPaths, cache_folder, studies_folder
from nas.report.machine import size_of
from nas.runs.select import find_subject
from tests.conftest import Nas, unpooled


def test_networks_side_by_side_show_what_differs(nas: Nas, study: StudyPaths) -> None:
    done = nas("compare", "best", "preset:resnet-443", "--study", "tiny")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["best", "preset:resnet-443"]
    rows = {re.split("  +", line)[0]: line for line in lines[1:]}
    assert rows["parameters"].endswith("4,697,162")
    assert "93.41% (validation)" in rows["accuracy"]
    assert rows["accuracy, after"].split()[2:] == ["2", "epochs"]
    assert "momentum" not in rows, "it is the same in both"
    everything = nas("compare", "best", "preset:resnet-443", "--study", "tiny", "--all")
    assert "momentum" in everything.out


def test_studies_side_by_side(nas: Nas, study: StudyPaths) -> None:
    other = studies_folder() / "other"
    shutil.copytree(study.folder, other)
    settings = (other / "study.json").read_text()
    (other / "study.json").write_text(settings.replace('"seed":0', '"seed":7').replace('"seed": 0', '"seed": 7'))
    found = nas("compare", "tiny", "other", "--json").json
    assert found["tiny"]["best"] == found["other"]["best"] == f"{find_subject(study, 'best').accuracy:.2%}"
    assert found["tiny"]["best, after"] == "2 epochs"
    done = nas("compare", "tiny", "other")
    assert done.out.splitlines()[1].split() == ["seed", "0", "7"]


def test_trial_of_another_study_is_named_with_it(nas: Nas, study: StudyPaths) -> None:
    done = nas("compare", "tiny/best", "tiny/best")
    assert (done.code, done.out.splitlines()[-1]) == (0, "No differences.")


def test_a_study_is_renamed_and_removed(nas: Nas, study: StudyPaths) -> None:
    assert nas("rename", "tiny", "small").out == f"Renamed study tiny to small: {studies_folder() / 'small'}\n"
    assert nas("best").out.startswith("Study small, best: ")
    shown = nas("remove", "small")
    assert shown.out.startswith("Study small: ")
    assert shown.out.endswith("Next:  nas remove small --yes\n")
    assert nas("runs").code == 0, "it was only shown"
    what = re.sub(r"[\d.]+ kB", "0 kB", shown.out.splitlines()[0])  # the database grows by what it is asked
    assert re.sub(r"[\d.]+ kB", "0 kB", nas("remove", "small", "--yes").out) == f"Removed {what[0].lower()}{what[1:]}\n"
    assert not list(studies_folder().glob("*/study.json"))
    assert nas("remove", "small").err.startswith("Error: there is no study 'small' under ")


def test_checkpoints_of_ended_trainings_are_freed_and_results_stay(nas: Nas, study: StudyPaths) -> None:
    checkpoints = list(study.trials.glob("*/checkpoint.pt"))
    assert checkpoints, "the best keep theirs"
    room = size_of(checkpoints)
    shown = nas("clean")
    assert "Next:  nas clean --yes   frees " in shown.out
    assert all(file.exists() for file in checkpoints), "it is only shown"
    done = nas("clean", "--yes", "--json").json
    assert done["freed"] == room
    assert not any(file.exists() for file in checkpoints)
    assert find_subject(study, "best").accuracy is not None
    assert nas("submit", "--study", "tiny", "--device", "cpu").code == 0
    assert "Nothing to delete." in nas("clean").out


def test_a_file_that_cannot_be_deleted_is_named(nas: Nas, study: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = sorted(study.trials.glob("*/checkpoint.pt"))
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path != first and path.name == "checkpoint.pt":
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as kept:
        kept.setattr(Path, "unlink", refuse)
        done = nas("clean", "--yes")
    assert (done.code, first.exists()) == (1, False)
    assert " cannot be removed: Permission denied\nNext:  check its owner and permissions, then run the command again" in done.err
    assert "other files may already be deleted" in done.err
    assert nas("clean", "--yes").code == 0
    assert not any(file.exists() for file in others)


def test_checkpoint_to_go_on_from_is_kept(nas: Nas, study: StudyPaths) -> None:
    writable = optuna.load_study(study_name="tiny", storage=unpooled(study.database))
    number = writable.ask().number
    study.trial(number).folder.mkdir(parents=True)
    study.trial(number).checkpoint.write_bytes(b"half a training")
    retraining = study.retrained / "half" / "checkpoint.pt"
    retraining.parent.mkdir(parents=True)
    retraining.write_bytes(b"half a retraining")
    shown = nas("clean").out.splitlines()
    assert any("checkpoints of trainings that are unfinished  (needed to resume, kept)" in line for line in shown)
    assert nas("clean", "--yes").code == 0
    assert study.trial(number).checkpoint.exists()
    assert [file.parent.name for file in study.trials.glob("*/checkpoint.pt")] == [f"{number:04d}"]


def test_study_that_cannot_be_read_loses_nothing(nas: Nas, study: StudyPaths) -> None:
    study.database.write_bytes(b"no database" * 100)
    before = list(study.trials.glob("*/checkpoint.pt"))
    assert nas("clean", "--yes").code == 0
    assert list(study.trials.glob("*/checkpoint.pt")) == before


def test_cache_is_freed_when_asked_for(nas: Nas, study: StudyPaths) -> None:
    entry, begun, fresh = (cache_folder() / name for name in ("digits-1", ".digits-old", ".digits-new"))
    for folder in (entry, begun, fresh):
        folder.mkdir(parents=True)
        (folder / "train.npy").write_bytes(b"x" * 1000)
    (entry / "meta.json").write_text("{}")
    old = time.time() - 2 * 24 * 3600
    os.utime(begun, (old, old))
    nas("clean", "--yes")
    assert entry.exists()
    assert not begun.exists()
    assert fresh.exists(), "somebody may be writing it"
    nas("clean", "--yes", "--cache")
    assert not entry.exists()


def test_decoded_images_of_a_folder_that_changed_are_needed_by_no_result(nas: Nas, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for label in "ab":
        for i in range(2):
            (pictures / label).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), i).save(pictures / label / f"{i}.png")
    config = DataConfig(dataset="folder", folder=str(pictures))
    load_dataset(config)
    (before,) = cache_folder().iterdir()
    Image.new("L", (8, 8), 9).save(pictures / "a" / "2.png")
    load_dataset(config)
    assert len(list(cache_folder().iterdir())) == 2
    assert nas("clean", "--yes").code == 0
    (after,) = cache_folder().iterdir()
    assert after != before
    pictures.rename(tmp_path / "not mounted now")
    assert nas("clean", "--yes").code == 0
    assert after.exists()


def test_nothing_yet(nas: Nas) -> None:
    assert nas("clean").out == "There are no files yet.\n"
