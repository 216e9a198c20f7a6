"""Each augmentation by itself, for pictures, measurements and the tests, which miss an entry where one is lacking."""

from nas.config import AugmentConfig

NOTHING = AugmentConfig(crop_padding=0, flip="none")


def _only(**settings: object) -> AugmentConfig:
    return AugmentConfig.model_validate({"crop_padding": 0, "flip": "none", **settings})


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
"""Label → a configuration of just that, strong enough to see."""
