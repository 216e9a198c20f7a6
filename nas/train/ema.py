"""An exponential moving average of a network's weights and BatchNorm statistics."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Forgets with a time constant of `epochs`. Early on the average spans the steps so far (its decay rises as
    (1 + n) / (10 + n)), so that the random initial weights do not linger."""

    def __init__(self, model: nn.Module, epochs: float, steps_per_epoch: int) -> None:
        self.updates = 0
        self._decay = math.exp(-1 / (epochs * steps_per_epoch))
        self.model = copy.deepcopy(model)
        self._floats, self._counts = _tensors(self.model)
        # Training and resuming change these in place, so that one look serves for every step.
        self._sources = _tensors(model)

    @torch.no_grad()
    def update(self) -> None:
        """Takes in what the model has become."""
        # The count is kept in Python: one in a tensor, as torch's AveragedModel has it, makes the host wait for the device.
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        floats, counts = self._sources
        torch._foreach_lerp_(self._floats, floats, 1 - decay)
        if counts:
            torch._foreach_copy_(self._counts, counts)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "averaged": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.model.load_state_dict(state["averaged"])


def _tensors(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and statistics that can be averaged, and BatchNorm's counts of batches, which cannot."""
    every = [*model.parameters(), *model.buffers()]
    return [t for t in every if t.is_floating_point()], [t for t in every if not t.is_floating_point()]
