"""Residual blocks. To add one: a class with the signature of `BasicBlock`, an entry in BLOCKS, its count in
`nas.budget.closed_form.BLOCKS`, and its name in `nas.config.BlockName`; the conformance tests take it.
`nas.models.user_code` has those of users' own files.

A block maps (N, channels_in, H, W) to (N, channels, H / stride, W / stride).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from nas.config import ArchConfig, StageConfig
from nas.models.layers import (
    BatchNorm2d,
    StochasticDepth,
    average_halving,
    conv,
    conv_norm,
    depthwise_conv,
    dropout,
    make_activation,
    squeeze_excitation,
)


@dataclass(frozen=True)
class BlockPlan:
    """What a block must know of its place in the network."""

    arch: ArchConfig
    stage: StageConfig
    channels_in: int
    stride: int
    drop_path: float  # probability that training skips the residual branch, image by image


def make_shortcut(plan: BlockPlan) -> nn.Module:
    """The identity where the shape stays, a projection with BatchNorm where it changes."""
    channels = plan.stage.channels
    if plan.stride == 1 and plan.channels_in == channels:
        return nn.Identity()
    if plan.stride == 2 and plan.arch.downsample == "avgpool":
        return nn.Sequential(average_halving(), *conv_norm(plan.channels_in, channels, kernel=1))
    return conv_norm(plan.channels_in, channels, plan.stage.skip_kernel, plan.stride)


def _block_dropout(arch: ArchConfig) -> nn.Module:
    return dropout(arch.dropout if arch.dropout_place in ("block", "stem+block") else 0.0)


def _drop_path(rate: float) -> nn.Module:
    return StochasticDepth(rate) if rate else nn.Identity()


class ResidualBlock(nn.Module, ABC):
    """What every block can do beside its forward pass."""

    preactivated: ClassVar[bool] = False
    """Whether it begins with its own BatchNorm and activation, so that the stem ends without and the last stage with them."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()

    @abstractmethod
    def zero_residual(self) -> None:
        """Makes the residual branch start at 0, in a way that still lets gradients through."""


class BasicBlock(ResidualBlock):
    """Two k×k convolutions, activation after the sum (arXiv 1512.03385)."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__(plan)
        arch, k, channels = plan.arch, plan.stage.kernel, plan.stage.channels
        self.conv1 = conv(plan.channels_in, channels, k, plan.stride)
        self.norm1 = BatchNorm2d(channels)
        self.dropout = _block_dropout(arch)
        self.conv2 = conv(channels, channels, k)
        self.norm2 = BatchNorm2d(channels)
        self.se = squeeze_excitation(channels, arch.se_reduction)
        self.drop_path = _drop_path(plan.drop_path)
        self.shortcut = make_shortcut(plan)
        self.activation = make_activation(arch.activation)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(self.activation(self.norm1(self.conv1(x))))
        y = self.se(self.norm2(self.conv2(y)))
        return self.activation(self.drop_path(y) + self.shortcut(x))

    def zero_residual(self) -> None:
        nn.init.zeros_(self.norm2.weight)


class PreactBlock(ResidualBlock):
    """Two k×k convolutions, each after BatchNorm and activation (arXiv 1603.05027). A projection sees the activated input,
    the identity the raw one."""

    preactivated = True

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__(plan)
        arch, k, channels = plan.arch, plan.stage.kernel, plan.stage.channels
        self.norm1 = BatchNorm2d(plan.channels_in)
        self.conv1 = conv(plan.channels_in, channels, k, plan.stride)
        self.norm2 = BatchNorm2d(channels)
        self.dropout = _block_dropout(arch)
        self.conv2 = conv(channels, channels, k)
        self.se = squeeze_excitation(channels, arch.se_reduction)
        self.drop_path = _drop_path(plan.drop_path)
        self.shortcut = make_shortcut(plan)
        self.activation = make_activation(arch.activation)

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(self.norm1(x))
        shortcut = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(active)
        y = self.dropout(self.activation(self.norm2(self.conv1(active))))
        return self.drop_path(self.se(self.conv2(y))) + shortcut

    def zero_residual(self) -> None:
        # Its last BatchNorm stands before an activation, where a zero would also stop its own gradient.
        nn.init.zeros_(self.conv2.weight)


class BottleneckBlock(ResidualBlock):
    """1×1, k×k, 1×1 with `expansion` times fewer channels inside, stride on the k×k (arXiv 1512.03385, as in torchvision)."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__(plan)
        arch, channels = plan.arch, plan.stage.channels
        inner = math.ceil(channels / arch.expansion)
        self.conv1 = conv(plan.channels_in, inner, 1)
        self.norm1 = BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, plan.stage.kernel, plan.stride)
        self.norm2 = BatchNorm2d(inner)
        self.dropout = _block_dropout(arch)
        self.conv3 = conv(inner, channels, 1)
        self.norm3 = BatchNorm2d(channels)
        self.se = squeeze_excitation(channels, arch.se_reduction)
        self.drop_path = _drop_path(plan.drop_path)
        self.shortcut = make_shortcut(plan)
        self.activation = make_activation(arch.activation)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm1(self.conv1(x)))
        y = self.dropout(self.activation(self.norm2(self.conv2(y))))
        y = self.se(self.norm3(self.conv3(y)))
        return self.activation(self.drop_path(y) + self.shortcut(x))

    def zero_residual(self) -> None:
        nn.init.zeros_(self.norm3.weight)


class SeparableBlock(BasicBlock):
    """A basic block whose first convolution is k×k of each channel by itself (depthwise) and whose second is 1×1, as in MobileNet
    (arXiv 1704.04861): few weights and multiply-adds, for microcontrollers."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__(plan)
        before = plan.channels_in
        self.conv1 = depthwise_conv(before, plan.stage.kernel, plan.stride)
        self.norm1 = BatchNorm2d(before)
        self.conv2 = conv(before, plan.stage.channels, 1)


class PlainBlock(ResidualBlock):
    """A k×k convolution, BatchNorm and activation, without a shortcut (arXiv 2404.00498), for networks of few layers. Stochastic
    depth and `zero_residual` mean nothing here."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__(plan)
        arch, channels = plan.arch, plan.stage.channels
        self.conv1 = conv(plan.channels_in, channels, plan.stage.kernel, plan.stride)
        self.norm1 = BatchNorm2d(channels)
        self.se = squeeze_excitation(channels, arch.se_reduction)
        self.activation = make_activation(arch.activation)
        self.dropout = _block_dropout(arch)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.activation(self.se(self.norm1(self.conv1(x)))))

    def zero_residual(self) -> None:
        pass


BLOCKS: dict[str, type[ResidualBlock]] = {
    "basic": BasicBlock,
    "preact": PreactBlock,
    "bottleneck": BottleneckBlock,
    "separable": SeparableBlock,
    "plain": PlainBlock,
}
