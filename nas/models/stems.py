"""What comes before the first stage. To add one: a class with the signature of `ConvStem`, an entry in STEMS, and a field
in StemConfig that selects it."""

from torch import Tensor, nn

from nas.config import ArchConfig
from nas.models.layers import conv, dropout, make_activation


class ConvStem(nn.Module):
    """A convolution; BatchNorm and activation follow unless the blocks begin with their own (pre-activation)."""

    def __init__(self, arch: ArchConfig, in_channels: int) -> None:
        super().__init__()
        self.conv = conv(in_channels, arch.stem_channels, arch.stem.kernel, arch.stem.stride)
        preactivated = arch.block == "preact"
        self.norm = nn.Identity() if preactivated else nn.BatchNorm2d(arch.stem_channels)
        self.activation = nn.Identity() if preactivated else make_activation(arch.activation)
        self.dropout = dropout(arch.dropout if arch.dropout_place in ("stem", "stem+block") else 0.0)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) → (N, stem channels, H / stride, W / stride)"""
        return self.dropout(self.activation(self.norm(self.conv(images))))


STEMS: dict[str, type[nn.Module]] = {"conv": ConvStem}
