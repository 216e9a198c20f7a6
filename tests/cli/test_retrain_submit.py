import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.paths import StudyPaths, studies_folder
from nas.report.words import flop_text
from nas.runs.card import read_card
from nas.runs.select import find_run, find_subject, finished_runs
from nas.runs.statistics import accuracy_interval
from tests.conftest import Nas


def test_retraining_says_what_it_does_and_what_comes_next(nas: Nas, study: StudyPaths) -> None:
    done = nas("retrain", "best", "--study", "tiny", "--epochs", "1", "--seed", "7", "--device", "cpu")
    run = finished_runs(study)[-1]
    card = read_card(run)
    assert done.code == 0
    assert f"study tiny, {find_subject(study, 'best').title}: " in done.err
    assert "training 1 epoch with recipe 'searched' on 1,438 images" in done.err
    assert "epoch    1/1  loss" in done.err
    assert f"Trained on 1,438 images in {card.seconds:.0f} s, {flop_text(card.flop)}: {run.folder}\n" in done.out
    low, high = accuracy_interval(card.test_accuracy or 0.0, 359)
    assert (
        f"Official test set, evaluated once: {card.test_accuracy:.2%} ({100 * low:.1f}–{100 * high:.1f}) of 359; under a "
        in done.out
    )
    assert f"simulated shift {card.test_shifted_accuracy:.2%}\n" in done.out
    assert done.out.endswith(f"Next:  nas submit --study tiny --run {run.folder.name}\n")


def test_retraining_twice_reports_the_existing_run(nas: Nas, study: StudyPaths) -> None:
    (run,) = finished_runs(study)
    before = run.weights.stat().st_mtime_ns
    done = nas("retrain", "--study", "tiny", "--epochs", "1")
    assert done.code == 0
    assert finished_runs(study) == [run]
    assert run.weights.stat().st_mtime_ns == before
    assert f"{run.folder} was already trained. To train another network, use another --seed, --epochs or --recipe.\n" in done.err
    assert done.out.startswith("Trained on 1,438 images in ")


def test_several_networks_by_several_seeds_end_in_a_table(nas: Nas, study: StudyPaths) -> None:
    typed = "retrain top:2 --study tiny --seeds 2 --epochs 1 --train-subset 100 --recipe fast --device cpu --workers 1"
    done = nas(*typed.split())
    assert done.code == 0
    assert "study tiny: 4 trainings\n" in done.err
    head, *rows = done.out.splitlines()
    assert re.split("  +", head) == ["network", "parameters", "seeds", "held out", "held out, shifted", "in the search"]
    assert rows[0].endswith("← best")
    assert rows[2] == "(mean ± standard deviation over the seeds)"
    for row in rows[:2]:
        assert len(re.findall(r"\d+\.\d\d% ± \d+\.\d\d", row)) == 2
    assert "Expected accuracy, from 144 held-out images: " in done.out
    assert "(It is the best of 4 trainings on these images, " in done.out
    (best,) = re.findall("--run (.*)", done.out)
    card = read_card(find_run(study, best))
    assert (card.recipe, card.candidate.train.batch_size, card.tta) == ("fast", 2000, "none")
    again = nas(*typed.split(), "--json")
    said = json.loads(again.out)
    assert said["best"].endswith(best)
    assert len(said["runs"]) == 4
    assert said["expected"]["clean"]["measured"] == card.held_out.accuracy
    assert f"{said['expected']['clean']['value']:.2%} (" in done.out
    assert nas("submit", "--study", "tiny", "--run", best, "--device", "cpu").code == 0


