"""Parameters and multiply-adds of any module: by fvcore, or by torch itself if fvcore cannot be imported.

Both count the same for every network of a search space. For others they may differ: torch counts nothing for `torch.outer` and
`torch.kron`, which it executes as multiplications of elements; fvcore estimates an `einsum` of several axes (for torchvision's
`maxvit_t` it counts 1,072 more, of 5.6 billion); only torch counts what torch.jit cannot trace.
"""

import math
import multiprocessing
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from nas.device import cpu_threads

FVCORE_FAILED: str | None = None  # why fvcore is not used; None if it is
try:
    with warnings.catch_warnings():
        # At import fvcore compiles a loss with torch.jit.script, which torch has deprecated; nas does not use that loss.
        warnings.simplefilter("ignore", FutureWarning)
        from fvcore.nn import FlopCountAnalysis, parameter_count
        from fvcore.nn.jit_handles import get_shape
except Exception as error:  # whatever an unmaintained package may raise with a newer torch
    FVCORE_FAILED = f"{type(error).__name__}: {error}"
    if multiprocessing.parent_process() is None:  # once, not in each worker
        warnings.warn(
            f"fvcore cannot be imported ({FVCORE_FAILED}): torch's FlopCounterMode counts MACs instead, the same "
            "number for every network of a search space",
            stacklevel=2,
        )


def params_of(model: nn.Module) -> int:
    """Of any module: a parameter that is registered in several places counts once. Lazy ones must have seen an image."""
    return int(parameter_count(model)[""]) if FVCORE_FAILED is None else sum(one.numel() for one in model.parameters())


@dataclass(frozen=True)
class Macs:
    total: int
    products: int  # of these, in convolutions, linear layers and other products: without normalisation, pooling and resizing
    by_module: dict[str, int]  # of each called module by its name, including the modules inside
    uncounted: dict[str, int]  # operations that multiply but have no rule, and how often they run


def macs_of(model: nn.Module, image: Tensor) -> Macs:
    """Of any module, on the CPU; fvcore needs one that torch.jit can trace. `image` (1, C, H, W)."""
    with _counting(), torch.no_grad():
        return _by_fvcore(model, image) if FVCORE_FAILED is None else _by_torch(model, image)


@contextmanager
def _counting() -> Iterator[None]:
    """On one thread: beside workers that use every core, threads that wait for each other take ten times as long. Without torch's
    fused attention, inside which nothing could be counted."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with cpu_threads(1):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


# ---------------------------------------------------------------------------------------------------------------- fvcore


def _by_fvcore(model: nn.Module, image: Tensor) -> Macs:
    analysis = FlopCountAnalysis(model, image)
    analysis.set_op_handle(**_RULES)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_module = {name: int(count) for name, count in analysis.by_module().items()}
    uncounted = {name.partition("::")[2]: times for name, times in analysis.unsupported_ops().items() if _MULTIPLIES.search(name)}
    products = sum(count for name, count in analysis.by_operator().items() if not _PASSES.search(name))
    return Macs(by_module[""], int(products), by_module, uncounted)


Rule = Callable[[Sequence[Any], Sequence[Any]], int]  # multiply-adds of an operation by its inputs and outputs in the graph


def _attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Queries (…, L, E) times keys (…, S, E), and those weights (…, L, S) times values (…, S, F)."""
    queries, keys, values = (get_shape(value) for value in inputs[:3])
    return math.prod(queries[:-1]) * keys[-2] * (queries[-1] + values[-1])


def _product(first: int) -> Rule:
    """Of matrices and vectors, with or without a batch; `first`: index of the left input. fvcore's own rule for matmul fails for
    a vector."""
    return lambda inputs, outputs: math.prod(get_shape(outputs[0])) * get_shape(inputs[first])[-1]


