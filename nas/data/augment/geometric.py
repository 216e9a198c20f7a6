"""Augmentations by place: crops, mirrors, affine maps, and parts that are blackened.

All but the resized crop copy pixels without mixing them, which is a look-up by index: it stays in uint8, needs nothing of a
device but integer indexing, and takes half the time of `grid_sample`.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.config import AugmentConfig, PadMode
from nas.data.augment.draw import Draw, choose

ATTEMPTS = (
    10  # A box of a random area and aspect may not fit into the image: so many are drawn at once as torchvision tries in turn
)


def look_up(pixels: Tensor, places: Tensor) -> Tensor:
    """pixels (N, H, W, C), places int64 (N, H', W') among them all, row by row → (N, C, H', W')."""
    channels = pixels.shape[3]
    return pixels.reshape(-1, channels).index_select(0, places.flatten()).view(*places.shape, channels).permute(0, 3, 1, 2)


def first_pixels(pixels: Tensor) -> Tensor:
    """int64 (N, 1, 1): the place of each image's first pixel among those of all, (N, H, W, C)."""
    n, height, width, _ = pixels.shape
    return (torch.arange(n, device=pixels.device) * (height * width)).view(-1, 1, 1)


def inside(positions: Tensor, size: int) -> Tensor:
    return (positions >= 0) & (positions < size)


def _reflected(positions: Tensor, size: int) -> Tensor:
    """Any integer as a position in 0 … size - 1, mirrored at the first and the last, which do not repeat."""
    period = max(2 * (size - 1), 1)
    positions = positions.remainder(period)
    return torch.minimum(positions, period - positions)


def bordered(images: Tensor, padding: int, mode: PadMode) -> Tensor:
    """(N, H + 2 padding, W + 2 padding, C), channels last: the images within a black or mirrored border."""
    pixels = images.permute(0, 2, 3, 1)
    if mode == "zero":
        return F.pad(pixels, (0, 0, padding, padding, padding, padding))
    height, width = images.shape[2:]
    device = images.device
    rows = pixels.index_select(1, _reflected(torch.arange(-padding, height + padding, device=device), height))
    left = rows.index_select(2, _reflected(torch.arange(-padding, 0, device=device), width))
    right = rows.index_select(2, _reflected(torch.arange(width, width + padding, device=device), width))
    return torch.cat([left, rows, right], dim=2)


def crop(images: Tensor, top: Tensor, left: Tensor, padding: int, mode: PadMode) -> Tensor:
    """Each image's window of its own size in the padded image, with its corner at (top, left), int64 (N,) of 0 … 2 padding.
    Equal to torchvision's pad and crop.

    torchvision refuses to mirror more pixels than the image has; here the mirrors go on.
    """
    padded = bordered(images, padding, mode)
    lines = top[:, None] + torch.arange(images.shape[2], device=images.device)
    starts = first_pixels(padded) + (lines * padded.shape[2] + left[:, None])[:, :, None]
    copy = runs_from if images.device.type == "cpu" else pixels_from
    return copy(padded, starts, images.shape[3])


def runs_from(pixels: Tensor, starts: Tensor, width: int) -> Tensor:
    """pixels (N, H, W, C), starts int64 (N, H', 1) among them all → (N, C, H', width): each line a run of contiguous bytes, which
    takes a CPU a tenth of the time of single pixels."""
    channels = pixels.shape[3]
    runs = pixels.flatten().unfold(0, width * channels, 1)
    lines = runs.index_select(0, starts.flatten() * channels)
    return lines.view(*starts.shape[:2], width, channels).permute(0, 3, 1, 2)


def pixels_from(pixels: Tensor, starts: Tensor, width: int) -> Tensor:
    """As `runs_from`, for devices that would first write all the runs out."""
    return look_up(pixels, starts + torch.arange(width, device=pixels.device))


