"""A network layer by layer: shapes, parameters, multiply-adds. Nothing is allocated but for the count of MACs."""

from dataclasses import dataclass

import torch
import torchinfo

from nas.budget import count_macs, count_params, peak_memory
from nas.config import ArchConfig, ImageShape
from nas.models import build_model

BYTES_PER_PARAMETER = 4
_SILENT = ("Identity", "Dropout", "StochasticDepth")
"""Layers that neither hold parameters nor change anything at prediction."""


@dataclass(frozen=True)
class Layer:
    name: str
    """Its path in the module: `stages.1.0.conv1`."""
    kind: str
    output: tuple[int, ...]
    """Shape of its output for one image: (C, H, W), or (features,)."""
    params: int


@dataclass(frozen=True)
class NetworkReport:
    architecture: str
    params: int
    """By fvcore."""
    macs: int
    """By fvcore, of one image."""
    memory: int
    """Bytes of float32 activations at once, of one image."""
    megabytes: float
    """Of its float32 parameters, in units of 10⁶ bytes."""
    layers: list[Layer]


def report_network(arch: ArchConfig, shape: ImageShape) -> NetworkReport:
    """Raises ConfigError where the network cannot be built for such images."""
    params = count_params(arch, shape)
    return NetworkReport(
        architecture=arch.one_line(),
        params=params,
        macs=count_macs(arch, shape),
        memory=peak_memory(arch, shape),
        megabytes=round(params * BYTES_PER_PARAMETER / 1e6, 3),
        layers=list_layers(arch, shape),
    )


def list_layers(arch: ArchConfig, shape: ImageShape) -> list[Layer]:
    """Every layer that computes something, in the order in which an image passes them."""
    with torch.device("meta"):
        model = build_model(arch, shape).eval()
        image = torch.empty(1, shape.channels, shape.size, shape.size)
    summary = torchinfo.summary(model, input_data=image, device="meta", depth=10, verbose=0)
    path: list[str] = []
    layers = []
    for entry in summary.summary_list:
        path = [*path[: max(entry.depth - 1, 0)], *([entry.var_name] if entry.depth else [])]
        if entry.is_leaf_layer and entry.class_name not in _SILENT:
            layers.append(Layer(".".join(path), entry.class_name, tuple(entry.output_size[1:]), entry.num_params))
    return layers
