"""What every command has in common: help that is quick, messages without tracebacks, and exit statuses."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import typer

from nas import __version__
from nas.cli.main import app
from nas.cli.options import GROUPS, PLACES
from nas.paths import StudyPaths
from tests.conftest import Nas

ROOT = Path(__file__).parents[2]
COMMANDS = [command.name for command in app.registered_commands if command.name]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, nas.cli.main as m\n"
        "sys.argv = ['nas', '--help']\n"
        "try:\n    m.main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'optuna', 'numpy', 'pydantic', 'sklearn', 'PIL', 'plotly'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "Finds the best residual network under a parameter budget" in done.stdout


def test_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "nas", "--help"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.lstrip().startswith("Usage: nas [OPTIONS] COMMAND")


def test_version_comes_from_one_place(nas: Nas) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert nas("--version").out == f"nas {__version__}\n"
    assert (project["project"]["dynamic"], project["tool"]["hatch"]["version"]["path"]) == (["version"], "nas/__init__.py")


@pytest.mark.slow
def test_wheel_has_what_it_needs_and_runs_in_an_empty_folder(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling, of the extra `test`")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    build = ("--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT))
    subprocess.run([*pip, "wheel", *build], check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"nas_under_budget-{__version__}-py3-none-any.whl"
    sources = [file for part in ("nas", "search_spaces") for file in (ROOT / part).rglob("*")]
    expected = {file.relative_to(ROOT) for file in sources if file.is_file() and "__pycache__" not in file.parts}
    inside = {Path(name) for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == {Path("nas") / file if file.parts[0] == "search_spaces" else file for file in expected}

    installed, empty = tmp_path / "installed", tmp_path / "empty"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(installed), str(wheel)], check=True, timeout=300)
    empty.mkdir()
    short = ("--trials", "1", "--epochs", "1", "--finalists", "0", "--device", "cpu")
    done = subprocess.run(
        [sys.executable, "-P", installed / "bin" / "nas", "search", "--space", "digits", "--dataset", "digits", *short],
        cwd=empty,
        env=os.environ | {"PYTHONPATH": str(installed), "NAS_STUDIES": "studies"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (settings,) = (empty / "studies").glob("*/study.json")
    assert f'"nas": "{__version__}"' in settings.read_text()


@pytest.mark.slow
def test_logs_are_silent_unless_asked_for(tmp_path: Path) -> None:
    search = ("search", "--space", "digits", "--dataset", "digits", "--trials", "1", "--epochs", "1", "--finalists", "0")

    def run(*arguments: str, level: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-m", "nas", *arguments]
        environment = os.environ | {"NAS_STUDIES": str(tmp_path), "NAS_LOG": level}
        return subprocess.run(call, capture_output=True, text=True, timeout=300, env=environment)

    done = run("--verbose", *search, "--device", "cpu", "--quiet", level="")
    assert done.returncode == 0, done.stderr
    for said in (
        r"INFO nas\.jobs\.local: process \d+: nas worker 0",
        r"INFO nas\.jobs\.runner: worker 0 trains trial 0 in",
        r"INFO nas\.study\.source: trial 0: trained",
    ):
        assert re.search(rf"^[\d-]+ [\d:,]+ {said}", done.stderr, re.MULTILINE), done.stderr
    assert " INFO " not in run("list", level="").stderr
    assert run("list", level="loud").stderr.startswith("Error: NAS_LOG must be a level, but is 'loud'. Choices: debug, info")


def test_whatever_tells_to_install_names_this_package_and_an_extra_that_it_has() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    files = [
        file for part in ("nas", "docs", "scripts", "search_spaces", "studies/reference") for file in (ROOT / part).rglob("*")
    ]
    told = [
        (file.name, *found)
        for file in (*files, ROOT / "README.md", ROOT / "pyproject.toml")
        if file.suffix in {".py", ".md", ".yaml", ".sh", ".toml", ""} and file.is_file()
        for found in re.findall(r"""['"]([\w-]+|\.)\[([a-z]+)\]['"]""", file.read_text(encoding="utf-8"))
        if "install" in file.read_text(encoding="utf-8") and found[1] in project["optional-dependencies"]
    ]
    assert len(told) > 10
    assert [one for one in told if one[1] not in (project["name"], ".")] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen_in_groups_with_examples_at_its_end(command: str, nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    done = nas(command, "--help")
    assert (done.code, done.err) == (0, "")
    text = done.out
    assert f"Usage: nas {command}" in text
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 100
    shown, _, examples = text.partition("\n  Examples:\n")
    groups = re.findall(r"(?m)^([A-Z]\w+) {2,}", shown)
    assert groups == sorted(set(groups), key=list(GROUPS).index)
    assert groups[-1] == "Options"
    for example in examples.splitlines():
        program, name, *words = shlex.split(example)
        assert program == "nas"
        typer.main.get_group(app).commands[name].make_context(name, words)
    assert f"nas {command}" in examples


def test_help_names_rare_options_and_help_all_explains_them(nas: Nas) -> None:
    everyday, everything = (nas("search", flag).out for flag in ("--help", "--help-all"))
    assert "--storage" in everyday.partition("More, explained by --help-all:")[2]
    assert "--storage URL" not in everyday
    assert "--storage URL" in everything
    assert "More" not in everything
    flags = {
        f"{prefix}{max(one.opts, key=len)[2:]}"
        for name, known in typer.main.get_group(app).commands.items()
        for one in known.params
        for prefix in ("", f"{name}.")
    }
    assert PLACES.keys() <= flags


@pytest.mark.parametrize(
    ("typed", "meant"), [(("retran",), "retrain"), (("search", "--trails", "3"), "--trials"), (("list", "--studdy"), "--study")]
)
def test_unknown_commands_and_options_suggest_the_nearest(typed: tuple[str, ...], meant: str, nas: Nas) -> None:
    done = nas(*typed)
    assert done.code == 2
    assert meant in done.err.partition("Error:")[2]


def test_without_a_command_there_is_help(nas: Nas) -> None:
    done = nas()
    assert "Usage: nas [OPTIONS] COMMAND" in done.out + done.err
    assert all(command in done.out + done.err for command in COMMANDS)


# Every line is a user's mistake: what is typed, and how the message begins. {folder} is the test's own.
MISTAKES = {
    "no trials": ("search --trials 0", "--trials must be at least 1, but is 0"),
    "no time": ("search --timeout 0", "--timeout must be above 0 seconds, but is 0"),
    "unknown space": (
        "search --space digit --dataset digits",
        "'digit' is not a shipped space. Did you mean 'digits'? Choices: ",
    ),
    "unknown data set": ("search --dataset cifar", "'cifar' is not a data set. Did you mean 'cifar10'? Choices: digits, "),
    "no validation": (
        "search --validation none",
        "--validation takes a number of training images, such as 5000, or a share of them, such as 0.1, but got 'none'",
    ),
    "broken space": (
        "search --space {folder}/broken.yaml --dataset digits",
        "{folder}/broken.yaml: arch.stage.blocks: is missing",
    ),
    "unknown warm start": (
        "search --space {folder}/tiny.yaml --dataset digits --warm-start resnet",
        "--warm-start takes presets, preset:NAME, study:NAME, optuna:URL/NAME, STUDY/TRIAL or a file candidate.json, "
        "not 'resnet'",
    ),
    "unknown study": (
        "list --study tina",
        "there is no study 'tina' under {folder}/studies. Did you mean 'tiny'? Choices: tiny.",
    ),
    "unknown trial": ("show 999 --study tiny", "'999' is not a trained trial of study 'tiny'."),
    "data set of a study": (
        "retrain best --study tiny --dataset digits",
        "--dataset is only for preset:NAME, because a study has its own data",
    ),
    "no network to retrain": (
        "retrain top:0 --study tiny",
        "top:K takes 1 to 2 networks, the number of completed trials in study 'tiny'",
    ),
    "unknown recipe": (
        "retrain --study tiny --recipe longer",
        "'longer' is not a recipe. Did you mean 'long'? Choices: searched,",
    ),
    "missing recipe file": ("retrain --study tiny --recipe my.yaml", "there is no recipe file my.yaml"),
    "unknown criterion": (
        "retrain --study tiny --choose-by best",
        "unknown value 'best' for --choose-by. Choices: clean, shifted.",
    ),
    "unknown preset": ("show preset:resnet-2323", "'resnet-2323' is not a preset. Did you mean 'resnet-2322'? Choices: "),
    "one network to compare": ("compare best --study tiny", "nas compare needs at least two names, but got 1"),
    "unknown trial to compare": ("compare best 99 --study tiny", "'99' is not a trained trial of study 'tiny'."),
    "unknown preset to compare": ("compare best preset:resnet --study tiny", "'resnet' is not a preset."),
    "trial of an unknown study": ("compare best nowhere/3 --study tiny", "there is no study 'nowhere'"),
    "unknown file to check": ("check nowhere.py:Net", "there is no file nowhere.py."),
    "no time to check": ("check best --timeout 0", "--timeout must be above 0 seconds, but got 0"),
    "unknown study to check": ("check preset:resnet-1111 --size 8 --study no", "there is no study 'no'"),
    "unknown space to show": ("show resnets", "'resnets' is not a shipped space. Did you mean 'resnet'? Choices: "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_of_the_user_is_a_sentence_and_no_traceback(mistake: str, nas: Nas, study: StudyPaths, tmp_path: Path) -> None:
    whole = "version: 1\nbudget: {params: 3k}\narch: {stages: 2, stage: {blocks: 1, channels: 4}}\n"
    (tmp_path / "tiny.yaml").write_text(whole)
    (tmp_path / "broken.yaml").write_text(whole.replace("blocks: 1, ", ""))
    typed, message = (text.format(folder=tmp_path) for text in MISTAKES[mistake])
    done = nas(*shlex.split(typed))
    assert done.code == 1
    assert done.out == ""
    assert f"\nError: {message}" in f"\n{done.err}"
    assert "Traceback" not in done.err


@pytest.mark.parametrize("typed", ["serach", "search --trails 3", "search --trials many", "search --seed -1", "submit a b"])
def test_wrong_arguments_are_told_apart_from_other_mistakes(typed: str, nas: Nas) -> None:
    done = nas(*typed.split(" "))
    assert done.code == 2
    assert "Error: " in done.err
    assert "Traceback" not in done.err


def test_a_bug_in_nas_keeps_its_traceback(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("nas.report.record.read_studies", fail)
    with pytest.raises(ZeroDivisionError, match="ours"):
        nas("list")

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.report.record.read_studies", interrupt)
    assert nas("list").code == 130


def test_characters_that_the_terminal_cannot_encode_are_replaced() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-m", "nas", "doctor"], env=environment, capture_output=True, text=True, timeout=120)
    assert "UnicodeEncodeError" not in done.stderr
    assert "  ? auto" in done.stdout


def test_an_argument_that_is_not_utf_8_is_refused(nas: Nas) -> None:
    done = nas("search", "--data", "caf\udce9")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: arguments and file names must be UTF-8, but 'caf\\udce9' is not\n")


@pytest.mark.parametrize("hard", [16, 1024])
def test_the_limit_of_open_files_is_raised_or_named(hard: int) -> None:
    code = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (16, {hard}))\n"
        "from nas.cli.main import main; sys.argv = ['nas', 'list']\n"
        "try:\n    main()\nfinally:\n    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = python(code)
    if hard == 16:
        assert done.stderr.startswith(
            "Error: this shell allows 16 open files for each process, and nas needs 256\nNext:  run ulimit -n 256"
        )
    else:
        assert "Traceback" not in done.stderr
        assert done.stdout.endswith("256\n")


def test_a_network_whose_file_is_gone_is_named(study: StudyPaths, nas: Nas) -> None:
    for file in study.trials.glob("*/candidate.json"):
        file.unlink()
    done = nas("show", "best", "--study", "tiny")
    assert done.code == 1
    assert done.err.startswith(f"Error: {study.trials / '000'}")
    assert done.err.endswith("candidate.json cannot be read: No such file or directory\nNext:  restore it from a copy\n")
