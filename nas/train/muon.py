"""Muon: momentum whose steps are orthogonalised, for the filters of convolutions; Nesterov's gradient descent for all else.

Sources: Jordan et al. 2024 (kellerjordan.github.io/posts/muon) for the optimiser; the same author's CIFAR-10 speed runs (the code
beside arXiv 2404.00498, `airbench94_muon`) for its use on filters: three iterations, and a fixed norm in place of weight decay.
torch's own, from 2.9 on, takes matrices alone.
"""

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

ORTHOGONAL = "orthogonal"
"""Key of a group: whether its steps are orthogonalised."""
ITERATIONS = 3
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that is applied to the singular values: chosen by its author to raise small ones fast, not to end at 1."""


def turns(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether its filters are what Muon is for: trained ones of a convolution over all channels without a bias, such as stand
    before BatchNorm, so that their norm matters little."""
    return isinstance(module, nn.Conv2d) and module.groups == 1 and module.bias is None and module.weight.requires_grad


def orthogonalised(matrix: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """`matrix` (R, C) with its singular vectors, and singular values near 1: most within 0.5 to 1.3, the smallest below. Computed
    in `dtype` by Newton–Schulz iteration."""
    x = (matrix / (matrix.norm() + 1e-7)).to(dtype)
    wide = x if len(x) <= x.shape[1] else x.T
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return (wide if wide.shape == x.shape else wide.T).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Groups with the key `ORTHOGONAL` hold filters (out, in, k, k). A step turns them by about its rate, in radians, and keeps
    their norm within √out. All others step as by `torch.optim.SGD`."""

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, momentum: float, nesterov: bool, dtype: torch.dtype = torch.float32
    ) -> None:
        """`dtype` is that of the iteration's products."""
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.0, ORTHOGONAL: False}
        super().__init__(groups, defaults)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """`closure` is for torch's sake and must be None."""
        assert closure is None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            steps = self._steps(parameters, group)
            if group[ORTHOGONAL]:
                for filters, step in zip(parameters, steps, strict=True):
                    self._turn(filters, step, group["lr"])
            else:
                torch._foreach_add_(parameters, steps, alpha=-group["lr"])

    def _steps(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """As SGD would take them: gradients with their decay, under (Nesterov) momentum."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        momentum = group["momentum"]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        if not momentum:
            return gradients
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        return list(torch._foreach_add(gradients, buffers, alpha=momentum)) if group["nesterov"] else buffers

    def _turn(self, filters: Tensor, step: Tensor, rate: float) -> None:
        rows = step.flatten(1)
        direction = orthogonalised(rows, self._dtype).view_as(step)
        # A tall matrix has fewer singular values than rows: without the factor it would turn by less.
        filters.sub_(direction, alpha=rate * max(1.0, len(rows) / rows.shape[1]) ** 0.5)
        filters.mul_((len(rows) ** 0.5 / filters.norm().clamp(min=1e-7)).clamp(max=1.0))
