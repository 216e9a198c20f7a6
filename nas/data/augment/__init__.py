"""Augmentations of whole batches on their device, each image with its own draw.

To add one: a function `(images: uint8 (N, C, H, W), config, draw) -> uint8 (N, C, H, W)` that returns its very input where
`config` turns it off and never writes into it, an entry in AUGMENTATIONS at its place in the order, its field in
`nas.config.AugmentConfig`, and an entry in `examples`. What mixes images with each other is in `mix`, and has labels to mix, too.

draw.py is their randomness, geometric.py moves pixels, colour.py and filters.py change them, policies.py draws among the others'
operations, erasing.py blackens. Whatever an augmentation draws, the function beneath it takes as one explicit parameter an
image, and is compared with torchvision's.
"""

from collections.abc import Callable

from torch import Tensor

from nas.config import AugmentConfig
from nas.data.augment.colour import colour_jitter
from nas.data.augment.draw import Draw
from nas.data.augment.erasing import random_cutout, random_erasing
from nas.data.augment.filters import random_blur, random_noise, random_sharpness
from nas.data.augment.geometric import random_affine, random_crop, random_flip, random_resized_crop, random_vertical_flip
from nas.data.augment.policies import random_policy

__all__ = ["AUGMENTATIONS", "Draw", "augment"]

AUGMENTATIONS: dict[str, Callable[[Tensor, AugmentConfig, Draw], Tensor]] = {
    "crop": random_crop,
    "resized_crop": random_resized_crop,
    "flip": random_flip,
    "vertical_flip": random_vertical_flip,
    "affine": random_affine,
    "policy": random_policy,
    "colour": colour_jitter,
    "sharpness": random_sharpness,
    "blur": random_blur,
    "noise": random_noise,
    "erasing": random_erasing,
    "cutout": random_cutout,
}


def augment(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """uint8 (N, C, H, W) → the same shape, each augmentation in the registry's order."""
    for function in AUGMENTATIONS.values():
        images = function(images, config, draw)
    return images
