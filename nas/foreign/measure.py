"""What a network that is not ours costs, where that sits, and which of its blocks could be there once more: measured on any
module, which runs three times, and kept as data, JSON both ways.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from nas.budget import Call, Layer, Part, calls_of, follow, int8_size, layers_of, macs_of, params_of
from nas.config import Frozen, ImageShape
from nas.errors import one_line

MOST_PARTS = 14
MOST_REPEATS = 12


class Repeat(Frozen):
    """A block that keeps the shape of what passes it, so that a copy could follow it, or it could be left out."""

    name: str  # of the last of its kind there: `layer3.1`
    kind: str
    shape: tuple[int, ...]  # of what enters and leaves it, for one image
    params: int
    macs: int | None
    count: int  # how many of its kind there are in that place


class ForeignFacts(Frozen):
    built: str  # `resnet18(num_classes=10)`
    params: int  # by fvcore: what is shared counts once, what is frozen or never used counts too
    macs: int | None  # by fvcore, of one image; None where torch.jit cannot trace the network, and …
    macs_unknown: str | None  # … why
    macs_products: int | None = None  # of `macs`, those of convolutions, linear layers and other products
    macs_uncounted: dict[str, int]  # operations that multiply but that fvcore has no rule for, and how often they run
    memory: int | None  # bytes of activations at once, of one image; None where the network cannot be followed
    flash: int | None  # bytes of its file in eight bits on a microcontroller, and …
    ram: int | None  # … of RAM that it takes to run it there, for one image; likewise
    bytes: int  # of its parameters, as they are stored
    frozen: int  # parameters that no gradient reaches: requires_grad is False
    shared: tuple[tuple[str, ...], ...]  # names of one and the same parameter, for each that has several
    buffers: int  # values that it keeps but does not learn, such as BatchNorm's statistics
    lazy: tuple[str, ...]  # parameters whose shape followed from the image
    unused: dict[str, int] | None
    """Parameters that no operation of the forward pass reads at prediction, by the module that holds them; None where it cannot
    be followed."""
    unregistered: int | None  # values of parameters that it uses but does not know, and that are in no count
    output: tuple[int, ...] | None  # shape for one image; None where it returns no tensor
    parts: tuple[Part, ...]
    layers: tuple[Layer, ...]
    repeats: tuple[Repeat, ...]
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the Python files of its folder that it was made of, by their paths within it; …"""
    text: str | None = None  # … and of the one that was named, the text. None of a model of a library
    channels_last: bool | None = None
    """Whether it computes in channels-last memory; False of one that views its maps as rows. None where no step of training was
    tried."""

    @property
    def megabytes(self) -> float:
        """Of its parameters, in units of 10⁶ bytes."""
        return round(self.bytes / 1e6, 3)


def measure(model: nn.Module, built: str, shape: ImageShape, run: Callable[[nn.Module, Tensor], Any] = calls_of) -> ForeignFacts:
    """`run`: `calls_of`, with whatever has to be done around the first forward pass; what it raises is raised."""
    model.eval()
    image = torch.zeros(1, shape.channels, shape.size, shape.size)
    lazy = tuple(name for name, weight in model.named_parameters() if is_lazy(weight))
    calls, result = run(model, image)
    followed = int8 = counted = unknown = None
    with suppress(Exception):
        followed, int8 = follow(model, image), int8_size(model, image)
    try:
        counted = macs_of(model, image)
    except Exception as error:
        unknown = one_line(error)
    weights = dict(model.named_parameters())
    unread = [] if followed is None else followed.unread
    output = next((leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)), None)
    return ForeignFacts(
        built=built,
        params=params_of(model),
        macs=None if counted is None else counted.total,
        macs_unknown=unknown,
        macs_products=None if counted is None else counted.products,
        macs_uncounted={} if counted is None else counted.uncounted,
        memory=None if followed is None else followed.peak,
        flash=None if int8 is None else int8.flash,
        ram=None if int8 is None else int8.ram,
        bytes=sum(weight.numel() * weight.element_size() for weight in weights.values()),
        frozen=sum(weight.numel() for weight in weights.values() if not weight.requires_grad),
        shared=tuple(_shared(model)),
        buffers=sum(buffer.numel() for buffer in model.buffers()),
        lazy=lazy,
        unused=None if followed is None else _by_holder(weights, unread),
        unregistered=None if followed is None else followed.unregistered,
        output=None if output is None else tuple(output.shape[1:]),
        parts=tuple(_parts(model, weights, calls)),
        layers=tuple(layers_of(model, calls, unread)),
        repeats=tuple(repeats_of(model, calls, None if counted is None else counted.by_module)),
    )