def random_crop(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """A window of the image's size at a random place in the padded image."""
    top, left = draw.integers(2 * config.crop_padding + 1, 2, len(images))
    return crop(images, top, left, config.crop_padding, config.pad_mode)


def resized_crop(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """The boxes, (N,) each, brought to the images' size, bilinear. Equal to torchvision's up to a level in a few pixels,
    where rounding goes the other way."""

    def sources(start: Tensor, length: Tensor, size: int) -> Tensor:
        """(N, size): where each pixel of the result lies in the image, no further out than the box's own pixels."""
        steps = torch.arange(size, device=images.device) + 0.5
        within = steps * (length[:, None] / size) - 0.5
        return start[:, None] + torch.minimum(within.clamp(min=0), length[:, None] - 1.0)

    n, _, rows, columns = images.shape
    y = (2 * sources(top, height, rows) + 1) / rows - 1  # in units of grid_sample: the image's borders at -1 and 1
    x = (2 * sources(left, width, columns) + 1) / columns - 1
    grid = torch.stack([x[:, None, :].expand(n, rows, columns), y[:, :, None].expand(n, rows, columns)], dim=-1)
    sampled = F.grid_sample(images.float(), grid, mode="bilinear", align_corners=False)
    return sampled.round_().clamp_(0, 255).to(torch.uint8, memory_format=torch.channels_last)


def first_valid(valid: Tensor, *values: Tensor) -> list[Tensor]:
    """Of each row of values (N, A) the entry at the first place where valid, bool (N, A), holds; the first where it nowhere
    does."""
    first = valid.to(torch.int32).argmax(dim=1, keepdim=True)
    return [value.gather(1, first).squeeze(1) for value in values]


def box_sizes(draw: Draw, n: int, area: tuple[float, float], aspect: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """(n, ATTEMPTS) each, float but whole: two sides whose product is uniform in area, in pixels, and whose ratio, the
    first over the second, is log-uniform in aspect."""
    areas = draw.uniform(*area, n, ATTEMPTS)
    roots = draw.uniform(math.log(aspect[0]) / 2, math.log(aspect[1]) / 2, n, ATTEMPTS).exp()  # of the aspects
    return (areas.sqrt() * roots).round(), (areas.sqrt() / roots).round()


def corners(draw: Draw, highest: Tensor, rightmost: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers (N,) each, uniform in 0 … highest and 0 … rightmost, (N,) each."""
    n = len(highest)
    return (draw.uniform(0, 1, n) * (highest + 1)).floor(), (draw.uniform(0, 1, n) * (rightmost + 1)).floor()


def random_resized_crop(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """As torchvision's RandomResizedCrop; an image whose boxes all fail to fit stays whole."""
    n, _, rows, columns = images.shape
    area = rows * columns
    widths, heights = box_sizes(draw, n, (config.resized_crop * area, area), (3 / 4, 4 / 3))
    valid = inside(widths - 1, columns) & inside(heights - 1, rows)
    width, height = first_valid(valid, widths, heights)
    fits = valid.any(dim=1)
    width, height = torch.where(fits, width, columns), torch.where(fits, height, rows)
    top, left = corners(draw, rows - height, columns - width)
    return resized_crop(images, top, left, height, width)


def hashed(numbers: Tensor, seed: int) -> Tensor:
    """int64 (N,) of 0 … 2³² - 1 → the same kind, scrambled, every bit of it depending on all of the number and the seed.

    Two rounds of a multiply-and-shift hash; no product reaches 2⁶³.
    """
    mask = 0xFFFFFFFF
    for key in (0, (seed ^ seed >> 32) & mask):
        numbers = (numbers ^ key) & mask
        numbers = ((numbers ^ numbers >> 16) * 0x21F0AAAD) & mask
        numbers = ((numbers ^ numbers >> 15) * 0x735A2D97) & mask
        numbers = numbers ^ numbers >> 15
    return numbers


def random_flip(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """horizontal: mirrors each image with probability 1/2. alternating: whether an image is mirrored when it is first used
    depends on its place in the training set; then it alternates, so that two consecutive passes show both sides (arXiv
    2404.00498)."""
    if config.flip == "alternating":
        mirrored = (hashed(draw.indices, draw.seed) + draw.epoch) % 2 == 1
    else:
        mirrored = draw.uniform(0, 1, len(images)) < 0.5
    return choose(mirrored, images.flip(3), images)


def random_vertical_flip(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    turned = draw.uniform(0, 1, len(images)) < config.vertical_flip
    return choose(turned, images.flip(2), images)


def affine(images: Tensor, matrices: Tensor) -> Tensor:
    """Each image under its own affine map, by the nearest pixel, black beyond the border.

    matrices (N, 2, 3) take a place (x, y, 1) in the result, in pixels from the image's centre, to its source. Equal to
    torchvision's `affine` and `rotate`, whose own rounding decides where a source lies midway between two pixels.
    """
    height, width = images.shape[2:]
    x = (torch.arange(width, device=images.device) - (width - 1) / 2).view(1, 1, -1)
    y = (torch.arange(height, device=images.device) - (height - 1) / 2).view(1, -1, 1)
    m = matrices.unsqueeze(-1).unsqueeze(-1)  # (N, 2, 3, 1, 1): each entry broadcasts over the image
    columns = (m[:, 0, 0] * x + m[:, 0, 1] * y).add_(m[:, 0, 2] + (width - 1) / 2).round_().clamp_(-1, width)
    rows = (m[:, 1, 0] * x + m[:, 1, 1] * y).add_(m[:, 1, 2] + (height - 1) / 2).round_().clamp_(-1, height)
    # Within a border of one black pixel, to which everything beyond was led; whole numbers, exact in float32 up to 4,000 × 4,000.
    padded = bordered(images, 1, "zero")
    places = rows.add_(1).mul_(width + 2).add_(columns).add_(1).long()
    return look_up(padded, places.add_(first_pixels(padded)))


def _matrices(xx: Tensor, xy: Tensor, x1: Tensor, yx: Tensor, yy: Tensor, y1: Tensor) -> Tensor:
    """(N,) each → (N, 2, 3)."""
    return torch.stack([xx, xy, x1, yx, yy, y1], dim=1).view(-1, 2, 3)


def turned(degrees: Tensor, right: Tensor | float = 0.0, down: Tensor | float = 0.0) -> Tensor:
    """Matrices (N, 2, 3) that turn the image about its centre, anticlockwise, then shift it. `degrees` (N,); shifts in
    pixels, (N,) or one for all."""
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    return _matrices(cos, -sin, -cos * right + sin * down, sin, cos, -sin * right - cos * down)


def sheared_x(amount: Tensor, height: int) -> Tensor:
    """Each row is shifted left by amount (N,) times its distance from the upper border."""
    one, zero = torch.ones_like(amount), torch.zeros_like(amount)
    return _matrices(one, amount, amount * (height / 2), zero, one, zero)


def sheared_y(amount: Tensor, width: int) -> Tensor:
    """Each column is shifted up by amount (N,) times its distance from the left border."""
    one, zero = torch.ones_like(amount), torch.zeros_like(amount)
    return _matrices(one, zero, zero, amount, one, amount * (width / 2))


def random_affine(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """Turned and shifted by whole pixels in one pass, as by torchvision's RandomAffine; nearest pixel, as is its default."""
    n, _, height, width = images.shape
    degrees = draw.uniform(-config.rotation, config.rotation, n)
    right = draw.uniform(-config.translation * width, config.translation * width, n).round()
    down = draw.uniform(-config.translation * height, config.translation * height, n).round()
    return affine(images, turned(degrees, right, down))


def in_boxes(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """bool (N, 1, H, W): whether a pixel lies in its image's box, (N,) each; the part of a box beyond the border is cut off."""
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    in_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def blacken(images: Tensor, boxes: Tensor) -> Tensor:
    """uint8 (N, C, H, W) with 0 where boxes, bool (N, 1, H, W), is true."""
    return images * ~boxes


def random_erasing(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """A random rectangle, as torchvision's RandomErasing; an image whose ten rectangles all fail to fit keeps its pixels."""
    n, _, rows, columns = images.shape
    area = rows * columns
    heights, widths = box_sizes(draw, n, (config.erasing_min * area, config.erasing_max * area), (0.3, 3.3))
    valid = (heights < rows) & (widths < columns)
    height, width = first_valid(valid, heights, widths)
    top, left = corners(draw, rows - height, columns - width)
    erased = valid.any(dim=1) & (draw.uniform(0, 1, n) < config.erasing)
    return blacken(images, in_boxes(images, top, left, height * erased, width))


def random_cutout(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """A square around a point anywhere in the image, cut off at the border. Unlike the paper's code (arXiv 1708.04552) an odd
    side stays odd, and the square is black rather than of the data set's mean."""
    n, _, rows, columns = images.shape
    top, left = (draw.integers(size, n) - config.cutout // 2 for size in (rows, columns))
    side = torch.full_like(top, config.cutout)
    return blacken(images, in_boxes(images, top, left, side, side))
