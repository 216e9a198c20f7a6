"""Muon: which filters it turns, by how much, and that it is torch's own where both can."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas.config import ArchConfig, ImageShape, StageConfig, TrainConfig
from nas.models import build_model
from nas.train.optimiser import ORTHOGONAL, Muon, make_optimiser, orthogonalised, set_rate

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(8, 72), (40, 40), (96, 24), (1, 9), (64, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_singular_vectors_stay_and_values_come_near_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(shape[0], min(shape), generator=generator))
    v, _ = torch.linalg.qr(torch.randn(shape[1], min(shape), generator=generator))
    values = torch.linspace(1.0, 3.0, min(shape))
    found = orthogonalised(1e-3 * u @ torch.diag(values) @ v.T, dtype)
    assert found.dtype == torch.float32
    among = u.T @ found @ v
    assert (among - torch.diag(among.diagonal())).abs().max() < (1e-4 if dtype == torch.float32 else 0.05)
    assert 0.5 < among.diagonal().min() <= among.diagonal().max() < 1.3


def test_nothing_has_no_direction() -> None:
    assert orthogonalised(torch.zeros(4, 9)).count_nonzero() == 0


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has it from 2.9 on")
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_steps_are_those_of_torchs_own(shape: tuple[int, int], nesterov: bool) -> None:
    start = 0.01 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours = nn.Parameter(start.clone()[:, :, None, None])
    theirs = nn.Parameter(start.clone())
    group = {"params": [ours], ORTHOGONAL: True}
    mine = Muon([group], 0.02, 0.9, nesterov, torch.bfloat16)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.0, momentum=0.9, nesterov=nesterov, ns_steps=3)
    for step in range(5):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = gradient[:, :, None, None], gradient
        mine.step()
        reference.step()
    assert ours.norm() < math.sqrt(shape[0]), "it was not shortened"
    assert (ours[:, :, 0, 0] - start).norm() > 0.1
    assert torch.allclose(ours[:, :, 0, 0], theirs, atol=2e-3)


def config(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate({"optimiser": "muon", "weight_decay": 0.01, "lr": 0.05, "muon_lr": 0.2, **changes})


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    arch = {"stages": [StageConfig(blocks=1, channels=6)] * 2, "stem": {"type": "whitening"}, "se_reduction": 2}
    return build_model(ArchConfig.model_validate(arch), ImageShape(channels=3, size=8, classes=3))


def test_it_turns_the_filters_of_convolutions_that_have_no_bias(model: nn.Module) -> None:
    optimiser = make_optimiser(model, config(norm_bias_lr=8), CPU)
    set_rate(optimiser, 0.01)
    turned = {id(p) for group in optimiser.param_groups if group[ORTHOGONAL] for p in group["params"]}
    assert {name for name, p in model.named_parameters() if id(p) in turned} == {
        "stem.conv.weight",
        "stages.0.0.conv1.weight",
        "stages.0.0.conv2.weight",
        "stages.1.0.conv1.weight",
        "stages.1.0.conv2.weight",
        "stages.1.0.shortcut.0.weight",
    }
    first, *_, last = optimiser.param_groups
    assert (first["lr"], first[ORTHOGONAL], first["momentum"]) == (0.01, False, 0.9)
    assert last["lr"] == pytest.approx(0.04), "a fifth of its peak, as all others"
    assert (last["momentum"], last["weight_decay"]) == (0.6, 0.0)


def test_grouped_filters_are_not_turned() -> None:
    depthwise = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.Conv2d(6, 6, 1))
    assert not any(group[ORTHOGONAL] for group in make_optimiser(depthwise, config(), CPU).param_groups)


def test_filters_turn_by_the_rate_and_keep_their_norm() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 8, 3, bias=False)
    nn.init.normal_(layer.weight, std=1.0)
    optimiser = make_optimiser(layer, config(muon_momentum=0.0), CPU)
    set_rate(optimiser, 0.05)
    layer(torch.randn(4, 16, 8, 8)).square().sum().backward()
    optimiser.step()  # far too long before it
    assert layer.weight.norm().item() == pytest.approx(math.sqrt(8), rel=1e-5)
    for _ in range(3):
        before = layer.weight.detach().clone()
        layer.weight.grad = torch.randn_like(layer.weight)
        optimiser.step()
        assert layer.weight.norm().item() <= math.sqrt(8) * (1 + 1e-5)
        angle = math.acos(F.cosine_similarity(before.flatten(), layer.weight.flatten(), dim=0).item())
        assert 0.1 < angle < 0.3


def test_filters_that_are_zero_begin_to_move() -> None:
    layer = nn.Conv2d(4, 4, 1, bias=False)
    nn.init.zeros_(layer.weight)
    optimiser = make_optimiser(layer, config(), CPU)
    layer.weight.grad = torch.randn_like(layer.weight)
    optimiser.step()
    assert 0 < layer.weight.norm() < math.sqrt(4)


def test_what_it_does_not_use_makes_no_other_training() -> None:
    sgd = TrainConfig(muon_lr=0.3, muon_momentum=0.1)
    assert sgd.canonical() == TrainConfig().canonical()
    assert config(adam_lr=0.001).peak_lr == 0.05
    assert config(muon_lr=0.3).canonical() != config().canonical()
    assert config(momentum=0.5).canonical() != config().canonical()
