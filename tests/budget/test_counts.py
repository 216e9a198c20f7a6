"""Parameters and multiply-adds."""

from typing import Any

import pytest
import torch
from torch import nn

import nas.budget.counts
from nas.budget import count_macs, count_params, macs_of
from nas.config import ArchConfig, ImageShape, StageConfig
from nas.models import build_model
from tests.reported import REPORTED

CIFAR10 = ImageShape(channels=3, size=32, classes=10)
SMALL = ArchConfig(stages=(StageConfig(blocks=1, channels=8), StageConfig(blocks=1, channels=16)))
HUGE = ArchConfig(stages=tuple(StageConfig(blocks=64, channels=4096) for _ in range(4)))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Every network that the budget builds."""
    networks: list[nn.Module] = []

    def build(*arguments: Any) -> nn.Module:
        networks.append(build_model(*arguments))
        return networks[-1]

    monkeypatch.setattr(nas.budget.counts, "build_model", build)
    return networks


def devices(network: nn.Module) -> set[str]:
    return {tensor.device.type for tensor in [*network.parameters(), *network.buffers()]}


def test_parameters_are_counted_without_allocating_any(built: list[nn.Module]) -> None:
    count_params(SMALL, CIFAR10)
    assert [devices(network) for network in built] == [{"meta"}]


def test_parameters_are_those_that_the_network_has() -> None:
    for arch, _ in REPORTED.values():
        assert count_params(arch, CIFAR10) == sum(p.numel() for p in build_model(arch, CIFAR10).parameters())


def test_counting_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    count_params(SMALL, CIFAR10)
    count_macs(SMALL, CIFAR10)
    assert torch.equal(torch.rand(3), expected)


def test_counting_leaves_the_number_of_threads_alone() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        count_macs(SMALL, CIFAR10)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_macs_of_a_network_are_those_of_its_layers() -> None:
    """By hand: convolutions and the classifier; fvcore adds BatchNorm's and the pooling's."""
    convolutions = (
        3 * 8 * 9 * 32**2  # stem
        + 2 * 8 * 8 * 9 * 32**2
        + (8 * 16 * 9 + 16 * 16 * 9 + 8 * 16) * 16**2
        + 16 * 10
    )
    norms = 2 * (3 * 8 * 32**2 + 3 * 16 * 16**2)
    pooling = 16 * 16**2
    assert count_macs(SMALL, CIFAR10) == convolutions + norms + pooling


def test_attention_is_counted_as_the_products_it_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 7 tokens of 8 values in 2 heads. In one operation, as torch runs it fast, fvcore would count nothing."""

    class Attends(nn.Module):
        def __init__(self, weights: bool) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.weights = weights

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attention(x, x, x, need_weights=self.weights)[0]

    projections, products = 7 * 8 * 24 + 7 * 8 * 8, 2 * 2 * 7 * 7 * 4
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for weights in (False, True):
            found = macs_of(Attends(weights).eval(), torch.zeros(1, 7, 8))
            assert (found.total, found.uncounted) == (projections + products, {})
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def test_multiplications_without_a_rule_are_named() -> None:
    class Recurs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = nn.LSTM(8, 4, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.recurrent(x)[0][:, -1])

    found = macs_of(Recurs().eval(), torch.zeros(1, 5, 8))
    assert (found.total, found.uncounted) == (8, {"lstm": 1})
    assert found.by_module["head"] == 8