def test_network_that_was_chosen_is_the_one_that_is_used(nas: Nas, study: StudyPaths, tmp_path: Path) -> None:
    shared = "--study tiny --epochs 1 --train-subset 60 --device cpu -q"
    (best,) = re.findall("--run (.*)", nas(*f"retrain 0 1 --seeds 2 --workers 1 {shared}".split()).out)
    later = nas(*f"retrain 0 --seed 7 {shared}".split())
    newest = finished_runs(study)[-1].folder.name
    assert newest.endswith("-seed-7-subset-60")
    assert f"Without --run, nas submit uses another run, {best}: chosen on " in later.out

    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "image.png")
    for typed in (
        "submit -q --device cpu",
        "submit --run chosen --device cpu",
        "predict image.png --device cpu",
        "export",
        "report",
    ):
        done = nas(*typed.split(), "--study", "tiny", *(["--output", "exported"] if typed == "export" else []))
        assert done.code == 0
        option = "nas export " if typed == "export" else "--run "
        assert f"Network {best}: chosen on " in done.err
        assert "among 4 runs of 2 networks, by the accuracy on held-out images\n" in done.err
        assert f"Warning: {newest} was trained later and not used: {option}{newest} uses it\n" in done.err
        if typed.startswith(("submit", "export")):
            assert f"network {best}" in done.out
    assert f"The retrained network {best}" in study.report.read_text()
    listed = nas("runs", "--study", "tiny", "--json").json["runs"]
    assert [run["name"] for run in listed if run["chosen"]] == [best]
    (marked,) = [line for line in nas("runs", "--study", "tiny").out.splitlines() if line.endswith("← chosen")]
    assert marked.startswith(best)
    assert f"retrained  {best}  ← chosen\n" in nas("list", "--study", "tiny").out
    done = nas("submit", "--study", "tiny", "--run", newest, "--device", "cpu")
    assert (f"network {newest}" in done.out, "Warning" in done.err) == (True, False)


def test_retraining_on_the_test_labels_claims_nothing(nas: Nas, study: StudyPaths) -> None:
    done = nas("retrain", "--study", "tiny", "--epochs", "1", "--include-test-labels", "--device", "cpu")
    assert done.code == 0
    assert "It was trained on the official test labels, too, so there is no test accuracy.\n" in done.out
    assert "Official test set" not in done.out
    first, run = finished_runs(study)
    assert run.folder.name == f"{first.folder.name}-with-test-labels"
    card = read_card(run)
    assert (card.includes_test_labels, card.train_images) == (True, 1797)
    assert (card.test_images, card.test_accuracy, card.test_accuracy_tta) == (None, None, None)


def test_preset_is_retrained_without_any_search(nas: Nas) -> None:
    typed = "retrain preset:light-resnet18 --dataset digits --epochs 1 --train-subset 16 --device cpu"
    done = nas(*typed.split())
    assert done.code == 0
    assert "study presets-digits, preset:light-resnet18: 2.81M parameters" in done.err
    assert re.search(r"Official test set, evaluated once: .* of 359; under a simulated shift ", done.out), (
        "digits are not mirrored"
    )
    assert done.out.endswith("Next:  nas submit --study presets-digits --run light-resnet18-1-epochs-seed-0-subset-16\n")
    assert nas("submit", "--device", "cpu").out.startswith("Study presets-digits, network light-resnet18-1-epochs")
    search = nas("search", "--study", "presets-digits")
    assert search.code == 1
    assert "Error: study 'presets-digits' has only retrained presets and no search" in search.err


def test_prediction_says_what_was_predicted_and_where_it_is(nas: Nas, study: StudyPaths) -> None:
    done = nas("submit", "--study", "tiny", "--device", "cpu")
    (run,) = finished_runs(study)
    first, second, third = done.out.splitlines()
    assert done.code == 0
    assert first == f"Study tiny, network {run.folder.name}, test set the test split of digits, test-time augmentation none"
    assert re.fullmatch(r"Predicted  0: \d+, 1: \d+.*, 9: \d+", second)
    assert third == f"Wrote {study.folder / 'submission-digits-test.csv'} (359 rows)"
    assert (study.folder / "submission-digits-test.csv").is_file()


def test_prediction_is_told_as_json(nas: Nas, study: StudyPaths, tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", np.zeros((6, 8, 8, 1), np.uint8))
    done = nas("submit", "few.npy", "--study", "tiny", "--output", "out.csv", "--tta", "flip", "--json", "--device", "cpu")
    told = json.loads(done.out)
    assert told["per_class"].keys() == set("0123456789")
    assert sum(told["per_class"].values()) == told["images"] == 6
    assert (told["output"], told["test"], told["tta"]) == ("out.csv", "few.npy", "flip")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 7
    assert nas("submit", "--device", "cpu").out.startswith("Study tiny, "), "that used last"


@pytest.mark.parametrize("command", ["retrain", "submit", "show", "check"])
def test_where_there_is_no_study_the_next_step_makes_one(command: str, nas: Nas) -> None:
    done = nas(command)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"Error: no study is named, and none was used here before. There is none under {studies_folder()}.\n"
        "Next:  nas search --space digits --dataset digits\n"
    )
