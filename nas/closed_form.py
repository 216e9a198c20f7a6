"""How many parameters and multiply-adds a network has, in closed form: for who needs thousands of counts, such as `nas.widths`,
or wants them at once, such as the tables.

Knows neither torch nor `nas.models`, whose layers it writes down again; tests hold it equal to fvcore's counts. What is over
budget is decided by `nas.budget`, never here.
"""

import math
from collections.abc import Callable, Sequence

from nas.config import ArchConfig, ImageShape

WHITENING_PATCH = 2


def closed_form_params(arch: ArchConfig, shape: ImageShape) -> int:
    """What `nas.budget.count_params` gives for every network that can be built for such images."""
    return params_at_widths(arch, shape, [stage.channels for stage in arch.stages], arch.stem_channels)


def params_at_widths(arch: ArchConfig, shape: ImageShape, widths: Sequence[int], stem: int) -> int:
    """The same, had its stages and its stem so many channels."""
    total = _stem(arch, shape.channels, stem)
    block = BLOCKS[arch.block]
    before = stem
    for i, (stage, channels) in enumerate(zip(arch.stages, widths, strict=True)):
        area = stage.kernel**2
        total += block(arch, before, channels, area) + (stage.blocks - 1) * block(arch, channels, channels, area)
        total += stage.blocks * _squeeze_excitation(arch, channels)
        strided = i > 0 and arch.downsample != "maxpool"
        if strided or before != channels:
            skip = 1 if strided and arch.downsample == "avgpool" else stage.skip_kernel
            total += _conv_norm(before, channels, skip**2)
        before = channels
    if arch.block == "preact":
        total += 2 * before
    return total + (before * _cells(arch, shape.size) + 1) * shape.classes


def closed_form_macs(arch: ArchConfig, shape: ImageShape) -> int:
    """What `nas.budget.count_macs` gives for every network that can be built for such images.

    Of a convolution without bias and its BatchNorm, multiply-adds are parameters times positions: fvcore counts two operations a
    value for BatchNorm's scale and shift, which are two parameters a channel. Average pooling to cells counts its input.
    """
    total = _stem_macs(arch, shape, math.ceil(shape.size / arch.stem.stride))
    size = stem_size(arch, shape.size)
    block = BLOCK_MACS[arch.block]
    before = arch.stem_channels
    for i, stage in enumerate(arch.stages):
        channels, area = stage.channels, stage.kernel**2
        after = math.ceil(size / 2) if i else size
        seen = after if arch.downsample == "maxpool" else size
        total += block(arch, before, channels, area, seen**2, after**2)
        total += (stage.blocks - 1) * block(arch, channels, channels, area, after**2, after**2)
        total += stage.blocks * _squeeze_excitation_macs(arch, channels, after**2)
        if arch.has_projection(i):
            skip = 1 if i and arch.downsample == "avgpool" else stage.skip_kernel
            total += _conv_norm(before, channels, skip**2) * after**2
        before, size = channels, after
    if arch.block == "preact":
        total += 2 * before * size**2
    if arch.pool == "avg":
        total += before * size**2
    return total + before * _cells(arch, shape.size) * shape.classes


def stem_size(arch: ArchConfig, size: int) -> int:
    """Of the map that leaves the stem, of images of this size."""
    size = math.ceil(size / arch.stem.stride)
    return math.ceil(size / 2) if arch.stem.pool == "max" else size


def _cells(arch: ArchConfig, size: int) -> int:
    """Of the pooled map that the classifier sees."""
    size = stem_size(arch, size)
    for _ in arch.stages[1:]:
        size = math.ceil(size / 2)
    return min(arch.pool_size, size) ** 2


def _conv_norm(before: int, channels: int, area: int) -> int:
    return before * channels * area + 2 * channels


def _stem(arch: ArchConfig, channels: int, stem: int) -> int:
    whitening = 0
    if arch.stem.type == "whitening":
        area = WHITENING_PATCH**2
        whitened = 2 * channels * area
        whitening, channels = channels * whitened * area, whitened
    norm = 0 if arch.block == "preact" else 2 * stem
    return whitening + channels * stem * arch.stem.kernel**2 + norm


def _squeeze_excitation(arch: ArchConfig, channels: int) -> int:
    if arch.se_reduction == 0:
        return 0
    squeezed = math.ceil(channels / arch.se_reduction)
    return 2 * channels * squeezed + squeezed + channels


def _basic(arch: ArchConfig, before: int, channels: int, area: int) -> int:
    return _conv_norm(before, channels, area) + _conv_norm(channels, channels, area)


def _preact(arch: ArchConfig, before: int, channels: int, area: int) -> int:
    return 2 * before + _conv_norm(before, channels, area) + channels * channels * area


def _bottleneck(arch: ArchConfig, before: int, channels: int, area: int) -> int:
    inner = math.ceil(channels / arch.expansion)
    return _conv_norm(before, inner, 1) + _conv_norm(inner, inner, area) + _conv_norm(inner, channels, 1)


def _stem_macs(arch: ArchConfig, shape: ImageShape, size: int) -> int:
    """`size`: of the map that leaves the stem's convolution."""
    channels, stem = shape.channels, arch.stem_channels
    whitening = 0
    if arch.stem.type == "whitening":
        area = WHITENING_PATCH**2
        whitened = 2 * channels * area
        whitening, channels = channels * whitened * area * shape.size**2, whitened
    norm = 0 if arch.block == "preact" else 2 * stem
    return whitening + (channels * stem * arch.stem.kernel**2 + norm) * size**2


def _squeeze_excitation_macs(arch: ArchConfig, channels: int, positions: int) -> int:
    if arch.se_reduction == 0:
        return 0
    return channels * positions + 2 * channels * math.ceil(channels / arch.se_reduction)


def _basic_macs(arch: ArchConfig, before: int, channels: int, area: int, seen: int, after: int) -> int:
    return _basic(arch, before, channels, area) * after


def _preact_macs(arch: ArchConfig, before: int, channels: int, area: int, seen: int, after: int) -> int:
    norm = 2 * before
    return norm * seen + (_preact(arch, before, channels, area) - norm) * after


def _bottleneck_macs(arch: ArchConfig, before: int, channels: int, area: int, seen: int, after: int) -> int:
    first = _conv_norm(before, math.ceil(channels / arch.expansion), 1)
    return first * seen + (_bottleneck(arch, before, channels, area) - first) * after


BLOCKS: dict[str, Callable[[ArchConfig, int, int, int], int]] = {
    "basic": _basic,
    "preact": _preact,
    "bottleneck": _bottleneck,
}
"""Of a block with `before` channels before it and a kernel of `area` pixels, without its shortcut and squeeze-and-excitation."""

BLOCK_MACS: dict[str, Callable[[ArchConfig, int, int, int, int, int], int]] = {
    "basic": _basic_macs,
    "preact": _preact_macs,
    "bottleneck": _bottleneck_macs,
}
"""Likewise its multiply-adds, where `seen` positions enter it and `after` leave it."""
