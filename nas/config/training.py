"""How a network is trained, and a candidate: a network with its training."""

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nas.config.frozen import Frozen, Probability, Rate, with_defaults
from nas.config.network import ArchConfig
from nas.config.study import StudyConfig
from nas.errors import ConfigError

PadMode = Literal["zero", "reflect"]
FlipName = Literal["none", "horizontal", "alternating"]
PolicyName = Literal["none", "randaugment", "autoaugment", "trivialaugment"]
MixName = Literal["none", "mixup", "cutmix", "mixup_or_cutmix"]
OptimiserName = Literal["sgd", "adam", "adamw", "muon"]
ADAMS = ("adam", "adamw")  # their learning rates differ by orders of magnitude from the others'
BalanceName = Literal["none", "loss", "sampling"]
ScheduleName = Literal["cosine", "linear", "onecycle", "warmup_cosine", "multistep", "constant"]

MOST_EPOCHS = 100_000
Epochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS)]


MUON_LR, MUON_STEPS = 0.24, 200  # a rate that suits runs of so many steps
MOST_CROP_PADDING = 32


def default_crop_padding(size: int) -> int:
    """Pixels for images of this size if the space does not set it: an eighth, 4 for 32."""
    return min(MOST_CROP_PADDING, round(size / 8))


