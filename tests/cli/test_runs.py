"""`nas runs`, and what retraining and submitting leave in the ledger."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from nas.errors import StudyError
from nas.paths import StudyPaths, study_paths
from nas.runs.card import read_card
from nas.runs.ledger import read_ledger, submissions_file
from nas.runs.select import finished_runs
from tests.conftest import Nas


@pytest.fixture
def submitted(study: StudyPaths, nas: Nas, tmp_path: Path) -> StudyPaths:
    """With a submission in the study's folder and another elsewhere."""
    for options in ((), ("--output", str(tmp_path / "mine.csv"), "--adapt-norm", "--tta", "flip")):
        assert nas("submit", "--study", "tiny", "--device", "cpu", *options).code == 0
    return study


def test_runs_and_submissions_are_listed(submitted: StudyPaths, nas: Nas, tmp_path: Path) -> None:
    (run,) = finished_runs(submitted)
    card = read_card(run)
    header, row, blank, heading, first, second = nas("runs", "--study", "tiny").out.splitlines()
    columns = "run recipe seed epochs parameters images time held out test accuracy commit files"
    assert header.split() == columns.split()
    assert row.startswith(f"{run.folder.name}  searched  0     1       {card.params:,} ")
    assert f"  {card.test_accuracy:.2%} " in row
    assert row.endswith("  there  ← chosen")
    assert blank == ""
    assert heading.split()[:2] == ["submission", "run"]
    assert first.startswith("submission-digits-test.csv ")
    assert second.startswith(f"{tmp_path / 'mine.csv'} ")
    assert "  flip, adapted norm  " in second

    told = nas("runs", "--study", "tiny", "--json", "--verify").json
    assert (told["study"], told["unreadable"]) == ("tiny", [])
    (listed,) = told["runs"]
    assert listed["name"] == run.folder.name
    assert (listed["candidate"], listed["subject"]) == (card.candidate.digest, card.subject)
    assert (listed["recipe"], listed["seed"], listed["epochs"]) == ("searched", 0, 1)
    assert (listed["params"], listed["macs"], listed["train_images"]) == (card.params, card.macs, 1438)
    assert (listed["test_accuracy"], listed["seconds"]) == (card.test_accuracy, card.seconds)
    assert (listed["data_fingerprint"], listed["commit"]) == (card.data_fingerprint, card.environment.git)
    assert listed["weights_sha256"] == hashlib.sha256(run.weights.read_bytes()).hexdigest()
    assert (listed["card_sha256"], listed["evaluation_sha256"]) == (card.hashes.card, card.hashes.evaluation)
    assert (listed["recorded"], listed["files"], listed["chosen"]) == (True, "as recorded", True)
    first, second = told["submissions"]
    assert (first["run"], first["images"], first["adapted"], first["tta"]) == (run.folder.name, 359, False, "none")
    assert (second["adapted"], second["tta"], second["output"]) == (True, "flip", str(tmp_path / "mine.csv"))
    assert second["csv_sha256"] == hashlib.sha256((tmp_path / "mine.csv").read_bytes()).hexdigest()
    assert first["weights_sha256"] == second["weights_sha256"] == card.hashes.weights
    assert {one["file"] for one in told["submissions"]} == {"as recorded"}


