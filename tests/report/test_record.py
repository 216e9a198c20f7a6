"""The network layer by layer, and what is read of a study."""

import pytest
import torch
from torch import Tensor, nn

from nas.config import ArchConfig, ImageShape, StageConfig
from nas.models import build_model
from nas.paths import StudyPaths
from nas.report.network import list_layers, measured
from nas.report.record import read_studies, read_study
from tests.reported import REPORTED

CIFAR10 = ImageShape(channels=3, size=32, classes=10)


@pytest.mark.parametrize("name", REPORTED)
def test_layers_have_all_parameters_of_the_network(name: str) -> None:
    arch, params = REPORTED[name]
    layers = list_layers(arch, CIFAR10)
    assert sum(layer.params for layer in layers) == params
    assert layers[-1].output == (10,)


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


def test_report_of_a_study_counts_every_trial(study: StudyPaths) -> None:
    report = read_study(study)
    assert (report.name, report.trained, len(report.retrained)) == ("tiny", 2, 1)
    assert sum(report.counts.values()) == len(report.trials)
    assert report.best in report.trials
    assert report.best.accuracy == max(row.accuracy for row in report.trials if row.accuracy is not None)


def test_report_of_all_studies_names_those_that_cannot_be_read(study: StudyPaths) -> None:
    other = study.folder.parent / "other"
    other.mkdir()
    (other / "study.json").write_text('{"space": "x"}')
    reports, broken = read_studies()
    assert [report.name for report in reports] == ["tiny"]
    assert len(broken) == 1
    assert broken[0].startswith(f"other: {other / 'study.json'}: overrides: is missing")