class AugmentConfig(Frozen):
    """Augmentation of training images, drawn again for each image and epoch."""

    crop_padding: Annotated[int, Field(ge=0, le=MOST_CROP_PADDING)] = 4
    """Pixels added on each side before a random crop of the original size; 0 turns it off. In a search on images whose size is
    not 32 the default is an eighth of the size."""
    pad_mode: PadMode = "reflect"  # what the added pixels show
    resized_crop: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Smallest share of the image's area that a random resized crop keeps (aspect ratio 3:4 to 4:3); 1 turns it off."""
    flip: FlipName = "horizontal"
    """horizontal: a random horizontal flip. alternating: random in the first epoch, then every other epoch (arXiv 2404.00498)."""
    vertical_flip: Probability = 0.0  # probability of a vertical flip
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0  # largest angle, in degrees in either direction
    translation: Probability = 0.0  # largest shift, as a share of the image's size, along each axis
    brightness: Probability = 0.0  # largest change of the factor from 1 (torchvision's ColorJitter)
    contrast: Probability = 0.0  # likewise
    saturation: Probability = 0.0  # likewise
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0  # largest rotation of the hue; 0.5 is half of the colour circle
    sharpness: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    """Sharpness factor, applied with probability `sharpness_p`; 1 is the original, 0 is smoothed."""
    sharpness_p: Probability = 0.5  # probability that the sharpness of an image changes
    blur: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Largest standard deviation of a 3×3 Gaussian blur, in pixels, drawn from [0.1, blur]; 0 turns it off."""
    noise: Probability = 0.0
    """Largest standard deviation of Gaussian noise, as a share of white, drawn from [0, noise]; 0 turns it off."""
    noise_p: Probability = 0.5  # probability that noise is added to an image
    policy: PolicyName = "none"
    """randaugment (arXiv 1909.13719), autoaugment with its CIFAR-10 policy (arXiv 1805.09501), trivialaugment (arXiv
    2103.10158)."""
    policy_ops: Annotated[int, Field(ge=1, le=8)] = 2  # randaugment: operations for each image
    policy_magnitude: Annotated[int, Field(ge=0, le=30)] = 9  # randaugment: magnitude, of at most 30
    policy_p: Probability = 1.0  # probability that the policy is applied to an image
    erasing: Probability = 0.0  # probability that a random rectangle is set to black (arXiv 1708.04896)
    erasing_min: Annotated[float, Field(gt=0.0, le=1.0)] = 0.02  # smallest share of the image's area that is erased
    erasing_max: Annotated[float, Field(gt=0.0, le=1.0)] = 0.33  # largest share of the image's area that is erased
    cutout: Annotated[int, Field(ge=0, le=1024)] = 0
    """Side of a square around a random point that is set to black, in pixels (arXiv 1708.04552); 0 turns it off."""
    mix: MixName = "none"  # mixup (arXiv 1710.09412), cutmix (arXiv 1905.04899), or one of them at random
    mix_p: Probability = 1.0  # probability that a batch is mixed
    mixup_alpha: Annotated[float, Field(gt=0.0, le=100.0)] = 0.2  # mixup: alpha of the Beta distribution
    cutmix_alpha: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0  # cutmix: alpha of the Beta distribution

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
            "noise": self.noise_p == 0,
            "noise_p": self.noise == 0 or self.noise_p == 0,
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
        return with_defaults(self, unused)


def training_flop(macs: int, images: float, sam_rho: float = 0.0) -> float:
    """Operations of training a network with `macs` MACs on `images` images, counted again in each epoch. A forward pass takes two
    operations for each MAC and a backward pass twice as many; sharpness-aware minimisation doubles the sum."""
    return 6.0 * macs * images * (2 if sam_rho else 1)


def share_of(images: int, hardest: float) -> int:
    """How many of `images` training images a pass over the hardest of them uses: at least one."""
    return images if hardest == 1 else max(1, round(images * hardest))


class TrainConfig(Frozen):
    """How a network is trained. Lengths are epochs or shares of the run, so a recipe keeps its meaning when the number of epochs
    or the batch size changes."""

    epochs: Epochs = 18  # epochs of each training; never drawn
    epoch_images: Annotated[int, Field(ge=2, le=1_000_000_000)] | None = None
    """Images in an epoch; the next epoch continues where it ends. null: every training image once, or the share `hardest` of
    them. Never drawn."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 256  # images in a batch
    min_steps: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Minimum number of steps of an epoch: on small data sets the batches are smaller than `batch_size`."""
    optimiser: OptimiserName = "sgd"  # muon: Muon for the filters of convolutions, SGD for everything else
    sam_rho: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Radius of sharpness-aware minimisation (arXiv 2010.01412), which doubles the cost of a step; 0 turns it off."""
    lr: Annotated[float, Field(gt=0.0, le=100.0)] = 0.1  # peak learning rate
    adam_lr: Annotated[float, Field(gt=0.0, le=100.0)] | None = None
    """adam, adamw: learning rate instead of `lr`, for spaces that draw the optimiser: good learning rates
    differ by orders of magnitude between optimisers."""
    muon_lr: Annotated[float, Field(gt=0.0, le=10.0)] | None = 0.24
    """muon: peak learning rate of the filters of convolutions, about the angle in radians by which a step rotates them. `lr`,
    `momentum` and `weight_decay` apply to everything else. The defaults of this key and of `muon_momentum` are those of the later
    code of arXiv 2404.00498, for 200 steps. null: 0.24 × √(200 / steps of the run)."""
    muon_momentum: Rate = 0.6  # muon: momentum of the filters of convolutions
    momentum: Rate = 0.9  # sgd, muon
    nesterov: bool = True  # sgd, muon: Nesterov momentum
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 5e-4  # weight decay of the optimiser
    decay_norm_and_bias: bool = False  # apply weight decay to BatchNorm and biases, too
    norm_bias_lr: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """Factor on the learning rate of BatchNorm's biases; arXiv 2404.00498 uses 64 in ten epochs."""
    schedule: ScheduleName = "warmup_cosine"  # of the learning rate
    warmup: Rate = 0.1  # onecycle, warmup_cosine: share of the run in which the learning rate rises
    milestones: tuple[Annotated[float, Field(gt=0.0)], ...] = (0.5, 0.75)
    """multistep: shares of the run after which the learning rate is multiplied by `gamma`; shares of 1 or more are never
    reached."""
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1  # multistep: factor on the learning rate
    rate_per_epoch: bool = False
    """Change the learning rate once per epoch instead of at every step."""
    label_smoothing: Rate = 0.0  # as in torch's CrossEntropyLoss
    class_balance: BalanceName = "none"
    """For classes with few images. loss: weight each image by the inverse size of its class (scikit-learn's "balanced").
    sampling: draw classes uniformly, with replacement."""
    hardest: Annotated[float, Field(ge=0.01, le=1.0)] = 1.0
    """Share of the training images in an epoch: those with the largest loss when they were last used (after arXiv 1511.06343 and
    1910.00762). Images that were not used yet come first. 1: all images. It cannot be combined with several processes, mixed
    images or `class_balance: sampling`. Never drawn."""
    ema_epochs: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Time constant, in epochs, of the exponential moving average (EMA) of weights and BatchNorm statistics; 0 turns it off."""
    augment: AugmentConfig = AugmentConfig()  # augmentation of the training images

    def canonical(self) -> "TrainConfig":
        """The same training with unused fields at their defaults."""
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

    def flop(self, macs: int, images: int) -> float:
        """Operations of this training for a network with `macs` MACs on `images` training images."""
        return self.epochs * self.epoch_flop(macs, images)

    def epoch_flop(self, macs: int, images: int) -> float:
        """Of one epoch."""
        return training_flop(macs, self.images_of(images), self.sam_rho)

    def images_of(self, images: int) -> int:
        """How many of `images` training images an epoch uses, each of them counted as often as it is used."""
        return self.epoch_images or share_of(images, self.hardest)

    def whole_epochs(self, images: int) -> float:
        """This training's length in epochs that `epoch_images` does not change, on `images` training images."""
        return self.epochs * self.images_of(images) / share_of(images, self.hardest)

    def batch_of(self, images: int) -> int:
        """Batch size for this number of training images."""
        images = share_of(images, self.hardest)
        return min(self.batch_size, max(2, images // self.min_steps), images)

    def peak_muon_lr(self, steps: int) -> float:
        """`muon_lr` for a run with this number of steps."""
        return MUON_LR * (MUON_STEPS / steps) ** 0.5 if self.muon_lr is None else self.muon_lr

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

    @model_validator(mode="after")
    def _losses_of_images(self) -> Self:
        if self.hardest < 1 and self.class_balance == "sampling":
            raise ValueError(
                f"hardest: {self.hardest:g} and class_balance: sampling both choose an epoch's images; use class_balance: loss"
            )
        if self.hardest < 1 and self.augment.mix != "none":
            raise ValueError(
                f"hardest: {self.hardest:g} needs the loss of each image, and mix: {self.augment.mix} mixes images; use mix: none"
            )
        return self

    def warnings(self) -> list[str]:
        """What is valid but probably a mistake: one sentence each."""
        beyond = [share for share in self.milestones if share >= 1]
        if self.schedule == "multistep" and beyond:
            return [
                f"milestones {', '.join(f'{s:g}' for s in beyond)} are at or after the end of the run, and would never be reached"
            ]
        return []


def check_epochs(epochs: int, option: str = "--epochs") -> None:
    """Raises ConfigError for an invalid number of epochs."""
    if not 1 <= epochs <= MOST_EPOCHS:
        raise ConfigError(f"{option} must be at least 1 and at most {MOST_EPOCHS:,}, but is {epochs}")


# What a digest is taken over; raise it when the meaning of a field changes, so that old twins are not taken for new ones.
CANONICAL_VERSION = 1


class Candidate(Frozen):
    """One network and how to train it: all that a worker, a retraining or an export needs."""

    arch: ArchConfig
    train: TrainConfig = TrainConfig()

    def for_compute(self, flop: float, macs: int) -> Self:
        """A copy whose `epoch_images` is set so that its training takes `flop` operations, for a network of `macs` MACs."""
        images = max(2, round(flop / training_flop(macs, self.train.epochs, self.train.sam_rho)))
        return self.model_copy(update={"train": self.train.model_copy(update={"epoch_images": images})})

    def as_trial(self, study: StudyConfig, macs: int | None, most_macs: int | None, times: float = 1.0) -> Self:
        """A copy whose training takes what `study.compute_of` gives for `macs` MACs. Unchanged if every trial sees the same
        images, or if the MACs are not known."""
        flop = study.compute_of(macs, most_macs, times) if macs else None
        return self if flop is None or not macs else self.for_compute(flop, macs)

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
