"""What a network, its training and its data are, as frozen data: JSON both ways, unknown keys refused.

This file describes; `nas.models`, `nas.train` and `nas.data` construct. It knows neither torch nor Optuna.
"""

import hashlib
import json
import re
from decimal import Decimal
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from nas.errors import BudgetError, ConfigError

# What a digest is taken over; raise it when the meaning of a field changes, so that old twins are not taken for new ones.
CANONICAL_VERSION = 1

BlockName = Literal["basic", "preact", "bottleneck"]
ActivationName = Literal["relu", "gelu", "silu"]
DownsampleName = Literal["conv", "maxpool", "avgpool"]
DropoutPlace = Literal["head", "block", "stem", "stem+block"]
PoolName = Literal["avg", "max"]
OptimiserName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["cosine", "onecycle", "warmup_cosine", "multistep", "constant"]
PadMode = Literal["zero", "reflect"]
FlipName = Literal["none", "horizontal", "alternating"]
PolicyName = Literal["none", "randaugment", "autoaugment", "trivialaugment"]
MixName = Literal["none", "mixup", "cutmix", "mixup_or_cutmix"]
StemName = Literal["conv", "whitening"]
InitName = Literal["he", "dirac"]


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"must be odd, so that the convolution keeps the size of its input, but is {value}")
    return value


OddInt = Annotated[int, Field(ge=1, le=15), AfterValidator(_odd)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


Model = TypeVar("Model", bound=BaseModel)


class Frozen(BaseModel):
    """A value object: hashable, comparable, refusing keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> str:
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str, source: str = "the JSON text") -> Self:
        """Raises ConfigError, naming `source` and the key, where the text does not describe such an object."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ConfigError(f"{source}: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """The first problem of a pydantic error as `key: what is wrong (value)`."""
    key = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
    return f"{key}: {what_is_wrong(error)}" if key else what_is_wrong(error)


def what_is_wrong(error: ValidationError, note: str = "") -> str:
    """The first problem of a pydantic error without its key; `note` goes beside the value."""
    problem = error.errors(include_url=False)[0]
    message = problem["msg"].removeprefix("Value error, ")
    for theirs, ours in (("Input should", "must"), ("Tuple should", "must"), (" after validation", ""), ("valid tuple", "list")):
        message = message.replace(theirs, ours)
    match problem["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            message = "unknown key"
        case "value_error" | "json_invalid":  # the first are ours and name the value, the other would quote the whole file
            return f"{message[:1].lower()}{message[1:]}{note}"
    value = repr(problem["input"])
    shown = value if len(value) <= 80 else f"{value[:80]}…"
    return f"{message[:1].lower()}{message[1:]} (got {shown}{note})"


def _with_defaults(config: Model, unused: dict[str, bool]) -> Model:
    """The same with each field that `unused` marks at its default."""
    fields = type(config).model_fields
    return config.model_copy(update={name: fields[name].default for name, is_unused in unused.items() if is_unused})


# ---------------------------------------------------------------------------------------------------- the network


class StemConfig(Frozen):
    type: StemName = "conv"
    """whitening: before the convolution, a frozen 2×2 one that decorrelates the pixels of the training images, and an
    activation (arXiv 2404.00498)."""
    kernel: OddInt = 3
    stride: Literal[1, 2] = 1
    channels: Annotated[int, Field(ge=1)] | None = None
    """Output channels; None takes the first stage's."""


class StageConfig(Frozen):
    blocks: Annotated[int, Field(ge=1, le=64)]
    channels: Annotated[int, Field(ge=1, le=4096)]
    """Channels that leave each block of the stage, whatever the block's type."""
    kernel: OddInt = 3
    skip_kernel: OddInt = 1
    """Kernel of the shortcut's projection, where there is one."""


class ArchConfig(Frozen):
    """A residual network. Every stage but the first halves height and width in its first block."""

    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1, max_length=6)]
    stem: StemConfig = StemConfig()
    block: BlockName = "basic"
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
    stochastic_depth: Rate = 0.0
    """Drop rate of the last block, rising linearly from 0 before the first (arXiv 1603.09382)."""
    zero_init: bool = False
    """Start every residual branch at 0 by its last BatchNorm (arXiv 1706.02677); pre-activation blocks end in a
    convolution, which is zeroed instead."""
    init: InitName = "he"
    """he: normal, by the fan-out (arXiv 1502.01852). dirac: so, but the first filters of a k×k convolution pass their input on
    unchanged (arXiv 1706.00388)."""
    norm_momentum: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Share of each batch in BatchNorm's running statistics, as in torch."""
    logit_scale: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0
    """Factor on the logits."""
    pool: PoolName = "avg"
    pool_size: Annotated[int, Field(ge=1, le=8)] = 1
    """P×P cells are pooled before the classifier; a feature map smaller than P×P is handed over whole."""

    @property
    def stem_channels(self) -> int:
        return self.stem.channels or self.stages[0].channels

    def has_projection(self, stage: int) -> bool:
        """Whether the first block of `stage` (from 0) needs a convolution on its shortcut."""
        before = self.stages[stage - 1].channels if stage else self.stem_channels
        strided = stage > 0 and self.downsample != "maxpool"
        return strided or before != self.stages[stage].channels

    def canonical(self) -> "ArchConfig":
        """The same network with every field that it does not use at its default."""
        unused = {
            "expansion": self.block != "bottleneck",
            "dropout_place": self.dropout == 0,
            "downsample": len(self.stages) == 1,
        }
        own_width = self.stem.channels not in (None, self.stages[0].channels)
        stem = _with_defaults(self.stem, {"channels": not own_width})
        stages = []
        for i, stage in enumerate(self.stages):
            projected_by_conv = self.has_projection(i) and not (i and self.downsample == "avgpool")
            stages.append(stage if projected_by_conv else stage.model_copy(update={"skip_kernel": 1}))
        return _with_defaults(self, unused).model_copy(update={"stem": stem, "stages": tuple(stages)})

    def one_line(self) -> str:
        """`preact 2-3-2 × 32-64-128 k3-3-5 silu se16` — enough to tell two candidates apart in a table."""
        widths = "-".join(str(s.channels) for s in self.stages)
        kernels = "-".join(str(s.kernel) for s in self.stages)
        parts = [self.block, "-".join(str(s.blocks) for s in self.stages), "×", widths, f"k{kernels}", self.activation]
        if self.stem.stride == 2:
            parts.append("stem/2")
        if self.se_reduction:
            parts.append(f"se{self.se_reduction}")
        if self.pool_size > 1:
            parts.append(f"{self.pool}pool{self.pool_size}")
        return " ".join(parts)


