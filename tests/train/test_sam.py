"""Sharpness-aware minimisation against its formula, and what it must leave alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas.train.optimiser import SharpnessAware

RHO = 0.3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))


def backward(model: nn.Module, images: torch.Tensor, scale: float = 1.0) -> None:
    (model.train()(images).square().sum() * scale).backward()


def test_the_second_pass_leaves_the_statistics_of_any_batch_norm() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.BatchNorm1d(32), nn.Linear(32, 2))
    sam, images = SharpnessAware(model, RHO), torch.randn(5, 2, 4, 4)
    with sam.second_pass():
        backward(model, images)
    assert not model[0].running_mean.any()
    assert not model[2].running_mean.any()


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_the_weights_climb_by_rho_along_the_gradient_and_come_back(scale: float) -> None:
    model, images = network(), torch.randn(5, 2, 4, 4)
    sam = SharpnessAware(model, RHO)
    backward(model, images, scale)
    home = [p.detach().clone() for p in model.parameters()]
    gradients = [p.grad.clone() for p in model.parameters()]
    norm = torch.sqrt(sum(g.square().sum() for g in gradients))
    sam.climb()
    for p, start, gradient in zip(model.parameters(), home, gradients, strict=True):
        assert torch.allclose(p, start + RHO * gradient / norm, atol=1e-6)
        assert p.grad is None
    moved = torch.sqrt(sum((p - start).square().sum() for p, start in zip(model.parameters(), home, strict=True)))
    assert moved.item() == pytest.approx(RHO, rel=1e-4)
    backward(model, images)
    second = [p.grad.clone() for p in model.parameters()]
    sam.descend()
    assert all(torch.equal(p, start) for p, start in zip(model.parameters(), home, strict=True))
    assert all(torch.equal(p.grad, gradient) for p, gradient in zip(model.parameters(), second, strict=True))


def test_statistics_are_those_of_the_weights_that_are_kept() -> None:
    model, images = network(), torch.randn(5, 2, 4, 4)
    once = network()
    backward(once, images)
    sam = SharpnessAware(model, RHO)
    backward(model, images)
    sam.climb()
    with sam.second_pass():
        backward(model, images)
    sam.descend()
    for name, value in once[1].state_dict().items():
        assert torch.equal(value, model[1].state_dict()[name]), name
    backward(model, images)  # and they move again afterwards
    assert not torch.equal(model[1].running_mean, once[1].running_mean)


def test_statistics_survive_a_gradient_that_overflows() -> None:
    """As the first ones do under a gradient scaler, which then leaves out the step."""
    model, images = network(), torch.randn(5, 2, 4, 4)
    sam = SharpnessAware(model, RHO)
    backward(model, images)
    next(model.parameters()).grad.fill_(torch.inf)
    sam.climb()
    with sam.second_pass():
        backward(model, images)
    sam.descend()
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert not all(torch.isfinite(p.grad).all() for p in model.parameters()), "the scaler must see that it overflowed"


def test_frozen_weights_and_unused_ones_do_not_move() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    model[4].bias.requires_grad_(False)
    before = [model[0].weight.clone(), model[4].bias.clone()]
    sam = SharpnessAware(model, RHO)
    backward(model, torch.randn(5, 2, 4, 4))
    sam.climb()
    assert torch.equal(model[0].weight, before[0])
    assert torch.equal(model[4].bias, before[1])
    sam.descend()


def test_a_training_with_it_learns_and_differs_from_one_without(training: Any, tmp_path: Path) -> None:
    with_it, without = training.changed(sam_rho=0.05)(tmp_path / "with"), training(tmp_path / "without")
    assert with_it.result.status == "finished"
    assert with_it.result.curve[-1].train_loss < with_it.result.curve[0].train_loss
    assert with_it.result.curve[-1].train_loss != without.result.curve[-1].train_loss
