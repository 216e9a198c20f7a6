"""The blocks of a user's own files that a space names: `blocks: [my_blocks.py:ShuffleBlock]`. Reads them and looks at their
syntax; runs nothing, which is for `nas.models.custom`.

A file is kept with the study, and its text with every network that is built of it: so it has to stand alone.
"""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from nas.config import BlockName, BlockSource
from nas.errors import ConfigError, choices_sentence

FindFile = Callable[[str], Path]
"""Where a file lies that a space names."""
Fail = Callable[[str, str], ConfigError]
"""Of a key and a sentence."""


def read_blocks(entries: Any, find_file: FindFile, fail: Fail) -> dict[str, BlockSource]:
    """By their classes' names. Raises what `fail` makes of a mistake."""
    if not isinstance(entries, list):
        raise fail("blocks", f"must be a list such as [my_blocks.py:ShuffleBlock], but is {entries!r}")
    found: dict[str, BlockSource] = {}
    paths: dict[str, Path] = {}
    for i, entry in enumerate(entries):
        key = f"blocks[{i}]"
        file, _, name = entry.rpartition(":") if isinstance(entry, str) else ("", "", "")
        if not file.endswith(".py") or not name.isidentifier():
            raise fail(key, f"must name a Python file and a class of it, such as my_blocks.py:ShuffleBlock, but is {entry!r}")
        if name in get_args(BlockName):
            raise fail(key, f"{name} is the name of a block of our own: give the class in {file} another")
        if name in found:
            raise fail(key, f"{name} names a block twice, of {found[name].file} and of {file}: give one of the classes another")
        path = find_file(file)
        if paths.setdefault(path.name, path) != path:
            raise fail(
                key, f"two files are named {path.name}, and a study keeps them side by side: give one of them another name"
            )
        found[name] = _read(path, name, key, fail)
    return found


def _read(path: Path, name: str, key: str, fail: Fail) -> BlockSource:
    if not path.is_file():
        beside = sorted(other.name for other in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise fail(key, f"there is no file {path}.{choices_sentence(path.name, beside)}")
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except SyntaxError as error:
        raise fail(key, f"{path} is not valid Python: {error.msg} (line {error.lineno})") from None
    except (OSError, ValueError) as error:  # no UTF-8, or a null byte
        raise fail(key, f"{path} cannot be read as Python: {error}") from None
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if name not in classes:
        known = choices_sentence(name, classes) or " It defines none."
        raise fail(key, f"{path} defines no class {name!r}.{known}")
    if neighbour := _neighbour(tree, path.parent):
        raise fail(
            key,
            f"{path} imports {neighbour}, which lies beside it: a study keeps this file alone, so that what it needs stands in "
            "it, or in an installed package",
        )
    return BlockSource(file=path.name, text=text)


def _neighbour(tree: ast.Module, folder: Path) -> str | None:
    """A module in the same folder that is imported."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            if node.level:
                return "." * node.level + (node.module or "")
            names = [node.module or ""]
        for top in {name.partition(".")[0] for name in names} - {"nas"}:
            if (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file():
                return top
    return None
