"""How a network that is not ours is named: `net.py:Net`, `net.py:Net(width=64)`, `torchvision:resnet18`.

Arguments stand in the name, as in Python, so that the name alone says which network it is.
"""

import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.errors import ConfigError, choices_sentence

TORCHVISION = "torchvision:"
_IN_A_FILE = re.compile(r"(?P<file>.+?\.py)(?::(?P<what>.*))?", re.DOTALL)


@dataclass(frozen=True)
class ForeignName:
    file: Path | None
    """None: of torchvision."""
    attribute: str
    """`Net`, or `Outer.Net`; empty where the name stops at the file."""
    positional: tuple[Any, ...]
    keywords: dict[str, Any]
    text: str
    """As it was typed."""

    def called(self, arguments: dict[str, Any]) -> str:
        """`Net(64, num_classes=10)`: with these keywords."""
        words = [*map(repr, self.positional), *(f"{key}={value!r}" for key, value in arguments.items())]
        return f"{self.attribute}({', '.join(words)})"

    def example(self, call: str) -> str:
        """The name with another `call`, quoted for a shell."""
        return shlex.quote(f"{TORCHVISION if self.file is None else f'{self.file}:'}{call}")


def foreign_name(text: str) -> ForeignName | None:
    """None where it names neither a Python file nor a model of torchvision.

    Raises ConfigError for a file that is not there and for arguments that are no Python literals.
    """
    if text.startswith(TORCHVISION):
        file, what = None, text.removeprefix(TORCHVISION)
    elif match := _IN_A_FILE.fullmatch(text):
        file, what = _existing(Path(match["file"])), match["what"] or ""
    else:
        return None
    attribute, positional, keywords = _parsed(what.strip(), text)
    return ForeignName(file, attribute, positional, keywords, text)


def _existing(file: Path) -> Path:
    if file.is_file():
        return file
    try:
        beside = sorted(path.name for path in file.parent.glob("*.py"))
    except OSError:
        beside = []
    raise ConfigError(
        f"there is no file {file}.{choices_sentence(file.name, beside)}",
        hint="name a Python file and its class: net.py:Net",
    )


def _parsed(what: str, text: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    if not what:
        return "", (), {}
    wrong = ConfigError(
        f"after the colon stands a name, or a name with arguments that are Python's literals, but {text!r} has {what!r}",
        hint="for example 'net.py:Net(width=64, depths=[2, 2])', quoted for the shell",
    )
    try:
        node = ast.parse(what, mode="eval").body
        positional: tuple[Any, ...] = ()
        keywords: dict[str, Any] = {}
        if isinstance(node, ast.Call):
            if any(word.arg is None for word in node.keywords):
                raise wrong
            positional = tuple(ast.literal_eval(value) for value in node.args)
            keywords = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
            node = node.func
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise wrong from None
    attribute = ast.unparse(node)
    if not all(part.isidentifier() for part in attribute.split(".")):
        raise wrong
    return attribute, positional, keywords
