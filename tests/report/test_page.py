"""`nas report`: what page and paper say of studies of every kind, and that a browser shows it all without a network."""

import base64
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from nas.config import DataConfig
from nas.paths import StudyPaths
from nas.report.page import _repeat, render_page
from nas.report.record import FullRecord, read_record
from nas.report.render import image_url
from nas.report.summary import methods, summary
from nas.runs.card import HeldOut, ModelCard
from nas.runs.context import open_presets_study
from nas.study.finalists import Finalist
from nas.study.trials import TrialRecord
from tests.browser import PHONE, chromium, opened
from tests.conftest import Done
from tests.report.trials import training

CHARTS_OF_TINY = {
    *("history", "curves", "accuracy-params", "accuracy-macs", "time", "over-budget", "parallel"),
    *("retrained-loss", "retrained-accuracy", "confusion", "class-accuracy"),
}
NOTHING: dict[str, Any] = {"trials": [], "finals": [], "finalists": [], "best": None, "runs": [], "counts": {}}


@pytest.fixture
def record(study: StudyPaths) -> FullRecord:
    return read_record(study)


def charts_in(html: str) -> dict[str, dict[str, Any]]:
    found = re.findall(r'<script type="application/json" id="data-([\w-]+)">(.*?)</script>', html, re.DOTALL)
    return {name: json.loads(text) for name, text in found}


def text_of(html: str) -> str:
    body = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.DOTALL)
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", body).split()))


def shown(record: FullRecord, **changes: Any) -> tuple[set[str], str]:
    """The charts and the text of the page of a changed record."""
    html = render_page(replace(record, **changes))
    return set(charts_in(html)), text_of(html)


def test_page_shows_every_part_of_a_study(record: FullRecord) -> None:
    html = render_page(record)
    charts, text = charts_in(html), text_of(html)
    assert charts.keys() == CHARTS_OF_TINY, "importance needs more networks than two"
    assert f"The best trial is trial {record.best.number}: {record.best.architecture}" in text
    assert "Retrained: trial" in text
    assert f"of {record.runs[0].card.test_images} test images" in text
    assert record.settings.environment.command in text
    for name, figure in charts.items():
        layout = figure["layout"]
        assert layout["title"]["text"], name
        axes = figure["data"][0]["dimensions"] if name == "parallel" else [layout["xaxis"]["title"], layout["yaxis"]["title"]]
        assert all(axis.get("label") or axis["text"] for axis in axes), name
    found = record.runs[0].evaluation
    assert html.count('<img src="data:image/png;base64,') == len(found.wrong) > 0
    first = found.wrong[0]
    label, predicted = int(found.labels[first]), int(found.predicted[first])
    assert f"{label}, predicted as {predicted} ({found.probabilities[first, predicted]:.0%})" in text
    sure = [found.probabilities[i, found.predicted[i]] for i in found.wrong]
    assert sure == sorted(sure, reverse=True)
    assert all(found.labels[i] != found.predicted[i] for i in found.wrong)


def test_names_with_markup_are_shown_as_they_are(record: FullRecord) -> None:
    evil = "<script>alert(1)</script>"
    run = record.runs[0]
    card = run.card.model_copy(update={"classes": (evil, *run.card.classes[1:]), "subject": evil})
    changed = replace(
        record,
        paths=StudyPaths(record.paths.folder.with_name("a & <b>")),
        runs=[replace(run, card=card)],
        best=replace(record.best, architecture=evil),
        trials=[replace(one, architecture=evil) for one in record.trials],
    )
    html = render_page(changed)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<title>a &amp; &lt;b&gt;" in html
    assert charts_in(html)["confusion"]["data"][0]["x"][0] == "&lt;script&gt;alert(1)&lt;/script&gt;", "plotly reads some tags"


# ---------------------------------------------------------------------------------------------------------- any study


def test_study_with_no_trial_says_so(record: FullRecord) -> None:
    _, text = shown(record, **NOTHING)
    assert "There is no trial yet." in text
    assert "No trial has completed yet" in text


def test_study_of_which_all_was_over_budget(record: FullRecord) -> None:
    over = [training(n, (), "over_budget", over={"params": 0.5}) for n in range(3)]
    charts, text = shown(record, **NOTHING | {"trials": over, "counts": {"over_budget": 3}})
    assert charts == {"over-budget"}
    assert "0 of 3 candidates were trained" in text
    assert "3 (100%) were over budget and not trained" in text


