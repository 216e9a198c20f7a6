"""A network, described."""

import hashlib
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from nas.config.frozen import Frozen, Rate, with_defaults

BlockName = Literal["basic", "preact", "bottleneck"]
ActivationName = Literal["relu", "gelu", "silu"]
DownsampleName = Literal["conv", "maxpool", "avgpool"]
DropoutPlace = Literal["head", "block", "stem", "stem+block"]
PoolName = Literal["avg", "max"]
StemName = Literal["conv", "whitening"]
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
    activation (arXiv 2404.00498)."""
    kernel: OddInt = 3
    stride: Literal[1, 2] = 1
    channels: Annotated[int, Field(ge=1)] | None = None  # output channels; None takes the first stage's
    pool: StemPoolName = "none"
    """max: a 3×3 maximum of stride 2 follows, as in the ResNets for images of 224×224 (arXiv 1512.03385)."""

    @property
    def reduction(self) -> int:
        """How many times smaller than the image what leaves it is."""
        return self.stride * (2 if self.pool == "max" else 1)


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
    """A residual network. Every stage but the first halves height and width in its first block."""

    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1, max_length=MOST_STAGES)]
    stem: StemConfig = StemConfig()
    block_source: BlockSource | None = None  # where `block` is a class of a user's own file; None for a `BlockName`
    block: Annotated[str, Field(validate_default=True)] = "basic"  # a `BlockName`, or the name of a class in `block_source`
    expansion: Annotated[int, Field(ge=1, le=8)] = 4
    """Bottleneck only: a block's channels over its inner channels (4 in ResNet-50)."""
    downsample: DownsampleName = "conv"
    """conv: strided convolutions in both branches. maxpool: a 2×2 maximum before the stage. avgpool: strided convolution in
    the residual branch, 2×2 average and 1×1 convolution in the shortcut (ResNet-D, arXiv 1812.01187)."""
    activation: ActivationName = "relu"
    dropout: Rate = 0.0
    dropout_place: DropoutPlace = "head"
    """head: before the classifier. block: between a block's convolutions (arXiv 1605.07146). stem: after the stem."""
    se_reduction: Annotated[int, Field(ge=0, le=64)] = 0
    """Squeeze-and-excitation with ceil(channels / reduction) squeezed channels (arXiv 1709.01507); 0 leaves it out."""
    stochastic_depth: Rate = 0.0  # drop rate of the last block, rising linearly from 0 before the first (arXiv 1603.09382)
    zero_init: bool = False
    """Start every residual branch at 0 by its last BatchNorm (arXiv 1706.02677); pre-activation blocks end in a
    convolution, which is zeroed instead."""
    init: InitName = "he"
    """he: normal, by the fan-out (arXiv 1502.01852). dirac: so, but the first filters of a k×k convolution pass their input on
    unchanged (arXiv 1706.00388)."""
    norm_momentum: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Share of each batch in BatchNorm's running statistics, as in torch."""
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

    @property
    def stem_channels(self) -> int:
        return self.stem.channels or self.stages[0].channels

    def shortcut_kernel(self, stage: int, before: int, channels: int) -> int:
        """Of the projection on the shortcut of the first block of `stage` (from 0), had it `channels` channels and what comes
        before it `before`; 0 where the shortcut is the identity."""
        strided = stage > 0 and self.downsample != "maxpool"
        if not strided and before == channels:
            return 0
        return 1 if stage > 0 and self.downsample == "avgpool" else self.stages[stage].skip_kernel

    def feature_sizes(self, image_size: int) -> list[int]:
        """Height (and width) that leaves the stem and each stage; every halving is rounded up."""
        sizes = [-(-image_size // self.stem.reduction)]
        for _ in self.stages[1:]:
            sizes.append(-(-sizes[-1] // 2))
        return [sizes[0], *sizes]

    def canonical(self) -> "ArchConfig":
        """The same network with every field that it does not use at its default."""
        own = self.block_source is not None  # which may use anything
        unused = {
            "expansion": not own and self.block != "bottleneck",
            "dropout_place": self.dropout == 0,
            "downsample": len(self.stages) == 1,
        }
        own_width = self.stem.channels not in (None, self.stages[0].channels)
        stem = with_defaults(self.stem, {"channels": not own_width})
        stages = []
        before = self.stem_channels
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
