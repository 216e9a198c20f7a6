"""The README, the guide and their neighbours: their links lead somewhere, and their commands can be typed."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from nas.cli.main import app

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
                    (document, part.strip()) for part in line.partition(" #")[0].split(";") if part.strip().startswith("nas ")
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


def test_the_tree_names_every_room() -> None:
    tree = (ROOT / "README.md").read_text().partition("## The house")[2]
    rooms = {path.name + "/" * path.is_dir() for path in (ROOT / "nas").iterdir() if not path.name.startswith("_")}
    assert rooms == set(re.findall(r"(?m)^  ([a-z_]+(?:\.py|/)) ", tree.partition("search_spaces/")[0]))
