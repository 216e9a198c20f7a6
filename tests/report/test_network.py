"""The network layer by layer and stage by stage, as data, as a picture and as lines of text."""

import xml.etree.ElementTree as xml

import pytest
import torch
from torch import Tensor, nn

from nas.budget.closed_form import closed_form_params
from nas.config import ArchConfig, ImageShape, StageConfig
from nas.models import build_model
from nas.report.network import draw_network, list_layers, list_parts, measured, text_picture
from nas.space.space_file import CIFAR10
from tests.reported import REPORTED


@pytest.mark.parametrize("name", REPORTED)
def test_layers_parts_and_picture_hold_the_whole_network(name: str) -> None:
    arch, params = REPORTED[name]
    layers = list_layers(arch, CIFAR10)
    assert sum(layer.params for layer in layers) == params
    assert layers[-1].output == (10,)
    parts = list_parts(arch, CIFAR10)
    assert parts == list_parts(arch, CIFAR10, layers)
    assert sum(part.params for part in parts) == params
    for i, part in enumerate(parts[1:-1]):
        own = [layer for layer in layers if layer.name.startswith(f"stages.{i}.") and ".se." not in layer.name]
        assert part.output == own[-1].output, part.name
    svg = xml.fromstring(draw_network(parts, params))
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert [text for text in texts if text in {part.name for part in parts}] == [part.name for part in parts]
    assert len(list(svg.iter("{http://www.w3.org/2000/svg}rect"))) == len(parts)
    assert {f"{part.params:,}" for part in parts} <= set(texts)


@pytest.mark.parametrize("size", [15, 32, 33])
@pytest.mark.parametrize("downsample", ["conv", "maxpool", "avgpool"])
@pytest.mark.parametrize(
    ("block", "built"),
    [("bottleneck", "1×1, 3; 3×3, 3; 1×1, 12"), ("separable", "3×3 depthwise; 1×1, 12"), ("basic", "3×3, 12; 3×3, 12")],
)
def test_parts_of_odd_sizes(size: int, downsample: str, block: str, built: str) -> None:
    stages = (StageConfig(blocks=1, channels=8), StageConfig(blocks=2, channels=12), StageConfig(blocks=1, channels=16))
    shape = ImageShape(channels=1, size=size, classes=7)
    arch = ArchConfig.model_validate(
        {"stages": stages, "stem": {"stride": 2, "type": "whitening"}, "downsample": downsample, "block": block}
    )
    layers, parts = list_layers(arch, shape), list_parts(arch, shape)
    assert sum(part.params for part in parts) == closed_form_params(arch, shape)
    for i, part in enumerate(parts[1:-1]):
        assert part.output == [layer.output for layer in layers if layer.name.startswith(f"stages.{i}.")][-1]
    assert parts[2].built == f"2 × {block} [{built}]"
    assert parts[0].built == "whitening 2×2, 3×3, 8, stride 2"


@pytest.mark.parametrize("block", ["basic", "preact", "bottleneck"])
def test_layers_are_listed_in_the_order_in_which_an_image_passes_them(block: str) -> None:
    stages = (StageConfig(blocks=2, channels=8), StageConfig(blocks=1, channels=16))
    arch = ArchConfig.model_validate({"block": block, "stages": stages, "se_reduction": 4, "pool_size": 2})
    model = build_model(arch, CIFAR10).eval()
    passed: list[tuple[str, str, tuple[int, ...]]] = []

    def watch(name: str, module: nn.Module) -> None:
        def note(module: nn.Module, inputs: object, output: Tensor) -> None:
            passed.append((name, type(module).__name__, tuple(output.shape[1:])))

        module.register_forward_hook(note)

    for name, module in model.named_modules():
        if not list(module.children()) and not isinstance(module, nn.Identity):
            watch(name, module)
    model(torch.zeros(1, 3, 32, 32))
    assert [(layer.name, layer.kind, layer.output) for layer in list_layers(arch, CIFAR10)] == passed


def test_report_of_a_network_is_exact() -> None:
    arch, params = REPORTED["resnet-2222-slim"]
    report = measured(arch, CIFAR10)
    assert (report.params, report.megabytes) == (params, 7.567)
    assert report.built == arch.one_line() == "basic 2-2-2-2 × 64-128-128-128 k3-3-3-3 relu"
    assert report.macs is not None
    assert report.macs > 100_000_000


def test_picture_in_text_fits_its_width() -> None:
    arch, _ = REPORTED["resnet-443"]
    lines = text_picture(list_parts(arch, CIFAR10))
    assert len(lines) == 5
    assert lines[3].split()[:3] == ["stage", "3", "256×8×8"]
    assert max(line.count("█") for line in lines) == lines[3].count("█"), "the last stage holds the most parameters"
