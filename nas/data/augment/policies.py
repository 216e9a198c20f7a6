"""Policies, which draw an image's operations from a common set: RandAugment, AutoAugment for CIFAR-10, TrivialAugment (wide).

Operations, their names, strengths and probabilities are torchvision's, its default interpolation (nearest) and filling (black)
included; operations on tones and colours do on images of one channel what they do there.

The images of one operation are gathered, changed together and put back, so that each image costs its own operations alone:
applying all fourteen to the whole batch and choosing by mask would cost seven times as much. How many images each operation
gets is drawn on the host (see `Draw.split`), so that nothing waits for a GPU; there the price is some ten small kernels an
operation. All maps of pixels' places (shear, shift, rotation) go through one look-up.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from nas.config import AugmentConfig
from nas.data.augment import colour, geometric
from nas.data.augment.draw import Draw
from nas.data.augment.filters import sharpness
from nas.data.augment.select import choose, pick, put

TONES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Identity": lambda images, _: images,
    "Brightness": lambda images, magnitudes: colour.brightness(images, 1 + magnitudes),
    "Color": lambda images, magnitudes: colour.saturation(images, 1 + magnitudes),
    "Contrast": lambda images, magnitudes: colour.contrast(images, 1 + magnitudes),
    "Sharpness": lambda images, magnitudes: sharpness(images, 1 + magnitudes),
    "Posterize": colour.posterise,
    "Solarize": colour.solarise,
    "AutoContrast": lambda images, _: colour.autocontrast(images),
    "Equalize": lambda images, _: colour.equalise(images),
    "Invert": lambda images, _: colour.invert(images),
}
"""(images uint8 (N, C, H, W), magnitudes float (N,)) → the same shape."""

_still = torch.zeros_like

PLACES: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "ShearX": lambda magnitudes, height, _: geometric.sheared_x(magnitudes, height),
    "ShearY": lambda magnitudes, _, width: geometric.sheared_y(magnitudes, width),
    "TranslateX": lambda magnitudes, *_: geometric.turned(_still(magnitudes), magnitudes.trunc(), _still(magnitudes)),
    "TranslateY": lambda magnitudes, *_: geometric.turned(_still(magnitudes), _still(magnitudes), magnitudes.trunc()),
    "Rotate": lambda magnitudes, *_: geometric.turned(magnitudes, _still(magnitudes), _still(magnitudes)),
}
"""(magnitudes float (N,), the images' height, and width) → matrices (N, 2, 3)."""

SIGNED = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness"}
"""Operations whose magnitude is negative for every other image, by lot."""


@dataclass(frozen=True)
class Strengths:
    """Magnitudes in evenly spaced bins, from none at bin 0 to the largest."""

    bins: int
    shear: float
    shift: float
    shift_of_size: bool
    """Whether `shift` is a share of the image's size instead of a number of pixels."""
    rotation: float
    """Degrees."""
    enhancement: float
    """Brightness, contrast, colour and sharpness: the factor's distance from 1."""
    posterised: int
    """Bits lost."""

    def table(self, operation: str, height: int, width: int, device: torch.device) -> Tensor:
        """float32 (bins,)."""

        def up_to(largest: float) -> Tensor:
            return torch.linspace(0.0, largest, self.bins, device=device)

        match operation:
            case "ShearX" | "ShearY":
                return up_to(self.shear)
            case "TranslateX":
                return up_to(self.shift * width if self.shift_of_size else self.shift)
            case "TranslateY":
                return up_to(self.shift * height if self.shift_of_size else self.shift)
            case "Rotate":
                return up_to(self.rotation)
            case "Brightness" | "Color" | "Contrast" | "Sharpness":
                return up_to(self.enhancement)
            case "Posterize":
                return 8 - (torch.arange(self.bins, device=device) / ((self.bins - 1) / self.posterised)).round()
            case "Solarize":
                return torch.linspace(255.0, 0.0, self.bins, device=device)
            case _:
                return torch.zeros(self.bins, device=device)


# 150/331: AutoAugment was searched on images of 331 pixels, where a shift was at most 150.
AUTOAUGMENT_STRENGTHS = Strengths(10, 0.3, 150 / 331, True, 30.0, 0.9, 4)
RANDAUGMENT_STRENGTHS = Strengths(31, 0.3, 150 / 331, True, 30.0, 0.9, 4)
TRIVIALAUGMENT_STRENGTHS = Strengths(31, 0.99, 32.0, False, 135.0, 0.99, 6)

OPERATIONS = (*(name for name in TONES if name != "Invert"), *PLACES)
"""Of RandAugment and TrivialAugment, each as likely as the others."""

SubPolicy = tuple[tuple[str, float, int], tuple[str, float, int]]

AUTOAUGMENT_CIFAR10: tuple[SubPolicy, ...] = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
"""Operation, probability and bin, twice; the bin of an operation without strength is 0."""

Tasks = Mapping[str, tuple[Tensor, Tensor]]
"""Operation → the images that get it, int64 (G,) positions in the batch, and their bins, int64 (G,). No image has two."""


def apply(images: Tensor, tasks: Tasks, strengths: Strengths, draw: Draw) -> Tensor:
    """uint8 (N, C, H, W) with each task done, at the bin's strength and with a sign drawn for each image."""
    height, width = images.shape[2:]
    done = [name for name in TONES if name in tasks and len(tasks[name][0])]
    moves = [name for name in PLACES if name in tasks and len(tasks[name][0])]
    if not done + moves:
        return images
    magnitudes = {}
    for operation in done + moves:
        bins = tasks[operation][1]
        magnitudes[operation] = strengths.table(operation, height, width, images.device)[bins]
        if operation in SIGNED:
            magnitudes[operation] = magnitudes[operation] * draw.signs(len(bins))
    # The images of each operation side by side, those that are moved last: one copy out of the batch, and one back.
    where = torch.cat([tasks[name][0] for name in done + moves])
    *parts, moved = pick(images, where).tensor_split(list(accumulate(len(tasks[name][0]) for name in done)))
    parts = [TONES[name](part, magnitudes[name]) for name, part in zip(done, parts, strict=True)]
    if moves:
        matrices = [PLACES[name](magnitudes[name], height, width) for name in moves]
        parts.append(geometric.affine(moved, torch.cat(matrices)))
    return put(images, where, parts)


def randaugment(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    for _ in range(config.policy_ops):
        groups = draw.split([1.0] * len(OPERATIONS))
        tasks = {
            name: (where, torch.full_like(where, config.policy_magnitude)) for name, where in zip(OPERATIONS, groups, strict=True)
        }
        images = apply(images, tasks, RANDAUGMENT_STRENGTHS, draw)
    return images


def trivialaugment(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    groups = draw.split([1.0] * len(OPERATIONS))
    tasks = {
        name: (where, draw.integers(TRIVIALAUGMENT_STRENGTHS.bins, len(where)))
        for name, where in zip(OPERATIONS, groups, strict=True)
    }
    return apply(images, tasks, TRIVIALAUGMENT_STRENGTHS, draw)


def autoaugment(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """Each image draws a sub-policy, and for each of its two operations whether to apply it."""
    shares = []  # of each sub-policy: neither operation, the second, the first, both
    for (_, first, _), (_, second, _) in AUTOAUGMENT_CIFAR10:
        shares += [(1 - first) * (1 - second), (1 - first) * second, first * (1 - second), first * second]
    neither_second_first_both = draw.split(shares)
    for step, which in ((0, (2, 3)), (1, (1, 3))):
        parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for i, sub_policy in enumerate(AUTOAUGMENT_CIFAR10):
            name, _, strength = sub_policy[step]
            for j in which:
                where = neither_second_first_both[4 * i + j]
                if len(where):
                    parts.setdefault(name, []).append((where, torch.full_like(where, strength)))
        tasks = {name: (torch.cat([w for w, _ in part]), torch.cat([b for _, b in part])) for name, part in parts.items()}
        images = apply(images, tasks, AUTOAUGMENT_STRENGTHS, draw)
    return images


POLICIES: dict[str, Callable[[Tensor, AugmentConfig, Draw], Tensor]] = {
    "randaugment": randaugment,
    "autoaugment": autoaugment,
    "trivialaugment": trivialaugment,
}


def random_policy(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """Each image is given to the policy with probability `policy_p`."""
    if config.policy == "none" or config.policy_p == 0:
        return images
    changed = POLICIES[config.policy](images, config, draw)
    if config.policy_p == 1:
        return changed
    chosen = draw.uniform(0, 1, len(images)) < config.policy_p
    return choose(chosen, changed, images)
