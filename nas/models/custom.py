"""Blocks of users' own files, by their sources.

A source is code. It runs here, in this process and with all its rights, wherever a network of its block is built: in a search and
its workers, in a retraining, a prediction, an export. Every fault of it becomes a ConfigError that names its line.
"""

import hashlib
import linecache
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nas.config import ArchConfig, BlockSource, StageConfig
from nas.errors import ConfigError, NasError, one_line
from nas.models.blocks import BLOCKS, BlockPlan, ResidualBlock

SIGNATURE = "class {name}(ResidualBlock) has __init__(self, plan: BlockPlan), forward(self, x) and zero_residual(self)"


def block_class(arch: ArchConfig) -> type[ResidualBlock]:
    """Raises ConfigError where a user's file does not hold it."""
    return BLOCKS[arch.block] if arch.block_source is None else load_block(arch.block, arch.block_source)


def make_block(plan: BlockPlan, hint: str | None = None) -> ResidualBlock:
    """Raises ConfigError, with the hint, where a user's block cannot be built."""
    arch, stage = plan.arch, plan.stage
    what = f"cannot be built for {plan.channels_in} → {stage.channels} channels, kernel {stage.kernel}, stride {plan.stride}"
    with blaming_block(arch, what, hint):
        return block_class(arch)(plan)


@lru_cache(maxsize=64)
def load_block(name: str, source: BlockSource) -> type[ResidualBlock]:
    """Runs the source, once in a process. Raises ConfigError."""
    module = _run(source)
    found: Any = getattr(module, name, None)
    label = f"{source.file}:{name}"
    if not isinstance(found, type):
        raise ConfigError(f"{label} is no class", hint=SIGNATURE.format(name=name))
    if not issubclass(found, ResidualBlock):
        bases = ", ".join(base.__name__ for base in found.__bases__)
        raise ConfigError(
            f"{label} is no block: a block is a ResidualBlock, which is a torch.nn.Module, and this is a class of {bases}",
            hint="from nas.models.blocks import BlockPlan, ResidualBlock; " + SIGNATURE.format(name=name),
        )
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ConfigError(f"{label} has no {', '.join(missing)}", hint=SIGNATURE.format(name=name))
    return found


def _run(source: BlockSource) -> ModuleType:
    digest = hashlib.sha256(source.text.encode()).hexdigest()[:16]
    module = ModuleType(f"nas_block_{digest}")
    module.__file__ = file = _file_name(source)
    linecache.cache[file] = (len(source.text), None, source.text.splitlines(keepends=True), file)  # so that tracebacks show lines
    sys.modules[module.__name__] = module  # where dataclasses look it up
    try:
        with _blaming(source, f"{source.file} cannot be run"):
            exec(compile(source.text, file, "exec"), module.__dict__)
    except ConfigError:
        del sys.modules[module.__name__]
        raise
    return module


def _file_name(source: BlockSource) -> str:
    return f"<{source.file}>"


# ----------------------------------------------------------------------------------------------------- whose fault it is


@contextmanager
def blaming_block(arch: ArchConfig, what: str, hint: str | None = None) -> Iterator[None]:
    """Whatever the block of a user's own file raises becomes a ConfigError: `my_blocks.py:Block` `what`: the error, and its
    line. Nothing changes for our own."""
    if arch.block_source is None:
        yield
        return
    with _blaming(arch.block_source, f"{_label(arch)} {what}", hint):
        yield


