"""A module's layers, against torchinfo's and against sums by hand."""

import pytest
import torch
import torchinfo
from torch import Tensor, nn

from nas.budget import Layer, calls_of, follow, layers_of
from nas.config import ArchConfig, ImageShape, StageConfig, StemConfig
from nas.models import build_model
from tests.reported import REPORTED

CIFAR10 = ImageShape(channels=3, size=32, classes=10)
EVERYTHING = ArchConfig(
    stages=(StageConfig(blocks=2, channels=16), StageConfig(blocks=2, channels=32)),
    block="bottleneck",
    stem=StemConfig(type="whitening"),
    se_reduction=4,
    downsample="avgpool",
    stochastic_depth=0.1,
    dropout=0.1,
    dropout_place="block",
    logit_scale=0.5,
)


def layers(model: nn.Module, *size: int) -> list[Layer]:
    calls, _ = calls_of(model.eval(), torch.zeros(1, *size))
    return layers_of(model, calls)


@pytest.mark.parametrize("arch", [*(row.arch for row in REPORTED.values()), EVERYTHING], ids=[*REPORTED, "everything"])
def test_layers_of_our_networks_are_those_of_torchinfo(arch: ArchConfig) -> None:
    with torch.device("meta"):
        model = build_model(arch, CIFAR10).eval()
        image = torch.empty(1, 3, 32, 32)
    summary = torchinfo.summary(model, input_data=image, device="meta", depth=10, verbose=0)
    silent = ("Identity", "Dropout", "StochasticDepth")
    theirs = [
        (entry.var_name, entry.class_name, tuple(entry.output_size[1:]), entry.num_params)
        for entry in summary.summary_list
        if entry.is_leaf_layer and entry.class_name not in silent
    ]
    calls, _ = calls_of(model, image)
    ours = layers_of(model, calls)
    assert [(layer.name.rpartition(".")[2], layer.kind, layer.output, layer.params) for layer in ours] == theirs
    assert sum(layer.params for layer in ours) == sum(weight.numel() for weight in model.parameters())


def test_a_layer_that_is_called_twice_has_its_parameters_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x))

    assert layers(Twice(), 3, 4, 4) == [Layer("conv", "Conv2d", (3, 4, 4), 12), Layer("conv", "Conv2d", (3, 4, 4), 0)]


def test_parameters_of_no_layer_are_listed_with_what_holds_them() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 1, 8))
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([self.token, x], 1)
            return self.attention(x, x, x)[0]

    # The projection after the attention is a module that is never called: its weights are handed over.
    inside = 3 * 8 * 8 + 3 * 8 + 8 * 8 + 8
    assert layers(Attends(), 5, 8) == [
        Layer("", "Attends", (6, 8), 8),
        Layer("attention", "MultiheadAttention", (6, 8), inside),
    ]


class Careless(nn.Module):
    """Has a head that nothing uses, and uses layers that it does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.auxiliary = nn.Linear(7, 5)
        self.spare = nn.Parameter(torch.zeros(9))
        self.hidden = [nn.Conv2d(4, 4, 1, bias=False)]

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden[0](self.conv(x))


def test_what_nothing_reads_and_what_nobody_knows_is_found() -> None:
    found = follow(Careless().eval(), torch.zeros(1, 3, 4, 4))
    assert found.unread == ["spare", "auxiliary.weight", "auxiliary.bias"]
    assert found.unregistered == 16
    image, wide = 3 * 4 * 4 * 4, 4 * 4 * 4 * 4
    assert found.peak == max(image + wide, 2 * wide)


def test_modules_that_nothing_reads_come_last_and_have_no_shape() -> None:
    model = Careless().eval()
    calls, _ = calls_of(model, torch.zeros(1, 3, 4, 4))
    assert layers_of(model, calls, follow(model, torch.zeros(1, 3, 4, 4)).unread) == [
        Layer("", "Careless", (4, 4, 4), 9),
        Layer("conv", "Conv2d", (4, 4, 4), 16),
        Layer("auxiliary", "Linear", (), 40),
    ]


def test_hooks_are_gone_afterwards_also_where_the_forward_pass_fails() -> None:
    model = nn.Sequential(nn.Linear(4, 2))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        calls_of(model, torch.zeros(1, 3))
    calls_of(model, torch.zeros(1, 4))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