def _tensordot(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Of a·c and c·b values to a·b."""
    return math.isqrt(math.prod(math.prod(get_shape(value)) for value in (*inputs[:2], outputs[0])))


def _outer(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    return math.prod(get_shape(outputs[0]))


def _convolution(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Each weight at each position: for padding by name, and for `DeformConv2d`, whose sampling is not counted."""
    output = get_shape(outputs[0])
    return output[0] * math.prod(get_shape(inputs[1])) * math.prod(output[2:])


def _bilinear(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """(…, I) times weights (O, I, J), and that times (…, J)."""
    _, first, second = get_shape(inputs[2])
    return math.prod(get_shape(outputs[0])) * (first + 1) * second


_RULES: dict[str, Rule] = {
    "aten::scaled_dot_product_attention": _attention,
    "aten::_convolution_mode": _convolution,
    "torchvision::deform_conv2d": _convolution,
    "aten::bilinear": _bilinear,
    "aten::tensordot": _tensordot,
    **{f"aten::{name}": _product(0) for name in ("matmul", "inner", "dot", "vdot", "mv")},
    **{f"aten::{name}": _product(1) for name in ("baddbmm", "addmv")},
    **{f"aten::{name}": _outer for name in ("outer", "ger", "kron", "addr")},
}
"""For operations for which fvcore has no rule, or a wrong one."""
_MULTIPLIES = re.compile(
    r"^prim::|attention|transformer|lstm|gru|rnn|fft|cdist|conv|dot|mm(_|$)|matmul|matrix|::linear|einsum|bilinear|Op\."
)
"""Names of operations that multiply; only those without any rule are looked up. `Op.` is a user's own."""
_PASSES = re.compile(r"_norm|pool|mean|upsample|grid_sampler|interpolate")
"""Names of operations that are counted but are no products."""


# ----------------------------------------------------------------------------------------------------------------- torch


def _by_torch(model: nn.Module, image: Tensor) -> Macs:
    rules = dict(_TORCH_RULES)
    if hasattr(torch.ops.torchvision, "deform_conv2d"):  # only after an import of torchvision
        rules[torch.ops.torchvision.deform_conv2d] = lambda x, w, *_, out_shape, **__: 2 * w[1:].numel() * out_shape.numel()
    # An operation is looked up by its name, but decomposed before that unless its overload is there, too.
    overloads = {getattr(op, one): rule for op, rule in rules.items() for one in op.overloads()}
    counter, run = FlopCounterMode(display=False, custom_mapping=rules | overloads), _Products()
    with counter, run:
        model(image)
    by_module = {name.partition(".")[2]: sum(count.values()) // 2 for name, count in counter.get_flop_counts().items()}
    total = counter.get_total_flops() // 2
    uncounted = {op.__name__: times for op, times in run.seen.items() if op not in counter.flop_registry}
    products = sum(count for op, count in counter.get_flop_counts()["Global"].items() if not _PASSES.search(str(op))) // 2
    return Macs(total, products, {**by_module, "": total}, uncounted)


class _Products(TorchDispatchMode):
    """Counts how often each operation runs that multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        if _MULTIPLIES.search(func.overloadpacket.__name__):
            self.seen[func.overloadpacket] += 1
        return func(*args, **(kwargs or {}))


# A rule gets an operation's arguments, with shapes for tensors, and returns floating-point operations: two for a multiply-add.


def _batch_norm(
    x: torch.Size, weight: torch.Size | None, bias: Any, mean: Any, var: Any, training: bool, *_: Any, **__: Any
) -> int:
    """At prediction a scale and a shift; `InstanceNorm2d` takes its statistics from the image."""
    return 2 * x.numel() * ((1 if weight is None else 2) + 3 * training)


def _of_values(each: int, results: bool = False) -> Callable[..., int]:
    """`each` operations for each input value, or for each output value."""
    return lambda x, *_, out_shape, **__: 2 * each * (out_shape if results else x).numel()


def _mean(x: torch.Size, dim: Sequence[int] | None = None, keepdim: bool = False, **_: Any) -> int:
    """Adaptive pooling to one cell is a mean over these axes; other means are no multiplications."""
    return 2 * x.numel() if keepdim and list(dim or ()) == [-1, -2] else 0


_aten = torch.ops.aten
_TORCH_RULES: dict[Any, Callable[..., int]] = {
    _aten.native_batch_norm: _batch_norm,
    _aten.native_group_norm: lambda x, weight, *_, **__: 2 * x.numel() * (4 if weight is None else 5),
    _aten.native_layer_norm: lambda x, over, weight, *_, **__: 2 * x.numel() * (4 if weight is None else 5),
    _aten.mean: _mean,
    _aten._adaptive_avg_pool2d: _of_values(1),
    _aten.upsample_nearest2d: _of_values(1, results=True),
    _aten.upsample_bilinear2d: _of_values(4, results=True),
    _aten.grid_sampler_2d: _of_values(4, results=True),
    _aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: 2 * q[:-1].numel() * k[-2] * (q[-1] + v[-1]),
    _aten.dot: _of_values(1),
    _aten.vdot: _of_values(1),
    _aten.mv: _of_values(1),
    _aten.addmv: lambda x, matrix, *_, **__: 2 * matrix.numel(),
    _aten._trilinear: lambda x, weight, *_, out_shape, **__: 2 * out_shape.numel() * (weight[1] + 1) * weight[2],
}
"""For operations for which torch has no rule; each counts like fvcore."""
