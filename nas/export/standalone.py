"""`model.py`: one file that rebuilds an exported network without this package.

It is put together from the sources of `nas.models` themselves, so that what is added there is exported too; the configurations,
which are pydantic models here, are plain namespaces there. The file of a user's own block becomes a function's body, where its
names are its own.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import ModuleType

from nas.config import WHITENING_PATCH, ArchConfig, BlockSource, StemConfig
from nas.data.decoding import RESIZE, with_channels
from nas.errors import ConfigError
from nas.models import blocks, layers, resnet
from nas.train.evaluate import TTA

_HEAD = '''"""{title}

Put together by nas from its own sources. Needs torch, and to predict from image files Pillow:

    python model.py IMAGE...        prints the most probable classes
    import model; network = model.load()        a torch module: uint8 images (N, H, W, C) -> logits (N, classes)

model.json and model.safetensors lie beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

{imports}

try:
    from PIL import Image, ImageOps
except ImportError:  # which only `read_image` needs
    Image = ImageOps = None

WHITENING_PATCH = {patch}


class ConfigError(ValueError):
    def __init__(self, message, hint=None):
        super().__init__(message)


class Config(SimpleNamespace):
    """A part of model.json by its fields."""

    @classmethod
    def of(cls, tree):
        if isinstance(tree, dict):
            return cls(**{{name: cls.of(value) for name, value in tree.items()}})
        return [cls.of(value) for value in tree] if isinstance(tree, list) else tree
'''

_BLOCKS = """
def block_class(arch):
    return BLOCKS[arch.block]


def make_block(plan):
    return block_class(plan.arch)(plan)
"""

_OWN_BLOCK = '''
def _{name}():
    """The block of {file}."""
{body}
    return {name}


BLOCKS["{name}"] = _{name}()
'''

_TAIL = '''
# ------------------------------------------------------------------------------------------------------ using it


class Predictor(nn.Module):
    """uint8 images (N, H, W, C), RGB or grey as the network was trained on, to float32 logits (N, classes)."""

    def __init__(self, model, card):
        super().__init__()
        self.model, self.card = model, card
        self.mean, self.scale = torch.tensor(card["mean"]), 1.0 / torch.tensor(card["std"])

    def forward(self, images):
        x = ((images.float() - self.mean.to(images.device)) * self.scale.to(images.device)).permute(0, 3, 1, 2)
        return TTA[self.card["tta"]](self.model, x)


DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
}


def read_safetensors(path):
    """The tensors by name: 8 bytes with the length of a JSON header, which says where in what follows each one lies."""
    content = Path(path).read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, entry in json.loads(content[8:begin]).items():
        if name != "__metadata__":
            start, end = (begin + offset for offset in entry["data_offsets"])
            kind, values = DTYPES[entry["dtype"]], bytearray(content[start:end])
            flat = torch.frombuffer(values, dtype=kind) if values else torch.empty(0, dtype=kind)
            tensors[name] = flat.reshape(entry["shape"])
    return tensors


def load(folder=Path(__file__).parent, weights="model.safetensors"):
    """The network with its weights, on the CPU, in evaluation mode."""
    card = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
    model = build_model(Config.of(card["candidate"]["arch"]), Config.of(card["shape"]))
    tensors = read_safetensors(Path(folder) / weights)
    model.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    return Predictor(model, card).eval()


def read_image(path, shape, resize):
    """uint8 (H, W, C), brought to the network's size as in training."""
    image = RESIZE[resize](with_channels(Image.open(path), shape["channels"]), shape["size"])
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.reshape(shape["size"], shape["size"], shape["channels"])


if __name__ == "__main__":
    network = load()
    how = network.card["data"]["resize"]
    with torch.inference_mode():
        for path in sys.argv[1:]:
            shares = network(read_image(path, network.card["shape"], how)[None]).softmax(1)[0]
            best = shares.topk(min(3, len(shares)))
            named = [f"{network.card['classes'][i]} {share:.1%}" for share, i in zip(best.values.tolist(), best.indices.tolist())]
            print(f"{path}: {', '.join(named)}")
'''


_METHODS = (
    vars(StemConfig)["reduction"].fget,
    StemConfig.output_size,
    ArchConfig.stem_channels,
    ArchConfig.feature_sizes,
)
"""Of descriptions, which become `Config`'s."""


def standalone_source(title: str, arch: ArchConfig) -> str:
    """`title`: a line that says which network it is for. Raises ConfigError where its block needs more of nas than that has."""
    imports: dict[str, None] = {}
    bodies = []
    for module in (layers, blocks, resnet):
        found, body = _parted(module)
        imports.update(dict.fromkeys(found))
        bodies.append(body)
        if module is blocks:
            bodies.append(_BLOCKS.strip())
            if arch.block_source is not None:
                bodies.append(_own_block(arch.block, arch.block_source))
    written: list[Callable] = [*TTA.values(), with_channels, *RESIZE.values()]
    functions = [inspect.getsource(function).rstrip() for function in written]
    names, resizes = (", ".join(f'"{name}": {function.__name__}' for name, function in table.items()) for table in (TTA, RESIZE))
    shown = title.replace('"""', "'").replace("\\", "/")
    head = _HEAD.format(title=shown, patch=WHITENING_PATCH, imports="\n".join(sorted(imports, key=_import_order))).rstrip()
    methods = [inspect.getsource(method).rstrip() for method in _METHODS]
    return (
        "\n\n\n".join(
            ["\n\n".join([head, *methods]), *bodies, *functions, f"TTA = {{{names}}}", f"RESIZE = {{{resizes}}}", _TAIL.strip()]
        )
        + "\n"
    )


def _parted(module: ModuleType) -> tuple[list[str], str]:
    """A module's imports of other packages, and its code without imports and docstring."""
    source = inspect.getsource(module)
    lines = source.splitlines()
    imports: list[str] = []
    dropped: set[int] = set()
    for position, node in enumerate(ast.parse(source).body):
        is_docstring = position == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.Import | ast.ImportFrom) or is_docstring:
            dropped.update(range(node.lineno - 1, node.end_lineno or node.lineno))
            if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("nas")):
                imports.append(ast.unparse(node))
    return imports, "\n".join(line for i, line in enumerate(lines) if i not in dropped).strip()


_DESCRIPTIONS = ("ArchConfig", "StageConfig", "StemConfig", "ImageShape")  # of `nas.config`: what annotations name


def _own_block(name: str, source: BlockSource) -> str:
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
    return _OWN_BLOCK.format(name=name, file=source.file, body=textwrap.indent(text, "    ")).strip()


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
        f"{source.file} says {line!r}, which cannot stand in a model.py that needs nothing of nas: single names of "
        "nas.models.blocks and nas.models.layers can",
        hint="export it with --format onnx or --format torch, or change the file and search anew",
    )


def _import_order(line: str) -> tuple[bool, bool, str]:
    return "torch" in line, line.startswith("from"), line
