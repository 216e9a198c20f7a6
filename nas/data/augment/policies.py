"""Policies, which draw each image's operations from a common set: RandAugment, AutoAugment for CIFAR-10, TrivialAugment (wide).

Operations, their names, strengths and probabilities are torchvision's, with its default interpolation (nearest) and filling
(black); operations on colours do on images of one channel what they do there.

The images of one operation are gathered, changed together and put back, so that each image costs its own operations alone:
applying all fourteen to the whole batch and choosing by mask would cost seven times as much. How many images each operation gets
is drawn on the host (see `Draw.split`), so that nothing waits for a GPU; there the price is some ten small kernels an operation.
All operations that move pixels (shear, shift, rotation) share one look-up.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import torch
from torch import Tensor

from nas.config import AugmentConfig
from nas.data.augment import colour, geometric
from nas.data.augment.draw import Draw, choose, pick, put


@dataclass(frozen=True)
class Strengths:
    """Magnitudes in evenly spaced bins, from nothing at bin 0 to these."""

    bins: int
    shear: float
    shift: float
    shift_of_size: bool  # whether `shift` is a share of the image's size instead of a number of pixels
    rotation: float  # degrees
    enhancement: float  # brightness, contrast, colour and sharpness: the factor's distance from 1
    posterised: int  # bits lost

    def table(self, strength: str, height: int, width: int, device: torch.device) -> Tensor:
        """float32 (bins,), for images of this size; `strength` as in `Operation`."""
        if strength == "posterised":
            return 8 - (torch.arange(self.bins, device=device) / ((self.bins - 1) / self.posterised)).round()
        sizes = {"shift_x": width, "shift_y": height}
        if strength in sizes:
            low, high = 0.0, self.shift * sizes[strength] if self.shift_of_size else self.shift
        else:
            low, high = {"none": (0.0, 0.0), "threshold": (255.0, 0.0)}.get(strength) or (0.0, getattr(self, strength))
        return torch.linspace(low, high, self.bins, device=device)


# 150/331: AutoAugment was searched on images of 331 pixels, where a shift was at most 150.
AUTOAUGMENT_STRENGTHS = Strengths(10, 0.3, 150 / 331, True, 30.0, 0.9, 4)
RANDAUGMENT_STRENGTHS = Strengths(31, 0.3, 150 / 331, True, 30.0, 0.9, 4)
TRIVIALAUGMENT_STRENGTHS = Strengths(31, 0.99, 32.0, False, 135.0, 0.99, 6)


@dataclass(frozen=True)
class Operation:
    function: Callable[..., Tensor]
    """Of images uint8 (N, C, H, W) and magnitudes float (N,). Of an operation that `moves` pixels: of magnitudes and the images'
    height and width, and its result is a matrix (N, 2, 3) for each image."""
    strength: str = "none"  # a field of `Strengths`, shift_x, shift_y, or a threshold
    moves: bool = False

    @property
    def signed(self) -> bool:
        """Whether the magnitude is negative for a random half of the images."""
        return self.strength not in ("none", "posterised", "threshold")


OPERATIONS: dict[str, Operation] = {
    "Identity": Operation(lambda images, _: images),
    "Brightness": Operation(lambda images, m: colour.brightness(images, 1 + m), "enhancement"),
    "Color": Operation(lambda images, m: colour.saturation(images, 1 + m), "enhancement"),
    "Contrast": Operation(lambda images, m: colour.contrast(images, 1 + m), "enhancement"),
    "Sharpness": Operation(lambda images, m: colour.sharpness(images, 1 + m), "enhancement"),
    "Posterize": Operation(colour.posterise, "posterised"),
    "Solarize": Operation(colour.solarise, "threshold"),
    "AutoContrast": Operation(lambda images, _: colour.autocontrast(images)),
    "Equalize": Operation(lambda images, _: colour.equalise(images)),
    "Invert": Operation(lambda images, _: colour.invert(images)),
    "ShearX": Operation(lambda m, height, _: geometric.sheared_x(m, height), "shear", moves=True),
    "ShearY": Operation(lambda m, _, width: geometric.sheared_y(m, width), "shear", moves=True),
    "TranslateX": Operation(lambda m, *_: geometric.turned(torch.zeros_like(m), right=m.trunc()), "shift_x", moves=True),
    "TranslateY": Operation(lambda m, *_: geometric.turned(torch.zeros_like(m), down=m.trunc()), "shift_y", moves=True),
    "Rotate": Operation(lambda m, *_: geometric.turned(m), "rotation", moves=True),
}
"""In the order in which they are applied; those that move pixels come last."""
DRAWN = tuple(name for name in OPERATIONS if name != "Invert")  # by RandAugment and TrivialAugment, each as likely as the others


@cache
def cifar10_policy() -> list[list[tuple[str, float, int]]]:
    """AutoAugment's sub-policies: operation, probability and bin, twice; the bin of an operation without strength is 0."""
    from torchvision.transforms import autoaugment as torchvisions

    policies = torchvisions.AutoAugment(torchvisions.AutoAugmentPolicy.CIFAR10).policies
    return [[(name, probability, strength or 0) for name, probability, strength in pair] for pair in policies]


