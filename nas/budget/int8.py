"""Flash and RAM of a network in eight bits on a microcontroller, computed on the meta device; nothing is quantised.

It follows TensorFlow Lite Micro running a file of litert-torch: BatchNorm is folded into the convolution before it, ReLU is part
of the operator before it, SiLU is a sigmoid and a product, a strided convolution reads a padded copy of its input. Activations
get the places in RAM that its planner gives them. The constants were fitted to files and arenas (scripts/bench/README.md, "Flash
and RAM of microcontrollers").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from nas.budget.counts import Lives, meta_model, storage_of
from nas.config import ArchConfig, ImageShape
from nas.models.user_code import blaming_block

ALIGNMENT = 16  # bytes, of activations
# Bytes of flash in addition to one for each weight: for the description of an operator, for that of a layer (names and shapes of
# its tensors), and for each output channel (an int32 bias, and the scales and zero points of weights and bias).
FLASH_PER_OPERATOR, FLASH_PER_LAYER, FLASH_PER_CHANNEL = 300, 1710, 31
# Bytes of RAM in addition to the activations: for the interpreter, an operator with its tensor, a layer, and each output channel
# (its multiplier and shift). They are from a 64-bit machine; a 32-bit microcontroller needs a little less.
RAM_AT_ALL, RAM_PER_OPERATOR, RAM_PER_LAYER, RAM_PER_CHANNEL = 820, 124, 140, 8

_aten = torch.ops.aten


@dataclass(frozen=True)
class Int8Size:
    flash: int  # bytes of the file
    ram: int  # bytes of the arena


def count_flash(arch: ArchConfig, shape: ImageShape) -> int:
    """Bytes; no weight is allocated."""
    return _size(arch, shape).flash


def count_ram(arch: ArchConfig, shape: ImageShape) -> int:
    """Bytes, for one image."""
    return _size(arch, shape).ram


@lru_cache(maxsize=8)  # both limits use it, one after the other
def _size(arch: ArchConfig, shape: ImageShape) -> Int8Size:
    model, image = meta_model(arch, shape)
    with blaming_block(arch, "fails on the meta device, where flash and RAM are computed"):
        return int8_size(model, image)


def int8_size(model: nn.Module, image: Tensor) -> Int8Size:
    """Of any module, on any device; `image` (1, C, H, W)."""
    lives = _Int8Lives([*model.parameters(), *model.buffers()])
    lives.follow(model, image)
    layers, operators = len(lives.layers), len(lives.spans()) - 1  # without the image
    weights, channels = (sum(counts) for counts in zip((0, 0), *lives.layers.values(), strict=True))
    return Int8Size(
        flash=weights + FLASH_PER_CHANNEL * channels + FLASH_PER_LAYER * layers + FLASH_PER_OPERATOR * operators,
        ram=planned_bytes([(size // 4, first, last) for size, first, last in lives.spans()])
        + RAM_AT_ALL
        + RAM_PER_OPERATOR * operators
        + RAM_PER_LAYER * layers
        + RAM_PER_CHANNEL * channels,
    )


def planned_bytes(spans: Sequence[tuple[int, int, int]]) -> int:
    """Bytes of memory that TensorFlow Lite Micro's GreedyMemoryPlanner uses. Activations (bytes, first operation, last operation)
    are placed from the largest to the smallest, equal ones from the latest to the earliest, each at the lowest place that is free
    as long as it is needed."""
    placed: list[tuple[int, int, int, int]] = []
    for size, first, last in sorted(spans, key=lambda span: span[0])[::-1]:
        size, place = -(-size // ALIGNMENT) * ALIGNMENT, 0
        for start, end, its_first, its_last in sorted(placed):
            if its_first <= last and first <= its_last:
                if place + size <= start:
                    break
                place = max(place, end)
        placed.append((place, place + size, first, last))
    return max((end for _, end, _, _ in placed), default=0)


class _Int8Lives(Lives):
    """Follows the activations of the network in eight bits. In inference mode it sees operations before torch decomposes them."""

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__(weights)
        self.layers: dict[int, tuple[int, int]] = {}  # values and output channels of each weight tensor
        self._of_layers: set[int] = set()  # outputs of convolutions

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("relu", "relu_", "hardtanh", "hardtanh_"):
            return args[0]
        if name == "batch_norm":
            if storage_of(args[0]) in self._of_layers:
                return args[0]
            self.layers[storage_of(args[3])] = 2 * args[3].numel(), 0
            return self._run(_aten.add.Scalar, self._run(_aten.mul.Scalar, args[0], 1.0), 1.0)
        if name == "silu":
            return self._run(_aten.mul.Tensor, args[0], self._run(_aten.sigmoid.default, args[0]))
        if name == "conv2d":
            args = self._padded(args, 3)
        elif name == "max_pool2d":
            args = self._padded(args, 2)
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if name in ("conv2d", "linear"):
            self.layers[storage_of(args[1])] = args[1].numel(), len(args[1])
            self._of_layers.add(storage_of(result))
        return result

    def _run(self, func: Any, *args: Any) -> Any:
        return super().__torch_dispatch__(func, (), args)

    def _padded(self, args: Sequence[Any], at: int) -> Sequence[Any]:
        """The arguments, with the stride at index `at` and the padding after it: the padding of a strided operation is an
        operation of its own."""
        if len(args) <= at + 1 or max(args[at], default=2) == 1 or isinstance(args[at + 1], str) or not any(args[at + 1]):
            return args
        rows, columns = (*args[at + 1], args[at + 1][-1])[:2]
        image = self._run(_aten.constant_pad_nd.default, args[0], [columns, columns, rows, rows])
        return [image, *args[1 : at + 1], [0, 0], *args[at + 2 :]]
