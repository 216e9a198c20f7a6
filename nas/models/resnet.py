"""The one family of networks: a stem, stages of residual blocks, pooling, a linear classifier.

To add a stem: a class with the signature of `ConvStem`, an entry in STEMS, its count in `nas.budget.closed_form`, and its name in
`nas.config.StemName`; the conformance tests take it. A stem maps (N, in_channels, H, W) to (N, arch.stem_channels(in_channels),
S, S) with S = arch.stem.output_size(H).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.config import WHITENING_PATCH, ArchConfig, ImageShape
from nas.errors import ConfigError
from nas.models.blocks import BlockPlan, ResidualBlock
from nas.models.layers import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    BatchNorm2d,
    Conv2d,
    Scale,
    conv,
    dropout,
    make_activation,
    maximum_halving,
    transition,
)
from nas.models.user_code import block_class, make_block


class ConvStem(nn.Module):
    """A convolution; BatchNorm and activation follow unless the blocks begin with their own (pre-activation), then a maximum
    where it pools."""

    def __init__(self, arch: ArchConfig, in_channels: int) -> None:
        super().__init__()
        channels = arch.stem_channels(in_channels)
        self.conv = conv(in_channels, channels, arch.stem.kernel, arch.stem.stride)
        preactivated = block_class(arch).preactivated
        self.norm = nn.Identity() if preactivated else BatchNorm2d(channels)
        self.activation = nn.Identity() if preactivated else make_activation(arch.activation)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if arch.stem.pool == "max" else nn.Identity()
        self.dropout = dropout(arch.dropout if arch.dropout_place in ("stem", "stem+block") else 0.0)

    def forward(self, images: Tensor) -> Tensor:
        return self.dropout(self.pool(self.activation(self.norm(self.conv(images)))))


class WhiteningConv(Conv2d):
    """A frozen 2×2 convolution onto the eigenvectors of the training images' patches, each scaled to deviation 1 and taken
    with both signs (arXiv 2404.00498). It makes maps one pixel smaller.

    Its weights count as parameters. Until `initialise_from` has seen images they are random.
    """

    # Added to the eigenvalues: directions in which images hardly vary are noise, not to be blown up.
    EPSILON = 5e-4

    def __init__(self, in_channels: int, bias: bool = False) -> None:
        super().__init__(in_channels, 2 * in_channels * WHITENING_PATCH**2, WHITENING_PATCH, bias=bias)
        self.weight.requires_grad_(False)
        if self.bias is not None and not self.bias.is_meta:
            nn.init.zeros_(self.bias)

    @torch.no_grad()
    def initialise_from(self, images: Tensor) -> None:
        """`images` (N, in_channels, H, W), normalised as in training; a few thousand are plenty."""
        p = WHITENING_PATCH
        patches = images.float().unfold(2, p, 1).unfold(3, p, 1).transpose(1, 3).reshape(-1, images.shape[1] * p * p)
        # On the CPU in double precision: the matrix is tiny, and MPS has no eigenvalues.
        covariance = (patches.T @ patches / len(patches)).cpu().double()
        values, vectors = torch.linalg.eigh(covariance)
        filters = (vectors / torch.sqrt(values + self.EPSILON)).T.flip(0).reshape(-1, images.shape[1], p, p)
        self.weight.copy_(torch.cat([filters, -filters]).to(self.weight))


class WhiteningStem(ConvStem):
    """A `WhiteningConv` that keeps the size, an activation, and a `ConvStem`."""

    def __init__(self, arch: ArchConfig, in_channels: int) -> None:
        whiten = WhiteningConv(in_channels)
        super().__init__(arch, whiten.out_channels)
        self.whiten = whiten
        self.first_activation = make_activation(arch.activation)

    def forward(self, images: Tensor) -> Tensor:
        # One column and one row at the far edges keep the size.
        return super().forward(self.first_activation(self.whiten(F.pad(images, (0, 1, 0, 1), mode="replicate"))))


class WhiteningOnlyStem(nn.Module):
    """A `WhiteningConv` with a trained bias and an activation, as in arXiv 2404.00498."""

    def __init__(self, arch: ArchConfig, in_channels: int) -> None:
        super().__init__()
        self.whiten = WhiteningConv(in_channels, bias=True)
        self.activation = make_activation(arch.activation)
        self.dropout = dropout(arch.dropout if arch.dropout_place in ("stem", "stem+block") else 0.0)

    def forward(self, images: Tensor) -> Tensor:
        return self.dropout(self.activation(self.whiten(images)))


STEMS: dict[str, Callable[[ArchConfig, int], nn.Module]] = {
    "conv": ConvStem,
    "whitening": WhiteningStem,
    "whitening_only": WhiteningOnlyStem,
}


def check_size(arch: ArchConfig, image_size: int) -> None:
    """Raises ConfigError where a stage would halve one pixel."""
    first = 0 if arch.downsample == "transition" else 1
    for stage, size in enumerate(arch.feature_sizes(image_size)[first:-1], start=first):
        if size <= 1:
            pooled = " that pools" if arch.stem.pool == "max" else ""
            raise ConfigError(
                f"stage {stage + 1} of {len(arch.stages)} would halve a feature map of 1×1: images of "
                f"{image_size}×{image_size} with a stem of stride {arch.stem.stride}{pooled} allow {stage} stages",
                hint="use fewer stages, a stem of stride 1, or larger images (--image-size)",
            )


class ResNet(nn.Module):
    def __init__(self, arch: ArchConfig, in_channels: int, num_classes: int, image_size: int) -> None:
        super().__init__()
        check_size(arch, image_size)
        self.stem = STEMS[arch.stem.type](arch, in_channels)
        self.stages = nn.ModuleList()
        total = sum(stage.blocks for stage in arch.stages)
        channels, made = arch.stem_channels(in_channels), 0
        for i, stage in enumerate(arch.stages):
            layers: list[nn.Module] = []
            stride = 2 if i else 1
            if arch.downsample == "transition":
                layers.append(transition(channels, stage.channels, stage.kernel, arch.activation))
                channels, stride = stage.channels, 1
            elif stride == 2 and arch.downsample == "maxpool":
                layers.append(maximum_halving())
                stride = 1
            for b in range(stage.blocks):
                made += 1
                drop_path = arch.stochastic_depth * made / total
                layers.append(make_block(BlockPlan(arch, stage, channels, stride if b == 0 else 1, drop_path)))
                channels = stage.channels
            self.stages.append(nn.Sequential(*layers))
        preactivated = block_class(arch).preactivated
        self.norm = BatchNorm2d(channels) if preactivated else nn.Identity()
        self.activation = make_activation(arch.activation) if preactivated else nn.Identity()
        cells = min(arch.pool_size, arch.feature_sizes(image_size)[-1])
        self.pool = AdaptiveAvgPool2d(cells) if arch.pool == "avg" else AdaptiveMaxPool2d(cells)
        self.dropout = dropout(arch.dropout if arch.dropout_place == "head" else 0.0)
        self.classifier = nn.Linear(channels * cells * cells, num_classes)
        self.scale = Scale(arch.logit_scale) if arch.logit_scale != 1 else nn.Identity()
        self._initialise(arch)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W), normalised → logits (N, num_classes)"""
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        x = self.pool(self.activation(self.norm(x)))
        return self.scale(self.classifier(self.dropout(x.flatten(1))))

    @property
    def learns_from_data(self) -> bool:
        """Whether `initialise_from` has anything to do."""
        return any(isinstance(module, WhiteningConv) for module in self.stem.modules())

    def initialise_from(self, images: Tensor) -> None:
        """Sets what depends on the data, before training: `images` (N, in_channels, H, W), normalised."""
        for module in self.stem.modules():
            if isinstance(module, WhiteningConv):
                module.initialise_from(images)

    def _initialise(self, arch: ArchConfig) -> None:
        if self.classifier.weight.is_meta:  # shapes alone, to be counted: there is nothing to set
            return
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                # He initialisation (arXiv 1502.01852); fan_out keeps the gradients' size, as in torchvision's ResNet.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if arch.init == "dirac" and module.kernel_size != (1, 1):
                    # As many filters as the input has channels become the identity; the rest stay random.
                    nn.init.dirac_(module.weight[: module.in_channels], module.groups)
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = arch.norm_momentum
                module.weight.requires_grad_(arch.norm_scale)
        if arch.zero_init and (arch.norm_scale or arch.block == "preact"):
            for module in self.modules():
                if isinstance(module, ResidualBlock):
                    module.zero_residual()


def build_model(arch: ArchConfig, shape: ImageShape) -> ResNet:
    """The network of `arch` for images of `shape`, on torch's current default device.

    Raises ConfigError where the stages shrink the image below one pixel, or where a block of a user's own file cannot be built.
    """
    return ResNet(arch, shape.channels, shape.classes, shape.size)
