"""Passes over the hardest training images: those with the largest losses.

A network soon recognises most of the images, and learns little from them. In the later code of arXiv 2404.00498
(`airbench96_faster`) a small network chooses half of each batch. Here the loss of the trained network itself chooses, which needs
no second network: that of the image when it was last used (after arXiv 1511.06343 and 1910.00762).
"""

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor

from nas.config import share_of


class Hardest:
    """Which images a pass over the data uses. Images that were not used yet come first.

    Args:
        images: training images.
        share: of them, in each pass.
    """

    def __init__(self, images: int, share: float, device: torch.device) -> None:
        self.count = share_of(images, share)
        self.losses = torch.full((images,), math.inf, device=device)  # float32 (N,), when an image was last used
        self.uses = torch.zeros(images, dtype=torch.int32, device=device)  # (N,), how often it was used
        self._pass: int | None = None  # whose order is kept
        self._order = torch.zeros(0, dtype=torch.int64, device=device)  # (count,)
        self._waiting: deque[Tensor] = deque()  # positions int64 (B,) of batches whose losses are not known yet

    def of_pass(self, number: int, shuffled: Tensor) -> Tensor:
        """int64 (count,): positions of the hardest, in the order that they have in `shuffled`, a permutation (N,)."""
        if number != self._pass:
            by_loss = self.losses[shuffled].argsort(descending=True, stable=True)
            self._pass, self._order = number, shuffled[by_loss[: self.count].sort().values]
        return self._order

    def begin(self) -> None:
        """The next batch that is used is the next one that is given."""
        self._waiting.clear()

    def give(self, chosen: Tensor) -> None:
        """A batch with these positions, int64 (B,), is about to be used. A device may get it one step early."""
        self._waiting.append(chosen)

    def record(self, losses: Tensor) -> None:
        """float (B,): the losses of the images of the oldest batch that was given."""
        chosen = self._waiting.popleft()
        self.losses[chosen] = losses.float()
        self.uses[chosen] += 1

    def state(self) -> dict[str, Any]:
        return {"losses": self.losses.cpu(), "uses": self.uses.cpu(), "pass": self._pass, "order": self._order.cpu()}

    def restore(self, state: dict[str, Any]) -> None:
        self.losses.copy_(state["losses"])
        self.uses.copy_(state["uses"])
        self._pass, self._order = state["pass"], state["order"].to(self.losses.device)
