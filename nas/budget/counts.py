"""What a network consists of and what it costs: parameters and multiply-adds, computed memory, layers with their shapes.

Parameters, memory and layers are found on the meta device, where a network has shapes and no weights. MACs need a forward pass on
the CPU, so they are counted only on request, or if the budget limits them and all cheaper limits are kept.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas.budget.closed_form import closed_form_macs, closed_form_params
from nas.budget.macs import Macs, macs_of, params_of
from nas.config import ArchConfig, ImageShape
from nas.models import build_model
from nas.models.user_code import blaming_block


def count_params(arch: ArchConfig, shape: ImageShape) -> int:
    """Number of parameters, frozen ones included. Allocates no weights."""
    return params_of(meta_model(arch, shape)[0])


def count_macs(arch: ArchConfig, shape: ImageShape) -> int:
    """Multiply-adds of one image's forward pass. fvcore counts one for a multiplication with its addition, and also counts the
    operations of BatchNorm and pooling. Allocates the network."""
    return _macs(arch, shape).total


def uncounted_products(arch: ArchConfig, shape: ImageShape) -> dict[str, int]:
    """Operations that multiply but are not counted as multiply-adds, and how often they run; only users' own blocks have some."""
    return {} if arch.block_source is None else _macs(arch, shape).uncounted


def _macs(arch: ArchConfig, shape: ImageShape) -> Macs:
    with torch.random.fork_rng(devices=[]):
        model = build_model(arch, shape).eval()
    with blaming_block(arch, f"fails on images of {shape.size}×{shape.size}"):
        return macs_of(model, torch.zeros(1, shape.channels, shape.size, shape.size))


def quick_macs(arch: ArchConfig, shape: ImageShape) -> int:
    """`count_macs`, in closed form unless the network has a user's own block."""
    return closed_form_macs(arch, shape) if arch.block_source is None else count_macs(arch, shape)


def quick_params(arch: ArchConfig, shape: ImageShape) -> int:
    """`count_params`, in closed form unless the network has a user's own block."""
    return closed_form_params(arch, shape) if arch.block_source is None else count_params(arch, shape)


# ---------------------------------------------------------------------------------------------------------------- memory


def peak_memory(arch: ArchConfig, shape: ImageShape) -> int:
    """Peak bytes of the activations of one image's forward pass in float32, without weights.

    An activation is alive from the operation that creates it to the last one that reads it, even if a variable holds it longer.
    This is what a runtime needs that runs the operations in this order, without fusing any or writing a result over its input.
    Views share memory, the image is an activation, and outputs that no operation reads (such as the indices of max pooling) do
    not count.
    """
    model, image = meta_model(arch, shape)
    with blaming_block(arch, "fails on the meta device, where its memory is computed"):
        return follow(model, image).peak


def meta_model(arch: ArchConfig, shape: ImageShape) -> tuple[nn.Module, Tensor]:
    """The network in evaluation mode and an image (1, C, H, W), on the meta device."""
    with torch.device("meta"):
        return build_model(arch, shape).eval(), torch.empty(1, shape.channels, shape.size, shape.size)


@dataclass(frozen=True)
class Followed:
    """What a forward pass created and read."""

    peak: int  # peak bytes of activations
    unread: list[str]  # names of the parameters that no operation reads
    unregistered: int  # parameter values that it reads but that are not registered, for example of layers in a plain list


def follow(model: nn.Module, image: Tensor) -> Followed:
    """Runs any module once, on any device; `image` (1, C, H, W)."""
    lives = Lives([*model.parameters(), *model.buffers()])
    lives.follow(model, image)
    unread = [name for name, weight in model.named_parameters() if storage_of(weight) not in lives.weights_read]
    return Followed(lives.peak(), unread, sum(lives.strangers.values()))


@dataclass
class _Life:
    storage: torch.UntypedStorage  # kept, so that no other storage gets its address
    first: int  # number of the operation that created it
    last: int  # number of the operation that read it last


class Lives(TorchDispatchMode):
    """Records the storages that operations create and read."""

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        self._weights = {storage_of(tensor) for tensor in weights}
        self.weights_read: set[int] = set()
        self.strangers: dict[int, int] = {}  # values of parameters that are not in `weights`
        self._lives: dict[int, _Life] = {}
        self._now = 0

    def follow(self, model: nn.Module, image: Tensor) -> None:
        with torch.inference_mode(), self:
            self.made(image)
            result = model(image)
        self.read(result)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        self._now += 1
        self.read((args, kwargs))
        result = func(*args, **(kwargs or {}))
        self.made(result)
        return result

    def read(self, tree: Any) -> None:
        for tensor in _tensors(tree):
            address = storage_of(tensor)
            if life := self._lives.get(address):
                life.last = self._now
            elif address in self._weights:
                self.weights_read.add(address)
            elif isinstance(tensor, nn.Parameter):
                self.strangers[address] = tensor.numel()

    def made(self, tree: Any) -> None:
        for tensor in _tensors(tree):
            if (address := storage_of(tensor)) not in self._weights and address not in self._lives:
                self._lives[address] = _Life(tensor.untyped_storage(), self._now, last=-1)

    def spans(self) -> list[tuple[int, int, int]]:
        """For each activation that is read: its bytes, the operation that created it, and the last one that read it."""
        return [(life.storage.nbytes(), life.first, life.last) for life in self._lives.values() if life.last >= 0]

    def peak(self) -> int:
        changes = [0] * (self._now + 2)
        for size, first, last in self.spans():
            changes[first] += size
            changes[last + 1] -= size
        peak = alive = 0
        for change in changes:
            alive += change
            peak = max(peak, alive)
        return peak


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def storage_of(tensor: Tensor) -> int:
    """The same number for all views of one storage."""
    return tensor.untyped_storage()._cdata


# ---------------------------------------------------------------------------------------------------------------- layers


_SILENT = ("Identity", "Dropout", "StochasticDepth")  # no parameters, and no change at prediction


@dataclass(frozen=True)
class Layer:
    name: str  # its path in the module: `stages.1.0.conv1`; empty for the module itself
    kind: str
    output: tuple[int, ...]  # for one image: (C, H, W), or (features,); empty if no image passes it
    params: int  # each parameter once, at the first layer that holds it


@dataclass(frozen=True)
class Part:
    """A part of the network: the stem, a stage, or the head with its pooling and classifier."""

    name: str
    built: str  # `3×3, 32`, or what each of its blocks holds, such as `2 × basic [3×3, 64; 3×3, 64]`
    output: tuple[int, ...]
    params: int
    blocks: int = 0


@dataclass
class Call:
    """One call of a module; a module may be called several times."""

    name: str
    module: nn.Module
    input: tuple[int, ...]  # shape of the first input tensor
    output: tuple[int, ...]  # shape of the first output tensor for one image; empty if there is none


def calls_of(model: nn.Module, image: Tensor) -> tuple[list[Call], Any]:
    """All calls in the order in which they begin, and the model's result. `image` (1, C, H, W); `model` in evaluation mode."""
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
    """Of the first tensor in `tree`, without the batch."""
    return next((tuple(leaf.shape[1:]) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)), ())


def layers_of(model: nn.Module, calls: list[Call], unread: Collection[str] = ()) -> list[Layer]:
    """Every layer that computes something, and every other module with parameters; together they hold all parameters.

    The parameters of a module that is never called belong to the layer around it, which uses them. If they are `unread`, the
    module is listed last, without a shape.
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