def test_study_of_one_trial_that_was_not_retrained(record: FullRecord) -> None:
    alone = replace(record.trials[record.best.number], number=0)
    charts, text = shown(record, **NOTHING | {"trials": [alone], "counts": {"trained": 1}, "best": record.best})
    assert charts == {"history", "curves", "accuracy-params", "accuracy-macs", "time"}
    assert "It was trained with one seed, and selected by that result" in text
    assert "The best network" in text


def test_study_that_only_holds_presets_speaks_of_no_search() -> None:
    record = read_record(open_presets_study(DataConfig(dataset="digits")))
    charts, text = shown(record)
    assert charts == set()
    assert "The study has no search, only presets retrained on digits" in text
    text = methods(record)
    assert text.startswith("Reported networks were trained on digits (10 classes, 1×8×8). All computations used PyTorch ")


def test_winner_of_the_finalists_is_shown_by_the_mean_of_its_seeds(record: FullRecord) -> None:
    finalists = [Finalist(record.best.number, 3, (0.5, 0.52)), Finalist(record.best.number + 1, 3, (0.4, 0.42))]
    _, text = shown(record, finalists=finalists)
    assert f"51.00% of the validation images: the best, trial {record.best.number}, mean of 2 seeds" in text
    assert "It was chosen by its training as a finalist, not by this value." in text


def test_running_study_says_as_of_when(record: FullRecord) -> None:
    unended = replace(record, counts={**record.counts, "running": 2})
    _, text = shown(unended, led=True)
    assert f"As of {record.read:%Y-%m-%d %H:%M}" in text
    assert "with 2 trainings unfinished" in text
    assert f"The search is still running; this is its state at {record.read:%Y-%m-%d %H:%M}." in text
    assert "The search was stopped with 2 trainings unfinished; the same command resumes." in shown(unended)[1]


def test_network_without_test_images_shows_no_confusion(record: FullRecord) -> None:
    run = record.runs[0]
    card = run.card.model_copy(update={"test_images": None, "test_accuracy": None, "test_accuracy_tta": None})
    charts, text = shown(record, runs=[replace(run, card=card, evaluation=None)])
    assert "confusion" not in charts
    why = "The data set has no labelled test images, and no images were held out (nas retrain --hold-out 0.1)"
    assert f"{why}, so there is no confusion matrix." in text


def test_network_without_test_images_shows_what_it_confuses_among_held_out_ones(
    nas: Callable[..., Done], study: StudyPaths
) -> None:
    typed = "retrain --study tiny --epochs 1 --train-subset 60 --hold-out 0.1 --include-test-labels --device cpu"
    assert nas(*typed.split()).code == 0
    record = read_record(study)
    run = record.chosen_run
    images = run.card.held_out.images
    assert (len(run.evaluation.labels), run.evaluation.accuracy) == (images, run.card.held_out.accuracy)
    charts, text = shown(record)
    assert {"confusion", "class-accuracy"} <= charts
    assert f"of {images} held-out images, retrained" in text
    assert f"Of {images} held-out images, which were not used for training." in text
    assert nas("runs", "--study", "tiny", "--verify").code == 0


def test_commands_of_all_that_is_shown_are_told_once(record: FullRecord) -> None:
    run, began = record.runs[0], record.settings.environment

    def made(command: str, day: int) -> ModelCard:
        environment = began.model_copy(update={"command": command, "created": f"2030-01-0{day}T00:00:00+00:00"})
        return run.card.model_copy(update={"environment": environment})

    variant = SimpleNamespace(cards={0: made("nas ablate best", 1)})
    known = SimpleNamespace(cards={0: made("nas baseline torchvision:resnet18", 4), 1: made("nas search four", 5)})
    changed: dict[str, Any] = {
        "settings": record.settings.model_copy(update={"environment": made("nas search four", 1).environment}),
        "runs": [replace(run, card=made("nas retrain top:2", day)) for day in (2, 3)],
        "ablations": [SimpleNamespace(rows=[variant])],
        "comparisons": [SimpleNamespace(known=[known])],
    }
    commands, _ = _repeat(replace(record, **changed))
    assert commands == ["nas search four", "nas ablate best", "nas retrain top:2", "nas baseline torchvision:resnet18"]


