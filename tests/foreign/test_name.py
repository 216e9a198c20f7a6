"""How a network that is not ours is named."""

from pathlib import Path

import pytest

from nas.errors import ConfigError
from nas.foreign import foreign_name


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "net.py").touch()
    return tmp_path / "net.py"


def test_names_are_files_or_torchvisions(file: Path) -> None:
    for other in ("best", "12", "preset:resnet-443", "resnet18", "net.yaml"):
        assert foreign_name(other) is None
    named = foreign_name("torchvision:resnet18")
    assert named is not None
    assert (named.file, named.attribute, named.positional, named.keywords) == (None, "resnet18", (), {})
    for text, attribute in (("net.py", ""), ("net.py:Net", "Net"), (f"{file}:Outer.Net", "Outer.Net"), ("./net.py:f()", "f")):
        named = foreign_name(text)
        assert named is not None
        assert named.file is not None
        assert (named.file.name, named.attribute, named.positional, named.keywords) == ("net.py", attribute, (), {})


def test_arguments_are_python_literals(file: Path) -> None:
    named = foreign_name("net.py:Net(64, 'a.py:b', depths=[2, 2], scale=-0.5, bias=None)")
    assert named is not None
    assert (named.attribute, named.positional) == ("Net", (64, "a.py:b"))
    assert named.keywords == {"depths": [2, 2], "scale": -0.5, "bias": None}
    assert named.called({"num_classes": 10}) == "Net(64, 'a.py:b', num_classes=10)"
    assert named.example("Net(width=3)") == "'net.py:Net(width=3)'"


@pytest.mark.parametrize(
    "what",
    ["Net(width=x)", "Net(**{})", "Net(*[1])", "Net(", "Net[3]", "Net().body", "__import__('os').system('true')", "3", "a b"],
)
def test_what_is_no_name_and_no_literal_is_refused_and_not_run(file: Path, what: str) -> None:
    with pytest.raises(ConfigError, match="after the colon stands a name") as refused:
        foreign_name(f"net.py:{what}")
    assert repr(what) in refused.value.message


def test_missing_file_is_told_with_those_that_are_there(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file nett.py. Did you mean 'net.py'\? Choices: net.py."):
        foreign_name("nett.py:Net")
    with pytest.raises(ConfigError, match=r"there is no file nowhere/net.py.$"):
        foreign_name("nowhere/net.py:Net")
