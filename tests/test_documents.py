"""The README, docs/ and their neighbours: their links lead somewhere, their commands can be typed, the reference is current."""

import ast
import itertools
import os
import re
import runpy
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from nas.cli.main import app
from nas.space.space_file import TOP_KEYS

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for folder in (".", "docs", "search_spaces", "scripts/bench", "studies/reference")
    for path in (ROOT / folder).glob("*.md")
)
PLACEHOLDERS = {"SEED": "0"}


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub names them."""
    text = re.sub(r"(?ms)^```.*?^```", "", document.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"(?m)^#+ (.+)$", text)}


def commands() -> list[tuple[Path, str]]:
    """Each `nas …` line of a block of shell, without what is said of it; what it goes on with on the next line belongs to it."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"(?ms)^ *```sh\n(.*?)^ *```", (ROOT / document).read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                found += [
                    (document, part.strip()) for part in re.split(" [#>] ", line)[0].split(";") if part.strip().startswith("nas ")
                ]
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), f"{document}: {target}"
        if anchor:
            file = file / "README.md" if file.is_dir() else file
            assert anchor in anchors(file), f"{document}: {target}"


def test_every_command_that_is_shown_can_be_typed() -> None:
    known = typer.main.get_group(app).commands
    shown = commands()
    assert len(shown) > 40
    wrong = []
    for document, line in shown:
        name, *words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)[1:] if word != "…"]
        if name == "--install-completion":
            continue
        try:
            known[name].make_context(name, words)
        except Exception as error:  # a kind of typer's own, which its releases name differently
            wrong.append(f"{document}: {line}: {error!r}")
    assert not wrong


def texts_of(node: ast.AST) -> list[str]:
    """What an expression may say, each text with `X` for what is filled in; of a choice all that it chooses among."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            parts = [texts_of(value) for value in values]
            return ["".join(said) for said in itertools.product(*parts)]
        case ast.FormattedValue(value=value):
            return texts_of(value) if isinstance(value, ast.IfExp) else ["X"]
        case ast.IfExp(body=body, orelse=otherwise):
            return texts_of(body) + texts_of(otherwise)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return [one + other for one in texts_of(left) for other in texts_of(right)]
    return ["X"]


def hints() -> list[tuple[str, str]]:
    """Where each `hint=` stands, or what is printed behind `Next:`, and what it may say."""
    found = []
    for file in sorted((ROOT / "nas").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            place = f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            targets = node.targets if isinstance(node, ast.Assign) else []
            names = [one.id for one in targets if isinstance(one, ast.Name)]
            if (isinstance(node, ast.keyword) and node.arg == "hint") or (isinstance(node, ast.Assign) and "hint" in names):
                found += [(place, text) for text in texts_of(node.value)]
            elif isinstance(node, ast.JoinedStr | ast.Constant):
                found += [(place, text.partition("Next:")[2]) for text in texts_of(node) if "Next:  nas" in text]
    return found


def test_every_command_in_a_hint_exists_with_its_options() -> None:
    known = typer.main.get_group(app).commands
    options = {name: {word for parameter in command.params for word in parameter.opts} for name, command in known.items()}
    wrong, count = [], 0
    for place, text in hints():
        for name, rest in re.findall(r"(?<!newer )(?<![\w/.'])nas ([a-z]+)((?: (?! )[^;,:)`]*)?)", text):
            count += 1
            said = re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", rest)
            if name not in known or not set(said) <= options[name] | {"--help"}:
                wrong.append(f"{place}: nas {name}{rest}")
    assert count > 60
    assert not wrong


def test_the_tree_names_every_room() -> None:
    tree = (ROOT / "docs" / "extending.md").read_text().partition("## Layout")[2]
    rooms = {
        path.name + "/" * path.is_dir()
        for path in (ROOT / "nas").iterdir()
        if not path.name.startswith("_") and path.name != "py.typed"
    }
    assert rooms == set(re.findall(r"(?m)^  ([a-z_]+(?:\.py|/)) ", tree.partition("search_spaces/")[0]))


def test_workflows_and_hooks_call_what_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    versions = [one.rpartition(" ")[2] for one in project["classifiers"] if re.search(r"Python :: 3\.\d+$", one)]
    assert set(versions) <= set(jobs["tests"]["strategy"]["matrix"]["python"])
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    called = [step["run"].split() for job in jobs.values() for step in job["steps"] if "run" in step]
    for script, *arguments in called:
        assert os.access(ROOT / script, os.X_OK), script
        assert all((ROOT / one).exists() for one in arguments)
    checks = (ROOT / "scripts/check").read_text()
    for hook in hooks:
        assert hook["entry"].removeprefix(".venv/bin/").removesuffix(" --fix") in checks
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == project["license"]


def test_the_readme_fits_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_table_of_contents_names_every_page() -> None:
    contents = (ROOT / "docs" / "README.md").read_text()
    assert [
        page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md" and f"]({page.name})" not in contents
    ] == []


def test_the_reference_is_current() -> None:
    """Otherwise: python scripts/reference.py"""
    for page, text in runpy.run_path(str(ROOT / "scripts" / "reference.py"))["pages"]().items():
        assert page.read_text() == text, page


def test_the_reference_has_every_key_and_option() -> None:
    keys, commands = ((ROOT / "docs" / name).read_text() for name in ("space-file.md", "commands.md"))
    for key in TOP_KEYS:
        assert f"| `{key}` |" in keys
    for name, command in typer.main.get_group(app).commands.items():
        section = commands.partition(f"## nas {name}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            assert re.search(rf"[` ]{parameter.opts[0]}[`, .]", section), (name, parameter.opts)
