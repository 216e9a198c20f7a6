"""Images as people have them, made up: 20,000 of 96×96 in 12 unbalanced classes, from 250 cameras, with labels in a Parquet file.

    python scripts/bench/own_images.py FOLDER [--images 20000] [--test 3000]
    nas search --study cameras --data FOLDER/images --labels FOLDER/labels.parquet --group-column camera …
    nas submit FOLDER/test --study cameras --names
    python scripts/bench/own_images.py FOLDER --score submission.csv

A class is a shape in any place, size, direction and colour. A camera has a background of its own, and sees some classes more than
others, so that a network may learn the cameras instead of the shapes: whoever parts a camera's images sees that too late. The
test images come from other cameras; what they show is in FOLDER/truth.csv.
"""

import argparse
import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 96
SMALLEST_SHARE = 1 / 16
"""Of the largest class's images, those of the smallest; between them the shares fall geometrically."""
TASTE = 0.4
"""Of the Dirichlet distribution from which each camera draws how often it sees each class: the smaller the fewer classes."""

Points = list[tuple[float, float]]


def _regular(corners: int, inner: float = 1.0) -> Callable[[], Points]:
    """A polygon; a star where every second corner lies at `inner` of the radius."""

    def points() -> Points:
        count = corners if inner == 1.0 else 2 * corners
        radii = [1.0 if i % 2 == 0 or inner == 1.0 else inner for i in range(count)]
        angles = [2 * math.pi * i / count for i in range(count)]
        return [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in zip(radii, angles, strict=True)]

    return points


SHAPES: dict[str, Callable[[], Points]] = {
    "disc": _regular(40),
    "triangle": _regular(3),
    "square": _regular(4),
    "pentagon": _regular(5),
    "hexagon": _regular(6),
    "star4": _regular(4, 0.4),
    "star5": _regular(5, 0.45),
    "star8": _regular(8, 0.6),
    "bar": lambda: [(-1.0, -0.2), (1.0, -0.2), (1.0, 0.2), (-1.0, 0.2)],
    "cross": lambda: [
        *[(-0.25, -1.0), (0.25, -1.0), (0.25, -0.25), (1.0, -0.25), (1.0, 0.25), (0.25, 0.25)],
        *[(0.25, 1.0), (-0.25, 1.0), (-0.25, 0.25), (-1.0, 0.25), (-1.0, -0.25), (-0.25, -0.25)],
    ],
    "arrow": lambda: [(-1.0, -0.2), (0.2, -0.2), (0.2, -0.6), (1.0, 0.0), (0.2, 0.6), (0.2, 0.2), (-1.0, 0.2)],
    "half": lambda: [(math.cos(math.pi * i / 20), math.sin(math.pi * i / 20) - 0.4) for i in range(21)],
}


class Camera:
    """A background, a light and a taste."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.seen = rng.dirichlet(np.full(len(SHAPES), TASTE))
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        blurred = np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32)
        self.background = 128 + rng.uniform(0.1, 0.5) * (blurred - 128)
        self.noise, self.light = rng.uniform(2, 10), rng.uniform(0.6, 1.2)

    def picture(self, label: int, rng: np.random.Generator) -> Image.Image:
        moved = np.roll(self.background, tuple(rng.integers(-8, 9, 2)), (0, 1))
        image = Image.fromarray(moved.clip(0, 255).astype(np.uint8))
        radius, angle = rng.uniform(0.18, 0.42) * SIZE, rng.uniform(0, 2 * math.pi)
        x, y = rng.uniform(radius * 0.8, SIZE - radius * 0.8, 2)
        cosine, sine = radius * math.cos(angle), radius * math.sin(angle)
        shape = SHAPES[list(SHAPES)[label]]()
        colour = tuple(int(level) for level in rng.integers(0, 256, 3))
        ImageDraw.Draw(image).polygon([(x + a * cosine - b * sine, y + a * sine + b * cosine) for a, b in shape], fill=colour)
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2)))
        noisy = np.asarray(image, np.float32) * self.light + rng.normal(0, self.noise, (SIZE, SIZE, 3))
        return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def class_counts(images: int) -> list[int]:
    shares = [SMALLEST_SHARE ** (i / (len(SHAPES) - 1)) for i in range(len(SHAPES))]
    counts = [round(images * share / sum(shares)) for share in shares]
    return [counts[0] + images - sum(counts), *counts[1:]]


def draw(folder: Path, images: int, cameras: int, prefix: str, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Writes so many images. Returns file, class and camera of each."""
    folder.mkdir(parents=True)
    made = [Camera(rng) for _ in range(cameras)]
    seen = np.stack([camera.seen for camera in made])
    labels = rng.permutation(np.repeat(np.arange(len(SHAPES)), class_counts(images)))
    rows = []
    for i, label in enumerate(labels.tolist()):
        which = int(rng.choice(cameras, p=seen[:, label] / seen[:, label].sum()))
        name = f"{prefix}{i:05d}.jpg"
        made[which].picture(label, rng).save(folder / name, quality=92)
        rows.append((name, list(SHAPES)[label], f"{prefix}{which:03d}"))
    return rows


def make(folder: Path, images: int, test: int, seed: int) -> None:
    import pyarrow
    from pyarrow import parquet

    rng = np.random.default_rng(seed)
    train = draw(folder / "images", images, max(2, images // 80), "a", rng)
    columns = dict(zip(("image", "label", "camera"), map(list, zip(*train, strict=True)), strict=True))
    parquet.write_table(pyarrow.table(columns), folder / "labels.parquet")
    with (folder / "truth.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "camera"), *draw(folder / "test", test, max(2, test // 80), "b", rng)])


def score(folder: Path, submission: Path) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro F1 of a CSV of class names, by scikit-learn."""
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    with (folder / "truth.csv").open() as file:
        truth = {Path(row["image"]).stem: row["label"] for row in csv.DictReader(file)}
    with submission.open() as file:
        header, *rows = csv.reader(file)
    said = {Path(name).stem: label for name, label in (row[:2] for row in rows)}
    if said.keys() != truth.keys():
        raise SystemExit(f"{submission} has {len(said)} images, not the {len(truth)} of {folder / 'test'}: {header}")
    right, predicted = zip(*((truth[name], label) for name, label in said.items()), strict=True)
    return {
        "accuracy": accuracy_score(right, predicted),
        "balanced_accuracy": balanced_accuracy_score(right, predicted),
        "macro_f1": f1_score(right, predicted, average="macro"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--test", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--score", type=Path, metavar="CSV")
    asked = parser.parse_args()
    if asked.score is not None:
        print(json.dumps(score(asked.folder, asked.score), indent=1))
    else:
        make(asked.folder, asked.images, asked.test, asked.seed)


if __name__ == "__main__":
    main()
