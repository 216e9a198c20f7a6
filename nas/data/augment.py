"""Augmentations of whole batches on their device, each image with its own draw.

To add one: a function `(images: uint8 (N, C, H, W), config, generator) -> uint8 (N, C, H, W)` that returns its input where
`config` turns it off, an entry in AUGMENTATIONS at its place in the order, and its field in `nas.config.AugmentConfig`.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.config import AugmentConfig


def random_crop(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Pads each side, then cuts a window of the original size at a random place."""
    p = config.crop_padding
    if p == 0:
        return images
    n, _, height, width = images.shape
    p = min(p, height - 1, width - 1) if config.pad_mode == "reflect" else p
    padded = F.pad(images, (p, p, p, p), mode="reflect") if config.pad_mode == "reflect" else F.pad(images, (p, p, p, p))
    # Every window as a view, (N, C, 2p+1, 2p+1, H, W), of which indexing copies one an image.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    shifts = torch.randint(0, 2 * p + 1, (2, n), device=images.device, generator=generator)
    return windows[torch.arange(n, device=images.device), :, shifts[0], shifts[1]]


def random_flip(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Mirrors every other image, by lot."""
    if config.flip == "none":
        return images
    mirrored = torch.rand(len(images), device=images.device, generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


AUGMENTATIONS: dict[str, Callable[[Tensor, AugmentConfig, torch.Generator], Tensor]] = {
    "crop": random_crop,
    "flip": random_flip,
}


def augment(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """uint8 (N, C, H, W) → the same shape, each augmentation in the registry's order."""
    for function in AUGMENTATIONS.values():
        images = function(images, config, generator)
    return images
