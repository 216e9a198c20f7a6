"""Parameters and multiply-adds, by fvcore.

Parameters are counted on the meta device, where a network has shapes and no weights; fvcore's MACs need a forward pass, so that
they are counted on the CPU and only when somebody asks, or when the budget limits them and all that is cheaper is kept.
"""

import warnings

import torch

from nas.closed_form import closed_form_macs
from nas.config import ArchConfig, ImageShape
from nas.models import build_model
from nas.models.custom import blaming_block

with warnings.catch_warnings():
    # At import fvcore compiles a loss that nobody here uses by torch.jit.script, which torch has deprecated.
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis, parameter_count


def count_params(arch: ArchConfig, shape: ImageShape) -> int:
    """Parameters, frozen ones included. No weight is allocated."""
    with torch.device("meta"):
        model = build_model(arch, shape)
    return int(parameter_count(model)[""])


def count_macs(arch: ArchConfig, shape: ImageShape) -> int:
    """Multiply-adds of one image's forward pass; fvcore counts one for a multiplication with its addition, and also what
    BatchNorm and pooling do. Allocates the network."""
    return _count_macs(arch, shape, "cpu")


def _count_macs(arch: ArchConfig, shape: ImageShape, device: str) -> int:
    with torch.random.fork_rng(devices=[]), torch.device(device):
        model = build_model(arch, shape).eval()
        image = torch.zeros(1, shape.channels, shape.size, shape.size)
    analysis = FlopCountAnalysis(model, image)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # beside workers that keep every core busy, threads that wait for each other take ten times as long
    try:
        with torch.no_grad(), blaming_block(arch, f"fails on images of {shape.size}×{shape.size}"):
            return int(analysis.total())
    finally:
        torch.set_num_threads(threads)


def quick_macs(arch: ArchConfig, shape: ImageShape) -> int:
    """The same, allocating nothing: in closed form, and by fvcore on the meta device for a block of a user's own, which has
    none."""
    return closed_form_macs(arch, shape) if arch.block_source is None else _count_macs(arch, shape, "meta")
