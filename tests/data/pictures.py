"""Images for the tests of augmentations."""

import torch
from torch import Tensor

from nas.data.augment import Draw


def pictures(n: int, channels: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    """uint8 (N, C, H, W): smooth shapes with noise, of differing brightness and contrast; the first is of a single colour."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    noise = 0.2 * torch.rand(n, channels, size, size, generator=generator)
    low, high = torch.rand(2, n, 1, 1, 1, generator=generator)
    images = (255 * (low + (high - low) * (smooth + noise))).clamp(0, 255).to(torch.uint8)
    images[0] = 90
    return images


def a_draw(n: int, seed: int = 0, epoch: int = 0, first: int = 0) -> Draw:
    """For n images whose places in the training set begin at `first`."""
    return Draw.seeded(seed, torch.arange(first, first + n), epoch, seed)


def apart(one: Tensor, other: Tensor) -> int:
    """The largest difference, in levels."""
    return int((one.int() - other.int()).abs().max())


def share_apart(one: Tensor, other: Tensor) -> float:
    """Share of values that differ at all."""
    return float((one != other).float().mean())
