"""Augmentations that blacken a part of an image: random erasing and cutout."""

import torch
from torch import Tensor

from nas.config import AugmentConfig
from nas.data.augment.draw import Draw
from nas.data.augment.geometric import box_sizes, first_valid


def in_boxes(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """bool (N, 1, H, W): whether a pixel lies in its image's box, (N,) each; the part of a box beyond the border is cut off."""
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    in_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def blacken(images: Tensor, boxes: Tensor) -> Tensor:
    """uint8 (N, C, H, W) with 0 where boxes, bool (N, 1, H, W), hold."""
    return images * ~boxes


def random_erasing(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """A random rectangle, as torchvision's RandomErasing; an image whose ten rectangles all fail to fit keeps its pixels."""
    if config.erasing == 0:
        return images
    n, _, rows, columns = images.shape
    area = rows * columns
    heights, widths = box_sizes(draw, n, (config.erasing_min * area, config.erasing_max * area), (0.3, 3.3))
    valid = (heights < rows) & (widths < columns)
    height, width = first_valid(valid, heights, widths)
    top = (draw.uniform(0, 1, n) * (rows - height + 1)).floor()
    left = (draw.uniform(0, 1, n) * (columns - width + 1)).floor()
    erased = valid.any(dim=1) & (draw.uniform(0, 1, n) < config.erasing)
    return blacken(images, in_boxes(images, top, left, height * erased, width))


def random_cutout(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """A square around a point anywhere in the image, cut off at the border. Unlike the paper's code (arXiv 1708.04552) an odd
    side stays odd, and the square is black rather than of the data set's mean."""
    side = config.cutout
    if side == 0:
        return images
    n, _, rows, columns = images.shape
    top, left = draw.integers(rows, n) - side // 2, draw.integers(columns, n) - side // 2
    sides = torch.full_like(top, side)
    return blacken(images, in_boxes(images, top, left, sides, sides))