def test_damaged_file_costs_what_it_belongs_to_and_no_more(
    nas: Callable[..., Done], study: StudyPaths, record: FullRecord
) -> None:
    run = record.runs[0]
    (study.retrained / run.name / "evaluation.npz").write_bytes(b"PK damaged")
    for file in (study.ablations / "mine" / "ablation.json", study.baselines / "theirs" / "baseline.json"):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"\xff{")
    study.trial(record.best.number).metrics.write_text('{"epoch": 1}\n')
    done = nas("report", "--study", "tiny")
    assert done.code == 0
    html = study.report.read_text()
    for what in (f"The retrained network {run.name} is", "Ablation mine is", "Known networks are"):
        said = [line for line in done.err.splitlines() if line.startswith(f"Warning: {what} left out: {study.folder}")]
        assert [one.removeprefix("Warning: ") in text_of(html) for one in said] == [True]
    assert {"history", "curves", "accuracy-params"} <= charts_in(html).keys()
    assert f"The best trial is trial {record.best.number}" in text_of(html)


def test_best_network_whose_file_is_damaged_is_said_to_be_unknown(study: StudyPaths, record: FullRecord) -> None:
    file = study.trial(record.best.number).candidate
    file.write_bytes(b"\xff")
    assert f"{file} cannot be read, so the network is unknown." in shown(record, runs=[])[1]


def test_images_that_were_set_aside_are_said_with_an_interval_that_knows_their_groups(record: FullRecord) -> None:
    run = record.runs[0]
    grouped = run.card.data.model_copy(update={"group_column": "patient"})

    def said(**changes: Any) -> str:
        held_out = HeldOut(images=200, accuracy=0.9, shifted_accuracy=0.5, effective_images=changes.pop("effective", None))
        card = run.card.model_copy(update={"held_out": held_out, **changes})
        return summary(replace(record, runs=[replace(run, card=card)]))[-1]

    plain = "Accuracy on 200 held-out training images: 90.00%; 95 % interval 85.06% to 93.43%."
    assert said().endswith(plain)
    of_one = "images of one patient are similar"
    assert said(data=grouped).endswith(f"{plain} The interval treats images as independent; {of_one}, so it is too narrow.")
    assert said(data=grouped, effective=50.2).endswith(
        f"95 % interval 78.67% to 95.65%. {of_one.capitalize()}: for the interval they count as 50 images."
    )


def test_small_images_are_enlarged_by_whole_factors() -> None:
    def opened_again(image: np.ndarray) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(image_url(image).partition(",")[2])))

    image = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    enlarged = opened_again(image)
    assert enlarged.size == (96, 96)
    assert np.array_equal(np.asarray(enlarged)[::3, ::3], image)
    assert opened_again(image[:, :, :1]).mode == "L"


# ------------------------------------------------------------------------------------------------------- the command


