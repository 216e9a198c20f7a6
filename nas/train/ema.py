"""An exponential moving average of a network's weights and BatchNorm statistics."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class WeightAverage:
    """Forgets with a time constant of `epochs`. Early on the average spans the steps so far (its decay rises as
    (1 + n) / (10 + n)), so that the random initial weights do not linger."""

    def __init__(self, model: nn.Module, epochs: float, steps_per_epoch: int) -> None:
        self.updates = 0
        self._decay = math.exp(-1 / (epochs * steps_per_epoch))
        self._averaged = AveragedModel(model, use_buffers=True, multi_avg_fn=self._blend)

    @property
    def model(self) -> nn.Module:
        return self._averaged.module

    def update(self, model: nn.Module) -> None:
        self._averaged.update_parameters(model)
        self.updates += 1

    @torch.no_grad()
    def _blend(self, averaged: Any, current: Any, _: Tensor | int) -> None:
        # The count is kept in Python: torch's own lives in a tensor, and reading it would wait for the device.
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        if torch.is_floating_point(averaged[0]):
            torch._foreach_lerp_(averaged, current, 1 - decay)
        else:  # BatchNorm's count of batches
            for target, source in zip(averaged, current, strict=True):
                target.copy_(source)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "averaged": self._averaged.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self._averaged.load_state_dict(state["averaged"])
