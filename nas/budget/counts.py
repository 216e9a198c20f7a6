"""Parameters and multiply-adds, by fvcore.

Parameters are counted on the meta device, where a network has shapes and no weights; fvcore's MACs need a forward pass, so that
they are counted on the CPU and only when somebody asks, or when the budget limits them and all that is cheaper is kept.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas.budget.closed_form import closed_form_macs, closed_form_params
from nas.config import ArchConfig, ImageShape
from nas.models import build_model
from nas.models.user_code import blaming_block

with warnings.catch_warnings():
    # At import fvcore compiles a loss that nobody here uses by torch.jit.script, which torch has deprecated.
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis, parameter_count
    from fvcore.nn.jit_handles import get_shape


def count_params(arch: ArchConfig, shape: ImageShape) -> int:
    """Parameters, frozen ones included. No weight is allocated."""
    with torch.device("meta"):
        model = build_model(arch, shape)
    return params_of(model)


def params_of(model: nn.Module) -> int:
    """Of any module: one that is registered in several places counts once. Lazy ones must have seen an image."""
    return int(parameter_count(model)[""])


def count_macs(arch: ArchConfig, shape: ImageShape) -> int:
    """Multiply-adds of one image's forward pass; fvcore counts one for a multiplication with its addition, and also what
    BatchNorm and pooling do. Allocates the network."""
    with torch.random.fork_rng(devices=[]):
        model = build_model(arch, shape).eval()
    with blaming_block(arch, f"fails on images of {shape.size}×{shape.size}"):
        return macs_of(model, torch.zeros(1, shape.channels, shape.size, shape.size)).total


def quick_macs(arch: ArchConfig, shape: ImageShape) -> int:
    """`count_macs`, in closed form where there is one: not for a block of a user's own."""
    return closed_form_macs(arch, shape) if arch.block_source is None else count_macs(arch, shape)


def quick_params(arch: ArchConfig, shape: ImageShape) -> int:
    """`count_params`, in closed form where there is one."""
    return closed_form_params(arch, shape) if arch.block_source is None else count_params(arch, shape)


@dataclass(frozen=True)
class Macs:
    total: int
    by_module: dict[str, int]
    """Of each module by its name, those inside it included."""
    uncounted: dict[str, int]
    """Operations that multiply but for which there is no rule, and how often they run."""


def macs_of(model: nn.Module, image: Tensor) -> Macs:
    """Of any module that torch.jit can trace, on the CPU; `image` (1, C, H, W)."""
    analysis = FlopCountAnalysis(model, image)
    analysis.set_op_handle(**_ATTENTION)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # beside workers that keep every core busy, threads that wait for each other take ten times as long
    try:
        with torch.no_grad():
            by_module = {name: int(count) for name, count in analysis.by_module().items()}
            unknown = analysis.unsupported_ops()
    finally:
        torch.set_num_threads(threads)
    uncounted = {name.partition("::")[2]: times for name, times in unknown.items() if _multiplies(name)}
    return Macs(by_module[""], by_module, uncounted)


def _attention_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Queries (…, L, E) times keys (…, S, E), and those weights (…, L, S) times values (…, S, F)."""
    queries, keys, values = (get_shape(value) for value in inputs[:3])
    return math.prod(queries[:-1]) * keys[-2] * (queries[-1] + values[-1])


def _batched_product_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Of `baddbmm`: (B, N, M) times (B, M, P)."""
    left, right = (get_shape(value) for value in inputs[1:3])
    return math.prod(left) * right[-1]


_ATTENTION = {"aten::scaled_dot_product_attention": _attention_macs, "aten::baddbmm": _batched_product_macs}
"""What fvcore has no rule for and attention is made of."""
_PRODUCTS = ("attention", "transformer", "lstm", "gru", "rnn", "fft", "cdist", "addbmm", "addmv", "::mv", "::dot", "::ger", "Op.")
"""Parts of the names of other operations that multiply; `Op.` is a user's own."""


def _multiplies(operation: str) -> bool:
    return any(part in operation for part in _PRODUCTS) or operation.startswith("prim::")