# --------------------------------------------------------------------------------------------------- its training


class AugmentConfig(Frozen):
    """What happens to a training image, drawn anew for each image and epoch."""

    crop_padding: Annotated[int, Field(ge=0, le=32)] = 4
    """Pixels added on each side before a crop back to the image's own size; 0 leaves the crop out."""
    pad_mode: PadMode = "reflect"
    resized_crop: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Smallest share of the image's area that a random crop of aspect 3:4 to 4:3 keeps before it is resized; 1 leaves it out."""
    flip: FlipName = "horizontal"
    """horizontal: mirrors by lot. alternating: each image by lot in the first epoch, then every other time (arXiv 2404.00498)."""
    vertical_flip: Probability = 0.0
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """Largest angle, in degrees to either side."""
    translation: Probability = 0.0
    """Largest shift, as a share of the image's size, along each axis."""
    brightness: Probability = 0.0
    """Largest change of the factor from 1, likewise for the next two (torchvision's ColorJitter)."""
    contrast: Probability = 0.0
    saturation: Probability = 0.0
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Largest turn of the colour circle, 0.5 being half of it."""
    sharpness: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    """Factor by which an image is sharpened, with probability `sharpness_p`; 1 leaves it as it is, 0 smoothes it."""
    sharpness_p: Probability = 0.5
    blur: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Largest deviation of a 3×3 Gaussian blur, in pixels, drawn from [0.1, blur]; 0 leaves it out."""
    policy: PolicyName = "none"
    """randaugment (arXiv 1909.13719), autoaugment with its CIFAR-10 policy (arXiv 1805.09501), trivialaugment (arXiv
    2103.10158)."""
    policy_ops: Annotated[int, Field(ge=1, le=8)] = 2
    """randaugment: operations an image."""
    policy_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """randaugment: their strength, of 30."""
    policy_p: Probability = 1.0
    """Probability that an image is given to the policy."""
    erasing: Probability = 0.0
    """Probability of blackening a random rectangle (arXiv 1708.04896)."""
    erasing_min: Annotated[float, Field(gt=0.0, le=1.0)] = 0.02
    """Its smallest share of the image's area."""
    erasing_max: Annotated[float, Field(gt=0.0, le=1.0)] = 0.33
    cutout: Annotated[int, Field(ge=0, le=1024)] = 0
    """Side of a square that is blackened around a random point, in pixels (arXiv 1708.04552); 0 leaves it out."""
    mix: MixName = "none"
    """mixup (arXiv 1710.09412), cutmix (arXiv 1905.04899), or one of the two by lot."""
    mix_p: Probability = 1.0
    """Probability that a batch is mixed."""
    mixup_alpha: Annotated[float, Field(gt=0.0, le=100.0)] = 0.2
    """Of the Beta distribution of an image's share."""
    cutmix_alpha: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0

    @model_validator(mode="after")
    def _erasing_range(self) -> Self:
        if self.erasing_min > self.erasing_max:
            raise ValueError(f"erasing_min must not exceed erasing_max, but {self.erasing_min} > {self.erasing_max}")
        return self

    def canonical(self) -> "AugmentConfig":
        unused: dict[str, bool] = {
            "pad_mode": self.crop_padding == 0,
            "sharpness_p": self.sharpness == 1 or self.sharpness_p == 0,
            "sharpness": self.sharpness_p == 0,
            "policy": self.policy_p == 0,
            "policy_p": self.policy == "none" or self.policy_p == 0,
            "policy_ops": self.policy != "randaugment" or self.policy_p == 0,
            "policy_magnitude": self.policy != "randaugment" or self.policy_p == 0,
            "erasing_min": self.erasing == 0,
            "erasing_max": self.erasing == 0,
            "mix": self.mix_p == 0,
            "mix_p": self.mix == "none" or self.mix_p == 0,
            "mixup_alpha": self.mix not in ("mixup", "mixup_or_cutmix") or self.mix_p == 0,
            "cutmix_alpha": self.mix not in ("cutmix", "mixup_or_cutmix") or self.mix_p == 0,
        }
        return _with_defaults(self, unused)


