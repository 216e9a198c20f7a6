"""Images as another camera, light or hand would have given them, to estimate a network's accuracy outside its data set.

The kinds of Hendrycks & Dietterich (arXiv 1903.12261) that need neither a model nor pictures of frost, and the same images turned
and moved. Each image gets one kind and a strength at random, the same for the same seed.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from nas.data.augment.colour import blur, brightness, contrast, noise, saturation
from nas.data.augment.draw import Draw
from nas.data.augment.geometric import affine, turned
from nas.data.images import ImageSet

LEAST_STRENGTH = 0.25  # of 1, so that every image is visibly changed
AT_ONCE = 1000


def _blur(images: Tensor, strength: Tensor, draw: Draw) -> Tensor:
    for _ in range(4):  # of 3×3 each; together a deviation of about twice that of one
        images = blur(images, 0.3 + 0.7 * strength)
    return images


def _pixelate(images: Tensor, strength: Tensor, draw: Draw) -> Tensor:
    size = images.shape[2:]

    def coarse(cell: int) -> Tensor:
        cells = [max(1, round(side / cell)) for side in size]
        return F.interpolate(F.interpolate(images.float(), cells, mode="area"), size, mode="nearest")

    return torch.where((strength < 0.6).view(-1, 1, 1, 1), coarse(2), coarse(3)).round_().to(torch.uint8)


def _jpeg(images: Tensor, strength: Tensor, draw: Draw) -> Tensor:
    if images.shape[1] not in (1, 3):
        return images
    results = []
    for pixels, wanted in zip(images.permute(0, 2, 3, 1).numpy(), strength.tolist(), strict=True):
        file = io.BytesIO()
        picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
        picture.save(file, "JPEG", quality=round(60 - 50 * wanted))
        results.append(np.asarray(Image.open(file)).reshape(pixels.shape))
    return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2)


def _moved(images: Tensor, strength: Tensor, draw: Draw) -> Tensor:
    most = 0.2 * images.shape[3] * strength
    right, down = ((most * draw.signs(len(images))).round() for _ in range(2))
    return affine(images, turned(torch.zeros(len(images)), right, down))


SHIFTS: dict[str, Callable[[Tensor, Tensor, Draw], Tensor]] = {
    "noise": lambda images, strength, draw: noise(images, 60 * strength, draw.normal(*images.shape)),
    "blur": _blur,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
    "brightness": lambda images, strength, draw: brightness(images, 1 + 0.6 * strength * draw.signs(len(images))),
    "contrast": lambda images, strength, _: contrast(images, 1 - 0.8 * strength),
    "saturation": lambda images, strength, draw: saturation(
        images, torch.where(draw.signs(len(images)) > 0, 1 + 2 * strength, 1 - strength)
    ),
    "turned": lambda images, strength, draw: affine(images, turned(25 * strength * draw.signs(len(images)))),
    "moved": _moved,
}
"""(images uint8 (N, C, H, W), strengths (N,) in (0, 1], draw) → new images of the same shape."""


def shifted(images: ImageSet, indices: np.ndarray | None, seed: int) -> ImageSet:
    """Those of `indices`, or all, each changed in one way. An image's change depends on its place in `images` and on `seed`."""
    chosen = np.arange(len(images)) if indices is None else indices
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, len(SHIFTS), len(images))[chosen]
    strengths = rng.uniform(LEAST_STRENGTH, 1.0, len(images)).astype(np.float32)[chosen]
    result = np.empty((len(chosen), *images.images.shape[1:]), np.uint8)
    for kind, function in enumerate(SHIFTS.values()):
        places = np.flatnonzero(kinds == kind)
        for start in range(0, len(places), AT_ONCE):
            part = places[start : start + AT_ONCE]
            batch = torch.from_numpy(np.ascontiguousarray(images.images[chosen[part]])).permute(0, 3, 1, 2)
            draw = Draw.seeded(seed * len(SHIFTS) + kind, torch.from_numpy(chosen[part]))
            changed = function(batch, torch.from_numpy(strengths[part]), draw)
            result[part] = changed.permute(0, 2, 3, 1).numpy()
    return ImageSet(result, images.labels[chosen])
