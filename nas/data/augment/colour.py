"""Augmentations of pixels' values: colours, tones, sharpness, blur and noise.

Each operation takes images uint8 (N, C, H, W) and one parameter an image, (N,), and gives what torchvision gives for one image:
exactly, or a level apart in some pixels, where a rounding error falls below a whole number and is cut off. Between two operations
a pixel is a whole number again, as there. On images that do not have three channels, saturation and hue do nothing.
"""

import torch
from torch import Tensor

from nas.config import AugmentConfig
from nas.data.augment.draw import Draw, pick, put

# Shares of red, green and blue in a pixel's luminance, ITU-R BT.601.
LUMINANCE = (0.2989, 0.587, 0.114)


def per_image(values: Tensor) -> Tensor:
    """(N,) → (N, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def pixels(values: Tensor) -> Tensor:
    """Fractions are cut off, as torchvision does."""
    return values.clamp_(0, 255).to(torch.uint8)


def rounded(values: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8)


def blend(images: Tensor, others: Tensor, factors: Tensor) -> Tensor:
    """factor × image + (1 - factor) × other: at 0 the other, at 1 the image, beyond it away from the other.

    others: float, broadcast to (N, C, H, W).
    """
    # In this form a pixel that equals the other's keeps its level exactly, where the sum of two products may lose one. And to
    # float first: a product of uint8 and float tensors takes far longer on a CPU.
    return pixels((images.float() - others).mul_(per_image(factors)).add_(others))


def grey(images: Tensor) -> Tensor:
    """Luminance, float (N, 1, H, W) of whole numbers; the mean of the channels where there are not three."""
    values = images.float()
    if images.shape[1] != 3:
        return values.mean(dim=1, keepdim=True).floor_()
    red, green, blue = values.split(1, dim=1)
    return (LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue).floor_()


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    return pixels(images.float().mul_(per_image(factors)))


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    return blend(images, grey(images).mean(dim=(1, 2, 3), keepdim=True), factors)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    return blend(images, grey(images), factors) if images.shape[1] == 3 else images


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """turns: of the whole colour circle, in [-0.5, 0.5]. Value and saturation stay."""
    if images.shape[1] != 3:
        return images
    # One plane a colour, whatever the batch's layout: nearly all that follows is on single planes.
    red, green, blue = images.to(torch.float32, memory_format=torch.contiguous_format).split(1, dim=1)
    high, low = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    spread = high - low
    safe = spread.clamp(min=1.0)  # where it is 0 the pixel is grey, and its hue does not matter
    # In sixths of the circle: red at 0, green at 2, blue at 4.
    angle = torch.where(
        high == red, (green - blue) / safe, torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    angle = angle + 6 * per_image(turns)
    # A channel keeps the highest value for two sixths, falls for one, keeps the lowest for two, and rises for one.
    phase = torch.cat([angle + 5, angle + 3, angle + 1], dim=1)
    phase = phase - 6 * (phase / 6).floor_()  # as remainder(6), which is several times slower on a CPU
    drop = torch.minimum(phase, 4 - phase).clamp_(0, 1)
    return pixels((high - spread * drop).add_(0.5))


def colour_jitter(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """The four of torchvision's ColorJitter, each image with its own factors; their order is drawn once a batch."""
    operations = [
        (brightness, config.brightness, 1.0),
        (contrast, config.contrast, 1.0),
        (saturation, config.saturation, 1.0),
        (hue, config.hue, 0.0),
    ]
    used = [operation for operation in operations if operation[1] > 0]
    for i in draw.order(len(used)):
        function, largest, centre = used[i]
        images = function(images, draw.uniform(centre - largest, centre + largest, len(images)))
    return images


def invert(images: Tensor) -> Tensor:
    return 255 - images


def posterise(images: Tensor, bits: Tensor) -> Tensor:
    """Keeps each pixel's highest bits, (N,) of 0 … 8."""
    kept = 256 - 2 ** (8 - bits.to(torch.int32))
    return images & per_image(kept).to(torch.uint8)


def solarise(images: Tensor, thresholds: Tensor) -> Tensor:
    """Inverts the pixels from the threshold, (N,), upwards."""
    return torch.where(images.float() >= per_image(thresholds), 255 - images, images)


def autocontrast(images: Tensor) -> Tensor:
    """Each channel of each image stretched to 0 … 255; one of a single value stays."""
    low = images.amin(dim=(2, 3), keepdim=True).float()
    spread = images.amax(dim=(2, 3), keepdim=True).float() - low
    flat = spread == 0
    low, scale = torch.where(flat, 0.0, low), torch.where(flat, 1.0, 255.0 / spread)
    return pixels((images.float() - low).mul_(scale))


def equalise(images: Tensor) -> Tensor:
    """The histogram of each channel of each image flattened, in whole numbers, as PIL and torchvision do: the brightest
    value does not count for the step, and a channel whose step would be 0 stays, as do all images below 256 pixels."""
    n, channels, height, width = images.shape
    levels = images.reshape(n * channels, height * width).long()
    counts = torch.zeros(n * channels, 256, dtype=torch.int32, device=images.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels, dtype=torch.int32))
    brightest = counts.gather(1, levels.amax(dim=1, keepdim=True))
    step = (height * width - brightest) // 255
    below = counts.cumsum(dim=1, dtype=torch.int32) - counts
    table = torch.where(step > 0, (below + step // 2) // step.clamp(min=1), torch.arange(256, device=images.device))
    return table.clamp_(0, 255).to(torch.uint8).gather(1, levels).view(n, channels, height, width)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """factors (N,): 0 smoothes, 1 leaves, 2 sharpens. As torchvision and PIL: blended with the mean of the 3×3 pixels around, the
    middle one of weight 5; the outermost pixels stay."""
    if min(images.shape[2:]) <= 2:
        return images
    smooth = images.float()
    rows = smooth[:, :, :-2] + smooth[:, :, 1:-1] + smooth[:, :, 2:]
    sums = rows[:, :, :, :-2] + rows[:, :, :, 1:-1] + rows[:, :, :, 2:]
    # Sums are whole and 13 is odd, so that nothing lies midway between two levels and rounding is exact.
    smooth[:, :, 1:-1, 1:-1] = ((sums + 4 * smooth[:, :, 1:-1, 1:-1]) / 13).round_()
    return blend(images, smooth, factors)


def random_sharpness(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
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

    return rounded(smoothed(smoothed(images.float(), 2), 3))


def random_blur(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    return blur(images, draw.uniform(min(0.1, config.blur), config.blur, len(images)))


def noise(images: Tensor, deviations: Tensor, drawn: Tensor) -> Tensor:
    """Adds `drawn`, standard normal (N, C, H, W), times deviations (N,), in levels of 0 to 255."""
    return rounded(torch.addcmul(images.float(), drawn, per_image(deviations)))


def random_noise(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """Independent of pixel and channel."""
    chosen = draw.some(config.noise_p)
    picked = pick(images, chosen)
    deviations = draw.uniform(0.0, 255 * config.noise, len(chosen))
    return put(images, chosen, [noise(picked, deviations, draw.normal(*picked.shape))])
