"""Augmentations of how fine an image is: sharpness and blur, by each pixel's neighbours, and noise."""

import torch
from torch import Tensor

from nas.config import AugmentConfig
from nas.data.augment.colour import blend, per_image
from nas.data.augment.draw import Draw
from nas.data.augment.select import pick, put


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """uint8 (N, C, H, W), factors (N,): 0 smoothes, 1 leaves, 2 sharpens. As torchvision and PIL: blended with the mean of
    the 3×3 pixels around, the middle one of weight 5; the outermost pixels stay."""
    if min(images.shape[2:]) <= 2:
        return images
    smooth = images.float()
    rows = smooth[:, :, :-2] + smooth[:, :, 1:-1] + smooth[:, :, 2:]
    sums = rows[:, :, :, :-2] + rows[:, :, :, 1:-1] + rows[:, :, :, 2:]
    # Sums are whole and 13 is odd, so that nothing lies midway between two levels and rounding is exact.
    smooth[:, :, 1:-1, 1:-1] = ((sums + 4 * smooth[:, :, 1:-1, 1:-1]) / 13).round_()
    return blend(images, smooth, factors)


def random_sharpness(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    if config.sharpness == 1 or config.sharpness_p == 0:
        return images
    chosen = draw.some(config.sharpness_p)
    factors = torch.full((len(chosen),), config.sharpness, device=images.device)
    return put(images, chosen, [sharpness(pick(images, chosen), factors)])


def blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Gaussian over 3×3 pixels, the border mirrored; sigmas (N,) in pixels. torchvision's up to a level in a few pixels."""
    side = torch.exp(-0.5 / sigmas.square())
    total = 1 + 2 * side
    centre, side = per_image(1 / total), per_image(side / total)

    def smoothed(values: Tensor, dim: int) -> Tensor:
        size = values.shape[dim]
        before, after = values.roll(1, dim), values.roll(-1, dim)
        before.select(dim, 0).copy_(values.select(dim, min(1, size - 1)))
        after.select(dim, size - 1).copy_(values.select(dim, max(size - 2, 0)))
        return before.add_(after).mul_(side).add_(values * centre)

    return smoothed(smoothed(images.float(), 2), 3).round_().clamp_(0, 255).to(torch.uint8)


def random_blur(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    if config.blur == 0:
        return images
    return blur(images, draw.uniform(min(0.1, config.blur), config.blur, len(images)))


def noise(images: Tensor, deviations: Tensor, drawn: Tensor) -> Tensor:
    """Adds `drawn`, standard normal (N, C, H, W), times deviations (N,), in levels of 0 to 255."""
    noisy = torch.addcmul(images.float(), drawn, per_image(deviations))
    return noisy.round_().clamp_(0, 255).to(torch.uint8)


def random_noise(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """Independent of pixel and channel."""
    if config.noise == 0 or config.noise_p == 0:
        return images
    chosen = draw.some(config.noise_p)
    picked = pick(images, chosen)
    deviations = draw.uniform(0.0, 255 * config.noise, len(chosen))
    return put(images, chosen, [noise(picked, deviations, draw.normal(*picked.shape))])
