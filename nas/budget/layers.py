"""What a module is made of: its layers in the order in which an image passes them, with shapes and parameters.

Works for any module on any device; on the meta device nothing is allocated.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

_SILENT = ("Identity", "Dropout", "StochasticDepth")
"""Layers that neither hold parameters nor change anything at prediction."""


@dataclass(frozen=True)
class Layer:
    name: str
    """Its path in the module: `stages.1.0.conv1`; empty for the module itself."""
    kind: str
    output: tuple[int, ...]
    """Shape of its output for one image: (C, H, W), or (features,). Empty where no image passes it."""
    params: int
    """Each parameter once, at the first layer that holds it."""


@dataclass(frozen=True)
class Part:
    """What an image passes in one go: the stem, a stage, or the head with its pooling and classifier."""

    name: str
    built: str
    """`3×3, 32`, or what each of its blocks holds, such as `2 × basic [3×3, 64; 3×3, 64]`."""
    output: tuple[int, ...]
    params: int
    blocks: int = 0


@dataclass
class Call:
    """One call of a module, which may be called again."""

    name: str
    module: nn.Module
    input: tuple[int, ...]
    """Shape of the first tensor that goes in, and …"""
    output: tuple[int, ...]
    """… of the first that comes out, for one image; empty where there is none."""


def calls_of(model: nn.Module, image: Tensor) -> tuple[list[Call], Any]:
    """Every call in the order in which they begin, and the model's result. `image` (1, C, H, W); `model` in evaluation mode."""
    calls: list[Call] = []
    open_calls: list[Call] = []

    def begins(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            call = Call(name, module, _shape((args, kwargs)), ())
            calls.append(call)
            open_calls.append(call)

        return hook

    def ends(module: nn.Module, args: Any, output: Any) -> None:
        open_calls.pop().output = _shape(output)

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(begins(name), with_kwargs=True))
        handles.append(module.register_forward_hook(ends))
    try:
        with torch.no_grad():
            result = model(image)
    finally:
        for handle in handles:
            handle.remove()
    return calls, result


def _shape(tree: Any) -> tuple[int, ...]:
    """Of the first tensor in it, without the batch."""
    return next((tuple(leaf.shape[1:]) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)), ())


def layers_of(model: nn.Module, calls: list[Call], unread: Collection[str] = ()) -> list[Layer]:
    """Every layer that computes something, and whatever else holds parameters; together they hold all of them.

    The parameters of a module that is never called itself belong to the layer around it, which uses them, unless they are
    `unread`: such modules come last, without a shape.
    """
    called = {call.name for call in calls}
    own: dict[str, int] = {}
    idle: dict[str, int] = {}
    for path, weight in model.named_parameters():
        holder = path.rpartition(".")[0]
        if holder not in called and path in unread:
            idle[holder] = idle.get(holder, 0) + weight.numel()
            continue
        while holder not in called and holder:
            holder = holder.rpartition(".")[0]
        own[holder] = own.get(holder, 0) + weight.numel()
    layers = []
    for call in calls:
        params = own.pop(call.name, 0)
        kind = type(call.module).__name__
        is_leaf = next(call.module.children(), None) is None
        if params or (is_leaf and kind not in _SILENT):
            layers.append(Layer(call.name, kind, call.output, params))
    layers += [Layer(name, type(model.get_submodule(name)).__name__, (), params) for name, params in idle.items()]
    return layers
