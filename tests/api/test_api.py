"""`import nas`: the commands as functions."""

import html
import inspect
import re
import shutil
import subprocess
import sys
from dataclasses import MISSING
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import typer

import nas
from nas.cli.main import app
from nas.errors import BudgetError, ConfigError, StudyError
from nas.paths import StudyPaths
from nas.specs import BaselineSpec, ExportSpec, PredictSpec, RetrainSpec, SearchSpec, SubmitSpec
from nas.specs.options import options_of

GUIDE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
EXAMPLE = next(text for text in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if "nas.search(" in text)


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(program)
    return subprocess.run([sys.executable, "program.py"], cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_the_guides_example_runs_as_a_script(tmp_path: Path) -> None:
    """Without `if __name__ == "__main__"`: its workers do not run it again."""
    done = run(f"print('begun')\n{EXAMPLE}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("begun") == 1
    assert re.search(r"^\d+\.\d% with [\d,]+ parameters: \w+ ", done.stdout, re.MULTILINE)
    assert tmp_path / done.stdout.splitlines()[-1] == tmp_path / "studies" / "notebook" / "report.html"
    folder = tmp_path / "studies" / "notebook"
    assert (folder / "report.html").is_file()
    assert list(folder.glob("submission-*.csv"))
    assert list(folder.glob("exported/*/model.py"))


def test_importing_it_imports_nearly_nothing(tmp_path: Path) -> None:
    done = run(
        "import sys, nas\n"
        "print([name for name in ('torch', 'optuna', 'numpy', 'typer', 'pydantic', 'nas.api') if name in sys.modules])\n"
        "print(sorted(set(nas.__all__) - set(dir(nas))), nas.NasError.__name__)\n"
        "print([name for name in ('torch', 'optuna') if name in sys.modules])\n"
        "try:\n    nas.serach\nexcept AttributeError as error:\n    print(error)\n",
        tmp_path,
    )
    assert done.stdout.splitlines() == ["[]", "[] NasError", "[]", "module 'nas' has no attribute 'serach'"], done.stderr


@pytest.mark.parametrize(
    ("function", "command", "spec", "own"),
    [
        (nas.search, "search", SearchSpec, {"log", "quiet"}),
        (nas.Study.retrain, "retrain", RetrainSpec, {"self", "which", "log", "quiet"}),
        (nas.Study.baseline, "baseline", BaselineSpec, {"self", "like", "quiet"}),
        (nas.Study.submit, "submit", SubmitSpec, {"self", "run", "quiet"}),
        (nas.Study.predict, "predict", PredictSpec, {"self", "run"}),
        (nas.Study.export, "export", ExportSpec, {"self", "run", "quiet"}),
    ],
)
def test_functions_take_what_their_commands_take(function: Any, command: str, spec: type, own: set[str]) -> None:
    parameters = inspect.signature(function).parameters
    known = {option.name: option for option in options_of(spec).values()}
    assert parameters.keys() == known.keys() | own
    assert known.keys() <= {parameter.name for parameter in typer.main.get_group(app).commands[command].params}
    for name, option in known.items():
        assert f"    {name}: {option.help}" in function.__doc__
        if name not in own and option.default is not MISSING:
            assert parameters[name].default == option.default, name


def test_a_notebook_shows_the_parameters_of_a_search() -> None:
    shown = str(inspect.signature(nas.search))
    assert shown.startswith(
        "(space: str | None = None, dataset: str | None = None, *, study: str | None = None, trials: int = 100"
    )
    assert shown.endswith("log: str | None = None, quiet: bool = False) -> nas.api.study.Study")
    assert "max_params: int | str | None = None" in shown
    assert "data: str | os.PathLike[str] | None = None" in shown


def test_a_notebook_shows_a_table_or_a_picture(study: StudyPaths) -> None:
    opened = nas.open_study("tiny")
    shown = opened._repr_html_()
    assert f"<b>{html.escape(repr(opened))}</b>" in shown
    rows = [row for row in opened.trials if row.accuracy is not None]
    assert shown.count("<tr>") == 1 + len(rows)
    assert f'<th style="text-align:right">{100 * opened.best.accuracy:.2f}</th>' in shown
    for one in (opened.best, opened.runs[0]):
        shown = one._repr_html_()
        assert html.escape(repr(one)) in shown
        picture = ElementTree.fromstring(shown[shown.index("<svg") :])
        assert f"{one.params:,} parameters" in picture.attrib["aria-label"]
    shutil.rmtree(study.trial(opened.best.number).folder)
    assert "<svg" not in nas.open_study("tiny").best._repr_html_()


def test_a_data_frame_has_a_row_for_each_trial(study: StudyPaths) -> None:
    opened = nas.open_study("tiny")
    pandas = pytest.importorskip("pandas")
    frame = opened.dataframe()
    assert list(frame["number"]) == [trial.number for trial in opened.trials]
    assert {"outcome", "accuracy", "params", "params_lr", "params_stage0.channels"} <= set(frame.columns)
    assert frame.loc[frame["accuracy"].idxmax(), "params_lr"] == opened.best.train.lr
    assert isinstance(frame, pandas.DataFrame)


def test_a_data_frame_without_pandas_is_an_error(study: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(nas.NasError, match="needs the package pandas, which is not installed"):
        nas.open_study("tiny").dataframe()


def test_known_networks_are_trained_to_compare_with(study: StudyPaths, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\nnet = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Flatten())\n"
    )
    opened = nas.open_study("tiny")
    (one,) = opened.baseline("net.py:net", epochs=1, seeds=[3], train_subset=100, device="cpu", timeout=250, quiet=True)
    assert (one.params, one.over, one.card.seed, len(one.curve)) == (650, None, 3, 1)
    assert opened.baselines == [one]
    assert one.test_accuracy == one.card.test_accuracy_tta
    assert f"Baseline('net.py:net', seed 3: 650 parameters, test {one.test_accuracy:.2%})" == repr(one)
    assert one.build()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert one.name not in [run.name for run in opened.runs]
    with pytest.raises(ConfigError, match="is a network of nas itself"):
        opened.baseline("preset:resnet-443")
    with pytest.raises(ConfigError, match="timeout must be above 0"):
        opened.baseline("net.py:net", timeout=-1)


def test_a_study_lists_its_trials_and_best_trial(study: StudyPaths) -> None:
    opened = nas.open_study("tiny")
    assert nas.studies() == ["tiny"]
    assert [trial.number for trial in opened.trials] == list(range(len(opened.trials)))
    best = opened.best
    assert best.accuracy == max(trial.accuracy or 0 for trial in opened.trials if trial.outcome == "trained")
    assert best.params == sum(weight.numel() for weight in best.build(trained=False).parameters())
    assert best.train.epochs == len(best.curve) == 2
    assert best.macs is not None
    assert best in opened.front()
    assert opened.best_within(max_params="3k") == best
    assert opened.rows()[best.number]["params"] == best.params
    assert opened.finalists == []
    assert f"best trial {best.number}" in repr(opened)
    with pytest.raises(BudgetError, match="no completed network"):
        opened.best_within(max_params=10)
    with pytest.raises(StudyError, match="has the trials 0 to"):
        opened.trial(99)
    with pytest.raises(StudyError, match=r"no study 'tyni'.*Did you mean 'tiny'"):
        nas.open_study("tyni")


def test_a_retrained_network_is_built_with_its_weights(study: StudyPaths) -> None:
    opened = nas.open_study()
    best, (run,) = opened.best, opened.runs
    assert best.runs == [run]
    built, loaded = best.build(), run.build()
    assert not built.training
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(built.state_dict()[name], tensor)
    assert any(not torch.equal(a, b) for a, b in zip(best.build(trained=False).parameters(), loaded.parameters(), strict=True))
    images = torch.randint(0, 256, (5, 8, 8, 1), dtype=torch.uint8)
    mean, std = torch.tensor(run.card.mean), torch.tensor(run.card.std)
    with torch.inference_mode():
        by_hand = loaded(((images.float() - mean) / std).permute(0, 3, 1, 2))
        assert torch.allclose(run.predictor(tta="none")(images), by_hand, atol=1e-5)
    with pytest.raises(ConfigError, match="'mirror' is not a test-time augmentation"):
        run.predictor(tta="mirror")
    other = next(trial for trial in opened.trials if trial.number != best.number and trial.curve)
    assert other.build().training  # newly drawn
    with pytest.raises(StudyError, match="has not been retrained, so there are no weights to load"):
        other.build(trained=True)


def test_a_study_is_retrained_submitted_exported_and_reported(
    study: StudyPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = nas.open_study("tiny")
    again = opened.retrain(opened.best, epochs=1, device="cpu")
    assert again in opened.runs
    assert "was already trained" in capsys.readouterr().out
    submission = opened.submit(output=tmp_path / "out.csv", run=again, device="cpu", quiet=True)
    assert submission.output.read_text().startswith("ID,Labels")
    assert opened.report(output=tmp_path / "page.html").read_text().startswith("<!")
    assert capsys.readouterr().out == ""
    assert opened.export(run=again, quiet=True).difference < 1e-3
    with pytest.raises(ConfigError, match="not an export format"):
        opened.export(format="pickle")
    elsewhere = nas.Study(StudyPaths(tmp_path / "studies" / "other"))
    with pytest.raises(ConfigError, match="belongs to study 'tiny', not to 'other'"):
        elsewhere.retrain(opened.best)
    for use in (elsewhere.submit, elsewhere.export):
        with pytest.raises(ConfigError, match="is not a run of study 'other'"):
            use(run=again)


def test_images_that_a_script_holds_are_searched_retrained_submitted_and_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By files that later calls and commands find."""
    monkeypatch.chdir(tmp_path)
    labels, rng = np.arange(60) % 3, np.random.default_rng(0)
    images = (rng.integers(0, 80, (60, 8, 8)) + 80 * labels[:, None, None]).astype(np.uint8)
    given, quick = (torch.from_numpy(images), labels, ["low", "mid", "high"]), {"epochs": 1, "device": "cpu", "quiet": True}
    study = nas.search("digits", given, study="held", trials=1, seed=0, finalists=0, **quick)
    assert nas.search("digits", given, study="held", trials=1, **quick).best.number == study.best.number, "it is found again"
    run = study.retrain(data=given, **quick)
    assert run.card.classes == ("low", "mid", "high")
    written = study.submit(images[:5], output=tmp_path / "out.csv", names=True, device="cpu", quiet=True)
    assert written.images == 5
    rows = [line.split(",") for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
    guesses = study.predict(images[:5], device="cpu")
    assert [[str(guess.image), guess.classes[0][0]] for guess in guesses] == rows
    with pytest.raises(nas.NasError, match="images and labels cannot be given as a int"):
        nas.search("digits", 3, study="other")


def test_errors_are_nas_errors_with_a_message(tmp_path: Path) -> None:
    with pytest.raises(nas.NasError, match="'digit' is not a shipped space"):
        nas.search("digit", "digits")
    with pytest.raises(nas.NasError, match="invalid time 'soon'"):
        nas.search("digits", "digits", timeout="soon")
    with pytest.raises(TypeError, match="trails"):
        nas.search("digits", "digits", trails=3)
