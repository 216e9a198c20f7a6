"""What comes before the first stage. To add one: a class with the signature of `ConvStem`, an entry in STEMS, its count in
`nas.budget.closed_form`, and its name in `nas.config.StemName`; the conformance tests pick it up.

A stem maps (N, in_channels, H, W) to (N, arch.stem_channels, H / stride, W / stride), rounded up; these halved where it
pools.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.config import ArchConfig
from nas.models.custom import block_class
from nas.models.layers import BatchNorm2d, Conv2d, conv, dropout, make_activation


class ConvStem(nn.Module):
    """A convolution; BatchNorm and activation follow unless the blocks begin with their own (pre-activation), then a maximum
    where it pools."""

    def __init__(self, arch: ArchConfig, in_channels: int) -> None:
        super().__init__()
        self.conv = conv(in_channels, arch.stem_channels, arch.stem.kernel, arch.stem.stride)
        preactivated = block_class(arch).preactivated
        self.norm = nn.Identity() if preactivated else BatchNorm2d(arch.stem_channels)
        self.activation = nn.Identity() if preactivated else make_activation(arch.activation)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if arch.stem.pool == "max" else nn.Identity()
        self.dropout = dropout(arch.dropout if arch.dropout_place in ("stem", "stem+block") else 0.0)

    def forward(self, images: Tensor) -> Tensor:
        return self.dropout(self.pool(self.activation(self.norm(self.conv(images)))))


class WhiteningStem(ConvStem):
    """A frozen 2×2 convolution onto the eigenvectors of the training images' patches, each scaled to deviation 1 and taken
    with both signs, then an activation and a `ConvStem` (arXiv 2404.00498).

    Its weights count as parameters. Until `initialise_from` has seen images they are random.
    """

    PATCH = 2
    # Added to the eigenvalues: directions in which images hardly vary are noise, not to be blown up.
    EPSILON = 5e-4

    def __init__(self, arch: ArchConfig, in_channels: int) -> None:
        whitened = 2 * in_channels * self.PATCH**2
        super().__init__(arch, whitened)
        self.whiten = Conv2d(in_channels, whitened, self.PATCH, bias=False)
        self.whiten.weight.requires_grad_(False)
        self.first_activation = make_activation(arch.activation)

    def forward(self, images: Tensor) -> Tensor:
        # One column and one row at the far edges keep the size.
        return super().forward(self.first_activation(self.whiten(F.pad(images, (0, 1, 0, 1), mode="replicate"))))

    @torch.no_grad()
    def initialise_from(self, images: Tensor) -> None:
        """`images` (N, in_channels, H, W), normalised as in training; a few thousand are plenty."""
        p = self.PATCH
        patches = images.float().unfold(2, p, 1).unfold(3, p, 1).transpose(1, 3).reshape(-1, images.shape[1] * p * p)
        # On the CPU in double precision: the matrix is tiny, and MPS has no eigenvalues.
        covariance = (patches.T @ patches / len(patches)).cpu().double()
        values, vectors = torch.linalg.eigh(covariance)
        filters = (vectors / torch.sqrt(values + self.EPSILON)).T.flip(0).reshape(-1, images.shape[1], p, p)
        self.whiten.weight.copy_(torch.cat([filters, -filters]).to(self.whiten.weight))


STEMS: dict[str, type[ConvStem]] = {"conv": ConvStem, "whitening": WhiteningStem}
