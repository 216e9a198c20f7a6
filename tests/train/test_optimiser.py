"""Optimisers: what decays, what is trained, and that each makes torch's own steps."""

from typing import Any, get_args

import pytest
import torch
from torch import nn

from nas.config import ArchConfig, ImageShape, OptimiserName, StageConfig, TrainConfig
from nas.models import ResNet, build_model
from nas.train.optimiser import OPTIMISERS, RATE_FACTOR, learning_rate, make_optimiser, parameter_groups, set_rate

CPU = torch.device("cpu")


@pytest.fixture
def model() -> ResNet:
    torch.manual_seed(0)
    arch = ArchConfig.model_validate(
        {"stages": [StageConfig(blocks=1, channels=6)], "stem": {"type": "whitening"}, "se_reduction": 2}
    )
    return build_model(arch, ImageShape(channels=3, size=8, classes=3))


def config(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({"weight_decay": 0.01, "lr": 0.05, **changes})


def names_of(model: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    wanted = {id(p) for p in parameters}
    return {name for name, p in model.named_parameters() if id(p) in wanted}


def test_the_registry_holds_exactly_what_the_configuration_names() -> None:
    assert tuple(OPTIMISERS) == get_args(OptimiserName)


def test_normalisation_and_biases_do_not_decay_unless_asked(model: ResNet) -> None:
    decaying, others = parameter_groups(model, config())
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    matrices = {name for name, p in model.named_parameters() if p.ndim > 1 and p.requires_grad}
    vectors = {name for name, p in model.named_parameters() if p.ndim <= 1}
    assert names_of(model, decaying["params"]) == matrices
    assert names_of(model, others["params"]) == vectors
    assert {"classifier.weight", "stem.conv.weight"} <= matrices
    assert {"classifier.bias", "stem.norm.weight", "stem.norm.bias", "stages.0.0.se.fc1.bias"} <= vectors


def test_everything_decays_when_asked(model: ResNet) -> None:
    (group,) = parameter_groups(model, config(decay_norm_and_bias=True))
    assert group["weight_decay"] == 0.01
    assert names_of(model, group["params"]) == {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("decays", [False, True])
def test_biases_of_batchnorm_have_a_rate_of_their_own(model: ResNet, decays: bool) -> None:
    optimiser = make_optimiser(model, config(norm_bias_lr=64, decay_norm_and_bias=decays), CPU)
    set_rate(optimiser, 0.5)
    *usual, fast = optimiser.param_groups
    assert names_of(model, fast["params"]) == {
        f"{name}.bias" for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)
    }
    assert {group["lr"] for group in usual} == {0.5}
    assert fast["lr"] == 32
    assert fast["lr"] * fast["weight_decay"] == pytest.approx(0.5 * 0.01 * decays), "what decays, decays as fast as the others"


@pytest.mark.parametrize("decay_norm_and_bias", [False, True])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_trained_parameter_is_stepped_and_no_frozen_one(model: ResNet, name: str, decay_norm_and_bias: bool) -> None:
    optimiser = make_optimiser(model, config(optimiser=name, decay_norm_and_bias=decay_norm_and_bias), CPU)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    for p in model.parameters():
        if p.grad is not None:
            p.grad.add_(0.1)  # no gradient is 0 by chance
    optimiser.step()
    moved = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert moved == {key for key, p in model.named_parameters() if p.requires_grad}


REFERENCES: dict[str, Any] = {
    "sgd": lambda params, c: torch.optim.SGD(
        params, lr=c.lr, momentum=c.momentum, nesterov=c.nesterov, weight_decay=c.weight_decay
    ),
    "adam": lambda params, c: torch.optim.Adam(params, lr=c.lr, weight_decay=c.weight_decay),
    "adamw": lambda params, c: torch.optim.AdamW(params, lr=c.lr, weight_decay=c.weight_decay),
}
REFERENCES["muon"] = REFERENCES["sgd"]  # of what is no filter


@pytest.mark.parametrize("changes", [{}, {"momentum": 0.0}, {"nesterov": False}], ids=["", "no momentum", "no nesterov"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_steps_are_those_of_torchs_plain_optimiser(name: str, changes: dict[str, Any]) -> None:
    train = config(optimiser=name, decay_norm_and_bias=True, **changes)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    mine = make_optimiser(ours, train, CPU)
    reference = REFERENCES[name](
        theirs.parameters(), train.model_copy(update={"nesterov": train.nesterov and train.momentum > 0})
    )
    for _ in range(5):
        x = torch.randn(7, 5)
        for layer, optimiser in ((ours, mine), (theirs, reference)):
            optimiser.zero_grad()
            layer(x).square().sum().backward()
            optimiser.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)
    assert torch.allclose(ours.bias, theirs.bias, atol=1e-6)


@pytest.mark.parametrize(
    ("optimiser", "adam_lr", "expected"), [("sgd", 0.001, 0.1), ("adam", 0.001, 0.001), ("adamw", None, 0.1)]
)
def test_adams_own_rate_takes_the_place_of_the_common_one(optimiser: str, adam_lr: float | None, expected: float) -> None:
    config = TrainConfig.model_validate({"optimiser": optimiser, "lr": 0.1, "adam_lr": adam_lr, "schedule": "constant"})
    assert config.peak_lr == expected
    assert learning_rate(0, 10, config) == expected
    assert make_optimiser(torch.nn.Linear(2, 2), config, torch.device("cpu")).param_groups[0]["lr"] == expected
    assert config.canonical().lr == expected
    assert config.canonical().adam_lr is None


def test_batch_norm_of_any_dimension_has_its_own_rate() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2))
    groups = parameter_groups(model, TrainConfig(norm_bias_lr=4.0))
    (faster,) = [group["params"] for group in groups if group.get(RATE_FACTOR) == 4.0]
    assert faster == [model[1].bias]
