"""What a network costs, and whether it fits: parameters and multiply-adds by fvcore.

Parameters are counted on the meta device, where a network has shapes and no weights; MACs need a forward pass, so that they
are counted on the CPU and only when somebody asks, or when the budget limits them and the parameters already fit.
"""

import warnings
from dataclasses import dataclass

import torch

from nas.config import ArchConfig, BudgetConfig, ImageShape
from nas.models import build_model

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
    with torch.random.fork_rng(devices=[]):
        model = build_model(arch, shape).eval()
    analysis = FlopCountAnalysis(model, torch.zeros(1, shape.channels, shape.size, shape.size))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # beside workers that keep every core busy, threads that wait for each other take ten times as long
    try:
        with torch.no_grad():
            return int(analysis.total())
    finally:
        torch.set_num_threads(threads)


LIMIT_NAMES = {"params": "parameters", "macs": "multiply-adds"}
"""The fields of `BudgetConfig` in words."""


@dataclass(frozen=True)
class Cost:
    params: int
    macs: int | None
    """None where nobody had to know."""
    excess: dict[str, float]
    """For each limit, how far above it as a share of it; at most 0 where it is kept."""

    @property
    def fits(self) -> bool:
        return all(value <= 0 for value in self.excess.values())

    def sentence(self, limits: BudgetConfig) -> str:
        """By which limits it is over budget, and by how much."""
        over = [name for name, value in self.excess.items() if value > 0]
        return "; ".join(
            f"{getattr(self, name):,} {LIMIT_NAMES[name]}: over the budget of {getattr(limits, name):,}" for name in over
        )


class Budget:
    def __init__(self, limits: BudgetConfig, shape: ImageShape) -> None:
        self.limits = limits
        self.shape = shape

    def check(self, arch: ArchConfig) -> Cost:
        """Counts by fvcore, exactly. Raises ConfigError where the network cannot be built for these images."""
        params = count_params(arch, self.shape)
        excess = {"params": params / self.limits.params - 1}
        macs = None
        if self.limits.macs is not None and params <= self.limits.params:
            macs = count_macs(arch, self.shape)
            excess["macs"] = macs / self.limits.macs - 1
        return Cost(params, macs, excess)
