"""Augmentations of whole batches on their device; every image has its own random parameters.

draw.py has the randomness and picks images of a batch; geometric.py moves and blackens pixels; colour.py changes their values;
policies.py draws among these operations; mix.py mixes images, and labels with them. The function beneath an augmentation takes
what is drawn as one explicit parameter an image, and is compared with torchvision's.

To add one: a function of type `Augmentation` that does not write into its input, an entry in AUGMENTATIONS at its place in the
order, its field in `nas.config.AugmentConfig`, and an entry in EXAMPLES.
"""

from collections.abc import Callable

from torch import Tensor

from nas.config import AugmentConfig
from nas.data.augment import colour, geometric
from nas.data.augment.draw import Draw
from nas.data.augment.policies import random_policy

Augmentation = Callable[[Tensor, AugmentConfig, Draw], Tensor]
"""(images uint8 (N, C, H, W), configuration, draw) → the same shape."""

AUGMENTATIONS: dict[str, tuple[Callable[[AugmentConfig], bool], Augmentation]] = {
    "crop": (lambda c: c.crop_padding > 0, geometric.random_crop),
    "resized_crop": (lambda c: c.resized_crop < 1, geometric.random_resized_crop),
    "flip": (lambda c: c.flip != "none", geometric.random_flip),
    "vertical_flip": (lambda c: c.vertical_flip > 0, geometric.random_vertical_flip),
    "affine": (lambda c: c.rotation > 0 or c.translation > 0, geometric.random_affine),
    "policy": (lambda c: c.policy != "none" and c.policy_p > 0, random_policy),
    "colour": (lambda c: max(c.brightness, c.contrast, c.saturation, c.hue) > 0, colour.colour_jitter),
    "sharpness": (lambda c: c.sharpness != 1 and c.sharpness_p > 0, colour.random_sharpness),
    "blur": (lambda c: c.blur > 0, colour.random_blur),
    "noise": (lambda c: c.noise > 0 and c.noise_p > 0, colour.random_noise),
    "erasing": (lambda c: c.erasing > 0, geometric.random_erasing),
    "cutout": (lambda c: c.cutout > 0, geometric.random_cutout),
}
"""Name → whether a configuration turns it on, and what it does, in the order in which they are applied."""


def augment(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """uint8 (N, C, H, W) → the same shape; the very input where everything is off."""
    for is_on, function in AUGMENTATIONS.values():
        if is_on(config):
            images = function(images, config, draw)
    return images


def _only(**settings: object) -> AugmentConfig:
    return AugmentConfig.model_validate({"crop_padding": 0, "flip": "none", **settings})


NOTHING = _only()
EXAMPLES: dict[str, AugmentConfig] = {
    "crop, mirrored border": _only(crop_padding=4),
    "crop, black border": _only(crop_padding=4, pad_mode="zero"),
    "resized crop": _only(resized_crop=0.35),
    "flip": _only(flip="horizontal"),
    "alternating flip": _only(flip="alternating"),
    "vertical flip": _only(vertical_flip=0.5),
    "rotation": _only(rotation=30),
    "translation": _only(translation=0.2),
    "rotation and translation": _only(rotation=15, translation=0.1),
    "randaugment": _only(policy="randaugment"),
    "autoaugment": _only(policy="autoaugment"),
    "trivialaugment": _only(policy="trivialaugment"),
    "brightness": _only(brightness=0.5),
    "contrast": _only(contrast=0.5),
    "saturation": _only(saturation=0.9),
    "hue": _only(hue=0.25),
    "all four of colour": _only(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    "sharpness": _only(sharpness=4, sharpness_p=0.5),
    "blur": _only(blur=1.5),
    "noise": _only(noise=0.2),
    "erasing": _only(erasing=0.5),
    "cutout": _only(cutout=12),
    "mixup": _only(mix="mixup"),
    "cutmix": _only(mix="cutmix"),
    "mixup or cutmix": _only(mix="mixup_or_cutmix"),
}
"""One augmentation each, strong enough to see: for pictures, measurements, and the conformance tests."""
