"""What an audit found, in sentences with what to do, as a table, and as a page with the pairs side by side."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from nas.data.audit import LOSSLESS, Audit, Counts
from nas.data.formats.container import WORDS
from nas.report.render import TEMPLATES, image_url
from nas.report.tables import Column, Table
from nas.report.words import number_text

PAGE = Path("nas-audit.html")
ALIKE = 0.25  # share of images with near twins from which on correlation says little
SMALL = 0.2  # difference between shares of files that is worth a sentence
QUALITIES = 5  # likewise between medians of JPEG's quality
TRAINING = WORDS["train"]
_images = partial(number_text, what="image")


def findings(found: Audit) -> Iterator[tuple[str, str]]:
    """What is noteworthy, and what to do about it."""
    if found.damaged:
        place, reason = next(iter(found.damaged.items()))
        text = f"{_images(len(found.damaged))} cannot be read, first {place}: {reason}"
        yield text, "repair or remove them, or leave them out of a search with --skip-bad-images"
    yield from _twins(found)
    if len(found.sizes) > 1:
        size, number = next(iter(found.sizes.items()))
        text = f"images have {len(found.sizes):,} sizes; {number:,} have the most frequent one, {size}"
        yield text, "--size N and --resize squash, crop or pad say how they become squares of one size"
    yield from _compression(found)
    for one in found.suggestions:
        text = f"training images may come in {one.groups:,} groups by {one.by}: {one.largest!r} has {_images(one.images)}"
        yield (
            text,
            "if images of a group belong together (a patient, a camera, a burst of shots), name the groups: --labels FILE "
            "--group-column NAME. Without groups the 95 % interval of held-out accuracy is too narrow: in a simulation it "
            "contained the true accuracy in 46 % of the cases (25 groups of 180 images, intra-class correlation 0.05)",
        )


def _twins(found: Audit) -> Iterator[tuple[str, str]]:
    counts, count = found.all, sum(found.all.images.values())
    together = "nas search --group-duplicates keeps twins on one side of the split between training and validation images"
    if counts.identical:
        yield f"{_images(counts.identical)} of {count:,} equal another one, pixel for pixel", f"remove copies; {together}"
    text = f"{_images(counts.near)} of {count:,} correlate with another one by {found.least:g} or more"
    if counts.near > ALIKE * count or not found.complete:
        text += ": so many that they may be similar images and not twins"
        yield text, f"look at the pairs in {PAGE}; leave out --group-duplicates, and name groups with --group-column"
    elif counts.near:
        if found.together > 2:
            text += f"; the largest chain of twins has {found.together:,} images, such as {found.together_such_as}"
        yield text, together
    for name, known in found.across.items():
        if known:
            share = known / counts.images[name]
            text = f"{_images(known)} of {counts.images[name]:,} in {name} ({share:.1%}) have a twin among the training images"
            yield f"{text}: the accuracy on them is too high", "remove them from one side"
    if found.other_class:
        text = "pair of twins has" if found.other_class == 1 else "pairs of twins have"
        yield f"{found.other_class:,} {text} two labels", f"look at them in {PAGE}, where they come first, and correct labels"


def _compression(found: Audit) -> Iterator[tuple[str, str]]:
    kinds = found.kinds[TRAINING]
    lossy, quality = _losses(kinds)
    for name, others in found.kinds.items():
        there, at = _losses(others)
        if abs(there - lossy) > SMALL or (quality and at and abs(at - quality) >= QUALITIES):
            yield (
                f"{name} files are compressed in another way than training files: {_kinds(others)}; training: {_kinds(kinds)}. "
                "JPEG of quality 95, 75 and 50 costs a network trained on lossless images 0.6–0.9, 3 and 6–7 points of accuracy",
                f"save a second copy of each training image in its folder, compressed like the {name} images (Pillow: "
                "image.save(FILE, quality=75)), and search with --group-duplicates",
            )
    shares = {name: counts.lossy for name, counts in found.classes.items()}
    most, least = max(shares, key=lambda name: shares[name]), min(shares, key=lambda name: shares[name])
    if shares[most] - shares[least] > 0.5:
        yield (
            f"{shares[most]:.0%} of the images of {most!r} are compressed with loss, and {shares[least]:.0%} of {least!r}",
            "save all images in one way: a network may learn the file format instead of the class",
        )


def _losses(kinds: dict[str, int]) -> tuple[float, float | None]:
    """Share of files that are compressed with loss, and the median quality of JPEG files."""
    lossy = sum(count for kind, count in kinds.items() if kind not in LOSSLESS)
    qualities = [int(kind.split()[-1]) for kind, count in kinds.items() if kind.startswith("JPEG, ") for _ in range(count)]
    return lossy / max(1, sum(kinds.values())), float(np.median(qualities)) if qualities else None


def _kinds(kinds: dict[str, int]) -> str:
    shown = ", ".join(f"{count:,} {kind}" for kind, count in list(kinds.items())[:3])
    return shown + (f" and {len(kinds) - 3} other kinds" if len(kinds) > 3 else "")


def class_table(found: Audit) -> Table:
    splits = list(found.all.images)

    def number(name: str) -> Column:
        return Column(name, lambda row: f"{row[1].images.get(name, 0):,}")

    columns = [
        Column("class", lambda row: row[0], number=False),
        *(number(name) for name in splits),
        Column("identical", lambda row: f"{row[1].identical:,}"),
        Column("near twins", lambda row: f"{row[1].near:,}"),
        Column("compressed with loss", lambda row: f"{row[1].lossy:.0%}"),
    ]
    rows: list[tuple[str, Counts]] = [*found.classes.items(), ("all", found.all)]
    return Table.build(columns, rows)


def render_audit(found: Audit, pictures: np.ndarray) -> str:
    """A page's HTML. `pictures`: of the pairs, uint8 (P, 2, H, W, 3)."""
    pairs = [(pair, *map(image_url, two)) for pair, two in zip(found.pairs, pictures, strict=True)]
    return TEMPLATES.get_template("audit.html").render(
        found=found, findings=list(findings(found)), table=class_table(found), pairs=pairs
    )
