"""The one family of networks: a stem, stages of residual blocks, pooling, a linear classifier."""

from torch import Tensor, nn

from nas.config import ArchConfig, ImageShape
from nas.errors import ConfigError
from nas.models.blocks import BlockPlan, ResidualBlock
from nas.models.custom import block_class, make_block
from nas.models.layers import BatchNorm2d, Scale, dropout, make_activation, maximum_halving
from nas.models.stems import STEMS, WhiteningStem


def check_size(arch: ArchConfig, image_size: int) -> None:
    """Raises ConfigError where a stage would halve one pixel."""
    for stage, size in enumerate(arch.feature_sizes(image_size)[1:-1], start=1):
        if size == 1:
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
        channels, made = arch.stem_channels, 0
        for i, stage in enumerate(arch.stages):
            layers: list[nn.Module] = []
            stride = 2 if i else 1
            if stride == 2 and arch.downsample == "maxpool":
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
        self.pool = nn.AdaptiveAvgPool2d(cells) if arch.pool == "avg" else nn.AdaptiveMaxPool2d(cells)
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
        return isinstance(self.stem, WhiteningStem)

    def initialise_from(self, images: Tensor) -> None:
        """Sets what depends on the data, before training: `images` (N, in_channels, H, W), normalised."""
        if isinstance(self.stem, WhiteningStem):
            self.stem.initialise_from(images)

    def _initialise(self, arch: ArchConfig) -> None:
        if self.classifier.weight.is_meta:  # shapes alone, to be counted: there is nothing to set
            return
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:
                # He initialisation (arXiv 1502.01852); fan_out keeps the gradients' size, as in torchvision's ResNet.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if arch.init == "dirac" and module.kernel_size != (1, 1):
                    # As many filters as the input has channels become the identity; the rest stay random.
                    nn.init.dirac_(module.weight[: module.in_channels])
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = arch.norm_momentum
        if arch.zero_init:
            for module in self.modules():
                if isinstance(module, ResidualBlock):
                    module.zero_residual()


def build_model(arch: ArchConfig, shape: ImageShape) -> ResNet:
    """The network of `arch` for images of `shape`, on torch's current default device.

    Raises ConfigError where the stages shrink the image below one pixel, or where a block of a user's own file cannot be built.
    """
    return ResNet(arch, shape.channels, shape.classes, shape.size)
