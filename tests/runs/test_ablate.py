"""A whole ablation over real workers: cut off, gone on with, extended, judged by images that were set aside."""

import json
from dataclasses import replace
from typing import Any

import filelock
import pytest

from nas.errors import NasError
from nas.paths import StudyPaths
from nas.report.page import render_page
from nas.report.record import read_record
from nas.runs.ablate import Done, _define, _find_base, definition_file, read_ablation, run_ablation, run_paths, warnings_of
from nas.runs.ledger import read_ledger
from nas.runs.select import find_subject, finished_runs
from nas.specs import AblateSpec
from nas.study.settings import read_settings
from nas.train.loop import FitResult, fit
from tests.conftest import Nas
from tests.runs.told import Told


def train(request: AblateSpec, told: Told) -> Done:
    return run_ablation(request, told.on_plan, told, told.stop)


def asked(study: StudyPaths, *factors: str, seeds: tuple[int, ...] = (0, 1), which: str = "best") -> AblateSpec:
    return AblateSpec(study, which, factors, seeds=seeds, epochs=2, train_subset=200, hold_out=0.2, device="cpu")


def test_an_ablation_is_cut_off_gone_on_with_and_extended(study: StudyPaths) -> None:
    retrained = finished_runs(study)
    recorded = len(read_ledger(study).runs)
    cut_off = Told(stop_after=3)
    suspended = train(asked(study, "activation=gelu"), cut_off)
    assert suspended.suspended >= 2
    assert suspended.ablation.expected == 4

    told = Told()
    done = train(asked(study, "activation=gelu"), told)
    assert (done.suspended, done.failures) == (0, {})
    assert len({*cut_off.epochs, *told.epochs}) == len(cut_off.metrics | told.metrics) == 8, "none is trained twice"
    assert told.planned is not None
    _, _, plans, pending, ctx = told.planned
    assert (len(plans) - len(pending), ctx.held_out) == (suspended.ablation.ended, 288)
    base, gelu = done.ablation.rows
    assert sorted(base.cards) == sorted(gelu.cards) == [0, 1]
    assert gelu.cards[0].candidate.arch.activation == "gelu"
    assert {card.train_images for row in done.ablation.rows for card in row.cards.values()} == {200}
    assert all(card.test_accuracy is None for row in done.ablation.rows for card in row.cards.values())
    difference = gelu.difference
    for seed in (0, 1):
        ours, theirs = gelu.cards[seed].held_out, base.cards[seed].held_out
        assert difference.values[seed] == ours.accuracy - theirs.accuracy
    mixed = {one.name: one.mixed_seed for one in cut_off.planned[3]}
    assert mixed["base-seed-0"] == mixed["activation-gelu-seed-0"] != mixed["base-seed-1"]

    # Another process finds the same, and nothing is left to be trained.
    assert read_ablation(done.folder) == done.ablation
    again = Told()
    assert train(asked(study, "activation=gelu"), again).ablation == done.ablation
    assert again.planned is None

    # A seed and a level more are trained beside what is there.
    more = Told()
    extended = train(asked(study, "activation=gelu,silu", seeds=(0, 1, 2)), more)
    assert extended.folder == done.folder
    silu = {f"activation-silu-seed-{seed}" for seed in range(3)}
    assert {name for name, _ in more.epochs} == {*silu, "base-seed-2", "activation-gelu-seed-2"}
    assert extended.ablation.rows[1].cards[0] == gelu.cards[0]
    assert extended.ablation.definition.environment == done.ablation.definition.environment

    # It is neither a retrained network of the study nor in its ledger; the report shows it.
    assert finished_runs(study) == retrained
    assert len(read_ledger(study).runs) == recorded
    page = render_page(read_record(study))
    assert f"Ablation {done.folder.name}" in page
    assert f'id="chart-ablation-{done.folder.name}"' in page


def test_an_ablation_goes_on_in_whatever_order_it_is_asked_for(study: StudyPaths) -> None:
    factors = ("activation=relu,gelu", "label_smoothing=0,0.2")
    request = replace(asked(study, *factors, seeds=(0,)), grid=True, fixed=("activation=relu", "label_smoothing=0"))
    settings = read_settings(study)
    folder, begun = _define(request, settings, _find_base(request, settings))
    folder.mkdir(parents=True)
    definition_file(folder).write_text(begun.to_json())
    turned = replace(request, factors=("label_smoothing=0.3,0.2,0", "activation=gelu,relu"), fixed=tuple(reversed(request.fixed)))
    for again in (turned, replace(turned, name=folder.name)):
        where, definition = _define(again, settings, _find_base(again, settings))
        assert where == folder
        assert {(one.name, one.same_as) for one in begun.variants} < {(one.name, one.same_as) for one in definition.variants}
        assert len(definition.variants) == 6