def test_ledger_is_made_again_from_the_files(submitted: StudyPaths, nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise StudyError("the ledger cannot be written")

    before = read_ledger(submitted)
    for file in submitted.folder.glob("study.db*"):
        file.unlink()
    with monkeypatch.context() as unwritable:
        unwritable.setattr("nas.report.runs.write_entries", refuse)
        done = nas("runs", "--study", "tiny")
    assert done.out.count("there, not in the ledger") == 3
    assert done.err == f"Not in the ledger: {before.runs[0].name}. Next:  nas runs --rebuild --study tiny\n"
    done = nas("runs", "--study", "tiny")
    assert (done.err, "not in the ledger" in done.out) == ("", False), "it is added by looking at it"
    assert read_ledger(submitted) == before
    done = nas("runs", "--study", "tiny", "--rebuild")
    assert done.err == "Recreated the ledger of study tiny from the files: 1 runs and 2 submissions.\n"
    assert "not in the ledger" not in done.out
    assert read_ledger(submitted) == before
    assert "restore the database from a copy" in nas("list", "--study", "tiny").err, "the ledger is there, the trials are not"


def test_what_was_changed_is_found_and_left_out_of_a_new_ledger(submitted: StudyPaths, nas: Nas) -> None:
    (run,) = finished_runs(submitted)
    name = run.folder.name
    assert nas("runs", "--study", "tiny", "--verify").code == 0
    run.weights.write_bytes(run.weights.read_bytes()[:-1] + b"\xff")
    (submitted.folder / "submission-digits-test.csv").write_text("ID,Labels\n")
    assert nas("runs", "--study", "tiny").code == 0
    done = nas("runs", "--study", "tiny", "--verify")
    assert done.code == 1
    assert "  model.safetensors changed  ← chosen\n" in done.out
    assert done.err == (
        f"Error: files of study 'tiny' have changed: {name}, submission-digits-test.csv\n"
        'Next:  restore them from a copy; nas submit writes a CSV file again; if the change is intended, remove the key "hashes" '
        "from model.json of the run, then:  nas runs --rebuild --study tiny\n"
    )
    done = nas("runs", "--study", "tiny", "--rebuild")
    assert done.code == 0
    assert f"Warning: {name}: model.safetensors was changed after the training\n" in done.err
    assert read_ledger(submitted).runs == []
    assert len(read_ledger(submitted).submissions) == 2
    card = json.loads(run.card.read_text())
    run.card.write_text(json.dumps({key: value for key, value in card.items() if key != "hashes"}))
    assert nas("runs", "--study", "tiny", "--rebuild").code == 0
    assert nas("submit", "--study", "tiny", "--device", "cpu").code == 0
    assert nas("runs", "--study", "tiny", "--verify").code == 0, "as the hint says"


def test_runs_and_submissions_that_are_gone_stay_listed(submitted: StudyPaths, nas: Nas, tmp_path: Path) -> None:
    (run,) = finished_runs(submitted)
    assert nas("submit", "--study", "tiny", "--device", "cpu").code == 0  # over the first
    (tmp_path / "mine.csv").unlink()
    (run.folder / "evaluation.npz").unlink()
    told = nas("runs", "--study", "tiny", "--json").json
    assert [one["files"] for one in told["runs"]] == ["evaluation.npz missing"]
    assert [one["file"] for one in told["submissions"]] == ["written over", "gone", "there"]
    shutil.rmtree(run.folder)
    told = nas("runs", "--study", "tiny", "--json", "--verify").json
    assert [one["files"] for one in told["runs"]] == ["gone"]


def test_study_without_runs_says_how_to_make_one(study: StudyPaths, nas: Nas) -> None:
    shutil.rmtree(study.retrained)
    done = nas("runs", "--study", "tiny", "--rebuild")
    assert (done.code, done.out) == (0, "")
    assert done.err == (
        "Recreated the ledger of study tiny from the files: 0 runs and 0 submissions.\n"
        "No retrained network yet. Next:  nas retrain best --study tiny\n"
    )


def test_submission_is_not_lost_where_it_cannot_be_recorded(study: StudyPaths, nas: Nas) -> None:
    (run,) = finished_runs(study)
    submissions_file(run).mkdir()
    for log in study.folder.glob("study.db-*"):  # from which SQLite would restore it
        log.unlink()
    study.database.write_bytes(b"no database, but long enough to be taken for one" * 20)
    done = nas("submit", "--study", "tiny", "--device", "cpu")
    assert done.code == 0
    assert (study.folder / "submission-digits-test.csv").is_file()
    assert f"the submission could not be recorded in the run's folder {run.folder}: Is a directory\n" in done.err
    assert (
        f"the ledger in {study.database} cannot be written: file is not a database. The files are complete without it; once this "
        "is repaired,  nas runs --rebuild --study tiny   recreates the ledger from them\n"
    ) in done.err


@pytest.mark.slow
def test_training_is_not_lost_where_the_database_fails_at_its_end(nas: Nas) -> None:
    paths = study_paths("presets-digits")
    paths.folder.mkdir(parents=True)
    paths.database.mkdir()
    typed = "retrain preset:light-resnet18 --dataset digits --epochs 1 --train-subset 16 --device cpu"
    done = nas(*typed.split())
    assert done.code == 0
    assert "unable to open database file. The files are complete without it; " in done.err
    (run,) = finished_runs(paths)
    card = read_card(run)
    assert not run.checkpoint.exists()
    done = nas("runs", "--study", "presets-digits")
    assert done.code == 0
    assert done.err.startswith(f"Warning: {paths.database} cannot be read: ")
    assert done.err.endswith("; the list below is from the files\n")
    assert f"{run.folder.name}  searched " in done.out
    done = nas("runs", "--study", "presets-digits", "--rebuild")
    assert (done.code, done.out) == (1, "")
    assert "Next:  once this is repaired:  nas runs --rebuild --study presets-digits " in done.err
    paths.database.rmdir()
    assert nas("runs", "--study", "presets-digits", "--rebuild").code == 0
    (entry,) = read_ledger(paths).runs
    assert (entry.subject, entry.weights_sha256) == ("preset:light-resnet18", card.hashes.weights)
    # The database that the ledger has made serves those who look for trials.
    for command in ("list", "clean"):
        assert nas(command).code == 0
    assert nas("list", "--study", "presets-digits").out.endswith(f"retrained  {run.folder.name}  ← chosen\n")
    assert nas("export", "preset:light-resnet18", "--study", "presets-digits").code == 0
