"""`nas report --paper`: the files that a paper takes, and what is said where figures cannot be drawn."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import plotly.graph_objects as go
import pytest

from nas.config import DataConfig
from nas.paths import StudyPaths
from nas.report.record import read_record
from nas.report.summary import methods
from nas.runs.context import open_presets_study
from tests.browser import chromium
from tests.conftest import Done

TABLES = {"trials", "stages", "layers", "epochs"}


def no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise RuntimeError("Kaleido requires Google Chrome to be installed.\nand more")

    monkeypatch.setattr(go.Figure, "write_image", refuse)


def test_without_a_browser_all_but_the_figures_is_written(
    nas: Callable[..., Done], study: StudyPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_browser(monkeypatch)
    done = nas("report", "--study", "tiny", "--paper", str(tmp_path / "paper"))
    assert done.code == 0
    assert "No figures were written: plotly draws them by kaleido and a Chrome or Chromium" in done.out
    assert "(Kaleido requires Google Chrome to be installed.)" in done.out
    assert "pip install 'nas[paper]'" in done.out
    folder = tmp_path / "paper"
    assert {file.stem for file in (folder / "tables").iterdir()} == TABLES
    assert {file.suffix for file in (folder / "tables").glob("trials.*")} == {".md", ".tex", ".csv"}
    document = (folder / "paper.tex").read_text()
    assert all(rf"tables/{name}.tex" in document for name in TABLES)
    assert "includegraphics" not in document
    assert (folder / "methods.txt").read_text() == methods(read_record(study)) + "\n"


def test_methods_say_what_was_done(study: StudyPaths) -> None:
    record = read_record(study)
    text = methods(record)
    assert "under a budget of 3,000 parameters, counted with fvcore before training" in text
    assert "Candidates were proposed by tpe and trained for up to 2 epochs on digits" in text
    assert f"The selected network ({record.runs[0].card.params:,} parameters)" in text
    assert text.endswith("seed 0.")


def test_methods_of_a_study_without_a_search_speak_of_none() -> None:
    text = methods(read_record(open_presets_study(DataConfig(dataset="digits"))))
    assert text.startswith("Networks of others were trained on digits (10 classes, 1×8×8). All computations used PyTorch ")


def test_folder_that_cannot_be_written_is_refused(nas: Callable[..., Done], study: StudyPaths, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = nas("report", "--study", "tiny", "--paper", str(tmp_path / "file"))
    assert done.code == 1
    assert "cannot be written" in done.err
    assert done.err.endswith("Next:  name another folder with --paper\n")


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
