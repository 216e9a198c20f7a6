"""How many parameters a network has, in closed form: for who needs thousands of counts, such as `nas.widths`.

Knows neither torch nor `nas.models`, whose layers it writes down again; a test holds it equal to fvcore's count. What is over
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


def _cells(arch: ArchConfig, size: int) -> int:
    """Of the pooled map that the classifier sees."""
    size = math.ceil(size / arch.stem.stride)
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


BLOCKS: dict[str, Callable[[ArchConfig, int, int, int], int]] = {
    "basic": _basic,
    "preact": _preact,
    "bottleneck": _bottleneck,
}
"""Of a block with `before` channels before it and a kernel of `area` pixels, without its shortcut and squeeze-and-excitation."""