def test_page_is_written_into_the_studys_folder(nas: Callable[..., Done], study: StudyPaths) -> None:
    done = nas("report", "--study", "tiny")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{study.report}  (")
    html = re.sub(r"<script>.*?</script>", "", study.report.read_text(), flags=re.DOTALL)
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")


def test_page_that_cannot_be_written_is_refused(nas: Callable[..., Done], study: StudyPaths, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for option, path, message in (
        ("--output", tmp_path, f"Error: {tmp_path} cannot be written: it is a folder\nNext:  choose a file: --output "),
        ("--output", tmp_path / "file" / "report.html", "report.html cannot be written: "),
        ("--paper", tmp_path / "file", "cannot be written"),
    ):
        done = nas("report", "--study", "tiny", option, str(path))
        assert done.code == 1
        assert message in done.err
    assert done.err.endswith("Next:  choose another folder with --paper\n")


# ------------------------------------------------------------------------------------------------------- a browser


ALL_DRAWN = "document.querySelectorAll('.chart[data-drawn=yes]').length === document.querySelectorAll('.chart').length"


@pytest.mark.slow
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_browser_draws_every_chart_without_a_network(record: FullRecord, tmp_path: Path, colours: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(render_page(record))
    with opened(file.as_uri(), colours=colours) as (page, heard):
        page.wait_for_function(ALL_DRAWN)
        drawn = page.eval_on_selector_all(
            ".chart", "all => all.filter(one => one.querySelector('svg.main-svg')).map(one => one.id)"
        )
        assert {name.removeprefix("chart-") for name in drawn} == CHARTS_OF_TINY
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(255, 255, 255)" if colours == "light" else "rgb(20, 23, 26)")
        text = page.evaluate("getComputedStyle(document.querySelector('.chart .xtitle')).fill")
        assert text == ("rgb(27, 31, 36)" if colours == "light" else "rgb(230, 233, 236)")
        for link in page.query_selector_all("nav a"):
            link.click()
            target = page.query_selector(link.get_attribute("href"))
            page.wait_for_function("one => Math.abs(one.getBoundingClientRect().top) < innerHeight", arg=target)
        assert heard.errors == []
        assert heard.requests == []


@pytest.mark.slow
def test_phone_does_not_scroll_sideways(record: FullRecord, tmp_path: Path) -> None:
    long_name = StudyPaths(record.paths.folder.with_name("a-study-of-a-name-that-no-phone-is-wide-enough-for-" * 2))
    file = tmp_path / "report.html"
    file.write_text(render_page(replace(record, paths=long_name)))
    with opened(file.as_uri(), PHONE) as (page, heard):
        page.wait_for_function(ALL_DRAWN)
        for fold in page.query_selector_all("summary"):
            fold.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert heard.errors == []


def test_thousand_trials_stay_below_ten_megabytes(record: FullRecord) -> None:
    random = np.random.default_rng(0)
    many = [
        training(
            n,
            list(random.random(20) if n % 5 == 0 else random.random(2)),
            "trained" if n % 5 == 0 else "pruned_early",
            params=int(random.integers(1000, 10_000)),
            macs=int(random.integers(1000, 10_000)),
            drawn={f"slot{i}": float(random.random()) for i in range(3)},
            seconds=10.0,
        )
        for n in range(1000)
    ]
    best = TrialRecord(0, "trained", 0.9, 20, 1000, 1000, "network 0", 1)
    html = render_page(replace(record, trials=many, counts={"trained": 200, "pruned_early": 800}, best=best))
    assert len(html.encode()) < 10e6
    assert "1,000 of 1,000 candidates were trained" in text_of(html)
    assert "The first 60 of 1,000 networks" in text_of(html)


# ----------------------------------------------------------------------------------------------------------------------- a paper


TABLES = {"trials", "stages", "layers", "epochs"}


def test_without_a_browser_all_but_the_figures_is_written(
    nas: Callable[..., Done], study: StudyPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise RuntimeError("Kaleido requires Google Chrome to be installed.\nand more")

    monkeypatch.setattr(go.Figure, "write_image", refuse)
    done = nas("report", "--study", "tiny", "--paper", str(tmp_path / "paper"))
    assert done.code == 0
    assert "No figures were written: plotly needs kaleido and Chrome or Chromium" in done.out
    assert "(Kaleido requires Google Chrome to be installed.)" in done.out
    assert "pip install 'nas-under-budget[paper]'" in done.out
    folder = tmp_path / "paper"
    assert {file.stem for file in (folder / "tables").iterdir()} == TABLES
    assert {file.suffix for file in (folder / "tables").glob("trials.*")} == {".md", ".tex", ".csv"}
    document = (folder / "paper.tex").read_text()
    assert all(rf"tables/{name}.tex" in document for name in TABLES)
    assert "includegraphics" not in document
    assert (folder / "methods.txt").read_text() == methods(read_record(study)) + "\n"


def test_methods_say_what_was_done(record: FullRecord) -> None:
    text = methods(record)
    assert "in a space of 4 parameters under a budget of 3,000 parameters, counted with fvcore before training" in text
    assert "Candidates were proposed by tpe and trained for up to 2 epochs on digits" in text
    assert "(10 classes, 1×8×8, 1,294 training and 144 validation images)" in text
    assert f"The selected network ({record.runs[0].card.params:,} parameters)" in text
    assert text.endswith("seed 0.")
    compute = record.settings.study.model_copy(update={"trial_compute": 1e13, "final_compute": 3e14})
    aimed = methods(replace(record, settings=record.settings.model_copy(update={"study": compute})))
    assert "up to 2 epochs (at most 10 TFLOP, 6 × MACs × images), small networks for less, to rank them for a final" in aimed


@pytest.mark.slow
@pytest.mark.exhaustive
def test_document_compiles_with_its_figures(nas: Callable[..., Done], study: StudyPaths, tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    chromium()
    folder = tmp_path / "paper"
    done = nas("report", "--study", "tiny", "--paper", str(folder))
    assert "No figures" not in done.out
    names = {file.stem for file in (folder / "figures").iterdir()}
    assert {"history", "curves", "accuracy-params", "confusion"} <= names
    assert all(
        (folder / "figures" / f"{name}.{ending}").stat().st_size > 1000 for name in names for ending in ("png", "svg", "pdf")
    )
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"], cwd=folder, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