@contextmanager
def _blaming(source: BlockSource, what: str, hint: str | None = None) -> Iterator[None]:
    try:
        yield
    except (NasError, KeyboardInterrupt, MemoryError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        said = f"SyntaxError: {error.msg}" if isinstance(error, SyntaxError) else one_line(error)
        if isinstance(error, SystemExit):
            said = "it calls sys.exit"
        if isinstance(error, ModuleNotFoundError):
            hint = "its file is kept with each study by itself: what it needs stands in the same file, or in an installed package"
        raise ConfigError(f"{what}: {said}{_place(error, source)}", hint=hint) from None


def _place(error: BaseException, source: BlockSource) -> str:
    """` (my_blocks.py, line 7, in forward)`: the innermost line of the source."""
    file = _file_name(source)
    if isinstance(error, SyntaxError) and error.filename == file:
        return f" ({source.file}, line {error.lineno})"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == file:
            inside = f", in {frame.name}" if frame.name != "<module>" else ""
            return f" ({source.file}, line {frame.lineno}{inside})"
    return ""


# --------------------------------------------------------------------------------------------------- what a block must do


SIZES = (8, 9, 1)
"""Of the maps that a block is tried on: even, odd, and the smallest."""


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
                with blaming_block(arch, "fails in zero_residual"):
                    block.zero_residual()
                block = make_block(plan)
                for size in SIZES if stride == 1 else SIZES[:2]:
                    _try(block, plan, size)
                with blaming_block(arch, "fails on the meta device, where parameters and memory are counted"):
                    block.to("meta")(torch.empty(1, channels_in, SIZES[0], SIZES[0], device="meta"))


def _try(block: ResidualBlock, plan: BlockPlan, size: int) -> None:
    arch, stage, label = plan.arch, plan.stage, _label(plan.arch)
    x = torch.randn(2, plan.channels_in, size, size)
    after = -(-size // plan.stride)
    wanted = (stage.channels, after, after)
    at = f"at stride {plan.stride}"
    for training in (True, False):
        mode = "training" if training else "prediction"
        with blaming_block(arch, f"fails in {mode}, {at}, on {_shape(x.shape)}"):
            y = block.train(training)(x)
        if not isinstance(y, Tensor):
            raise ConfigError(f"{label} gives no tensor but {type(y).__name__}")
        if y.dim() != 4 or len(y) != len(x):
            raise ConfigError(f"{label} makes {_shape(y.shape)} of {_shape(x.shape)}, and must keep images apart: (N, C, H, W)")
        if y.shape[1] != stage.channels:
            raise ConfigError(
                f"{label} gives {y.shape[1]} channels, and must give plan.stage.channels, {stage.channels}, of "
                f"{plan.channels_in} {at}",
                hint="the shortcut, too, has to change them: nas.models.blocks.make_shortcut(plan)",
            )
        if tuple(y.shape[1:]) != wanted:
            raise ConfigError(
                f"{label} changes the spatial size wrongly: {at} it makes {y.shape[2]}×{y.shape[3]} of {size}×{size}, and must "
                f"make {after}×{after}, the size divided by the stride and rounded up",
                hint="a k×k convolution keeps the size by padding=k // 2, as nas.models.layers.conv has it",
            )
        if training:
            with blaming_block(arch, "fails in the backward pass"):
                _require_gradients(block, y, label)


def _require_gradients(block: ResidualBlock, y: Tensor, label: str) -> None:
    weights = [weight for weight in block.parameters() if weight.requires_grad]
    if weights:
        gradients = torch.autograd.grad(y.sum(), weights, allow_unused=True) if y.requires_grad else (None,)
        if all(gradient is None for gradient in gradients):
            raise ConfigError(f"{label} cannot be trained: no gradient reaches its parameters")


def _label(arch: ArchConfig) -> str:
    return arch.block if arch.block_source is None else f"{arch.block_source.file}:{arch.block}"


def _shape(shape: torch.Size) -> str:
    return "×".join(map(str, shape))


def check_width(arch: ArchConfig, stage: StageConfig) -> None:
    """Whether the block can be built so wide, on the meta device. Raises ConfigError."""
    hint = "a range of channels takes a step, such as {type: int, low: 16, high: 128, step: 8}"
    with torch.device("meta"):
        for stride in (1, 2):
            make_block(BlockPlan(arch, stage, stage.channels, stride, 0.0), hint)
