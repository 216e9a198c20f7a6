"""Users' code: read, run, tried and blamed. The blocks that a space names come by their sources, known networks by their files.

Such code runs in the process that calls, with all its rights, wherever a network of it is built: in a search and its workers, a
retraining, a prediction, an export. What is its fault is decided here alone, and becomes a ConfigError that names its line.
"""

import ast
import copy
import hashlib
import linecache
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from nas.config import ArchConfig, BlockName, BlockSource, StageConfig
from nas.device import out_of_memory
from nas.errors import ConfigError, NasError, choices_sentence, one_line
from nas.models.blocks import BLOCKS, BlockPlan, ResidualBlock

Code = BlockSource | Path | None  # a block's source or a network's file; None: of a library, or ours
FindFile = Callable[[str], Path]  # where a file lies that a space names
Fail = Callable[[str, str], ConfigError]  # of a key and a sentence

_OURS = Path(__file__).resolve().parents[1]


# ---------------------------------------------------------------------------------------------------- whose fault it is


@contextmanager
def blaming(code: Code, what: str, hint: str | None = None) -> Iterator[None]:
    """Whatever the user's code raises, sys.exit included, becomes a ConfigError: `what`: the error, and its line.

    Interrupts and memory that ran out are not its fault and pass.
    """
    try:
        yield
    except (NasError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if out_of_memory(error):
            raise
        said = one_line(error)
        if isinstance(error, SyntaxError):
            said = f"SyntaxError: {error.msg}"  # its text also says where, as `place_of` does
        elif isinstance(error, SystemExit):
            said = f"it calls sys.exit({'' if error.code is None else repr(error.code)})"
            hint = 'put code that should only run as a program under if __name__ == "__main__":'
        elif isinstance(error, ModuleNotFoundError) and isinstance(code, BlockSource):
            hint = (
                "a study keeps a copy of only this file, so everything it needs must be in this file or in an installed package"
            )
        elif isinstance(error, ModuleNotFoundError):
            hint = hint or f"install {error.name!r} where nas is installed, or run nas from the folder that holds it"
        raise ConfigError(f"{what}: {said}{place_of(error, code)}", hint=hint) from None


@contextmanager
def blaming_block(arch: ArchConfig, what: str, hint: str | None = None) -> Iterator[None]:
    """Likewise of the block of a user's own file: `my_blocks.py:Block` `what`. Nothing changes for our own."""
    if arch.block_source is None:
        yield
        return
    with blaming(arch.block_source, f"{_label(arch)} {what}", hint):
        yield


def place_of(error: BaseException, code: Code) -> str:
    """` (net.py, line 7, in forward)`: the innermost line of the user's; empty where there is none."""
    frames = [(frame.filename, frame.lineno, frame.name) for frame in reversed(traceback.extract_tb(error.__traceback__))]
    if isinstance(error, SyntaxError):
        frames.insert(0, (error.filename or "", error.lineno, "<module>"))
    return next((f" ({found})" for frame in frames if (found := users_line(code, *frame))), "")


def users_line(code: Code, file: str, line: int | str | None, function: str) -> str | None:
    """`net.py, line 7, in forward`; None for a line that is not the user's."""
    if isinstance(code, BlockSource):
        name = code.file if file == _pseudo_file(code) else None
    else:
        folder = None if code is None else code.absolute().parent
        name = str(Path(file).relative_to(folder)) if folder is not None and is_users(file, folder) else None
    inside = "" if function == "<module>" else f", in {function}"
    return None if name is None else f"{name}, line {line}{inside}"


def is_users(file: Path | str, folder: Path) -> bool:
    """Whether it lies in the user's folder, and neither in an environment there nor in this package."""
    path = Path(file)
    return path.is_relative_to(folder) and not ({"site-packages", "dist-packages"} & {*path.parts} or path.is_relative_to(_OURS))


# ------------------------------------------------------------------------------------------------------- running a file


def load_file(file: Path) -> ModuleType:
    """The file as a module; what stands under `__main__` is not run. Raises ConfigError. See `imports_of`."""
    file = file.absolute()
    name = file.stem if file.stem not in sys.modules else f"nas_user_{file.stem}"
    with blaming(file, f"{file.name} cannot be imported"):
        return _run(name, file.read_bytes(), str(file))


@contextmanager
def imports_of(file: Path | None) -> Iterator[None]:
    """Within, the modules of the file's folder can be imported, and are imported anew: what this process has imported by their
    names may be older than they are, or of another folder. That is back afterwards, and nothing of Python's is ever hidden."""
    if file is None:
        yield
        return
    folder = file.absolute().parent
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()} - {"__main__"}
    hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in names and _is_hidden(module)}
    for name in hidden:
        del sys.modules[name]
    path, writes_no_bytecode = sys.path[:], sys.dont_write_bytecode
    # As of a program that is run from there, but for what Python itself has.
    installed = next((i for i, one in enumerate(path) if "site-packages" in one or "dist-packages" in one), len(path))
    sys.path.insert(installed, str(folder))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_no_bytecode
        sys.modules.update(hidden)
        # At the end it serves what its code imports later, and stands in for nothing that this process will need.
        sys.path[:] = [*path, *({str(folder)} - set(path))]


