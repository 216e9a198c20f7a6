"""A run's files: known again by their hashes, wherever the folder lies; each that was changed is refused by its own sentence."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save_file

from nas.errors import NasError
from nas.export.formats import export
from nas.paths import StudyPaths, TrialPaths, studies_folder
from nas.predict.submission import submit
from nas.runs.card import content_hash, read_card, write_card
from nas.runs.ledger import kept_submissions, read_ledger, rebuild
from nas.runs.load import load_network
from nas.runs.select import find_run, finished_runs, study_of
from nas.specs import ExportSpec, SubmitSpec
from tests.conftest import Nas
from tests.runs.told import refusal


@pytest.fixture
def run(study: StudyPaths) -> TrialPaths:
    """The study's only one."""
    return finished_runs(study)[0]


def change_card(run: TrialPaths, **changes: Any) -> None:
    file = run.card
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def make_old(run: TrialPaths) -> None:
    """As it was written before hashes were kept."""
    tree = json.loads(run.card.read_text())
    del tree["hashes"], tree["recipe"]
    run.card.write_text(json.dumps(tree))


def another_run(run: TrialPaths, name: str = "another") -> TrialPaths:
    """Of the same network with other weights, whose files fit together."""
    other = TrialPaths(run.folder.with_name(name))
    shutil.copytree(run.folder, other.folder)
    change_weights(other)
    write_card(other, read_card(other))
    return other


def change_weights(run: TrialPaths) -> None:
    save_file({key: tensor + 1 for key, tensor in load_file(run.weights).items()}, run.weights)


