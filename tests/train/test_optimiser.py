"""Groups and optimisers against torch's own, Muon and sharpness-aware steps by their formulas, the average of weights."""

import copy
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas.config import ArchConfig, ImageShape, OptimiserName, StageConfig, TrainConfig
from nas.models import ResNet, build_model
from nas.train.optimiser import (
    OPTIMISERS,
    ORTHOGONAL,
    RATE_FACTOR,
    Muon,
    SharpnessAware,
    WeightAverage,
    learning_rate,
    make_optimiser,
    orthogonalised,
    parameter_groups,
    set_rate,
)
from tests.train.test_fake_cuda import HostReads

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
    (group,) = parameter_groups(model, config(decay_norm_and_bias=True))
    assert group["weight_decay"] == 0.01
    assert names_of(model, group["params"]) == matrices | vectors


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


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_step_that_overflows_is_skipped_without_the_host(optimiser: str) -> None:
    """Under a gradient scaler an optimiser is called all the same, and allocates its state in the first step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.Flatten(), nn.Linear(12, 2))
    nn.init.normal_(model[0].weight, std=2.0)  # beyond the norm that Muon keeps
    unscaled = copy.deepcopy(model)
    torch.use_deterministic_algorithms(True)  # fills what is allocated with NaN
    try:
        mine, plain = (make_optimiser(each, config(optimiser=optimiser, weight_decay=0.1), CPU) for each in (model, unscaled))
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for factor in (torch.inf, 1.0, 1.0, torch.inf, 1.0):
            before = copy.deepcopy((model.state_dict(), mine.state_dict()["state"]))
            mine.zero_grad()
            scaler.scale(model(torch.ones(7, 2, 4, 4)).square().sum() * factor).backward()
            with HostReads() as reads:
                scaler.step(mine)
                scaler.update()
            assert reads.seen == []
            if factor == 1.0:
                plain.zero_grad()
                unscaled(torch.ones(7, 2, 4, 4)).square().sum().backward()
                plain.step()
            else:
                assert all(torch.equal(value, before[0][name]) for name, value in model.state_dict().items())
                for key, state in before[1].items():
                    assert all(torch.equal(mine.state_dict()["state"][key][name], value) for name, value in state.items())
        for name, value in model.state_dict().items():
            assert torch.allclose(value, unscaled.state_dict()[name], atol=1e-5)
    finally:
        torch.use_deterministic_algorithms(False)


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


# ----------------------------------------------------------------------------------------------------------------- Muon


@pytest.mark.parametrize("shape", [(8, 72), (40, 40), (96, 24), (1, 9), (64, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_singular_vectors_stay_and_values_come_near_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(shape[0], min(shape), generator=generator))
    v, _ = torch.linalg.qr(torch.randn(shape[1], min(shape), generator=generator))
    values = torch.linspace(1.0, 3.0, min(shape))
    (found,) = orthogonalised(1e-3 * (u @ torch.diag(values) @ v.T)[None], dtype)
    assert found.dtype == torch.float32
    among = u.T @ found @ v
    assert (among - torch.diag(among.diagonal())).abs().max() < (1e-4 if dtype == torch.float32 else 0.05)
    assert 0.5 < among.diagonal().min() <= among.diagonal().max() < 1.3
    assert orthogonalised(torch.zeros(1, *shape)).count_nonzero() == 0, "nothing has no direction"


@pytest.mark.parametrize("shape", [(3, 8, 72), (2, 24, 24), (2, 96, 24), (1, 64, 576)])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.bfloat16, 0.12)], ids=str)
def test_a_batch_is_what_its_matrices_are_one_by_one(shape: tuple[int, int, int], dtype: torch.dtype, rounding: float) -> None:
    """Singular values over three decades; the iteration by the book, whose own rounding in bfloat16 makes 0.04."""
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)), full_matrices=False)
    batch = u * torch.logspace(0, -3, u.shape[2]) @ v
    for matrix, found in zip(batch, orthogonalised(batch, dtype), strict=True):
        x = matrix.double() / matrix.norm()
        for _ in range(3):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        assert (found - x).norm() < rounding * x.norm()
        assert torch.allclose(found, orthogonalised(matrix[None], dtype)[0], atol=rounding / 10)


def test_filters_of_one_shape_step_in_one_batch_as_each_by_itself() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(6, 8, 3, bias=False).to(memory_format=torch.channels_last) for _ in range(3)]
    alone = copy.deepcopy(layers)
    optimisers = [make_optimiser(nn.ModuleList(layers), muon(), CPU), *(make_optimiser(layer, muon(), CPU) for layer in alone)]
    for layer in (*layers, *alone):
        layer.weight.grad = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(1))
        layer.weight.grad = layer.weight.grad.contiguous(memory_format=torch.channels_last)
    for optimiser in optimisers:
        optimiser.step()
    for layer, other in zip(layers, alone, strict=True):
        assert torch.allclose(layer.weight, other.weight, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has it from 2.9 on")
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_steps_are_those_of_torchs_own(shape: tuple[int, int], nesterov: bool) -> None:
    start = 0.01 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours = nn.Parameter(start.clone()[:, :, None, None])
    theirs = nn.Parameter(start.clone())
    group = {"params": [ours], ORTHOGONAL: True}
    mine = Muon([group], 0.02, 0.9, nesterov, True, torch.bfloat16)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.0, momentum=0.9, nesterov=nesterov, ns_steps=3)
    for step in range(5):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = gradient[:, :, None, None], gradient
        mine.step()
        reference.step()
    assert ours.norm() < math.sqrt(shape[0]), "it was not shortened"
    assert (ours[:, :, 0, 0] - start).norm() > 0.1
    assert torch.allclose(ours[:, :, 0, 0], theirs, atol=2e-3)


def muon(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate({"optimiser": "muon", "weight_decay": 0.01, "lr": 0.05, "muon_lr": 0.2, **changes})


@pytest.fixture
def whole() -> nn.Module:
    torch.manual_seed(0)
    arch = {"stages": [StageConfig(blocks=1, channels=6)] * 2, "stem": {"type": "whitening"}, "se_reduction": 2}
    return build_model(ArchConfig.model_validate(arch), ImageShape(channels=3, size=8, classes=3))


def test_it_turns_the_filters_of_convolutions_that_have_no_bias(whole: nn.Module) -> None:
    optimiser = make_optimiser(whole, muon(norm_bias_lr=8), CPU)
    set_rate(optimiser, 0.01)
    turned = {id(p) for group in optimiser.param_groups if group[ORTHOGONAL] for p in group["params"]}
    assert {name for name, p in whole.named_parameters() if id(p) in turned} == {
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
    depthwise = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.Conv2d(6, 6, 1))
    assert not any(group[ORTHOGONAL] for group in make_optimiser(depthwise, muon(), CPU).param_groups)


def test_filters_turn_by_the_rate_and_keep_their_norm() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 8, 3, bias=False)
    nn.init.normal_(layer.weight, std=1.0)
    optimiser = make_optimiser(layer, muon(muon_momentum=0.0), CPU)
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
    nn.init.zeros_(layer.weight)  # which begins to move
    layer.weight.grad = torch.randn_like(layer.weight)
    optimiser.step()
    assert 0 < layer.weight.norm() < math.sqrt(8)


def test_what_it_does_not_use_makes_no_other_training() -> None:
    sgd = TrainConfig(muon_lr=0.3, muon_momentum=0.1)
    assert sgd.canonical() == TrainConfig().canonical()
    assert muon(adam_lr=0.001).peak_lr == 0.05
    assert muon(muon_lr=0.3).canonical() != muon().canonical()
    assert muon(momentum=0.5).canonical() != muon().canonical()


# ------------------------------------------------------------------------------------------------------ sharpness-aware


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


# ---------------------------------------------------------------------------------------------------------- the average


EPOCHS, STEPS = 0.5, 8


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


def test_the_rate_of_muon_falls_with_the_root_of_the_steps_unless_it_is_given() -> None:
    layer = torch.nn.Conv2d(2, 4, 3, bias=False)
    rates = [
        make_optimiser(layer, muon(muon_lr=rate, lr=0.5), CPU, steps=steps).param_groups[-1][RATE_FACTOR] * 0.5
        for rate, steps in ((None, 200), (None, 800), (0.3, 800))
    ]
    assert rates == pytest.approx([0.24, 0.12, 0.3])


def test_the_bias_of_frozen_filters_is_as_fast_as_those_of_batch_norm() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2), torch.nn.Conv2d(4, 4, 1), torch.nn.BatchNorm2d(4))
    model[0].weight.requires_grad_(False)
    (faster,) = [group["params"] for group in parameter_groups(model, TrainConfig(norm_bias_lr=4.0)) if RATE_FACTOR in group]
    assert {id(p) for p in faster} == {id(model[0].bias), id(model[2].bias)}
