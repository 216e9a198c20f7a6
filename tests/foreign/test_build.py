"""A network out of a user's file, and what is said of a file that has none."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torchvision
from torch import nn

from nas.config import ImageShape
from nas.errors import ConfigError
from nas.foreign import foreign_name
from nas.foreign.build import build_network

SHAPE = ImageShape(channels=3, size=32, classes=10)


@pytest.fixture(autouse=True)
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As `mine.py` in the working folder; what its import changes is undone."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield Path(shutil.copy(Path(__file__).parent / "networks.py", tmp_path / "mine.py"))
    for name in set(sys.modules) - before:
        del sys.modules[name]


def build(text: str) -> tuple[nn.Module, str]:
    name = foreign_name(text)
    assert name is not None
    return build_network(name, SHAPE)


@pytest.mark.parametrize(
    ("text", "call", "params"),
    [
        ("mine.py:Net", "Net(num_classes=10)", 3 * 8 * 9 + 8 + 2 * (8 * 8 * 9 + 16) + 90),
        ("mine.py:Net(num_classes=7)", "Net(num_classes=7)", 3 * 8 * 9 + 8 + 2 * (8 * 8 * 9 + 16) + 63),
        ("mine.py:Net(4, 1, 5)", "Net(4, 1, 5)", 3 * 4 * 9 + 4 + (4 * 4 * 9 + 8) + 25),
        ("mine.py:make(width=2)", "make(width=2)", 3 * 2 * 9 + 2 + 2 * (2 * 2 * 9 + 4) + 300),
        ("mine.py:ready", "ready", 3 * 4 * 9 + 4 + 2 * (4 * 4 * 9 + 8) + 50),
    ],
)
def test_networks_of_a_file_are_built(text: str, call: str, params: int) -> None:
    model, built = build(text)
    assert built == call
    assert sum(weight.numel() for weight in model.parameters()) == params


def test_model_of_torchvision_is_built_for_the_classes_of_the_images() -> None:
    model, built = build("torchvision:squeezenet1_1")
    assert built == "squeezenet1_1(num_classes=10)"
    expected = torchvision.models.squeezenet1_1(num_classes=10)
    assert [weight.shape for weight in model.parameters()] == [weight.shape for weight in expected.parameters()]


REFUSED = {
    "mine.py": "mine.py is a file: say which of its networks. Choices: ready, Asks, Leaves, ",
    "mine.py:Nett": "mine.py has no 'Nett'. Did you mean 'Net'? Choices: ",
    "mine.py:Net.body": "mine.py has no 'Net.body'.",
    "mine.py:Options": "mine.py:Options is no torch.nn.Module. Choices: ready, ",
    "mine.py:WIDTH": "mine.py:WIDTH is no torch.nn.Module. Choices: ready, ",
    "mine.py:describe": "mine.py:describe is no torch.nn.Module: describe() gives 'dict'",
    "mine.py:Needs": "mine.py:Needs needs a value for depth, width",
    "mine.py:Needs(3)": "mine.py:Needs(3) needs a value for width",
    "mine.py:Net(widht=3)": "mine.py:Net(widht=3): Net(width: ",
    "mine.py:ready(3)": "mine.py:ready(3): ready is a network already and takes no arguments",
    "mine.py:Raises": "Raises() cannot be built: IndexError: list index out of range (mine.py, line {}, in __init__)",
    "mine.py:Exits": "Exits() cannot be built: it calls sys.exit(3) (mine.py, line {}, in __init__)",
    "torchvision:resnet19": "torchvision has no model 'resnet19' that classifies. Did you mean 'resnet18'? Choices: alexnet, ",
    "torchvision:raft_large": "torchvision has no model 'raft_large' that classifies.",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_built_is_a_sentence(text: str, user_file: Path) -> None:
    lines = user_file.read_text().splitlines()
    faults = {"Raises": "[1, 2][5]", "Exits": "sys.exit(3)"}
    at = next((n for n, line in enumerate(lines, 1) if faults.get(text.rpartition(":")[2], "-") in line), 0)
    with pytest.raises(ConfigError) as refused:
        build(text)
    assert refused.value.message.startswith(REFUSED[text].format(at))


def test_missing_arguments_are_shown_where_they_go() -> None:
    with pytest.raises(ConfigError) as refused:
        build("mine.py:Needs(depth=3)")
    assert refused.value.hint == "arguments stand in the name: 'mine.py:Needs(depth=3, width=…)'"


FILES = {
    "raise ValueError('no\\nsuch thing')": "broken.py cannot be imported: ValueError: no (broken.py, line 1)",
    "x = 1\ndef f(:": "broken.py cannot be imported: SyntaxError: invalid syntax (broken.py, line 2)",
    "import nas_none": "broken.py cannot be imported: ModuleNotFoundError: No module named 'nas_none' (broken.py, line 1)",
    "import sys\nsys.exit()": "broken.py cannot be imported: it calls sys.exit() (broken.py, line 2)",
    "x = 3": "broken.py has no 'Net'. It defines no torch.nn.Module.",
}


@pytest.mark.parametrize("content", FILES)
def test_file_that_cannot_be_imported_is_a_sentence_with_its_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(content)
    with pytest.raises(ConfigError) as refused:
        build("broken.py:Net")
    assert refused.value.message == FILES[content]


def test_interrupts_are_nobodys_fault(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        build("broken.py:Net")
    assert "broken" not in sys.modules


def test_file_finds_its_neighbours_and_its_main_part_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "my_blocks.py").write_text("from torch import nn\nBlock = nn.Linear\n")
    text = "from my_blocks import Block\nclass Net(Block):\n    def __init__(self): super().__init__(2, 3)\n"
    (tmp_path / "sub" / "torch.py").write_text(text + "if __name__ == '__main__':\n    raise SystemExit\n")
    model, _ = build("sub/torch.py:Net")  # named as a module that is there already
    assert sum(weight.numel() for weight in model.parameters()) == 9
