"""The pieces that blocks and stems share. Shapes are (N, C, H, W) throughout."""

import math

from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


def make_activation(name: str) -> nn.Module:
    # Not in place: a pre-activation block needs its input again for the shortcut.
    return ACTIVATIONS[name]()


def conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1 and gives ceil(size / 2) at stride 2."""
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)


def conv_norm(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(channels_in, channels_out, kernel, stride), nn.BatchNorm2d(channels_out))


def average_halving() -> nn.AvgPool2d:
    """2×2 average; an odd size is rounded up, as strided convolutions do, and its edge averages what is there."""
    return nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)


def maximum_halving() -> nn.MaxPool2d:
    return nn.MaxPool2d(2, ceil_mode=True)


def squeeze_excitation(channels: int, reduction: int) -> nn.Module:
    """ceil(channels / reduction) squeezed channels, with biases (arXiv 1709.01507); the identity at reduction 0."""
    if reduction == 0:
        return nn.Identity()
    return SqueezeExcitation(channels, math.ceil(channels / reduction))


class Scale(nn.Module):
    """Multiplies by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def extra_repr(self) -> str:
        return f"{self.factor:g}"


def dropout(rate: float) -> nn.Module:
    return nn.Dropout(rate) if rate else nn.Identity()
