"""Parameters and MACs of a network in closed form, for code that needs thousands of counts, such as `nas.space.widths`, or needs
them at once, such as the tables.

Knows neither torch nor `nas.models`, whose layers it describes again; tests compare it with fvcore's counts. It is not used to
decide whether a network is over budget: that is done in `nas.budget.check`.

For a convolution without bias and its BatchNorm, multiply-adds are parameters times positions: fvcore counts two operations per
value for BatchNorm's scale and shift, which are two parameters per channel. Average pooling to cells counts its input.
"""

import math
from collections.abc import Callable, Sequence

from nas.config import WHITENING_PATCH, ArchConfig, ImageShape


def closed_form_params(arch: ArchConfig, shape: ImageShape) -> int:
    """Equals `nas.budget.count_params` for every network that can be built for such images."""
    return _count(arch, shape, [stage.channels for stage in arch.stages], arch.stem_channels(shape.channels))[0]


def closed_form_macs(arch: ArchConfig, shape: ImageShape) -> int:
    """Equals `nas.budget.count_macs` for every network that can be built for such images."""
    return _count(arch, shape, [stage.channels for stage in arch.stages], arch.stem_channels(shape.channels))[1]


def params_at_widths(arch: ArchConfig, shape: ImageShape, widths: Sequence[int], stem: int) -> int:
    """Parameters with these channels in the stages and in the stem."""
    return _count(arch, shape, widths, stem)[0]


def _count(arch: ArchConfig, shape: ImageShape, widths: Sequence[int], stem: int) -> tuple[int, int]:
    """Parameters and multiply-adds with these channels in the stages and in the stem."""
    size, *sizes = arch.feature_sizes(shape.size)
    before = arch.stem_channels(shape.channels) if arch.stem.type == "whitening_only" else stem
    params, macs = _stem(arch, shape, before)
    block = BLOCKS[arch.block]
    for i, (stage, channels, after) in enumerate(zip(arch.stages, widths, sizes, strict=True)):
        area, positions = stage.kernel**2, after**2
        if arch.downsample == "transition":
            weights = before * channels * area
            params += weights + 2 * channels
            macs += weights * size**2 + 2 * channels * positions
            before, size = channels, after
        entered = positions if arch.downsample == "maxpool" else size**2
        entering, leaving = block(arch, before, channels, area)
        each = sum(block(arch, channels, channels, area))
        kernel = arch.shortcut_kernel(i, before, channels)
        shortcut = _conv_norm(before, channels, kernel**2) if kernel else 0
        rest = leaving + (stage.blocks - 1) * each + shortcut
        se_params, se_macs = _squeeze_excitation(arch, channels, positions)
        params += entering + rest + stage.blocks * se_params
        macs += entering * entered + rest * positions + stage.blocks * se_macs
        before, size = channels, after
    norm = 2 * before if arch.block == "preact" else 0
    pooled = before if arch.pool == "avg" else 0
    weights = before * min(arch.pool_size, size) ** 2 * shape.classes
    return params + norm + weights + shape.classes, macs + (norm + pooled) * size**2 + weights


def _conv_norm(before: int, channels: int, area: int) -> int:
    return before * channels * area + 2 * channels


def _stem(arch: ArchConfig, shape: ImageShape, stem: int) -> tuple[int, int]:
    whitening, channels = 0, shape.channels
    if arch.stem.type != "conv":
        area = WHITENING_PATCH**2
        channels = 2 * shape.channels * area
        whitening = shape.channels * channels * area
    if arch.stem.type == "whitening_only":
        return whitening + channels, whitening * arch.stem.output_size(shape.size) ** 2
    weights = channels * stem * arch.stem.kernel**2 + (0 if arch.block == "preact" else 2 * stem)
    return whitening + weights, whitening * shape.size**2 + weights * math.ceil(shape.size / arch.stem.stride) ** 2


def _squeeze_excitation(arch: ArchConfig, channels: int, positions: int) -> tuple[int, int]:
    if arch.se_reduction == 0:
        return 0, 0
    squeezed = math.ceil(channels / arch.se_reduction)
    weights = 2 * channels * squeezed
    return weights + squeezed + channels, weights + channels * positions


def _basic(arch: ArchConfig, before: int, channels: int, area: int) -> tuple[int, int]:
    return 0, _conv_norm(before, channels, area) + _conv_norm(channels, channels, area)


def _preact(arch: ArchConfig, before: int, channels: int, area: int) -> tuple[int, int]:
    return 2 * before, _conv_norm(before, channels, area) + channels * channels * area


def _plain(arch: ArchConfig, before: int, channels: int, area: int) -> tuple[int, int]:
    return 0, _conv_norm(before, channels, area)


def _bottleneck(arch: ArchConfig, before: int, channels: int, area: int) -> tuple[int, int]:
    inner = math.ceil(channels / arch.expansion)
    return _conv_norm(before, inner, 1), _conv_norm(inner, inner, area) + _conv_norm(inner, channels, 1)


def _separable(arch: ArchConfig, before: int, channels: int, area: int) -> tuple[int, int]:
    return 0, _conv_norm(1, before, area) + _conv_norm(before, channels, 1)


BLOCKS: dict[str, Callable[[ArchConfig, int, int, int], tuple[int, int]]] = {
    "basic": _basic,
    "preact": _preact,
    "bottleneck": _bottleneck,
    "separable": _separable,
    "plain": _plain,
}
"""Parameters of a block with `before` input channels and a kernel of `area` pixels, without its shortcut and
squeeze-and-excitation: of the layers at the resolution of its input, and of those at the resolution of its output."""
