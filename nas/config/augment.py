"""What happens to training images, described."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nas.config.frozen import Frozen, Probability, with_defaults

PadMode = Literal["zero", "reflect"]
FlipName = Literal["none", "horizontal", "alternating"]
PolicyName = Literal["none", "randaugment", "autoaugment", "trivialaugment"]
MixName = Literal["none", "mixup", "cutmix", "mixup_or_cutmix"]


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
    noise: Probability = 0.0
    """Largest deviation of Gaussian noise, as a share of the brightest level, drawn from [0, noise]; 0 leaves it out."""
    noise_p: Probability = 0.5
    """Probability that an image is given noise."""
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
