"""Sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412): the gradient is taken at the worst point near the weights.

Works around any optimiser: backward, `climb`, backward again, `descend`, step.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nas.train.norm import BATCH_NORMS


class SharpnessAware:
    def __init__(self, model: nn.Module, rho: float) -> None:
        """`rho` is the Euclidean radius of the neighbourhood."""
        self._params: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self._norms = [m for m in model.modules() if isinstance(m, BATCH_NORMS)]
        self._rho = rho
        self._home: list[Tensor] = []

    @torch.no_grad()
    def climb(self) -> None:
        """Moves the weights by `rho` along their gradient and clears it. A loss scale cancels out of the direction."""
        params = [p for p in self._params if p.grad is not None]
        gradients = [p.grad for p in params if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self._home = [p.clone() for p in self._params]
        torch._foreach_add_(params, list(torch._foreach_mul(gradients, self._rho / (norm + 1e-12))))
        for p in self._params:
            p.grad = None

    @torch.no_grad()
    def descend(self) -> None:
        """Back to the weights from before the climb, exactly; the second gradient stays."""
        torch._foreach_copy_(self._params, self._home)
        self._home = []

    @contextmanager
    def second_pass(self) -> Iterator[None]:
        """BatchNorm's running statistics are those of the weights that are kept, not of the point above them."""
        # A momentum of 0 would not do: 0 times the NaN of an overflowed climb is NaN.
        for norm in self._norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in self._norms:
                norm.track_running_stats = True
