"""The randomness of one batch, and whole images of it picked, chosen between and put back. It knows no augmentation.

What determines sizes, such as how many images get an operation, is drawn on the host; which images they are, and every number of
an image, on the device. So each tensor's size is known without asking the device, and the host never waits for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

# Any constant that makes the host's numbers differ from the device's under the same seed.
_HOST = 0x5DEECE66D


@dataclass(frozen=True)
class Draw:
    """Whatever an augmentation may make depend on chance. Each call advances the generators."""

    generator: torch.Generator  # on the images' device
    host: torch.Generator  # on the CPU, whatever the device
    indices: Tensor  # int64 (N,): each image's place in the training set, the same in every epoch
    epoch: int | Tensor = 0  # the number of the pass over the data, or int (N,) for each image how often it was used before
    seed: int = 0  # of the whole training, for what must not change between epochs

    @classmethod
    def seeded(cls, batch_seed: int, indices: Tensor, epoch: int | Tensor = 0, seed: int = 0) -> Self:
        """Equal seeds make equal draws on one kind of device; a GPU's generator differs from a CPU's."""
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
        """For each choice the images that get it, int64 positions in the batch. Every image gets choice i independently with
        probability shares[i] / sum(shares).

        The counts are multinomial, and given the counts every assignment is equally likely: the counts are drawn on the host and
        the assignment as a permutation, which is exactly as if each image had drawn.
        """
        return self.permutation(len(self.indices)).split(self.counts(shares))

    def counts(self, shares: Sequence[float]) -> list[int]:
        """How many images get each choice: multinomial, drawn on the host."""
        count = len(self.indices)
        choices = torch.multinomial(torch.tensor(shares, dtype=torch.float64), count, replacement=True, generator=self.host)
        return choices.bincount(minlength=len(shares)).tolist()

    def some(self, probability: float) -> Tensor:
        """int64 positions of the images that an independent coin of this probability picks."""
        return self.split([probability, 1.0 - probability])[0]


# ------------------------------------------------------------------------------------------------- images of a batch
#
# Each is a copy of contiguous rows, on a CPU several times as fast as a mask or an index by element, and nothing waits for a
# device, as it would for how many images a mask picks.


def _in_rows(images: Tensor) -> Tensor:
    """(N, C, H, W) → (N, H · W · C), no copy where the batch is channels_last."""
    return images.permute(0, 2, 3, 1).flatten(1)


def _from_rows(rows: Tensor, images: Tensor) -> Tensor:
    """Rows as images of the shape of `images`, channels_last."""
    _, channels, height, width = images.shape
    return rows.view(-1, height, width, channels).permute(0, 3, 1, 2)


def pick(images: Tensor, where: Tensor) -> Tensor:
    """The images at `where`, int64 (M,): (M, C, H, W)."""
    return _from_rows(_in_rows(images).index_select(0, where), images)


def choose(which: Tensor, these: Tensor, those: Tensor) -> Tensor:
    """Image by image, these where `which`, bool (N,), is true, and those elsewhere; all (N, C, H, W)."""
    n = len(which)
    both = torch.cat([_in_rows(those), _in_rows(these)])
    return _from_rows(both.index_select(0, torch.arange(n, device=which.device) + n * which), these)


def put(images: Tensor, where: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """`images` (N, C, H, W) with those of `parts`, together (M, C, H, W), in the places `where`, int64 (M,), none twice."""
    n = len(images)
    sources = torch.arange(n, device=images.device)
    sources[where] = torch.arange(n, n + len(where), device=images.device)
    every = torch.cat([_in_rows(part) for part in (images, *parts)])
    return _from_rows(every.index_select(0, sources), images)
