"""A network layer by layer and stage by stage: shapes, parameters, multiply-adds; as a picture and as lines of text."""

import math
from collections.abc import Sequence
from itertools import cycle

import torch

from nas.budget import Layer, Part, calls_of, layers_of
from nas.config import ArchConfig, ImageShape, StageConfig
from nas.foreign.measure import ForeignFacts, measure
from nas.models import build_model
from nas.models.user_code import blaming_block
from nas.report.render import TEMPLATES


def measured(arch: ArchConfig, shape: ImageShape) -> ForeignFacts:
    """A network of ours, measured as any other, but with its stages as `parts`. Raises ConfigError where it cannot be built for
    such images."""
    with torch.random.fork_rng(devices=[]), blaming_block(arch, f"fails on images of {shape.size}×{shape.size}"):
        facts = measure(build_model(arch, shape), arch.one_line(), shape)
    return facts.model_copy(update={"parts": tuple(list_parts(arch, shape, facts.layers))})


def list_layers(arch: ArchConfig, shape: ImageShape) -> list[Layer]:
    """Every layer that computes something, in the order in which an image passes them."""
    # On the CPU, for on the meta device BatchNorm is decomposed, whose import takes torch longer than the network an image.
    with torch.random.fork_rng(devices=[]):
        model = build_model(arch, shape).eval()
    with blaming_block(arch, f"fails on images of {shape.size}×{shape.size}"):
        calls, _ = calls_of(model, torch.zeros(1, shape.channels, shape.size, shape.size))
    return layers_of(model, calls)


def list_parts(arch: ArchConfig, shape: ImageShape, layers: Sequence[Layer] | None = None) -> list[Part]:
    """`layers`: those of `list_layers`, where they are known already."""
    layers = list_layers(arch, shape) if layers is None else layers

    def params(prefix: str) -> int:
        return sum(layer.params for layer in layers if layer.name.startswith(prefix))

    in_stem, *sizes = arch.feature_sizes(shape.size)
    stride = ", stride 2" if arch.stem.stride == 2 else ""
    kernel, channels = arch.stem.kernel, arch.stem_channels(shape.channels)
    if arch.stem.pool == "max":
        stride += ", maximum 3×3, stride 2"
    built = f"{kernel}×{kernel}, {channels}{stride}"
    if arch.stem.type != "conv":
        built = f"whitening 2×2, {channels if arch.stem.type == 'whitening_only' else built}"
    parts = [Part("stem", built, (channels, in_stem, in_stem), params("stem"))]
    for i, (stage, size) in enumerate(zip(arch.stages, sizes, strict=True)):
        built = f"{stage.blocks} × {arch.block} [{_block_text(arch, stage)}]"
        if arch.downsample == "transition":
            built = f"{stage.kernel}×{stage.kernel}, {stage.channels}, maximum 2×2; {built}"
        parts.append(Part(f"stage {i + 1}", built, (stage.channels, size, size), params(f"stages.{i}."), stage.blocks))
    cells = min(arch.pool_size, sizes[-1])
    pooled = {"avg": "average", "max": "maximum"}[arch.pool]
    head = f"{pooled} to {cells}×{cells}, linear to {shape.classes}"
    return [*parts, Part("head", head, (shape.classes,), params("") - params("stem") - params("stages"))]


def _block_text(arch: ArchConfig, stage: StageConfig) -> str:
    k, c = stage.kernel, stage.channels
    if arch.block_source is not None:
        return f"{arch.block_source.file}, {c}"
    extra = f"; SE {arch.se_reduction}" if arch.se_reduction else ""
    if arch.block == "bottleneck":
        inner = math.ceil(c / arch.expansion)
        return f"1×1, {inner}; {k}×{k}, {inner}; 1×1, {c}{extra}"
    if arch.block == "separable":
        return f"{k}×{k} depthwise; 1×1, {c}{extra}"
    one = f"{k}×{k}, {c}"
    return f"{one}{extra}" if arch.block == "plain" else f"{one}; {one}{extra}"


# ---------------------------------------------------------------------------------------------------- as a picture


BOX_COLOURS = ("#56B4E9", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7")
GAP, TALLEST, SHORTEST, WIDTH, BLOCK, LINE = 34, 130, 26, 96, 22, 16
"""Pixels; BLOCK is what each block after the first adds to a box's width."""
BAR, LONGEST = 14, 16  # characters; LONGEST of what stands below a box, so that it does not reach into the next
ITSELF = "(itself)"  # stands for the name of the whole module, where it holds parameters beside its layers


def draw_network(parts: Sequence[Part], params: int) -> str:
    """An SVG element whose text takes the colour of the page: a box a stage, as high as its feature map is large and as wide as
    it is deep."""
    largest = max(part.output[-1] for part in parts if len(part.output) == 3)
    boxes, x = [], 10.0
    for part, colour in zip(parts, cycle(BOX_COLOURS), strict=False):
        width = WIDTH + BLOCK * max(part.blocks - 1, 0)
        size = part.output[-1] if len(part.output) == 3 else 1
        height = max(SHORTEST, TALLEST * math.sqrt(size / largest))
        borders = [x + width * block / part.blocks for block in range(1, part.blocks)]
        lines = [part.name, shape_text(part.output), *_wrapped(part), f"{part.params:,}"]
        box = {"x": x, "width": width, "top": 10 + (TALLEST - height) / 2, "height": height, "colour": colour}
        boxes.append({**box, "borders": borders, "lines": lines})
        x += width + GAP
    return TEMPLATES.get_template("network.svg").render(
        boxes=boxes,
        right=x - GAP + 10,
        height=TALLEST + LINE * max(len(_wrapped(part)) + 3 for part in parts) + 24,
        label=f"{len(parts) - 2} stages, {params:,} parameters",
        middle=10 + TALLEST / 2,
        below=TALLEST + 14,
        line=LINE,
        gap=GAP,
    )


def _wrapped(part: Part) -> list[str]:
    """What it is built of, a layer a line."""
    first, _, rest = part.built.partition(" [")
    if rest:
        return [first, *rest.rstrip("]").split("; ")]
    lines: list[str] = []
    for piece in part.built.split(", "):
        joined = f"{lines[-1]}, {piece}" if lines else piece
        lines = [*lines[:-1], joined] if lines and len(joined) <= LONGEST else [*lines, piece]
    return lines


def shape_text(output: Sequence[int]) -> str:
    """`64×16×16`"""
    return "×".join(str(size) for size in output)


def text_picture(parts: Sequence[Part]) -> list[str]:
    """A line a part: its name, its output, a bar as long as its share of the parameters, what it is built of."""
    total = sum(part.params for part in parts) or 1
    names = max(8, *(len(part.name or ITSELF) for part in parts))

    def line(part: Part, share: float) -> str:
        bar = "█" * round(BAR * share) or "▏"
        return f"{part.name or ITSELF:{names}s} {shape_text(part.output):>11s}  {bar:{BAR}s} {share:4.0%}  {part.built}"

    return [line(part, part.params / total) for part in parts]


def text_layers(layers: Sequence[Layer]) -> list[str]:
    """A table, a line a layer, with the total."""
    rows = [(layer.name or ITSELF, layer.kind, shape_text(layer.output), f"{layer.params:,}") for layer in layers]
    width, kinds = (max(least, *(len(row[i]) for row in rows)) for i, least in ((0, 0), (1, 20)))
    shown = [("layer", "kind", "output", "parameters"), *rows, ("total", "", "", f"{sum(layer.params for layer in layers):,}")]
    return [f"{name:{width}s}  {kind:{kinds}s} {output:>14s} {params:>12s}" for name, kind, output, params in shown]
