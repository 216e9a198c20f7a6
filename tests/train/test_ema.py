"""The running average of weights against a loop written by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from nas.train.optimiser import WeightAverage

EPOCHS, STEPS = 0.5, 8


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))


def train_a_step(model: nn.Module) -> None:
    """Weights move at random, BatchNorm's statistics by a batch."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
        model.train()(torch.randn(5, 2, 4, 4) * 3 + 1)


def by_hand(averaged: dict[str, torch.Tensor], model: nn.Module, updates: int) -> None:
    decay = min(math.exp(-1 / (EPOCHS * STEPS)), (1 + updates) / (10 + updates))
    for name, value in model.state_dict().items():
        if updates == 0 or not value.is_floating_point():
            averaged[name] = value.clone()
        else:
            averaged[name] = decay * averaged[name] + (1 - decay) * value


def test_the_average_is_what_a_plain_loop_makes_of_weights_and_statistics() -> None:
    model = network()
    average, expected = WeightAverage(model, EPOCHS, STEPS), dict[str, torch.Tensor]()
    for updates in range(60):  # from the warm-up well into the constant decay
        train_a_step(model)
        average.update()
        by_hand(expected, model, updates)
        found = average.model.state_dict()
        assert found.keys() == expected.keys()
        assert "1.running_mean" in found
        for name, value in expected.items():
            assert torch.allclose(found[name].double(), value.double(), rtol=1e-4, atol=1e-5), (name, updates)
    assert average.updates == 60
    assert found["1.num_batches_tracked"] == 60


def test_early_on_it_follows_closely_and_later_forgets_by_its_time_constant() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, epochs=2, steps_per_epoch=10)
    nn.init.constant_(model.weight, 100.0)  # what it starts from must not linger
    average.update()
    nn.init.zeros_(model.weight)
    for _ in range(40):
        average.update()
    assert average.model.weight.item() < 0.01  # a decay of exp(-1/20) from the first step on would leave 100·e⁻² = 13.5
    average.updates = 10_000
    nn.init.ones_(average.model.weight)
    for _ in range(20):
        average.update()
    assert average.model.weight.item() == pytest.approx(math.exp(-1), rel=1e-4)  # one time constant of 2 epochs


def test_the_trained_network_is_left_alone_and_shares_no_memory() -> None:
    model = network()
    average = WeightAverage(model, EPOCHS, STEPS)
    before = copy.deepcopy(model.state_dict())
    average.update()
    average.update()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    ours = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert not ours & {tensor.data_ptr() for tensor in average.model.state_dict().values()}


def test_frozen_weights_stay_as_they_are() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    average = WeightAverage(model, EPOCHS, STEPS)
    for _ in range(5):
        average.update()
    assert torch.equal(average.model[0].weight, model[0].weight)


def test_a_saved_average_goes_on_exactly() -> None:
    model = network()
    whole, first = WeightAverage(model, EPOCHS, STEPS), WeightAverage(model, EPOCHS, STEPS)
    second = WeightAverage(model, EPOCHS, STEPS)
    for step in range(12):
        train_a_step(model)
        whole.update()
        if step == 6:
            second.load_state_dict(copy.deepcopy(first.state_dict()))
        (first if step < 6 else second).update()
    assert second.updates == whole.updates
    assert all(
        torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    )


def test_no_update_asks_the_device_for_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU that would wait for it, at every step."""
    model = network()
    average = WeightAverage(model, EPOCHS, STEPS)
    average.update()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an update waits for the device")

    for name in ("item", "tolist", "cpu", "to", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    average.update()