Tasks = Mapping[str, tuple[Tensor, Tensor]]
"""Operation → the images that get it, int64 (G,) positions in the batch, and their bins, int64 (G,). No image has two."""


def apply(images: Tensor, tasks: Tasks, strengths: Strengths, draw: Draw) -> Tensor:
    """uint8 (N, C, H, W) with each task done, at the bin's strength and with a sign drawn for each image."""
    height, width = images.shape[2:]
    tones: list[str] = []
    moves: list[str] = []
    magnitudes = {}
    for name, operation in OPERATIONS.items():
        if name not in tasks or not len(bins := tasks[name][1]):
            continue
        (moves if operation.moves else tones).append(name)
        magnitudes[name] = strengths.table(operation.strength, height, width, images.device)[bins]
        if operation.signed:
            magnitudes[name] = magnitudes[name] * draw.signs(len(bins))
    if not magnitudes:
        return images
    # The images of each operation side by side, those that are moved last: one copy out of the batch, and one back.
    where = torch.cat([tasks[name][0] for name in magnitudes])
    *parts, moved = pick(images, where).tensor_split(list(accumulate(len(tasks[name][0]) for name in tones)))
    parts = [OPERATIONS[name].function(part, magnitudes[name]) for name, part in zip(tones, parts, strict=True)]
    if moves:
        matrices = [OPERATIONS[name].function(magnitudes[name], height, width) for name in moves]
        parts.append(geometric.affine(moved, torch.cat(matrices)))
    return put(images, where, parts)


def randaugment(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    for _ in range(config.policy_ops):
        groups = zip(DRAWN, draw.split([1.0] * len(DRAWN)), strict=True)
        tasks = {name: (where, torch.full_like(where, config.policy_magnitude)) for name, where in groups}
        images = apply(images, tasks, RANDAUGMENT_STRENGTHS, draw)
    return images


def trivialaugment(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    strengths = TRIVIALAUGMENT_STRENGTHS
    groups = zip(DRAWN, draw.split([1.0] * len(DRAWN)), strict=True)
    return apply(images, {name: (where, draw.integers(strengths.bins, len(where))) for name, where in groups}, strengths, draw)


def autoaugment(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """Each image draws a sub-policy, and for each of its two operations whether to apply it."""
    shares = []  # of each sub-policy: neither operation, the second, the first, both
    for (_, first, _), (_, second, _) in cifar10_policy():
        shares += [(1 - first) * (1 - second), (1 - first) * second, first * (1 - second), first * second]
    groups = draw.split(shares)
    for step, which in ((0, (2, 3)), (1, (1, 3))):
        parts: dict[str, list[tuple[Tensor, int]]] = {}
        for i, sub_policy in enumerate(cifar10_policy()):
            name, _, strength = sub_policy[step]
            parts.setdefault(name, []).extend((groups[4 * i + j], strength) for j in which)
        tasks = {
            name: (torch.cat([w for w, _ in part]), torch.cat([torch.full_like(w, strength) for w, strength in part]))
            for name, part in parts.items()
        }
        images = apply(images, tasks, AUTOAUGMENT_STRENGTHS, draw)
    return images


POLICIES: dict[str, Callable[[Tensor, AugmentConfig, Draw], Tensor]] = {
    "randaugment": randaugment,
    "autoaugment": autoaugment,
    "trivialaugment": trivialaugment,
}


def random_policy(images: Tensor, config: AugmentConfig, draw: Draw) -> Tensor:
    """Each image is given to the policy with probability `policy_p`."""
    changed = POLICIES[config.policy](images, config, draw)
    if config.policy_p == 1:
        return changed
    return choose(draw.uniform(0, 1, len(images)) < config.policy_p, changed, images)
