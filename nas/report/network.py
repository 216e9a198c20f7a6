"""A network layer by layer and stage by stage: shapes, parameters, multiply-adds; as a picture and as lines of text.

Only the count of multiply-adds allocates anything.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import torch

from nas.budget import Layer, Part, calls_of, count_macs, count_params, layers_of, peak_memory
from nas.config import ArchConfig, ImageShape, StageConfig
from nas.models import build_model
from nas.models.user_code import blaming_block

BYTES_PER_PARAMETER = 4


@dataclass(frozen=True)
class NetworkReport:
    architecture: str
    params: int  # by fvcore
    macs: int  # by fvcore, of one image
    memory: int  # bytes of float32 activations at once, of one image
    megabytes: float  # of its float32 parameters, in units of 10⁶ bytes
    parts: list[Part]
    layers: list[Layer]


def report_network(arch: ArchConfig, shape: ImageShape) -> NetworkReport:
    """Raises ConfigError where the network cannot be built for such images."""
    params, layers = count_params(arch, shape), list_layers(arch, shape)
    return NetworkReport(
        architecture=arch.one_line(),
        params=params,
        macs=count_macs(arch, shape),
        memory=peak_memory(arch, shape),
        megabytes=round(params * BYTES_PER_PARAMETER / 1e6, 3),
        parts=list_parts(arch, shape, layers),
        layers=layers,
    )


def list_layers(arch: ArchConfig, shape: ImageShape) -> list[Layer]:
    """Every layer that computes something, in the order in which an image passes them."""
    # On the CPU, for on the meta device BatchNorm is decomposed, whose import takes torch longer than the network an image.
    with torch.random.fork_rng(devices=[]):
        model = build_model(arch, shape).eval()
    with blaming_block(arch, f"fails on images of {shape.size}×{shape.size}"):
        calls, _ = calls_of(model, torch.zeros(1, shape.channels, shape.size, shape.size))
    return layers_of(model, calls)


def list_parts(arch: ArchConfig, shape: ImageShape, layers: list[Layer] | None = None) -> list[Part]:
    """`layers`: those of `list_layers`, where they are known already."""
    layers = list_layers(arch, shape) if layers is None else layers

    def of(*prefixes: str) -> list[Layer]:
        return [layer for layer in layers if layer.name.startswith(prefixes)]

    def part(name: str, built: str, found: list[Layer], output: tuple[int, ...], blocks: int = 0) -> Part:
        return Part(name, built, output, sum(layer.params for layer in found), blocks)

    in_stem, *sizes = arch.feature_sizes(shape.size)
    stride = ", stride 2" if arch.stem.stride == 2 else ""
    kernel, channels = arch.stem.kernel, arch.stem_channels(shape.channels)
    if arch.stem.pool == "max":
        stride += ", maximum 3×3, stride 2"
    built = f"{kernel}×{kernel}, {channels}{stride}"
    if arch.stem.type != "conv":
        built = f"whitening 2×2, {channels if arch.stem.type == 'whitening_only' else built}"
    parts = [part("stem", built, of("stem"), (channels, in_stem, in_stem))]
    for i, (stage, size) in enumerate(zip(arch.stages, sizes, strict=True)):
        built = f"{stage.blocks} × {arch.block} [{_block_text(arch, stage)}]"
        if arch.downsample == "transition":
            built = f"{stage.kernel}×{stage.kernel}, {stage.channels}, maximum 2×2; {built}"
        output = (stage.channels, size, size)
        parts.append(part(f"stage {i + 1}", built, of(f"stages.{i}."), output, stage.blocks))
    cells = min(arch.pool_size, sizes[-1])
    pooled = {"avg": "average", "max": "maximum"}[arch.pool]
    head = f"{pooled} to {cells}×{cells}, linear to {shape.classes}"
    rest = [layer for layer in layers if not layer.name.startswith(("stem", "stages"))]
    parts.append(part("head", head, rest, (shape.classes,)))
    return parts


def _block_text(arch: ArchConfig, stage: StageConfig) -> str:
    k, c = stage.kernel, stage.channels
    if arch.block_source is not None:
        return f"{arch.block_source.file}, {c}"
    extra = f"; SE {arch.se_reduction}" if arch.se_reduction else ""
    if arch.block == "bottleneck":
        inner = math.ceil(c / arch.expansion)
        return f"1×1, {inner}; {k}×{k}, {inner}; 1×1, {c}{extra}"
    one = f"{k}×{k}, {c}"
    return f"{one}{extra}" if arch.block == "plain" else f"{one}; {one}{extra}"


# ------------------------------------ as a picture: a box a stage, as high as its feature map is large and as wide as it is deep


BOX_COLOURS = ("#56B4E9", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7")
GAP, TALLEST, SHORTEST, WIDTH, BLOCK = 34, 130, 26, 96, 22
"""Pixels; BLOCK is what each block after the first adds to a box's width."""
LINE = 16
BAR, LONGEST = 14, 16  # characters; LONGEST of what stands below a box, so that it does not reach into the next
ITSELF = "(itself)"  # stands for the name of the whole module, where it holds parameters beside its layers