class TrainConfig(Frozen):
    """How a network is trained. Lengths are shares of the run or epochs, so that a recipe keeps its meaning when
    the number of epochs or the batch changes."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 18
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 256
    optimiser: OptimiserName = "sgd"
    sam_rho: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Radius of sharpness-aware minimisation (arXiv 2010.01412), at twice the cost of a step; 0 leaves it out."""
    lr: Annotated[float, Field(gt=0.0, le=100.0)] = 0.1
    """Peak learning rate."""
    adam_lr: Annotated[float, Field(gt=0.0, le=100.0)] | None = None
    """adam, adamw: takes the place of `lr`, for spaces that also draw the optimiser, whose rates differ by orders."""
    momentum: Rate = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 5e-4
    decay_norm_and_bias: bool = False
    """Whether weight decay also applies to BatchNorm and biases."""
    schedule: ScheduleName = "warmup_cosine"
    warmup: Rate = 0.1
    """onecycle, warmup_cosine: share of the run in which the rate rises."""
    milestones: tuple[Annotated[float, Field(gt=0.0)], ...] = (0.5, 0.75)
    """multistep: the shares of the run after which the rate is multiplied by `gamma`; those from 1 on are never reached."""
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    rate_per_epoch: bool = False
    """Change the rate once an epoch instead of at every step, as scripts do that step their scheduler once an epoch."""
    label_smoothing: Rate = 0.0
    ema_epochs: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Time constant, in epochs, of the exponential average of weights and BatchNorm statistics; 0 turns it off."""
    augment: AugmentConfig = AugmentConfig()

    def canonical(self) -> "TrainConfig":
        """The same training with every field that it does not use at its default."""
        unused: dict[str, bool] = {
            "momentum": self.optimiser != "sgd",
            "nesterov": self.optimiser != "sgd" or self.momentum == 0,
            "warmup": self.schedule not in ("onecycle", "warmup_cosine"),
            "milestones": self.schedule != "multistep",
            "gamma": self.schedule != "multistep",
            "rate_per_epoch": self.schedule == "constant",
            "decay_norm_and_bias": self.weight_decay == 0,
        }
        return _with_defaults(self, unused).model_copy(
            update={"augment": self.augment.canonical(), "lr": self.peak_lr, "adam_lr": None}
        )

    @property
    def peak_lr(self) -> float:
        """The one of `lr` and `adam_lr` that the optimiser uses."""
        return self.lr if self.optimiser == "sgd" or self.adam_lr is None else self.adam_lr

    @model_validator(mode="after")
    def _some_milestone(self) -> Self:
        if self.schedule == "multistep" and not any(share < 1 for share in self.milestones):
            raise ValueError(
                f"a multistep schedule needs a milestone below 1, the end of the run, but its milestones are {self.milestones}"
            )
        return self

    def warnings(self) -> list[str]:
        """What is allowed and yet probably not meant, a sentence each."""
        beyond = [share for share in self.milestones if share >= 1]
        if self.schedule == "multistep" and beyond:
            return [f"milestones {', '.join(f'{s:g}' for s in beyond)} lie at or beyond the end of the run and are never reached"]
        return []


MOST_EPOCHS = 100_000


def check_epochs(epochs: int) -> None:
    """Raises ConfigError where no training can have so many."""
    if not 1 <= epochs <= MOST_EPOCHS:
        raise ConfigError(f"--epochs must be at least 1 and at most {MOST_EPOCHS:,}, but is {epochs}")


class Candidate(Frozen):
    """One network and how to train it: all that a worker, a retraining or an export needs."""

    arch: ArchConfig
    train: TrainConfig = TrainConfig()

    def canonical(self) -> "Candidate":
        return Candidate(arch=self.arch.canonical(), train=self.train.canonical())

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for candidates that build and train the same network.

        Defaults are left out, so that a field added later with a default does not change what is already known.
        """
        content = self.canonical().model_dump(mode="json", exclude_defaults=True)
        text = json.dumps([CANONICAL_VERSION, content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------- its data and its limit


class ImageShape(Frozen):
    """What a network must know of a data set."""

    channels: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=8)]
    """Height and width, in pixels."""
    classes: Annotated[int, Field(ge=2)]


