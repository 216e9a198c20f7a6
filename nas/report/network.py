"""A network layer by layer and stage by stage: shapes, parameters, multiply-adds. Only the MACs' count allocates anything."""

import math
from dataclasses import dataclass

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
    kernel, channels = arch.stem.kernel, arch.stem_channels
    if arch.stem.pool == "max":
        stride += ", maximum 3×3, stride 2"
    whitening = "whitening 2×2, " if arch.stem.type == "whitening" else ""
    parts = [part("stem", f"{whitening}{kernel}×{kernel}, {channels}{stride}", of("stem"), (channels, in_stem, in_stem))]
    for i, (stage, size) in enumerate(zip(arch.stages, sizes, strict=True)):
        built = f"{stage.blocks} × {arch.block} [{_block_text(arch, stage)}]"
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
    return f"{k}×{k}, {c}; {k}×{k}, {c}{extra}"
