"""The randomness of one batch. It knows no augmentation.

What shapes the work, such as how many images get an operation, is drawn on the host; which images they are, and every
number of an image's own, on the device. So each tensor's size is known without asking the device, and nothing waits for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

# Any constant does that makes the host's numbers others than the device's under the same seed.
_HOST = 0x5DEECE66D


@dataclass(frozen=True)
class Draw:
    """Whatever an augmentation may make depend on chance. Each call of a method goes on in the generators."""

    generator: torch.Generator
    """On the images' device."""
    host: torch.Generator
    """On the CPU, whatever the device."""
    indices: Tensor
    """int64 (N,): each image's place in the training set, the same in every epoch."""
    epoch: int = 0
    """From 0."""
    seed: int = 0
    """Of the whole training, for what must not change between epochs."""

    @classmethod
    def seeded(cls, batch_seed: int, indices: Tensor, epoch: int = 0, seed: int = 0) -> Self:
        """Equal seeds make equal draws on one kind of device; a GPU's generator is another than a CPU's."""
        generator = torch.Generator(device=indices.device).manual_seed(batch_seed)
        return cls(generator, torch.Generator().manual_seed(batch_seed ^ _HOST), indices, epoch, seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """float32, from low up to high."""
        return low + (high - low) * torch.rand(*shape, generator=self.generator, device=self.indices.device)

    def normal(self, *shape: int) -> Tensor:
        """float32, of mean 0 and deviation 1."""
        return torch.randn(*shape, generator=self.generator, device=self.indices.device)

    def integers(self, below: int, *shape: int) -> Tensor:
        """int64 in 0 … below - 1."""
        return torch.randint(0, below, shape, generator=self.generator, device=self.indices.device)

    def signs(self, n: int) -> Tensor:
        """int64 (n,), -1 or 1."""
        return 2 * self.integers(2, n) - 1

    def permutation(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self.generator, device=self.indices.device)

    def chance(self, probability: float) -> bool:
        """For the batch as a whole."""
        return float(torch.rand((), generator=self.host)) < probability

    def order(self, n: int) -> list[int]:
        """0 … n - 1 in an order for the batch as a whole."""
        return torch.randperm(n, generator=self.host).tolist()

    def split(self, shares: Sequence[float]) -> Sequence[Tensor]:
        """The images, as int64 positions in the batch, of each choice, where every image falls to choice i independently
        with probability shares[i] / sum(shares).

        That many fall to each is multinomial, and given the numbers every allotment is equally likely: this draws the one
        on the host and the other as a permutation, and is exactly as if each image had drawn.
        """
        n = len(self.indices)
        choices = torch.multinomial(torch.tensor(shares, dtype=torch.float64), n, replacement=True, generator=self.host)
        return self.permutation(n).split(choices.bincount(minlength=len(shares)).tolist())

    def some(self, probability: float) -> Tensor:
        """int64 positions of the images that a coin of this probability picks, an independent toss each."""
        return self.split([probability, 1.0 - probability])[0]
