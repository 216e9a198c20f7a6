"""A network, described."""

import hashlib
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from nas.config.frozen import Frozen, Rate, with_defaults

BlockName = Literal["basic", "preact", "bottleneck", "plain"]
ActivationName = Literal["relu", "gelu", "silu"]
DownsampleName = Literal["conv", "maxpool", "avgpool", "transition"]
DropoutPlace = Literal["head", "block", "stem", "stem+block"]
PoolName = Literal["avg", "max"]
StemName = Literal["conv", "whitening", "whitening_only"]
WHITENING_PATCH = 2
StemPoolName = Literal["none", "max"]
InitName = Literal["he", "dirac"]

MOST_STAGES = 6
MOST_BLOCKS = 64  # of a stage
WIDEST = 4096  # channels of a stage


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"must be odd, so that the convolution keeps the size of its input, but is {value}")
    return value


OddInt = Annotated[int, Field(ge=1, le=15), AfterValidator(_odd)]


class StemConfig(Frozen):
    type: StemName = "conv"
    """whitening: before the convolution, a frozen 2×2 one that decorrelates the pixels of the training images, and an
    activation (arXiv 2404.00498). whitening_only: that one and an activation alone, without padding and with a trained bias, as
    in the paper; it has 8 channels for each of the image's, and ignores the fields below."""
    kernel: OddInt = 3
    stride: Literal[1, 2] = 1
    channels: Annotated[int, Field(ge=1)] | None = None  # output channels; None takes the first stage's
    pool: StemPoolName = "none"
    """max: a 3×3 maximum of stride 2 follows, as in the ResNets for images of 224×224 (arXiv 1512.03385)."""

    @property
    def reduction(self) -> int:
        """How many times smaller than the image what leaves it is."""
        return self.stride * (2 if self.pool == "max" else 1)

    def output_size(self, image_size: int) -> int:
        """Height (and width) of what leaves it."""
        return image_size - 1 if self.type == "whitening_only" else -(-image_size // self.reduction)


class StageConfig(Frozen):
    blocks: Annotated[int, Field(ge=1, le=MOST_BLOCKS)]
    channels: Annotated[int, Field(ge=1, le=WIDEST)]  # channels that leave each block of the stage, whatever the block's type
    kernel: OddInt = 3
    skip_kernel: OddInt = 1  # kernel of the shortcut's projection, where there is one


class BlockSource(Frozen):
    """A user's own file that defines a block. Every network that is built of the block carries it, so that it needs no other
    file; the text is code, and `nas.models.user_code` runs it."""

    file: str  # its name
    text: str

    def __str__(self) -> str:
        """`my_blocks.py, sha256 3f2a9c01d4e5`"""
        return f"{self.file}, sha256 {hashlib.sha256(self.text.encode()).hexdigest()[:12]}"


class ArchConfig(Frozen):
    """A residual network. Every stage but the first halves height and width in its first block; with `downsample: transition`
    every stage does, the first one too."""

    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1, max_length=MOST_STAGES)]
    stem: StemConfig = StemConfig()
    block_source: BlockSource | None = None  # where `block` is a class of a user's own file; None for a `BlockName`
    block: Annotated[str, Field(validate_default=True)] = "basic"
    """A `BlockName`, or the name of a class in `block_source`. plain: one convolution without a shortcut."""
    expansion: Annotated[int, Field(ge=1, le=8)] = 4
    """Bottleneck only: a block's channels over its inner channels (4 in ResNet-50)."""
    downsample: DownsampleName = "conv"
    """conv: strided convolutions in both branches. maxpool: a 2×2 maximum before the stage. avgpool: strided convolution in
    the residual branch, 2×2 average and 1×1 convolution in the shortcut (ResNet-D, arXiv 1812.01187). transition: before the
    blocks of every stage a k×k convolution, a 2×2 maximum (an odd size is rounded down), BatchNorm and activation, so that
    no shortcut needs a projection (arXiv 2404.00498)."""
    activation: ActivationName = "relu"
    dropout: Rate = 0.0
    dropout_place: DropoutPlace = "head"
    """head: before the classifier. block: between a block's convolutions (arXiv 1605.07146). stem: after the stem."""
    se_reduction: Annotated[int, Field(ge=0, le=64)] = 0
    """Squeeze-and-excitation with ceil(channels / reduction) squeezed channels (arXiv 1709.01507); 0 leaves it out."""
    stochastic_depth: Rate = 0.0  # drop rate of the last block, rising linearly from 0 before the first (arXiv 1603.09382)
    zero_init: bool = False
    """Start every residual branch at 0 by its last BatchNorm (arXiv 1706.02677); pre-activation blocks end in a
    convolution, which is zeroed instead. Other blocks need `norm_scale`."""
    init: InitName = "he"
    """he: normal, by the fan-out (arXiv 1502.01852). dirac: so, but the first filters of a k×k convolution pass their input on
    unchanged (arXiv 1706.00388)."""
    norm_momentum: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Share of each batch in BatchNorm's running statistics, as in torch."""
    norm_scale: bool = True  # whether BatchNorm's scale is trained; else it stays 1 (arXiv 2404.00498)
    logit_scale: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0  # factor on the logits
    pool: PoolName = "avg"
    pool_size: Annotated[int, Field(ge=1, le=8)] = 1
    """P×P cells are pooled before the classifier; a feature map smaller than P×P is handed over whole."""

    @field_validator("block")
    @classmethod
    def _is_known(cls, name: str, info: ValidationInfo) -> str:
        ours = get_args(BlockName)
        own = info.data.get("block_source") is not None
        if own == (name in ours):
            choices = ", ".join(map(repr, ours))
            what = f"a block from a file must not be named {choices}" if own else f"must be one of {choices}"
            raise ValueError(f"{what}, but is {name!r}")
        return name

    def stem_channels(self, image_channels: int) -> int:
        """How many channels leave the stem."""
        if self.stem.type == "whitening_only":
            return 2 * image_channels * WHITENING_PATCH**2
        return self.stem.channels or self.stages[0].channels

    def shortcut_kernel(self, stage: int, before: int, channels: int) -> int:
        """Of the projection on the shortcut of the first block of `stage` (from 0), had it `channels` channels and what comes
        before it `before`; 0 where the shortcut is the identity."""
        if self.downsample == "transition" or self.block == "plain":
            return 0
        strided = stage > 0 and self.downsample != "maxpool"
        if not strided and before == channels:
            return 0
        return 1 if stage > 0 and self.downsample == "avgpool" else self.stages[stage].skip_kernel

    def feature_sizes(self, image_size: int) -> list[int]:
        """Height (and width) that leaves the stem and each stage; every halving is rounded up, in a transition down."""
        sizes = [self.stem.output_size(image_size)]
        for i, _ in enumerate(self.stages):
            if self.downsample == "transition":
                sizes.append(sizes[-1] // 2)
            else:
                sizes.append(-(-sizes[-1] // 2) if i else sizes[-1])
        return sizes

    def canonical(self) -> "ArchConfig":
        """The same network with every field that it does not use at its default."""
        own = self.block_source is not None  # which may use anything
        unused = {
            "expansion": not own and self.block != "bottleneck",
            "dropout_place": self.dropout == 0,
            "downsample": len(self.stages) == 1 and self.downsample != "transition",
            "zero_init": not own and (self.block == "plain" or (self.block != "preact" and not self.norm_scale)),
            "stochastic_depth": self.block == "plain",
        }
        whitened = self.stem.type == "whitening_only"
        own_width = self.stem.channels not in (None, self.stages[0].channels)
        stem = with_defaults(
            self.stem, {"channels": whitened or not own_width, **dict.fromkeys(("kernel", "stride", "pool"), whitened)}
        )
        stages = []
        before = 0 if whitened else self.stem.channels or self.stages[0].channels  # 0: unlike the first stage's
        for i, stage in enumerate(self.stages):
            kernel = stage.skip_kernel if own else self.shortcut_kernel(i, before, stage.channels) or 1
            stages.append(stage.model_copy(update={"skip_kernel": kernel}))
            before = stage.channels
        return with_defaults(self, unused).model_copy(update={"stem": stem, "stages": tuple(stages)})

    def one_line(self) -> str:
        """`preact 2-3-2 × 32-64-128 k3-3-5 silu se16` — enough to tell two candidates apart in a table."""
        widths = "-".join(str(s.channels) for s in self.stages)
        kernels = "-".join(str(s.kernel) for s in self.stages)
        parts = [self.block, "-".join(str(s.blocks) for s in self.stages), "×", widths, f"k{kernels}", self.activation]
        if self.stem.reduction > 1:
            parts.append(f"stem/{self.stem.reduction}")
        if self.se_reduction:
            parts.append(f"se{self.se_reduction}")
        if self.pool_size > 1:
            parts.append(f"{self.pool}pool{self.pool_size}")
        return " ".join(parts)