def _shared(model: nn.Module) -> list[tuple[str, ...]]:
    names: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(weight), []).append(name)
    return [tuple(several) for several in names.values() if len(several) > 1]


def _by_holder(weights: dict[str, nn.Parameter], names: list[str]) -> dict[str, int]:
    held: dict[str, int] = {}
    for name in names:
        if weights[name].numel():
            holder = name.rpartition(".")[0]
            held[holder] = held.get(holder, 0) + weights[name].numel()
    return held


def _parts(model: nn.Module, weights: dict[str, nn.Parameter], calls: list[Call]) -> list[Part]:
    """The modules that hold the parameters, in the order of their definition. The largest is shown by what is in it as long as
    it holds more than half of them all."""
    outputs: dict[str, tuple[int, ...]] = {}
    for call in calls:
        outputs.setdefault(call.name, call.output)

    def held(name: str) -> int:
        inside = f"{name}." if name else ""
        return sum(weight.numel() for path, weight in weights.items() if path.startswith(inside))

    def part(name: str) -> Part:
        module = model.get_submodule(name)
        children = list(module.children())
        kinds = {type(child).__name__ for child in children}
        is_row = isinstance(module, nn.Sequential | nn.ModuleList) and len(kinds) == 1
        built = f"{len(children)} × {kinds.pop()}" if is_row else type(module).__name__
        return Part(name, built, outputs.get(name, ()), held(name), len(children) if is_row else 0)

    def opened(outer: Part) -> list[Part]:
        inside = f"{outer.name}." if outer.name else ""
        found = [part(inside + name) for name, _ in model.get_submodule(outer.name).named_children()]
        found = [one for one in found if one.params]
        own = outer.params - sum(one.params for one in found)
        return [*([Part(outer.name, "its own", outer.output, own)] if own and found else []), *found]

    parts = [part("")]
    total = parts[0].params
    while True:
        largest = max(parts, key=lambda one: one.params)
        inner = opened(largest) if largest.built != "its own" else []
        if 2 * largest.params <= total or not inner or len(parts) - 1 + len(inner) > MOST_PARTS:
            return parts
        at = parts.index(largest)
        parts[at : at + 1] = inner


def repeats_of(model: nn.Module, calls: list[Call], macs: dict[str, int] | None) -> list[Repeat]:
    """Blocks in a row of blocks that keep the shape, the outermost of them, and the last of each kind. `calls` in their order,
    multiply-adds by module."""
    found: dict[tuple[object, ...], Repeat] = {}
    taken: list[str] = []
    for call in calls:
        parent, _, _ = call.name.rpartition(".")
        if not call.name or call.input != call.output or not call.input:
            continue
        if any(call.name == outer or call.name.startswith(f"{outer}.") for outer in taken):
            continue
        if not isinstance(model.get_submodule(parent), nn.Sequential | nn.ModuleList):
            continue
        weights = list(call.module.parameters())
        if not any(weight.ndim > 1 for weight in weights):  # a normalisation is no block
            continue
        taken.append(call.name)
        params, kind = sum(weight.numel() for weight in weights), type(call.module).__name__
        key = (parent, kind, call.input, params)
        before = found.pop(key, None)
        found[key] = Repeat(
            name=call.name,
            kind=kind,
            shape=call.input,
            params=params,
            macs=None if macs is None else macs.get(call.name),
            count=1 + (before.count if before else 0),
        )
    return list(found.values())[:MOST_REPEATS]