def _is_hidden(module: ModuleType) -> bool:
    """Whether it came from a user's file, or is a folder of such."""
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    return isinstance(file, str) and is_users(file, Path("/")) and not Path(file).is_relative_to(Path(ast.__file__).parent)


def _run(name: str, text: str | bytes, file: str) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module  # where dataclasses look it up
    try:
        exec(compile(text, file, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


# -------------------------------------------------------------------------------------------- blocks that a space names


def read_blocks(entries: Any, find_file: FindFile, fail: Fail) -> dict[str, BlockSource]:
    """`blocks: [my_blocks.py:ShuffleBlock]`, by their classes' names. Looks at the syntax and runs nothing. A file is kept with
    the study, and its text with every network that is built of it, so that it has to stand alone.

    Raises what `fail` makes of a mistake.
    """
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
            raise fail(key, f"{name} is the name of a built-in block: rename the class in {file}")
        if name in found:
            raise fail(key, f"{name} names a block twice, of {found[name].file} and of {file}: rename one of the classes")
        path = find_file(file)
        if paths.setdefault(path.name, path) != path:
            raise fail(key, f"two files are named {path.name}, and a study keeps them in one folder: rename one of them")
        found[name] = _read_block(path, name, key, fail)
    return found


def _read_block(path: Path, name: str, key: str, fail: Fail) -> BlockSource:
    if not path.is_file():
        raise fail(key, no_file_sentence(path))
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
    if neighbour := _imported_neighbour(tree, path.parent):
        raise fail(
            key,
            f"{path} imports {neighbour}, a file beside it: a study keeps a copy of only this file, so everything it needs must "
            "be in this file or in an installed package",
        )
    return BlockSource(file=path.name, text=text)


def no_file_sentence(path: Path) -> str:
    """With the Python files that are there."""
    try:
        beside = sorted(other.name for other in path.parent.glob("*.py"))
    except OSError:
        beside = []
    return f"there is no file {path}.{choices_sentence(path.name, beside)}"


def _imported_neighbour(tree: ast.Module, folder: Path) -> str | None:
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


SIGNATURE = "class {name}(ResidualBlock) has __init__(self, plan: BlockPlan), forward(self, x) and zero_residual(self)"


def block_class(arch: ArchConfig) -> type[ResidualBlock]:
    """Raises ConfigError where a user's file does not hold it."""
    return BLOCKS[arch.block] if arch.block_source is None else _load_block(arch.block, arch.block_source)


def make_block(plan: BlockPlan, hint: str | None = None) -> ResidualBlock:
    """Raises ConfigError, with the hint, where a user's block cannot be built."""
    arch, stage = plan.arch, plan.stage
    what = f"cannot be built for {plan.channels_in} → {stage.channels} channels, kernel {stage.kernel}, stride {plan.stride}"
    with blaming_block(arch, what, hint):
        return block_class(arch)(plan)


@lru_cache(maxsize=64)
def _load_block(name: str, source: BlockSource) -> type[ResidualBlock]:
    """Runs the source, once in a process. Raises ConfigError."""
    file, text = _pseudo_file(source), source.text
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # so that tracebacks show lines
    with blaming(source, f"{source.file} cannot be run"):
        module = _run(f"nas_block_{hashlib.sha256(text.encode()).hexdigest()[:16]}", text, file)
    found: Any = getattr(module, name, None)
    label, signature = f"{source.file}:{name}", SIGNATURE.format(name=name)
    if not isinstance(found, type):
        raise ConfigError(f"{label} is not a class", hint=signature)
    if not issubclass(found, ResidualBlock):
        bases = ", ".join(base.__name__ for base in found.__bases__)
        raise ConfigError(
            f"{label} is not a block: a block is a subclass of ResidualBlock, but this class has the bases {bases}",
            hint=f"from nas.models.blocks import BlockPlan, ResidualBlock; {signature}",
        )
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ConfigError(f"{label} has no {', '.join(missing)}", hint=signature)
    return found


def _pseudo_file(source: BlockSource) -> str:
    return f"<{source.file}>"


def _label(arch: ArchConfig) -> str:
    return arch.block if arch.block_source is None else f"{arch.block_source.file}:{arch.block}"


# --------------------------------------------------------------------------------------------------- what a block must do


SIZES = (8, 9, 1)  # of the maps that a block is tried on: even, odd, and the smallest


def check_block(arch: ArchConfig, widths: tuple[int, int]) -> None:
    """Tries the block of `arch`, of its first stage but for the channels, on small maps, between these widths: shapes at both
    strides, in training and prediction, and that gradients pass. Raises ConfigError.
    """
    narrow, wide = widths
    with torch.random.fork_rng(devices=[]):
        for channels_in, channels in dict.fromkeys([(narrow, narrow), (narrow, wide), (wide, narrow)]):
            for stride in (1, 2):
                stage = arch.stages[0].model_copy(update={"channels": channels})
                plan = BlockPlan(arch, stage, channels_in, stride, 0.0)
                block = make_block(plan)
                if any(is_lazy(weight) for weight in block.parameters()):
                    raise ConfigError(
                        f"{_label(arch)} has lazy parameters, but a network is counted before it sees an image",
                        hint="give its layers fixed widths: plan.channels_in and plan.stage.channels",
                    )
                weight_norm = "instead of torch.nn.utils.weight_norm, use torch.nn.utils.parametrizations.weight_norm"
                with blaming_block(arch, "cannot be copied with copy.deepcopy, which EMA weights need", weight_norm):
                    copy.deepcopy(block)
                with blaming_block(arch, "fails in zero_residual"):
                    block.zero_residual()
                block = make_block(plan)
                for size in SIZES if stride == 1 else SIZES[:2]:
                    _try(block, plan, size)
                with blaming_block(arch, "fails on the meta device, where parameters and memory are counted"):
                    block.to("meta")(torch.empty(1, channels_in, SIZES[0], SIZES[0], device="meta"))


def check_width(arch: ArchConfig, stage: StageConfig) -> None:
    """Whether the block can be built so wide, on the meta device. Raises ConfigError."""
    hint = "give the range of channels a step, such as {type: int, low: 16, high: 128, step: 8}"
    with torch.device("meta"):
        for stride in (1, 2):
            make_block(BlockPlan(arch, stage, stage.channels, stride, 0.0), hint)


def _try(block: ResidualBlock, plan: BlockPlan, size: int) -> None:
    arch, channels, label = plan.arch, plan.stage.channels, _label(plan.arch)
    x = torch.randn(2, plan.channels_in, size, size)
    after = -(-size // plan.stride)
    at = f"at stride {plan.stride}"
    for training in (True, False):
        with blaming_block(arch, f"fails in {'training' if training else 'prediction'}, {at}, on {_shape(x.shape)}"):
            y = block.train(training)(x)
        if not isinstance(y, Tensor):
            raise ConfigError(f"{label} returns {type(y).__name__}, not a tensor")
        if y.dim() != 4 or len(y) != len(x):
            raise ConfigError(f"{label} makes {_shape(y.shape)} of {_shape(x.shape)}, but must keep the shape (N, C, H, W)")
        if y.shape[1] != channels:
            raise ConfigError(
                f"{label} makes {y.shape[1]} channels of {plan.channels_in} {at}, but must make plan.stage.channels, {channels}",
                hint="the shortcut has to change them, too: nas.models.blocks.make_shortcut(plan)",
            )
        if tuple(y.shape[2:]) != (after, after):
            raise ConfigError(
                f"{label} has a wrong output size: {at} it makes {y.shape[2]}×{y.shape[3]} of {size}×{size}, and must "
                f"make {after}×{after}, the size divided by the stride and rounded up",
                hint="a k×k convolution keeps the size with padding=k // 2, as in nas.models.layers.conv",
            )
        weights = [weight for weight in block.parameters() if weight.requires_grad]
        if training and weights:
            with blaming_block(arch, "fails in the backward pass"):
                gradients = torch.autograd.grad(y.sum(), weights, allow_unused=True) if y.requires_grad else ()
            if all(gradient is None for gradient in gradients):
                raise ConfigError(f"{label} cannot be trained: no gradient reaches its parameters")


def _shape(shape: torch.Size) -> str:
    return "×".join(map(str, shape))
