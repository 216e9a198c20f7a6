"""The most memory that activations take at once, computed on the meta device: nothing is allocated, nothing measured."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas.config import ArchConfig, ImageShape
from nas.models import build_model
from nas.models.user_code import blaming_block


def peak_memory(arch: ArchConfig, shape: ImageShape) -> int:
    """Bytes of the activations of one image's forward pass in float32, at its worst moment; weights are not among them.

    An activation lives from the operation that makes it to the last that reads it, whatever a variable still names: so much does
    a runtime need that works through the operations in this order, without fusing any or writing one's result over its input.
    Views share what they view, the image is an activation, and what nobody reads (where a maximum was) is not kept.
    """
    with torch.device("meta"):
        model = build_model(arch, shape).eval()
        image = torch.empty(1, shape.channels, shape.size, shape.size)
    with blaming_block(arch, "fails on the meta device, where the memory that it takes is computed"):
        return peak_of(model, image)


def peak_of(model: torch.nn.Module, image: Tensor) -> int:
    """Likewise of any module, on any device."""
    return follow(model, image).peak


@dataclass(frozen=True)
class Followed:
    """What a forward pass made and read."""

    peak: int
    """Bytes of activations at its worst moment."""
    unread: list[str]
    """Names of the parameters that no operation reads."""
    unregistered: int
    """Values of the parameters that it reads but that the module does not know: of layers in a plain list, for example."""


def follow(model: torch.nn.Module, image: Tensor) -> Followed:
    """Runs any module once, on any device; `image` (1, C, H, W)."""
    lives = _Lives([*model.parameters(), *model.buffers()])
    with torch.inference_mode(), lives:
        lives.made(image)
        result = model(image)
    lives.read(result)
    unread = [name for name, weight in model.named_parameters() if _address(weight) not in lives.weights_read]
    return Followed(lives.peak(), unread, sum(lives.strangers.values()))


@dataclass
class _Life:
    storage: torch.UntypedStorage
    """Held, so that no other gets its address."""
    first: int
    last: int
    """Numbers of the operations that made it and that read it last."""


class _Lives(TorchDispatchMode):
    """Follows the storages that operations make and read."""

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        self._weights = {_address(tensor) for tensor in weights}
        self.weights_read: set[int] = set()
        self.strangers: dict[int, int] = {}
        """Values of parameters that are none of `weights`."""
        self._lives: dict[int, _Life] = {}
        self._now = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        self._now += 1
        self.read((args, kwargs))
        result = func(*args, **(kwargs or {}))
        self.made(result)
        return result

    def read(self, tree: Any) -> None:
        for tensor in _tensors(tree):
            address = _address(tensor)
            if life := self._lives.get(address):
                life.last = self._now
            elif address in self._weights:
                self.weights_read.add(address)
            elif isinstance(tensor, torch.nn.Parameter):
                self.strangers[address] = tensor.numel()

    def made(self, tree: Any) -> None:
        for tensor in _tensors(tree):
            if (address := _address(tensor)) not in self._weights and address not in self._lives:
                self._lives[address] = _Life(tensor.untyped_storage(), self._now, last=-1)

    def peak(self) -> int:
        changes = [0] * (self._now + 2)
        for life in self._lives.values():
            if life.last >= 0:
                changes[life.first] += life.storage.nbytes()
                changes[life.last + 1] -= life.storage.nbytes()
        peak = alive = 0
        for change in changes:
            alive += change
            peak = max(peak, alive)
        return peak


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
