"""A network, described."""

import hashlib
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from nas.config.frozen import Frozen, Rate, with_defaults

BlockName = Literal["basic", "preact", "bottleneck", "separable", "plain"]
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
    """conv: a convolution. whitening: before it, a frozen 2×2 convolution that whitens the pixels of the training images, and
    an activation (arXiv 2404.00498). whitening_only: only this frozen convolution, with a trained bias and no padding, and an
    activation, as in the paper; it has 8 output channels for each image channel and ignores the keys below."""
    kernel: OddInt = 3  # odd
    stride: Literal[1, 2] = 1  # stride of the convolution
    channels: Annotated[int, Field(ge=1)] | None = None  # output channels; null: as many as the first stage
    pool: StemPoolName = "none"
    """max: 3×3 max pooling with stride 2 after the stem, as in ResNets for images of 224×224 (arXiv 1512.03385)."""

    @property
    def reduction(self) -> int:
        """Factor by which the stem reduces height and width."""
        return self.stride * (2 if self.pool == "max" else 1)

    def output_size(self, image_size: int) -> int:
        """Height (and width) of its output."""
        return image_size - 1 if self.type == "whitening_only" else -(-image_size // self.reduction)


class StageConfig(Frozen):
    blocks: Annotated[int, Field(ge=1, le=MOST_BLOCKS)]  # residual blocks in the stage
    channels: Annotated[int, Field(ge=1, le=WIDEST)]  # output channels of each block, whatever its type
    kernel: OddInt = 3  # odd
    skip_kernel: OddInt = 1  # odd; kernel of the shortcut's projection, if there is one


class BlockSource(Frozen):
    """A user's own file that defines a block. Every network that is built of the block carries it, so that it needs no other
    file; the text is code, and `nas.models.user_code` runs it."""

    file: str  # its name
    text: str

    def __str__(self) -> str:
        """`my_blocks.py, sha256 3f2a9c01d4e5`"""
        return f"{self.file}, sha256 {hashlib.sha256(self.text.encode()).hexdigest()[:12]}"


class ArchConfig(Frozen):
    """A residual network. Every stage except the first halves height and width in its first block; with `downsample: transition`
    every stage does, the first one too."""

    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1, max_length=MOST_STAGES)]
    stem: StemConfig = StemConfig()  # the layers before the first stage
    block_source: BlockSource | None = None  # where `block` is a class of a user's own file; None for a `BlockName`
    block: Annotated[str, Field(validate_default=True)] = "basic"
    """basic, preact (pre-activation), bottleneck, separable (a depthwise and a 1×1 convolution, for microcontrollers), plain (one
    convolution, no shortcut), or the name of a class of `blocks`."""
    expansion: Annotated[int, Field(ge=1, le=8)] = 4
    """bottleneck: output channels divided by inner channels (4 in ResNet-50)."""
    downsample: DownsampleName = "conv"
    """conv: strided convolutions in both branches. maxpool: 2×2 max pooling before the stage. avgpool: strided convolution in
    the residual branch, 2×2 average pooling and 1×1 convolution in the shortcut (ResNet-D, arXiv 1812.01187). transition: a k×k
    convolution, 2×2 max pooling (odd sizes are rounded down), BatchNorm and activation before the blocks of every stage, so that
    no shortcut needs a projection (arXiv 2404.00498)."""
    activation: ActivationName = "relu"  # of every layer
    dropout: Rate = 0.0  # dropout probability
    dropout_place: DropoutPlace = "head"
    """head: before the classifier. block: between a block's convolutions (arXiv 1605.07146). stem: after the stem."""
    se_reduction: Annotated[int, Field(ge=0, le=64)] = 0
    """Squeeze-and-excitation with ceil(channels / reduction) hidden channels (arXiv 1709.01507); 0 turns it off."""
    stochastic_depth: Rate = 0.0  # drop probability of the last block; it rises linearly from 0 (arXiv 1603.09382)
    zero_init: bool = False
    """Initialise the scale of each residual branch's last BatchNorm to 0 (arXiv 1706.02677). A pre-activation block ends with a
    convolution, which is initialised to 0 instead. Other blocks need `norm_scale`."""
    init: InitName = "he"
    """he: normal, by fan-out (arXiv 1502.01852). dirac: the same, but the first filters of a k×k convolution are the identity
    (arXiv 1706.00388)."""
    norm_momentum: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Momentum of BatchNorm's running statistics, as in torch: the weight of each new batch."""
    norm_scale: bool = True  # train BatchNorm's scale; false keeps it at 1 (arXiv 2404.00498)
    logit_scale: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0  # factor by which the logits are multiplied
    pool: PoolName = "avg"  # pooling before the classifier
    pool_size: Annotated[int, Field(ge=1, le=8)] = 1
    """Pool to P×P cells before the classifier; a feature map smaller than P×P is not pooled."""

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
        """Output channels of the stem."""
        if self.stem.type == "whitening_only":
            return 2 * image_channels * WHITENING_PATCH**2
        return self.stem.channels or self.stages[0].channels

    def shortcut_kernel(self, stage: int, before: int, channels: int) -> int:
        """Kernel of the shortcut's projection in the first block of `stage` (counted from 0), for `before` input and `channels`
        output channels; 0 if the shortcut is the identity."""
        if self.downsample == "transition" or self.block == "plain":
            return 0
        strided = stage > 0 and self.downsample != "maxpool"
        if not strided and before == channels:
            return 0
        return 1 if stage > 0 and self.downsample == "avgpool" else self.stages[stage].skip_kernel

    def feature_sizes(self, image_size: int) -> list[int]:
        """Height (and width) of the output of the stem and of each stage. Halving rounds up, in a transition down."""
        sizes = [self.stem.output_size(image_size)]
        for i, _ in enumerate(self.stages):
            if self.downsample == "transition":
                sizes.append(sizes[-1] // 2)
            else:
                sizes.append(-(-sizes[-1] // 2) if i else sizes[-1])
        return sizes

    def canonical(self) -> "ArchConfig":
        """The same network with unused fields at their defaults."""
        own = self.block_source is not None  # a user's block may use any field
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
        """`preact 2-3-2 × 32-64-128 k3-3-5 silu se16` — a short description for tables."""
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
