"""`nas list`, `show`, `presets`, `doctor`: words for people, JSON on standard output for programs."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from contextlib import closing
from pathlib import Path
from typing import Any

import filelock
import optuna
import pytest

from nas.budget import count_params, peak_memory
from nas.budget.closed_form import closed_form_macs, closed_form_params
from nas.config import Candidate, ImageShape
from nas.paths import StudyPaths, studies_folder
from nas.runs.select import find_subject, finished_runs
from nas.space.space_file import load_preset, load_space
from tests.conftest import TINY_SPACE, Done, Nas, unpooled

UNLIMITED = {"flash": None, "ram": None, "latency": None, "uncounted": "refuse"}


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file() and "study.db-" not in file.name}


@pytest.mark.parametrize("log", [True, False], ids=["its log can be read", "its log cannot be made"])
def test_study_that_may_not_be_written_is_read_and_left_as_it_is(
    nas: Nas, study: StudyPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: bool
) -> None:
    connect, before = sqlite3.connect, contents(study.folder)

    def connect_to_read(file: Any, **options: Any) -> sqlite3.Connection:
        if str(study.database) not in str(file):
            return connect(file, **options)
        assert str(file).endswith("?mode=ro")
        if not log:
            raise sqlite3.OperationalError("unable to open database file")
        return connect(file, **options)

    monkeypatch.setattr(sqlite3, "connect", connect_to_read)
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK and study.folder in (path, *Path(path).parents)))
    commands = (["list"], ["list", "--study", "tiny"], ["best"], ["show", "best"], ["check", "best"], ["runs"], ["report"])
    done = [nas(*command) for command in commands]
    assert [one.code for one in done] == [0] * 7, [one.err for one in done]
    assert "2 trained, best " in done[0].out
    assert f"The study's folder {study.folder} is read-only: the page is in the working folder" in done[-1].err
    assert (tmp_path / "tiny-report.html").is_file()
    assert contents(study.folder) == before


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becomes another user")
def test_another_user_reads_a_study_and_is_told_what_may_not_be_read(study: StudyPaths) -> None:
    as_other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c"]
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder, "studies")
        env = {**os.environ, "NAS_STUDIES": str(there), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        shutil.copytree(study.folder.parent, there)
        with closing(sqlite3.connect(there / "tiny" / "study.db")) as writer:
            writer.execute("PRAGMA journal_mode=WAL")
            writer.execute("UPDATE studies SET study_name = study_name")
            writer.commit()  # stands in the log alone

            def run(*arguments: str) -> Done:
                script = f"import os, sys; os.chdir({folder!r}); sys.argv = {['nas', *arguments]!r}\n"
                script += "from nas.cli.main import main; main()"
                done = subprocess.run([*as_other, script], capture_output=True, text=True, env=env)
                return Done(done.returncode, done.stdout, done.stderr)

            Path(folder).chmod(0o755)
            if subprocess.run([*as_other, "import nas.study.storage"], capture_output=True, env=env).returncode:
                pytest.skip("another user may not read this installation")
            assert "2 trained, best " in run("list").out
            for file in (there / "tiny").glob("study.db-*"):
                file.chmod(0o600)
            done = run("list")
            assert "study.db-" in done.err
            assert "cannot be read: Permission denied" in done.err
            (there / "tiny").chmod(0o700)
            done = run("best", "--study", "tiny")
            assert done.code == 1
            assert done.err.startswith(f"Error: {there / 'tiny' / 'study.json'}: Permission denied\nNext:  ask its owner")


def test_name_too_long_for_the_file_system_is_called_that(nas: Nas, study: StudyPaths) -> None:
    for command in (
        ["best", "--study", "x" * 300],
        ["search", "--study", "x" * 300],
        ["predict", "x" * 300 + ".png"],
        ["submit", "x" * 300],
    ):
        done = nas(*command)
        assert done.code == 1, done.err
        assert "ame too long" in done.err, command


def test_studies_are_listed_with_their_best(nas: Nas, study: StudyPaths) -> None:
    done = nas("list")
    best = find_subject(study, "best")
    assert done.code == 0
    assert done.out.startswith("tiny ")
    assert f"2 trained, best {best.accuracy:.2%} with " in done.out
    assert f"({best.title}); 1 retrained" in done.out
    (listed,) = nas("list", "--json").json
    assert (listed["study"], listed["trained"], listed["counts"]["trained"]) == ("tiny", 2, 2)
    assert (listed["best"]["accuracy"], listed["best"]["outcome"]) == (best.accuracy, "trained")


def test_state_of_a_study_is_told_from_what_is_left_and_from_who_leads_it(
    nas: Nas, study: StudyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed() -> tuple[str, str, bool]:
        told = nas("list", "--json").json[0]
        first, second = nas("list").out.splitlines()
        return first[25:37].strip(), second.strip(), told["searching"]

    assert listed()[0::2] == ("not running", False)
    optuna.load_study(study_name="tiny", storage=unpooled(study.database)).ask()
    state, counts, searching = listed()
    assert (state, searching) == ("interrupted", False)
    assert counts.endswith("1 not ended")
    with filelock.FileLock(study.lock):
        assert listed()[0::2] == ("searching", True)


def test_where_there_is_no_study_the_next_step_makes_one(nas: Nas) -> None:
    done = nas("list")
    assert (done.code, done.out) == (0, "")
    assert done.err == (f"No study in {studies_folder()} yet. Next:  nas search --space digits --dataset digits\n")
    assert nas("list", "--json").json == []


def test_study_that_cannot_be_read_does_not_hide_the_others(nas: Nas, study: StudyPaths) -> None:
    broken = studies_folder() / "broken"
    broken.mkdir()
    (broken / "study.json").write_text("{")
    done = nas("list")
    assert done.out.startswith("tiny ")
    assert done.err.startswith(f"Cannot read broken: {broken / 'study.json'}: invalid JSON: ")
    (broken / "study.db").write_bytes(b"no database, but long enough to be taken for one" * 20)
    assert "cannot be opened as a study's database" in nas("list").err


def test_trials_of_a_study_are_listed(nas: Nas, study: StudyPaths) -> None:
    done = nas("list", "--study", "tiny")
    *trials, counts, retrained = done.out.splitlines()
    assert all(line.startswith("trial ") for line in trials)
    assert sum("completed " in line for line in trials) == 2
    assert sum(line.endswith("← best") for line in trials) == 1
    assert counts.startswith("2 networks trained: 2 completed")
    assert retrained == f"retrained  {finished_runs(study)[0].folder.name}  ← chosen"
    report = nas("list", "--study", "tiny", "--json").json
    assert report["name"] == "tiny"
    assert report["settings"]["budget"] == {"params": 3000, "macs": None, "memory": None, **UNLIMITED}
    assert sum(report["counts"].values()) == len(report["trials"])
    trained = [trial for trial in report["trials"] if trial["outcome"] == "trained"]
    assert [trial["epochs"] for trial in trained] == [2, 2]
    assert all(trial["params"] <= 3000 for trial in trained)
    assert all(trial["params"] > 3000 for trial in report["trials"] if trial["outcome"] == "over_budget")
    assert report["retrained"] == [finished_runs(study)[0].folder.name]


def test_best_network_is_shown_layer_by_layer(nas: Nas, study: StudyPaths) -> None:
    done = nas("show", "best", "--study", "tiny")
    subject, shape = find_subject(study, "best"), ImageShape(channels=1, size=8, classes=10)
    memory = peak_memory(subject.candidate.arch, shape)
    assert done.code == 0
    assert done.out.startswith(f"Study tiny, {subject.title}, validation accuracy {subject.accuracy:.2%} in the search\n")
    assert "stages.1.0.shortcut.0" in done.out
    assert "on images of 1×8×8" in done.out
    assert f"{memory:,} bytes of float32 activations for one image" in done.out
    assert " ms by " not in done.out
    assert "recipe" in done.out
    assert "flip none" in done.out
    shown = nas("show", subject.title.removeprefix("trial "), "--study", "tiny", "--json").json
    assert (shown["study"], shown["network"], shown["validation_accuracy"]) == ("tiny", subject.title, subject.accuracy)
    assert Candidate.model_validate(shown["candidate"]) == subject.candidate
    assert (shown["params"], shown["memory"]) == (count_params(subject.candidate.arch, shape), memory)
    assert sum(layer["params"] for layer in shown["layers"]) == shown["params"]
    assert shown["layers"][-1]["output"] == [10]
    assert "latency_ms" not in shown


def test_preset_is_shown_without_a_study_and_for_a_studys_images(nas: Nas, study: StudyPaths) -> None:
    alone = nas("show", "preset:resnet-2222-slim", "--json").json
    assert (alone["study"], alone["params"]) == (None, 1_891_658)
    here = nas("show", "preset:resnet-2222-slim", "--study", "tiny", "--json").json
    assert here["images"] == {"channels": 1, "size": 8, "classes": 10}
    assert here["params"] < alone["params"]


def test_space_is_shown_with_how_much_of_it_fits(nas: Nas) -> None:
    done = nas("show", "digits", "--draws", "60")
    assert done.code == 0
    assert done.out.startswith("Space digits: 60,000 parameters\n")
    assert "  stage0.channels      int 8 to 32 log\n" in done.out
    assert "Of 60 uniform draws, on images of 8×8, " in done.out
    shown = nas("show", "digits", "--draws", "30", "--json").json
    space = load_space("digits")
    assert (shown["fingerprint"], shown["parameters"]) == (space.fingerprint, space.describe())
    assert shown["budget"] == {"params": 60_000, "macs": None, "memory": None, **UNLIMITED}
    assert shown["fit"]["draws"] == sum(shown["fit"]["draws_by_block"].values()) == 30
    text = "version: 1\nbudget: {params: 5k}\narch: {stages: 2, stage: {blocks: 1, channels: {type: int, low: 8, high: 500}}}"
    Path("wide.yaml").write_text(text)
    done = nas("show", "wide.yaml", "--draws", "30")
    assert done.err == "Less than a third fits. Narrow the ranges of channels, blocks and kernels.\n"


ALL_LIMITS = "{params: 60k, macs: 5M, memory: 64kB, latency: {max_ms: 1000, runtime: torch}}"


def test_space_is_shown_with_all_its_limits(nas: Nas, tmp_path: Path) -> None:
    arch = "{stages: 2, stage: {blocks: 1, channels: {type: int, low: 8, high: 20}}}"
    images = "{channels: 1, size: 8, classes: 10}"
    (tmp_path / "all.yaml").write_text(f"version: 1\nbudget: {ALL_LIMITS}\nimages: {images}\narch: {arch}")
    done = nas("show", "all.yaml", "--draws", "3")
    assert done.out.startswith(
        "Space all: 60,000 parameters, 64,000 bytes of activations, 5,000,000 MACs, 1000 ms by torch on cpu, 1 thread, batch 1\n"
    )
    assert "100% fit the budget, without latency: basic 100% of 3\n" in done.out
    assert "3 of them were timed here: 100% are within the latency limit; they take " in done.out
    shown = nas("show", "all.yaml", "--draws", "3", "--json").json
    assert shown["budget"]["memory"] == 64_000
    assert shown["budget"]["latency"]["runtime"] == "torch"
    assert shown["fit"]["latency"]["fits"] == 1
    assert len(shown["fit"]["latency"]["milliseconds"]) == 3


def test_space_whose_latency_cannot_be_timed_here_is_shown_all_the_same(nas: Nas, tmp_path: Path) -> None:
    latency = "{max_ms: 5, runtime: torch, device: 'cuda:99'}"
    text = f"version: 1\nbudget: {{latency: {latency}}}\narch: {{stages: 1, stage: {{blocks: 1, channels: 4}}}}"
    (tmp_path / "far.yaml").write_text(text)
    done = nas("show", "far.yaml", "--draws", "2")
    assert done.code == 0
    assert done.out.startswith("Space far: 5 ms by torch on cuda:99, 1 thread, batch 1\n")
    assert done.err.startswith("Not timed: the latency is limited on device 'cuda:99': this machine has no device 'cuda:99'.")


def test_picture_of_a_network(nas: Nas, study: StudyPaths, tmp_path: Path) -> None:
    done = nas("show", "preset:resnet-443", "--picture", str(tmp_path / "network.svg"))
    assert done.code == 0
    assert "stage 3      256×8×8" in done.out
    xml.parse(tmp_path / "network.svg")
    assert nas("show", "preset:resnet-443", "--json", "--picture", "beside.svg").code == 0
    assert (tmp_path / "beside.svg").read_text() == (tmp_path / "network.svg").read_text()
    refused = nas("show", "preset:resnet-443", "--picture", str(tmp_path / "network.png"))
    assert refused.err == (
        f"Error: a picture is written as SVG, but {tmp_path / 'network.png'} does not end in .svg\n"
        f"Next:  --picture {tmp_path / 'network.svg'}\n"
    )
    assert nas("show", "digits", "--picture", "x.svg").err.startswith("Error: --picture draws a network, not a space\n")


def test_a_preset_is_counted_for_images_of_the_size_that_is_asked_for(nas: Nas) -> None:
    typed = ("--image-size", "64", "--channels", "1", "--classes", "100", "--json")
    shown = nas("show", "preset:resnet-1111", *typed).json
    shape = ImageShape(channels=1, size=64, classes=100)
    arch = load_preset("preset:resnet-1111").candidate.arch
    assert shown["images"] == shape.model_dump()
    assert (shown["params"], shown["macs"]) == (closed_form_params(arch, shape), closed_form_macs(arch, shape))


def test_a_trial_is_counted_for_other_images_than_its_studys(nas: Nas, study: StudyPaths) -> None:
    usual, larger = (nas("show", "best", *typed, "--json").json for typed in ((), ("--size", "16")))
    assert (usual["images"]["size"], larger["images"]["size"]) == (8, 16)
    assert larger["params"] == usual["params"]
    assert larger["macs"] > 3 * usual["macs"]


def test_a_space_is_measured_for_other_images(nas: Nas) -> None:
    Path("tiny.yaml").write_text(TINY_SPACE)
    typed = ("show", "tiny.yaml", "--draws", "40", "--json")
    usual, larger = (nas(*typed, *more).json for more in ((), ("--image-size", "64")))
    assert (usual["images"]["size"], larger["images"]["size"]) == (32, 64)
    assert list(usual["cost"]) == ["10%", "50%", "90%"]
    assert larger["cost"]["50%"] == pytest.approx(4 * usual["cost"]["50%"], rel=0.05)
    done = nas("show", "tiny.yaml", "--draws", "40", "--image-size", "64")
    assert "on images of 64×64" in done.out
    assert "MACs of the networks within the parameter limit: 10% below " in done.out


def test_images_too_small_for_a_space_are_refused(nas: Nas) -> None:
    done = nas("show", "resnet-224", "--draws", "3", "--image-size", "8")
    assert done.code == 1
    assert "would halve a feature map of 1×1: images of 8×8 with a stem of stride 2 that pools allow" in done.err


def test_presets_are_listed_with_cost_and_reported_accuracy(nas: Nas) -> None:
    listed = {row["name"]: row for row in nas("presets", "--json").json}
    assert listed["resnet-2322"]["params"] == 4_479_946
    assert listed["resnet-2322"]["accuracy"] == 0.9331
    assert all(row["fits"] for row in listed.values())
    words = nas("presets").out
    assert all(name in words for name in listed)
    assert "93.31%" in words


def test_doctor_says_what_there_is(nas: Nas, study: StudyPaths) -> None:
    done = nas("doctor")
    lines = dict(line.split(None, 1) for line in done.out.splitlines())
    assert set(lines) >= {"python", "packages", "device", "storage", "cache", "disk", "data", "spaces"}
    assert "← auto" in done.out
    assert "studies: tiny" in lines["storage"]
    assert "digits (embedded)" in lines["data"]
    done = nas("doctor", "--json")
    health = json.loads(done.out)
    assert health["studies_found"] == ["tiny"]
    assert {"torch", "optuna", "fvcore"} <= health["packages"].keys()
    assert health["devices"][-1]["name"] == "cpu"
    assert done.code == (1 if health["problems"] else 0)


def test_doctor_ends_with_1_where_something_is_wrong(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.report.machine.LOW_DISK_BYTES", 10**18)
    done = nas("doctor", "--json")
    assert done.code == 1
    assert json.loads(done.out)["problems"]
    assert done.err.startswith("Problem:  only ")
    assert "Traceback" not in done.err