@pytest.mark.usefixtures("trained_here")
def test_a_network_that_diverges_is_a_result(study: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(model: Any, *rest: Any, **keywords: Any) -> FitResult:
        result = fit(model, *rest, **keywords)
        return FitResult("diverged", [], model) if "gelu" in str(keywords["paths"].folder) else result

    monkeypatch.setattr("nas.jobs.worker.fit", diverging)
    request = asked(study, "activation=gelu", seeds=(0,))
    done = train(request, Told())
    assert (done.failures, done.suspended) == ({}, 0)
    base, gelu = done.ablation.rows
    assert (sorted(base.cards), gelu.cards, gelu.diverged) == ([0], {}, (0,))
    assert gelu.difference is None
    run = run_paths(done.folder, "activation-gelu", 0)
    assert "its loss became infinite or NaN" in run.diverged.read_text()
    assert not run.checkpoint.exists()

    again = Told()
    assert train(request, again).ablation == done.ablation
    assert again.planned is None, "it would diverge again"


@pytest.mark.usefixtures("trained_here")
def test_failed_runs_are_trained_again(study: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any, **keywords: Any) -> FitResult:
        if "gelu" in str(keywords["paths"].folder):
            raise RuntimeError("the roof fell in")
        return fit(*arguments, **keywords)

    request = asked(study, "activation=gelu", seeds=(0,))
    with monkeypatch.context() as broken:
        broken.setattr("nas.jobs.worker.fit", failing)
        done = train(request, Told())
    ((name, reason),) = done.failures.items()
    assert name == "activation-gelu-seed-0"
    assert reason.startswith("RuntimeError: the roof fell in")
    assert (done.ablation.ended, done.ablation.expected) == (1, 2)
    mended = train(request, Told())
    assert (mended.failures, mended.ablation.ended) == ({}, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a/b"}, "--name must be a folder name"),
        ({"hold_out": 0.0}, "--hold-out 0 holds out none"),
        ({"which": "preset:light-resnet18", "factors": ("stride=2",)}, r"--vary stride=2: .*1×1"),
        ({"name": "mine"}, "ablation 'mine' is being trained by another nas ablate"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(study: StudyPaths, changes: dict[str, Any], message: str) -> None:
    folder = study.ablations / "mine"
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / "ablation.lock"), pytest.raises(NasError, match=message):
        train(replace(asked(study, "activation=gelu"), **changes), Told())


def test_the_command_prints_a_table_and_writes_it(study: StudyPaths, nas: Nas) -> None:
    arguments = ("ablate", "best", "--vary", "activation=relu,gelu", "--seeds", "2", "--epochs", "1", "--device", "cpu")
    options = ("--train-subset", "100", "--name", "mine", "--study", "tiny")
    done = nas(*arguments, *options)
    assert done.code == 0, done.err
    assert "95 % interval" in done.out
    folder = study.ablations / "mine"
    assert {"table.md", "table.tex", "table.csv", "runs.csv", "ablation.json"} <= {file.name for file in folder.iterdir()}
    assert (folder / "runs.csv").read_text().count("\n") == 5

    data = nas(*arguments, *options, "--json", "--quiet")
    found = json.loads(data.out)
    assert [one["seeds"] for one in found["variants"]] == [[0, 1], [0, 1]]
    low, high = found["variants"][1]["difference"]["interval"]
    assert low <= found["variants"][1]["difference"]["mean"] <= high

    refused = nas(*arguments[:3], "activation=silu", *arguments[4:], *options)
    assert refused.code == 1
    assert "activation: relu, gelu → silu" in refused.err
    unknown = nas("ablate", "--vary", "optimizer=adam", "--study", "tiny")
    assert "Did you mean 'optimiser'?" in unknown.err
    repeated = nas("ablate", "--vary", "optimiser=adam", "--seeds", "1,1")
    assert "--seeds 1,1 repeats 1" in repeated.err


def test_a_preset_is_varied_as_it_would_be_retrained(study: StudyPaths) -> None:
    request = asked(study, "activation=gelu", which="preset:resnet-443")
    assert find_subject(study, "preset:resnet-443").candidate.train.augment.flip == "horizontal"
    base = _find_base(request, read_settings(study))
    assert base.candidate.train.augment.flip == "none", "a mirrored digit is another digit"
    assert replace(base, epochs=7).candidate.train.augment.flip == "none"


@pytest.mark.parametrize(
    ("fixed", "varied", "hint"),
    [
        ((), "optimiser=adam", "set it with --set adam_lr=0.002"),
        (("optimiser=adam", "lr=0.003"), "optimiser=sgd", "set it with --set adam_lr=0.003 --set lr=0.1"),
    ],
)
def test_optimisers_at_one_rate_are_warned_of(study: StudyPaths, fixed: tuple[str, ...], varied: str, hint: str) -> None:
    def warned(request: AblateSpec) -> list[str]:
        settings = read_settings(study)
        _, definition = _define(request, settings, _find_base(request, settings))
        said = warnings_of(definition)
        return [text for text in said if "peak learning rate" in text]

    request = replace(asked(study, varied), fixed=fixed)
    (text,) = warned(request)
    assert text.endswith(hint)
    rates = tuple(word for word in hint.split() if "=" in word)
    assert warned(replace(request, fixed=(fixed[:1] if fixed else ()) + rates)) == []