def test_card_states_the_hashes_of_the_files_and_of_itself(run: TrialPaths) -> None:
    card = read_card(run)
    assert card.recipe == "searched"
    assert card.hashes.weights == hashlib.sha256(run.weights.read_bytes()).hexdigest()
    assert card.hashes.evaluation == hashlib.sha256((run.folder / "evaluation.npz").read_bytes()).hexdigest()
    tree = json.loads(run.card.read_text())
    stated = tree["hashes"].pop("card")
    assert stated == hashlib.sha256(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert content_hash(tree) == stated
    before = run.card.read_bytes()
    run.card.write_text(json.dumps(json.loads(before), sort_keys=True))  # only set anew
    assert run.card.read_bytes() != before
    assert load_network(run)[1] == card
    run.card.write_bytes(before.replace(b'"cpu', b'"\xffcpu'))  # no text
    assert refusal(lambda: load_network(run)).message.startswith(f"{run.card} was changed after the training: ")


@pytest.mark.parametrize("key", ["classes", "weights"])
def test_edited_card_is_refused(study: StudyPaths, run: TrialPaths, key: str, nas: Nas) -> None:
    hashes = json.loads(run.card.read_text())["hashes"]
    change_card(run, **({"classes": list("abcdefghij")} if key == "classes" else {"hashes": hashes | {"weights": "0" * 64}}))
    error = refusal(lambda: load_network(run))
    assert error.message.startswith(f"{run.card} was changed after the training: the hash of its content begins with ")
    assert error.message.endswith(f", and it states {hashes['card'][:12]}")
    assert error.hint == 'restore it from a copy; if the change is intended, remove the key "hashes" from model.json'
    (study.folder / "image.png").write_bytes(b"")
    for command in ("submit", "export", "predict"):
        image = [str(study.folder / "image.png")] if command == "predict" else []
        done = nas(command, *image, "--study", "tiny")
        assert (done.code, done.err.splitlines()[0]) == (1, f"Error: {error.message}")
    assert not list(study.folder.glob("*.csv"))
    assert not (study.folder / "exported").exists()


def test_card_that_is_edited_on_purpose_is_taken_once_the_ledger_has_it(study: StudyPaths, run: TrialPaths) -> None:
    make_old(run)
    change_card(run, classes=list("abcdefghij"))
    error = refusal(lambda: submit(SubmitSpec(study, device="cpu")))
    assert error.message.startswith(
        f"model.json of {run.folder.name} is different from what the ledger of study 'tiny' recorded on 20"
    )
    assert error.hint == "restore the folder from a copy; or record the current files:  nas runs --rebuild --study tiny"
    rebuild(study)
    assert list(submit(SubmitSpec(study, device="cpu")).per_class) == list("abcdefghij")


def test_weights_of_another_network_are_refused_by_what_differs(run: TrialPaths) -> None:
    weights = load(run.weights.read_bytes())  # load_file may map the file, which is written over here
    name, tensor = next((name, tensor) for name, tensor in weights.items() if tensor.ndim == 4)
    wider = torch.cat([tensor, tensor])
    save_file(weights | {name: wider}, run.weights)
    shapes = ["×".join(map(str, t.shape)) for t in (wider, tensor)]
    error = refusal(lambda: load_network(run))
    assert error.message == (
        f"{run.weights} has the weights of another network than model.json describes: "
        f"{name} is {shapes[0]} instead of {shapes[1]}"
    )
    restore = f"restore the whole folder {run.folder.name} from a copy, or remove it and train it again with nas retrain"
    assert error.hint == restore
    save_file({key: value for key, value in weights.items() if key != name}, run.weights)
    assert refusal(lambda: load_network(run)).message.endswith(f"describes: {name} is missing")
    save_file(weights | {"stages.9.bias": tensor.clone()}, run.weights)
    assert refusal(lambda: load_network(run)).message.endswith("describes: stages.9.bias does not belong to any layer")


def test_weights_of_another_run_are_refused_by_its_name(run: TrialPaths) -> None:
    other = another_run(run)
    stated, found = (read_card(one).hashes for one in (run, other))
    shutil.copy(other.weights, run.weights)
    assert refusal(lambda: load_network(run)).message == (
        f"{run.weights} is not the file that this training wrote: its hash begins with {found.weights[:12]}, "
        f"and model.json states {stated.weights[:12]}; the run another wrote it"
    )


def test_weights_that_are_cut_off_or_gone_are_refused(run: TrialPaths) -> None:
    run.weights.write_bytes(run.weights.read_bytes()[:-100])
    assert refusal(lambda: load_network(run)).message.startswith(f"{run.weights} cannot be read as weights: ")
    run.weights.unlink()
    error = refusal(lambda: load_network(run))
    assert error.message == f"{run.folder} has no model.safetensors, which holds the network's weights"
    assert error.hint.startswith("restore the whole folder ")


def test_run_in_whose_place_another_was_put_is_refused(study: StudyPaths, run: TrialPaths) -> None:
    other = another_run(run)
    shutil.rmtree(run.folder)
    other.folder.rename(run.folder)
    load_network(run)  # its files fit together
    for hand_over in (lambda: submit(SubmitSpec(study, device="cpu")), lambda: export(ExportSpec(study))):
        message = refusal(hand_over).message
        assert message.startswith(
            f"model.safetensors and model.json of {run.folder.name} are different from what the ledger of study 'tiny' "
            "recorded on 20"
        )


def test_old_run_is_used_with_a_note_until_the_ledger_has_it(study: StudyPaths, run: TrialPaths) -> None:
    make_old(run)
    study.database.unlink()  # of a study from before ledgers
    assert read_card(run).hashes is None
    notes: list[str] = []
    done = submit(SubmitSpec(study, device="cpu"), note=notes.append)
    assert done.output.is_file()
    assert notes == [
        f"{run.folder.name} is from a version of nas that stored no hashes of files, so their changes cannot be detected; "
        "nas runs --rebuild --study tiny   records the current files"
    ]
    assert rebuild(study)[1] == []
    notes.clear()
    submit(SubmitSpec(study, device="cpu"), note=notes.append)
    assert notes == []
    change_weights(run)
    error = refusal(lambda: submit(SubmitSpec(study, device="cpu")))
    assert error.message.startswith(
        f"model.safetensors of {run.folder.name} is different from what the ledger of study 'tiny' recorded"
    )


def test_run_is_used_by_its_folder_without_any_study(
    study: StudyPaths, run: TrialPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nas: Nas
) -> None:
    expected = submit(SubmitSpec(study, device="cpu")).output.read_text()
    shutil.copytree(run.folder, tmp_path / "elsewhere" / "mine")
    shutil.rmtree(studies_folder())
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = nas("submit", "--run", "./mine", "--device", "cpu")
    assert done.code == 0, done.err
    assert done.out.startswith("No study, network mine, test set the test split of digits, ")
    assert Path("submission-digits-test.csv").read_text() == expected
    _, second = kept_submissions(TrialPaths(Path("mine")))[0]  # the first was made in the study
    assert second.output == str(tmp_path / "elsewhere" / "submission-digits-test.csv")
    assert nas("export", "mine/").code == 0
    names = ["README.md", "model.json", "model.py", "model.safetensors"]
    assert sorted(path.name for path in Path("exported/mine").iterdir()) == names
    assert not studies_folder().exists()


def test_exported_folder_is_a_run_like_any(study: StudyPaths, tmp_path: Path) -> None:
    """Its card says otherwise what is averaged over, and is sealed anew."""
    done = export(ExportSpec(study, tta="flip", output=tmp_path / "given"))
    expected = submit(SubmitSpec(study, tta="flip", device="cpu")).output.read_text()
    handed = submit(SubmitSpec(None, run=str(done.path), output=tmp_path / "theirs.csv", device="cpu"))
    assert handed.tta == "flip"
    assert (tmp_path / "theirs.csv").read_text() == expected


def test_folder_in_a_study_belongs_to_it(study: StudyPaths, run: TrialPaths) -> None:
    found = study_of(str(run.folder), None)
    assert found.folder.samefile(study.folder)
    assert submit(SubmitSpec(found, run=str(run.folder), device="cpu")).output.parent.samefile(study.folder)
    assert [one.output for one in read_ledger(study).submissions] == ["submission-digits-test.csv"]


def test_folder_that_is_no_run_is_refused(study: StudyPaths, tmp_path: Path) -> None:
    def said(name: str) -> tuple[str, str | None]:
        error = refusal(lambda: load_network(find_run(None, name)))
        return error.message, error.hint

    (tmp_path / "empty").mkdir()
    name_it = "name the folder with the run's model.json and model.safetensors"
    assert said("./none") == ("none is not there", name_it)
    (tmp_path / "file").touch()
    assert said("./file") == ("file is a file, but a run is a folder", name_it)
    assert said("./empty") == (f"{tmp_path / 'empty'} is not a retrained network: it has no model.json", "nas runs lists them")
    (tmp_path / "empty" / "checkpoint.pt").touch()
    assert said("./empty")[1] == "nas retrain resumes an unfinished training"
    error = refusal(lambda: study_of("./empty", "tiny"))
    assert error.message == ("./empty names a run by its folder, which needs no study, but --study tiny was given")


def test_folder_without_a_separator_is_a_name_and_the_hint_says_so(
    study: StudyPaths, run: TrialPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run.folder, tmp_path / "mine")
    error = refusal(lambda: find_run(study, "mine"))
    assert error.message == f"'mine' is not a retrained network of study 'tiny'. Choices: {run.folder.name}."
    assert error.hint == "if you mean the folder here, write ./mine"
    monkeypatch.setenv("NAS_STUDIES", str(tmp_path / "no studies"))
    assert refusal(lambda: study_of("mine", None)).hint == "if you mean the folder here, write ./mine"


def test_run_is_found_by_what_was_trained(study: StudyPaths, run: TrialPaths) -> None:
    number = read_card(run).subject.removeprefix("trial ")
    assert find_run(study, "best") == find_run(study, number) == run
    later = another_run(run)
    assert find_run(study, "best") == later
    error = refusal(lambda: find_run(study, "preset:resnet-443"))
    assert error.message.startswith("preset:resnet-443 of study 'tiny' has not been retrained.")
    assert error.hint == "nas retrain preset:resnet-443 --study tiny"
    with pytest.raises(NasError, match="'999' is not a trained trial of study 'tiny'"):
        find_run(study, "999")
