"""Whole trainings of known networks: cut off, gone on with, compared with the study's own, and kept from what is handed in."""

import re
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
import torch
from safetensors.torch import load_file

import nas.foreign.known
import nas.runs.baseline
from nas.config import DataConfig
from nas.data.datasets import load_dataset
from nas.errors import ConfigError, StudyError
from nas.paths import StudyPaths
from nas.report.machine import disk_use
from nas.report.page import render_page
from nas.report.record import read_record
from nas.runs.baseline import load_baseline
from nas.runs.comparison import Row, find_comparisons, finished_baselines, read_baseline
from nas.runs.context import open_presets_study
from nas.runs.evaluation import judge_test, read_evaluation
from nas.runs.select import find_subject, finished_runs
from nas.specs import RetrainSpec
from nas.study.settings import read_settings
from nas.train.checkpoint import read_curve
from nas.train.loop import fit
from tests.conftest import Nas
from tests.report.test_page import text_of
from tests.runs.known import asked, train
from tests.runs.test_ablate_results import card
from tests.runs.told import Told, train_one


def test_known_networks_stand_beside_the_study_s_own(
    study: StudyPaths, mine: Path, nas: Nas, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrained = finished_runs(study)
    base = RetrainSpec(study, epochs=1, train_subset=200, hold_out=0.2, device="cpu")
    for seed in (0, 1):
        train_one(replace(base, seed=seed))
    request = replace(asked(study, "mine.py:Net(width=3)", "mine.py:Large", seeds=(0, 1)), hold_out=0.2)
    told = Told()
    done = train(request, told)
    assert (done.failures, done.suspended, len(done.runs)) == ({}, 0, 4)
    ctx = told.planned[2]
    assert (ctx.selected.train_images, ctx.held_out, ctx.test_images) == (200, 288, 359)
    assert told.printed[0] == ("mine.py:Net(width=3)", "importing mine.py\nforward of 1")

    found = done.comparison
    (own,) = found.own
    small, large = found.known
    best = find_subject(study, "best")
    assert (own.title, own.over) == (best.title, {})
    assert sorted(own.cards) == [0, 1], "that of one epoch on all images was trained otherwise"
    assert (small.over, large.over) == ({}, {"params": 1874})
    assert large.params == 64 * 64 + 64 + 64 + 650 == 4874
    assert found.train == read_record(study).runs[-1].card.candidate.train
    for difference in found.differences:
        assert difference.on_test
        for place, seed in enumerate((0, 1)):
            theirs, ours = difference.known.cards[seed].test_score, own.cards[seed].test_score
            assert theirs is not None
            assert ours is not None
            assert difference.spread.values[place] == theirs - ours

    # The same images in the same order, and the same draws, as the network that it is like.
    run = done.runs[0]
    card = read_baseline(run)
    assert card.held_out.images == 288
    assert card.network.text == mine.read_text()
    assert list(card.network.files) == ["mine.py"]
    assert (card.like, card.recipe, card.train_images, card.study) == (best.title, "searched", 200, "tiny")
    assert not run.checkpoint.exists()
    evaluation = read_evaluation(run)
    assert evaluation.accuracy == card.test_accuracy_tta
    assert len(read_curve(run.metrics)) == 1

    # What was kept is what was judged.
    model, _ = load_baseline(run)
    test = load_dataset(card.data).test
    images = (torch.from_numpy(test.images.copy()).permute(0, 3, 1, 2).float() - card.mean[0]) / card.std[0]
    with torch.no_grad():
        predicted = model(images).argmax(1).numpy()
    assert (predicted == test.labels).mean() == pytest.approx(card.test_accuracy, abs=0.003)
    shared = load_file(done.runs[1].weights)
    assert torch.equal(shared["first.weight"], shared["second.weight"])
    # It is nobody's best, and nothing that is handed in.
    assert finished_runs(study)[: len(retrained)] == retrained
    assert len(finished_runs(study)) == len(retrained) + 2
    for command in ("submit", "export"):
        taken = nas(command, "--study", "tiny")
        assert taken.code == 0, taken.err
        assert run.folder.name not in taken.out + taken.err
    by_name = nas("submit", "--run", run.folder.name, "--study", "tiny")
    assert (by_name.code, "is not a retrained network of study 'tiny'" in by_name.err) == (1, True)
    by_folder = nas("submit", "--run", str(run.folder), "--output", "mine.csv")
    assert (by_folder.code, "which is only for comparison" in by_folder.err) == (1, True), by_folder.err
    assert find_subject(study, "best") == best

    # Who reads it.
    page = text_of(render_page(read_record(study)))
    assert "Known networks, trained with the same recipe" in page
    assert "mine.py:Large 4,874" in page
    assert "over by 1.87k parameters" in page
    assert "only for comparison: mine.py:Large (by 1,874 parameters)" in page
    listed = nas("runs", "--study", "tiny", "--verify")
    assert listed.code == 0, listed.err
    assert f"{run.folder.name}  {best.title}" in listed.out
    assert "over by 1,874 parameters  as recorded" in listed.out
    with monkeypatch.context() as other_release:
        other_release.setattr("nas.runs.baseline.build", lambda *_: torch.nn.Linear(1, 1))
        with pytest.raises(StudyError, match=r"does not fit mine\.py:Net\(width=3\): RuntimeError") as refused:
            load_baseline(run)
    assert "install the release of the library" in str(refused.value.hint)
    run.weights.write_bytes(b"other")
    assert "model.safetensors changed" in nas("runs", "--study", "tiny", "--verify").out
    with pytest.raises(StudyError, match="is not the file that this training wrote"):
        load_baseline(run)


@pytest.mark.usefixtures("here")
def test_an_interrupted_baseline_resumes_exactly(study: StudyPaths, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = asked(study, "mine.py:Net", "mine.py:Large", epochs=2)
    whole = train(request)
    before = [load_file(run.weights) for run in whole.runs]
    curves = [[metrics.train_loss for metrics in read_curve(run.metrics)] for run in whole.runs]
    for run in whole.runs:
        for file in run.folder.iterdir():
            file.unlink()

    cut_off = Told(stop_after=1)
    suspended = train(request, cut_off)
    assert (suspended.suspended, suspended.runs, suspended.comparison) == (2, (), None)
    assert whole.runs[0].checkpoint.is_file()
    (unfinished,) = [item for item in disk_use() if item.need == "unfinished"]
    assert unfinished.paths == (whole.runs[0].checkpoint,), "nas clean keeps it"

    told = Told()
    done = train(request, told)
    assert done.runs == whole.runs
    assert len({*cut_off.epochs, *told.epochs}) == 4
    for run, kept, curve in zip(done.runs, before, curves, strict=True):
        found = load_file(run.weights)
        assert found.keys() == kept.keys()
        assert all(torch.equal(found[name], kept[name]) for name in kept)
        assert [metrics.train_loss for metrics in read_curve(run.metrics)] == curve

    again = Told()
    for name in ("inspect_network", "build_network"):
        monkeypatch.delattr(nas.foreign.known, name)  # nobody's code runs
    assert train(request, again) == done
    assert again.planned is None, "nothing is trained"


def test_changed_file_is_another_network_beside_the_first(study: StudyPaths, mine: Path) -> None:
    (mine.parent / "helper.py").write_text("WIDTH = 4\n")
    mine.write_text("import helper\n" + mine.read_text().replace("width=4", "width=helper.WIDTH"))
    (first,) = train(asked(study, "mine.py:Net")).runs
    assert sorted(read_baseline(first).network.files) == ["helper.py", "mine.py"]
    (mine.parent / "helper.py").write_text("WIDTH = 5\n")
    told = Told()
    done = train(asked(study, "mine.py:Net"), told)
    (second,) = done.runs
    assert second != first
    assert [read_baseline(run).network.params for run in (first, second)] == [2618, 3270]
    assert any("has changed since" in note and first.folder.name in note for note in told.notes)
    (comparison,) = find_comparisons(study)
    titles = [row.title for row in comparison.known]
    assert titles == [f"mine.py:Net ({read_baseline(run).network.digest[:8]})" for run in (first, second)]
    with pytest.raises(ConfigError, match="was changed after it was measured"):
        load_baseline(first)
    mine.unlink()
    assert find_comparisons(study) == [comparison], "whoever reads needs no file"


@pytest.mark.usefixtures("here")
def test_what_goes_wrong_in_a_training_leaves_the_others(study: StudyPaths, mine: Path) -> None:
    """Even what would end a program."""
    wrong = {
        "mine.py:Large3": "ValueError: too many images",
        "mine.py:Large3('exits')": "SystemExit: enough",
        "mine.py:Large3('reads')": "FileNotFoundError: [Errno 2] No such file",
    }
    done = train(asked(study, *wrong, "mine.py:Diverges", "mine.py:Net"))
    assert len(done.failures) == 3
    for (failed, reason), said in zip(done.failures.items(), wrong.values(), strict=True):
        assert failed.startswith("mine-Large3-")
        assert f"fails in its training: {said}" in reason
        assert " (mine.py, line " in reason
        assert "Traceback" in (study.baselines / failed / "error.txt").read_text()
    diverged, trained = sorted(done.comparison.known, key=lambda row: row.title)
    assert (diverged.title, diverged.diverged, diverged.cards) == ("mine.py:Diverges", (0,), {})
    assert (trained.title, sorted(trained.cards)) == ("mine.py:Net", [0])
    again = Told()
    assert train(asked(study, "mine.py:Diverges"), again).runs == (done.runs[0],)
    assert again.planned is None, "it would diverge again"


@pytest.mark.usefixtures("here", "trained_here")
def test_memory_that_runs_out_halves_the_micro_batches(study: StudyPaths, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, judged = [], []

    def scarce(model, *rest, micro_batches, **keywords):
        parts.append(micro_batches)
        if micro_batches < 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return fit(model, *rest, micro_batches=micro_batches, **keywords)

    def refuse(module, inputs):
        judged.append(len(inputs[0]))
        if len(inputs[0]) > 100:
            raise MemoryError

    def judge(model, *rest):
        model.register_forward_pre_hook(refuse)
        return judge_test(model, *rest)

    monkeypatch.setattr("nas.jobs.worker.fit", scarce)
    monkeypatch.setattr(nas.runs.baseline, "judge_test", judge)
    told = Told()
    done = train(asked(study, "mine.py:Net"), told)
    assert (done.failures, parts, judged[:3]) == ({}, [1, 2, 4], [359, 125, 31])
    assert told.notes[-1].endswith("it resumes with micro-batches of 16 images")


@pytest.mark.usefixtures("here")
def test_one_process_trains_a_baseline_at_a_time(study: StudyPaths, mine: Path) -> None:
    (run,) = train(asked(study, "mine.py:Net")).runs
    (run.folder / "baseline.json").unlink()
    lock = filelock.FileLock(run.folder / "run.lock")
    with lock, pytest.raises(StudyError, match="is being trained by another nas baseline") as refused:
        train(asked(study, "mine.py:Net"))
    assert "--seeds N,M, --epochs N" in refused.value.hint


@pytest.mark.usefixtures("here")
def test_network_with_two_names_is_trained_once(study: StudyPaths, mine: Path) -> None:
    told = Told()
    done = train(asked(study, "./mine.py:Net", "mine.py:Net", "mine.py:Net()"), told)
    assert (len(done.runs), len(told.epochs), done.failures) == (1, 1, {})
    train(asked(study, "mine.py:Net", seeds=(0, 1)))
    (comparison,) = find_comparisons(study)
    assert [(row.title, sorted(row.cards)) for row in comparison.known] == [("./mine.py:Net", [0, 1])]


def test_scores_stand_in_the_order_of_the_seeds_and_not_in_that_of_the_trainings() -> None:
    cards = {seed: card(0.5, seed).model_copy(update={"test_accuracy_tta": 0.8 + seed / 10}) for seed in (1, 0)}
    row = Row(title="trial 0", params=1, macs=1, over={}, cards=cards, runs={})
    assert row.over_seeds("test").values == (0.8, 0.9)


@pytest.mark.usefixtures("here")
def test_preset_lends_its_recipe_where_the_study_has_no_best(mine: Path, nas: Nas) -> None:
    paths = open_presets_study(DataConfig(dataset="digits"))
    refused = nas("baseline", "mine.py:Net", "--study", paths.name, "--device", "cpu")
    assert refused.code == 1
    assert "Next:  --like preset:" in refused.err
    told = Told()
    request = replace(asked(paths, "mine.py:Net"), like="preset:resnet-1111", recipe="long")
    done = train(request, told)
    card = read_baseline(done.runs[0])
    assert (card.like, card.recipe, card.train.augment.flip) == ("preset:resnet-1111", "long", "none")
    assert done.comparison.own == ()
    page = text_of(render_page(read_record(paths)))
    command = f"nas retrain preset:resnet-1111 --study {paths.name} --epochs 1 --recipe long --train-subset 200"
    assert f"To train one: {command}" in page
    assert read_settings(paths).space == "presets"


@pytest.mark.usefixtures("here")
def test_the_command_prints_a_table(study: StudyPaths, mine: Path, nas: Nas) -> None:
    arguments = ("baseline", "mine.py:Large", "--study", "tiny", "--epochs", "1", "--device", "cpu")
    done = nas(*arguments)
    assert done.code == 0, done.err
    best = find_subject(study, "best").title
    assert re.search(r"^mine.py:Large +4,874 .* over by 1.87k parameters$", done.out, re.MULTILINE)
    assert f"times the parameters of {best}, and reaches" in done.out, "that of the fixture was trained alike"
    assert "importing mine.py" not in done.out
    assert "forward of" not in done.out
    data = nas(*arguments, "--json", "--quiet").json
    assert data["comparison"]["known"][0]["over"] == {"params": 1874}
    assert data["comparison"]["own"][0]["network"] == best
    assert data["runs"] == [str(run.folder) for run in finished_baselines(study)]
    wrong = nas("baseline", "mine.py:Net", "preset:resnet-443", "best", "--study", "tiny", "--like", "0")
    assert wrong.code == 1
    assert "2 of 3 networks cannot be trained, so none was trained" in wrong.err
    assert "nas retrain preset:resnet-443" in wrong.err
    assert not [run for run in study.baselines.iterdir() if run.name.startswith("mine-Net")]


def test_everything_that_is_wrong_is_said_at_once_and_before_anything_is_trained(study: StudyPaths, mine: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        train(asked(study, "mine.py:Raises", "mine.py:Net", "mine.py:Nat"))
    said = refused.value.message
    assert said.startswith("2 of 3 networks cannot be trained, so none was trained:")
    assert "Raises() cannot be built: RuntimeError: the roof fell in (mine.py, line " in said
    assert "mine.py has no 'Nat'. Did you mean 'Net'?" in said
    assert not study.baselines.exists()


def test_products_that_no_rule_counts_are_named(study: StudyPaths, mine: Path, nas: Nas) -> None:
    mine.write_text(
        mine.read_text()
        + """

class Dot(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_classes, 64))

    def forward(self, x):
        return torch.linalg.multi_dot([x.flatten(1), self.weight.T])
"""
    )
    done = nas("baseline", "mine.py:Dot", "--study", "tiny", "--epochs", "1", "--device", "cpu")
    assert done.code == 0, done.err
    assert "its MACs do not include linalg_multi_dot, because there is no rule for them" in done.err
