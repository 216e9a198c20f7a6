"""How a network is trained, described."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nas.config.augment import AugmentConfig
from nas.config.frozen import Frozen, Rate, with_defaults
from nas.errors import ConfigError

OptimiserName = Literal["sgd", "adam", "adamw", "muon"]
ADAMS = ("adam", "adamw")
"""Whose rates differ by orders from the others'."""
BalanceName = Literal["none", "loss", "sampling"]
ScheduleName = Literal["cosine", "onecycle", "warmup_cosine", "multistep", "constant"]

MOST_EPOCHS = 100_000
Epochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS)]


class TrainConfig(Frozen):
    """How a network is trained. Lengths are shares of the run or epochs, so that a recipe keeps its meaning when
    the number of epochs or the batch changes."""

    epochs: Epochs = 18
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 256
    optimiser: OptimiserName = "sgd"
    sam_rho: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Radius of sharpness-aware minimisation (arXiv 2010.01412), at twice the cost of a step; 0 leaves it out."""
    lr: Annotated[float, Field(gt=0.0, le=100.0)] = 0.1
    """Peak learning rate."""
    adam_lr: Annotated[float, Field(gt=0.0, le=100.0)] | None = None
    """adam, adamw: takes the place of `lr`, for spaces that also draw the optimiser, whose rates differ by orders."""
    muon_lr: Annotated[float, Field(gt=0.0, le=10.0)] = 0.24
    """muon: peak rate of the filters of convolutions, about the angle in radians by which a step turns them; `lr`, `momentum` and
    `weight_decay` are of all else. Its default and the next are those of arXiv 2404.00498's later code, for eight epochs."""
    muon_momentum: Rate = 0.6
    momentum: Rate = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 5e-4
    decay_norm_and_bias: bool = False
    """Whether weight decay also applies to BatchNorm and biases."""
    norm_bias_lr: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """Factor on the learning rate of BatchNorm's biases; 64 in arXiv 2404.00498, for trainings of ten epochs."""
    schedule: ScheduleName = "warmup_cosine"
    warmup: Rate = 0.1
    """onecycle, warmup_cosine: share of the run in which the rate rises."""
    milestones: tuple[Annotated[float, Field(gt=0.0)], ...] = (0.5, 0.75)
    """multistep: the shares of the run after which the rate is multiplied by `gamma`; those from 1 on are never reached."""
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    rate_per_epoch: bool = False
    """Change the rate once an epoch instead of at every step, as scripts do that step their scheduler once an epoch."""
    label_smoothing: Rate = 0.0
    class_balance: BalanceName = "none"
    """What makes up for classes of few images. loss: each image weighs by the inverse of its class's images (scikit-learn's
    "balanced"). sampling: each image of an epoch is one of a class drawn uniformly, with replacement."""
    ema_epochs: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Time constant, in epochs, of the exponential average of weights and BatchNorm statistics; 0 turns it off."""
    augment: AugmentConfig = AugmentConfig()

    def canonical(self) -> "TrainConfig":
        """The same training with every field that it does not use at its default."""
        unused: dict[str, bool] = {
            "momentum": self.optimiser in ADAMS,
            "nesterov": self.optimiser in ADAMS or (self.momentum == 0 and (self.optimiser == "sgd" or self.muon_momentum == 0)),
            "muon_lr": self.optimiser != "muon",
            "muon_momentum": self.optimiser != "muon",
            "warmup": self.schedule not in ("onecycle", "warmup_cosine"),
            "milestones": self.schedule != "multistep",
            "gamma": self.schedule != "multistep",
            "rate_per_epoch": self.schedule == "constant",
            "decay_norm_and_bias": self.weight_decay == 0,
        }
        return with_defaults(self, unused).model_copy(
            update={"augment": self.augment.canonical(), "lr": self.peak_lr, "adam_lr": None}
        )

    @property
    def peak_lr(self) -> float:
        """The one of `lr` and `adam_lr` that the optimiser uses."""
        return self.adam_lr if self.optimiser in ADAMS and self.adam_lr is not None else self.lr

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


def check_epochs(epochs: int, option: str = "--epochs") -> None:
    """Raises ConfigError where no training can have so many."""
    if not 1 <= epochs <= MOST_EPOCHS:
        raise ConfigError(f"{option} must be at least 1 and at most {MOST_EPOCHS:,}, but is {epochs}")