def draw_network(parts: Sequence[Part], params: int) -> str:
    """An SVG element whose text takes the colour of the page."""
    boxes, x = [], 10.0
    lines = [[part.name, shape_text(part.output), *_wrapped(part), f"{part.params:,}"] for part in parts]
    for i, part in enumerate(parts):
        width = max(WIDTH + BLOCK * max(part.blocks - 1, 0), WIDTH)
        boxes.append(_box(part, i, x, width, _height(part, parts)) + _text(lines[i], x + width / 2))
        x += width + GAP
    right = x - GAP + 10
    height = TALLEST + LINE * max(map(len, lines)) + 24
    label = f"{len(parts) - 2} stages, {params:,} parameters"
    return (
        f'<svg class="network" viewBox="0 0 {right:.0f} {height}" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'aria-label="{escape(label)}" font-family="system-ui, sans-serif" font-size="12" fill="currentColor" '
        f'style="min-width:{0.85 * right:.0f}px;max-width:{right:.0f}px;width:100%">{"".join(boxes)}</svg>'
    )


def _height(part: Part, parts: Sequence[Part]) -> float:
    largest = max(one.output[-1] for one in parts if len(one.output) == 3)
    size = part.output[-1] if len(part.output) == 3 else 1
    return max(SHORTEST, TALLEST * math.sqrt(size / largest))


def _box(part: Part, index: int, x: float, width: float, height: float) -> str:
    top = 10 + (TALLEST - height) / 2
    colour = BOX_COLOURS[index % len(BOX_COLOURS)]
    shapes = [
        f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4" fill="{colour}" '
        f'fill-opacity="0.35" stroke="{colour}"/>'
    ]
    for block in range(1, part.blocks):
        at = x + width * block / part.blocks
        shapes.append(f'<line x1="{at:.1f}" y1="{top:.1f}" x2="{at:.1f}" y2="{top + height:.1f}" stroke="{colour}"/>')
    if index:
        y = 10 + TALLEST / 2
        shapes.append(f'<line x1="{x - GAP + 4:.1f}" y1="{y}" x2="{x - 8:.1f}" y2="{y}" stroke="currentColor"/>')
        shapes.append(f'<path d="M {x - 9:.1f} {y - 4} L {x - 2:.1f} {y} L {x - 9:.1f} {y + 4} z"/>')
    return "".join(shapes)


def _text(lines: Sequence[str], middle: float) -> str:
    elements = []
    for n, line in enumerate(lines):
        weight = ' font-weight="600"' if n == 0 else ""
        y = TALLEST + 14 + LINE * (n + 1)
        elements.append(f'<text x="{middle:.1f}" y="{y}" text-anchor="middle"{weight}>{escape(line)}</text>')
    return "".join(elements)


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
    lines = []
    for part in parts:
        bar = "█" * round(BAR * part.params / total) or "▏"
        share = f"{part.params / total:4.0%}"
        lines.append(f"{part.name or ITSELF:{names}s} {shape_text(part.output):>11s}  {bar:{BAR}s} {share}  {part.built}")
    return lines


def text_layers(layers: Sequence[Layer]) -> list[str]:
    """A table, a line a layer, with the total."""
    width = max(len(layer.name or ITSELF) for layer in layers)
    kinds = max(20, *(len(layer.kind) for layer in layers))
    lines = [f"{'layer':{width}}  {'kind':{kinds}s} {'output':>14s} {'parameters':>12s}"]
    for layer in layers:
        lines.append(f"{layer.name or ITSELF:{width}}  {layer.kind:{kinds}s} {shape_text(layer.output):>14s} {layer.params:12,}")
    lines.append(f"{'total':{width}}  {'':{kinds}s} {'':>14s} {sum(layer.params for layer in layers):12,}")
    return lines
