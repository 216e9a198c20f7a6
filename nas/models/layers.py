"""The pieces that blocks and stems share. Shapes are (N, C, H, W) throughout.

Two of them are torchvision's, written again: the coordinator of a search needs nothing else of it, and would import it for two
seconds.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


def make_activation(name: str) -> nn.Module:
    # Not in place: a pre-activation block needs its input again for the shortcut.
    return ACTIVATIONS[name]()


class Conv2d(nn.Conv2d):
    """Draws no weights where they would be shapes alone: on the meta device that takes longer than all else."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class BatchNorm2d(nn.BatchNorm2d):
    """Likewise."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class DepthwiseConv2d(Conv2d):
    """Of each channel by itself. With a stride or more than 3×3 it stays in float32 under autocast on the CPU: in bfloat16 its
    training takes up to 12 times as long there (oneDNN 3.12; findings/torch-strided-depthwise-in-bfloat16.sh)."""

    def forward(self, x: Tensor) -> Tensor:
        if (self.stride[0] == 1 and self.kernel_size[0] <= 3) or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> Conv2d:
    """A convolution without bias that keeps the size at stride 1 and gives ceil(size / 2) at stride 2."""
    return Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)


def depthwise_conv(channels: int, kernel: int, stride: int) -> DepthwiseConv2d:
    """Likewise."""
    return DepthwiseConv2d(channels, channels, kernel, stride, padding=kernel // 2, groups=channels, bias=False)


def conv_norm(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(channels_in, channels_out, kernel, stride), BatchNorm2d(channels_out))


def average_halving() -> nn.AvgPool2d:
    """2×2 average; an odd size is rounded up, as strided convolutions do, and its edge averages what is there."""
    return nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)


def maximum_halving() -> nn.MaxPool2d:
    return nn.MaxPool2d(2, ceil_mode=True)


def transition(channels_in: int, channels: int, kernel: int, activation: str) -> nn.Sequential:
    """A convolution, a 2×2 maximum (an odd size is rounded down), BatchNorm and activation (arXiv 2404.00498)."""
    return nn.Sequential(conv(channels_in, channels, kernel), nn.MaxPool2d(2), BatchNorm2d(channels), make_activation(activation))


def is_refused(x: Tensor, cells: int) -> bool:
    """On MPS torch pools to cells only where they divide the map."""
    return x.device.type == "mps" and any(size % cells for size in x.shape[2:])


def pool_to_cells(x: Tensor, cells: int, reduce: Callable[..., Tensor]) -> Tensor:
    """(N, C, H, W) → (N, C, cells, cells): `torch.mean` or `torch.amax` of what torch's adaptive pooling takes for each."""
    rows, columns = ([(i * size // cells, -(-(i + 1) * size // cells)) for i in range(cells)] for size in x.shape[2:])
    each = [reduce(x[:, :, top:bottom, left:right], (2, 3)) for top, bottom in rows for left, right in columns]
    return torch.stack(each, 2).unflatten(2, (cells, cells))


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """To `output_size` cells a side."""

    output_size: int

    def forward(self, x: Tensor) -> Tensor:
        return pool_to_cells(x, self.output_size, torch.mean) if is_refused(x, self.output_size) else super().forward(x)


class AdaptiveMaxPool2d(nn.AdaptiveMaxPool2d):
    """Likewise."""

    output_size: int

    def forward(self, x: Tensor) -> Tensor:
        return pool_to_cells(x, self.output_size, torch.amax) if is_refused(x, self.output_size) else super().forward(x)


class SqueezeExcitation(nn.Module):
    """Each channel times a factor in [0, 1] that follows from the means of all (arXiv 1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = Conv2d(channels, squeezed, 1)
        self.fc2 = Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))
        return torch.sigmoid(self.fc2(squeezed)) * x


class StochasticDepth(nn.Module):
    """In training, zeros instead of a share `p` of the images' branches, the others scaled up by 1 / (1 - p)
    (arXiv 1603.09382)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.empty(len(x), *(1,) * (x.ndim - 1), dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * kept.div_(1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


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