class DataConfig(Frozen):
    """Which images, and which of them train."""

    dataset: str
    folder: str | None = None
    """Where the data lies or is downloaded to; `digits` needs none."""
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    skip_bad_images: bool = False
    validation: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of each class of the training set that selects candidates and never trains them during a search."""
    subset: Annotated[int, Field(ge=1)] | None = None
    """Train candidates on this many images, stratified; the validation images stay the same."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes the split and the subset."""


_COUNT = re.compile(r"([0-9][0-9_]*\.?[0-9]*)\s*([kKmMbBgG]?)")
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000, "g": 1_000_000_000}


def parse_count(text: str | int) -> int:
    """`5M`, `300k`, `1.5M`, `5_000_000` or a whole number above 0. Raises BudgetError."""
    rule = "a count is a whole number above 0, such as 5M, 300k or 5_000_000"
    match = None if isinstance(text, bool) else _COUNT.fullmatch(str(text).strip())
    if match is None:
        raise BudgetError(f"{rule}, but got {text!r}", hint="for example --max-params 5M")
    value = Decimal(match[1].replace("_", "")) * _UNITS[match[2].lower()]  # 1.005 × 10⁶ is no whole number in binary
    if value < 1 or value != round(value):
        raise BudgetError(f"{rule}, but got {text!r}", hint="for example --max-params 5M")
    return round(value)


def _count_for_pydantic(value: Any) -> Any:
    try:
        return parse_count(value)
    except BudgetError as error:
        raise ValueError(error.message) from None


Count = Annotated[int, BeforeValidator(_count_for_pydantic)]


class BudgetConfig(Frozen):
    """The most a network may cost."""

    params: Count
    """Parameters, as fvcore counts them."""
    macs: Count | None = None
    """Multiply-adds of one image's forward pass, as fvcore counts them."""
