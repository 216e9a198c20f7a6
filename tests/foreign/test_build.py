"""How networks that are not ours are named, built, and what is said where they cannot be."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nas.config import BudgetConfig, ImageShape
from nas.errors import ConfigError
from nas.foreign import build_network, foreign_name
from nas.foreign.known import measure, named

pytestmark = pytest.mark.usefixtures("user_file")
SHAPE = ImageShape(channels=3, size=32, classes=10)


def test_names_are_files_or_torchvisions(user_file: Path) -> None:
    for other in ("best", "12", "preset:resnet-443", "resnet18", "net.yaml"):
        assert foreign_name(other) is None
    found = named("torchvision:resnet18")
    assert (found.file, found.attribute, found.positional, found.keywords) == (None, "resnet18", (), {})
    names = {"mine.py": "", "mine.py:Net": "Net", f"{user_file}:Outer.Net": "Outer.Net", "./mine.py:f()": "f"}
    for text, attribute in names.items():
        found = named(text)
        assert found.file is not None
        assert (found.file.name, found.attribute, found.positional, found.keywords) == ("mine.py", attribute, (), {})


def test_arguments_are_python_literals() -> None:
    found = named("mine.py:Net(64, 'a.py:b', depths=[2, 2], scale=-0.5, bias=None)")
    assert (found.attribute, found.positional) == ("Net", (64, "a.py:b"))
    assert found.keywords == {"depths": [2, 2], "scale": -0.5, "bias": None}
    assert found.called({"num_classes": 10}) == "Net(64, 'a.py:b', num_classes=10)"
    assert found.example("Net(width=3)") == "'mine.py:Net(width=3)'"


@pytest.mark.parametrize(
    "what",
    ["Net(width=x)", "Net(**{})", "Net(*[1])", "Net(", "Net[3]", "Net().body", "__import__('os').system('true')", "3", "a b"],
)
def test_what_is_no_name_and_no_literal_is_refused_and_not_run(what: str) -> None:
    with pytest.raises(ConfigError, match="the part after the colon must be a name") as refused:
        foreign_name(f"mine.py:{what}")
    assert repr(what) in refused.value.message


def test_missing_file_is_told_with_those_that_are_there() -> None:
    with pytest.raises(ConfigError, match=r"there is no file minn.py. Did you mean 'mine.py'\? Choices: mine.py."):
        foreign_name("minn.py:Net")
    with pytest.raises(ConfigError, match=r"there is no file nowhere/mine.py.$"):
        foreign_name("nowhere/mine.py:Net")


def build(text: str) -> tuple[nn.Module, str]:
    return build_network(named(text), SHAPE)


@pytest.mark.parametrize(
    ("text", "call", "params"),
    [
        ("mine.py:Net", "Net(num_classes=10)", 3 * 8 * 9 + 8 + 2 * (8 * 8 * 9 + 16) + 90),
        ("mine.py:Net(num_classes=7)", "Net(num_classes=7)", 3 * 8 * 9 + 8 + 2 * (8 * 8 * 9 + 16) + 63),
        ("mine.py:Net(4, 1, 5)", "Net(4, 1, 5)", 3 * 4 * 9 + 4 + (4 * 4 * 9 + 8) + 25),
        ("mine.py:make(width=2)", "make(width=2)", 3 * 2 * 9 + 2 + 2 * (2 * 2 * 9 + 4) + 300),
        ("mine.py:ready", "ready", 3 * 4 * 9 + 4 + 2 * (4 * 4 * 9 + 8) + 50),
        ("torchvision:squeezenet1_1", "squeezenet1_1(num_classes=10)", 727_626),
    ],
)
def test_networks_of_a_file_are_built(text: str, call: str, params: int) -> None:
    model, built = build(text)
    assert built == call
    assert sum(weight.numel() for weight in model.parameters()) == params


def test_networks_of_timm_take_the_images_channels() -> None:
    pytest.importorskip("timm")
    model, built = build_network(named("timm:resnet10t"), SHAPE.model_copy(update={"channels": 1}))
    assert built == "resnet10t(num_classes=10, in_chans=1)"
    assert model.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 10)
    with pytest.raises(ConfigError, match=r"timm has no model 'resnet19'\. Did you mean 'resnet1") as refused:
        build("timm:resnet19")
    assert len(refused.value.message) < 200
    known = measure("timm:resnet10t", SHAPE, BudgetConfig(params=1000), 250, lambda name, text: None)
    assert known.params == sum(one.numel() for one in build("timm:resnet10t")[0].parameters())


def test_timm_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match="timm:resnet18 needs the package timm, which is not installed") as refused:
        build("timm:resnet18")
    assert refused.value.hint == "pip install 'nas-under-budget[timm]'"


REFUSED = {
    "mine.py": "mine.py is a file; add the name of a network in it. Choices: ready, Counts, Frozen, ",
    "mine.py:Nett": "mine.py has no 'Nett'. Did you mean 'Net'? Choices: ",
    "mine.py:Net.body": "mine.py has no 'Net.body'.",
    "mine.py:Options": "mine.py:Options is not a torch.nn.Module. Choices: ready, ",
    "mine.py:WIDTH": "mine.py:WIDTH is not a torch.nn.Module. Choices: ready, ",
    "mine.py:describe": "mine.py:describe is not a torch.nn.Module: describe() returns 'dict'",
    "mine.py:Needs": "mine.py:Needs needs a value for depth, width",
    "mine.py:Needs(3)": "mine.py:Needs(3) needs a value for width",
    "mine.py:Net(widht=3)": "mine.py:Net(widht=3): Net(width: ",
    "mine.py:ready(3)": "mine.py:ready(3): ready is already a network, and takes no arguments",
    "mine.py:Raises": "Raises() cannot be built: IndexError: list index out of range (mine.py, line {}, in __init__)",
    "mine.py:Exits": "Exits() cannot be built: it calls sys.exit(3) (mine.py, line {}, in __init__)",
    "torchvision:resnet19": "torchvision has no classification model 'resnet19'. Did you mean 'resnet18'? Choices: alexnet, ",
    "torchvision:raft_large": "torchvision has no classification model 'raft_large'.",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_built_is_a_sentence(text: str, user_file: Path) -> None:
    lines = user_file.read_text().splitlines()
    faults = {"Raises": "[1, 2][5]", "Exits": "sys.exit(3)"}
    at = next((n for n, line in enumerate(lines, 1) if faults.get(text.rpartition(":")[2], "-") in line), 0)
    with pytest.raises(ConfigError) as refused:
        build(text)
    assert refused.value.message.startswith(REFUSED[text].format(at))
    if text == "mine.py:Needs(3)":
        assert refused.value.hint == "write the arguments in the name: 'mine.py:Needs(3, width=…)'"


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
