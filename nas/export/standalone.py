"""`model.py`: one file that rebuilds an exported network without this package.

It is put together from the sources of `nas.models` themselves, so that what is added there is exported too; the configurations,
which are pydantic models here, are plain namespaces there. The file of a user's own block becomes a function's body, where its
names are its own.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from types import ModuleType

import jinja2

from nas.config import WHITENING_PATCH, ArchConfig, BlockSource, StemConfig
from nas.data.decoding import RESIZE, with_channels
from nas.errors import ConfigError
from nas.models import blocks, layers, resnet
from nas.train.evaluate import TTA

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("nas.export"), undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
)
_METHODS = (vars(StemConfig)["reduction"].fget, StemConfig.output_size, ArchConfig.stem_channels, ArchConfig.feature_sizes)
"""Of descriptions, which become `Config`'s."""


def standalone_source(title: str, arch: ArchConfig) -> str:
    """`title`: a line that says which network it is for. Raises ConfigError where its block needs more of nas than that has."""
    modules = {module.__name__.rpartition(".")[2]: _parted(module) for module in (layers, blocks, resnet)}
    imports = {line for found, _ in modules.values() for line in found}
    written: list[Callable] = [*TTA.values(), with_channels, *RESIZE.values()]
    return TEMPLATES.get_template("model.jinja").render(
        {name: body for name, (_, body) in modules.items()},
        title=title.replace('"""', "'").replace("\\", "/"),
        patch=WHITENING_PATCH,
        imports="\n".join(sorted(imports, key=_import_order)),
        methods="\n\n".join(inspect.getsource(method).rstrip() for method in _METHODS),
        block=None if arch.block_source is None else _own_block(arch.block, arch.block_source),
        functions=[inspect.getsource(function).rstrip() for function in written],
        averaging=_registry(TTA),
        resizing=_registry(RESIZE),
    )


def _registry(functions: Mapping[str, Callable]) -> str:
    return "{" + ", ".join(f'"{name}": {function.__name__}' for name, function in functions.items()) + "}"


def _parted(module: ModuleType) -> tuple[list[str], str]:
    """A module's imports of other packages, and its code without imports and docstring."""
    source = inspect.getsource(module)
    lines: list[str | None] = [*source.splitlines()]
    docstring, *statements = ast.parse(source).body
    found = [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in (docstring, *found):
        lines[node.lineno - 1 : node.end_lineno] = [None] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    others = [node for node in found if isinstance(node, ast.Import) or not (node.module or "").startswith("nas")]
    return [ast.unparse(node) for node in others], "\n".join(line for line in lines if line is not None).strip()


_DESCRIPTIONS = ("ArchConfig", "StageConfig", "StemConfig", "ImageShape")  # of `nas.config`: what annotations name


def _own_block(name: str, source: BlockSource) -> dict[str, str]:
    tree = ast.parse(source.text)
    body: list[ast.stmt] = []
    for position, node in enumerate(tree.body):
        is_docstring = position == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_program = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        if is_docstring or is_program:
            continue
        body += _without_nas(node, source) if isinstance(node, ast.Import | ast.ImportFrom) else [node]
    # Unparsed, since indentation would change what stands in strings of several lines.
    text = ast.unparse(ast.Module(body, type_ignores=[]))
    return {"name": name, "file": source.file, "body": textwrap.indent(text, "    ")}


def _without_nas(node: ast.Import | ast.ImportFrom, source: BlockSource) -> list[ast.stmt]:
    """What an import of this package becomes where its names stand in the same file."""
    if isinstance(node, ast.Import):
        if any(alias.name.partition(".")[0] == "nas" for alias in node.names):
            raise _needs_more(source, ast.unparse(node))
        return [node]
    module = node.module or ""
    if module == "__future__":
        return []
    if module.partition(".")[0] != "nas":
        return [node]
    there = {name for one in (layers, blocks) for name in vars(one)}
    kept: list[ast.stmt] = []
    for alias in node.names:
        if module in ("nas.models.blocks", "nas.models.layers") and alias.name in there:
            if alias.asname not in (None, alias.name):
                kept += ast.parse(f"{alias.asname} = {alias.name}").body
        elif module == "nas.config" and alias.name in _DESCRIPTIONS:
            kept += ast.parse(f"{alias.asname or alias.name} = Config").body
        else:
            raise _needs_more(source, f"from {module} import {alias.name}")
    return kept


def _needs_more(source: BlockSource, line: str) -> ConfigError:
    return ConfigError(
        f"{source.file} has the line {line!r}, but model.py must work without nas: the only imports of nas that work are "
        "`from nas.models.blocks import NAME` and `from nas.models.layers import NAME`",
        hint="export it with --format onnx or --format torch, or change the file and start a new search",
    )


def _import_order(line: str) -> tuple[bool, bool, str]:
    return "torch" in line, line.startswith("from"), line
