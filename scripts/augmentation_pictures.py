"""Draws every augmentation on the same images, a labelled row each, for looking at.

    python scripts/augmentation_pictures.py path/to/train augmentations.png

The folder holds one folder of images a class, or images alone.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nas.data.augment import EXAMPLES, Draw, augment
from nas.data.augment.mix import mix

ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"}
LABEL_WIDTH = 170
GAP = 2


def chosen_files(folder: Path, count: int) -> list[Path]:
    """Spread evenly over all images in order, and so over the classes."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if len(files) < count:
        sys.exit(f"{folder} holds {len(files)} images, but {count} are needed")
    return [files[i * len(files) // count] for i in range(count)]


def read(files: list[Path]) -> Tensor:
    """uint8 (N, 3, H, W), all of the first one's size."""
    images = [Image.open(file).convert("RGB") for file in files]
    pixels = np.stack([np.asarray(image.resize(images[0].size)) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def rows(images: Tensor, seed: int) -> dict[str, Tensor]:
    """Label → uint8 (N, 3, H, W)."""
    indices = torch.arange(len(images))
    found = {"as they are": images}
    for label, config in EXAMPLES.items():
        draw = Draw.seeded(seed, indices, epoch=0, seed=seed)
        result = augment(images, config, draw)
        mixed, _ = mix(result.float(), indices, len(images), config, draw)
        found[label] = mixed.round().to(torch.uint8)
        if config.flip == "alternating":
            found[f"{label}, next epoch"] = augment(images, config, Draw.seeded(seed, indices, epoch=1, seed=seed))
    return found


def sheet(pictures: dict[str, Tensor], zoom: int) -> Image.Image:
    n, _, height, width = next(iter(pictures.values())).shape
    cell = width * zoom + GAP, height * zoom + GAP
    image = Image.new("RGB", (LABEL_WIDTH + n * cell[0], len(pictures) * cell[1]), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default()
    for y, (label, row) in enumerate(pictures.items()):
        pen.text((4, y * cell[1] + cell[1] // 2 - 6), label, fill="black", font=font)
        for x, pixels in enumerate(row):
            tile = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
            tile = tile.resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
            image.paste(tile, (LABEL_WIDTH + x * cell[0], y * cell[1]))
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of images, in folders of their classes or not")
    parser.add_argument("output", type=Path, help="the PNG to write")
    parser.add_argument("--images", type=int, default=16, help="a row (default: 16)")
    parser.add_argument("--zoom", type=int, default=2, help="screen pixels a pixel (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    arguments = parser.parse_args()
    images = read(chosen_files(arguments.folder, arguments.images))
    sheet(rows(images, arguments.seed), arguments.zoom).save(arguments.output)


if __name__ == "__main__":
    main()
