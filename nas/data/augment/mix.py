"""Mixing of images and labels, after normalisation: MixUp, CutMix, or one of the two drawn for each image.

Both are one operation: at each pixel, an image keeps a weight and its partner has the rest. MixUp's weight is one number for
all of an image's pixels, CutMix's is 0 in a box and 1 elsewhere; the label's weight is the mean over the pixels.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nas.config import AugmentConfig
from nas.data.augment.colour import per_image
from nas.data.augment.draw import Draw
from nas.data.augment.geometric import in_boxes


def beta(alpha: float, n: int, draw: Draw) -> Tensor:
    """float32 (n,) of the symmetric distribution Beta(alpha, alpha), exact for every alpha above 0 and without rejection.

    With U and V uniform, T = √(2α (U^(-1/α) - 1)) · cos 2πV is Student's t of 2α degrees of freedom (Bailey 1994, Polar
    generation of random variates with the t-distribution), of which 1/2 + T / 2√(2α + T²) is Beta(α, α) (Devroye 1996,
    Random variate generation in one line of code).
    """
    u = draw.uniform(0, 1, n)
    cos = (draw.uniform(0, 2 * math.pi, n)).cos()
    square = (u.pow(-1 / alpha) - 1) * cos.square()  # T² / 2α; infinite where u^(-1/alpha) exceeds float32
    return (0.5 + 0.5 * cos.sign() / (1 + 1 / square).sqrt()).clamp(0, 1)


def partners(n: int, draw: Draw) -> Tensor:
    """int64 (n,): the images in a random ring, each with the next, so that none is its own partner (unless it is alone)."""
    ring = draw.permutation(n)
    result = torch.empty_like(ring)
    result[ring] = ring.roll(1)
    return result


def mixup_weights(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """arXiv 1710.09412. float (N, 1, H, W): each image's weight, the same at every pixel."""
    n, _, height, width = images.shape
    return per_image(beta(config.mixup_alpha, n, draw)).expand(n, 1, height, width)


def cutmix_weights(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """arXiv 1905.04899. float (N, 1, H, W): 0 in a box around a uniform point, 1 elsewhere.

    The box has the sides of the image times √(1 - λ), cut down to even ones as in the paper's code and torchvision; what lies
    beyond the border is cut off.
    """
    n, _, rows, columns = images.shape
    side = (1 - beta(config.cutmix_alpha, n, draw)).sqrt()
    half_height, half_width = (side * (rows / 2)).floor(), (side * (columns / 2)).floor()
    y, x = draw.integers(rows, n), draw.integers(columns, n)
    boxes = in_boxes(images, y - half_height, x - half_width, 2 * half_height, 2 * half_width)
    return 1.0 - boxes.float()


def either_weights(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """float (N, 1, H, W): each image by lot the one's or the other's."""
    mixed_up = per_image(draw.uniform(0, 1, len(images)) < 0.5)
    return torch.where(mixed_up, mixup_weights(images, config, draw), cutmix_weights(images, config, draw))


MIXES: dict[str, Callable[[Tensor, AugmentConfig, Draw], Tensor]] = {
    "mixup": mixup_weights,
    "cutmix": cutmix_weights,
    "mixup_or_cutmix": either_weights,
}


def mix(images: Tensor, labels: Tensor, classes: int, config: AugmentConfig, draw: Draw) -> tuple[Tensor, Tensor]:
    """float (N, C, H, W) and int64 (N,) → images and targets float (N, classes), each row of sum 1.

    The batch as a whole is mixed with probability `mix_p`; within it each image has its own partner, weight and box.
    """
    # Not F.one_hot, which looks at the labels' range and so waits for some devices.
    targets = torch.zeros(len(labels), classes, device=images.device).scatter_(1, labels[:, None], 1.0)
    if config.mix == "none" or not draw.chance(config.mix_p):
        return images, targets
    weights = MIXES[config.mix](images, config, draw)
    partner = partners(len(images), draw)
    mixed = torch.lerp(images[partner], images, weights.to(images.dtype))
    return mixed, torch.lerp(targets[partner], targets, weights.mean(dim=(1, 2, 3))[:, None])
