"""The network as a whole: its parts in their places, its size, what it refuses, and how it starts."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import ops as torchvision_ops
from torchvision.models import resnet as torchvision_resnet

from nas.budget import count_params
from nas.config import ArchConfig, ImageShape
from nas.errors import ConfigError
from nas.models import build_model, layers
from nas.models.blocks import BLOCKS, BlockPlan, ResidualBlock
from nas.models.layers import Scale, SqueezeExcitation, StochasticDepth, average_halving, maximum_halving
from nas.models.resnet import WhiteningConv, check_size
from nas.space.space import UniformDraw
from nas.space.space_file import CIFAR10, load_space
from tests.reported import arch_of


def test_resnet_20_has_the_published_number_of_parameters() -> None:
    # 269,722 with parameter-free shortcuts (arXiv 1512.03385, table 6: 0.27 M), and two 1×1 projections with BatchNorm.
    assert count_params(arch_of(16, 32, 64, blocks=3), CIFAR10) == 269_722 + (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)


def test_wide_resnet_22_4_has_the_published_number_of_parameters() -> None:
    # WRN-22-4: 4.3 M (arXiv 1605.07146); a stem of 16 channels, stages of 64, 128, 256 with three pre-activation blocks each.
    arch = arch_of(64, 128, 256, blocks=3, block="preact", stem={"channels": 16})
    assert count_params(arch, CIFAR10) == pytest.approx(4.3e6, rel=0.01)


def test_a_network_on_the_meta_device_has_as_many_parameters_as_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kaiming_normal_", "kaiming_uniform_", "uniform_"):  # random numbers cost time and count nothing
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
    space, draw = load_space("resnet"), UniformDraw(seed=5)
    for _ in range(50):
        arch = space.draw(draw).arch
        real = build_model(arch, CIFAR10)
        assert count_params(arch, CIFAR10) == sum(p.numel() for p in real.parameters()), arch.one_line()


def test_the_seed_decides_the_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(build_model(arch_of(8, 12), CIFAR10).parameters())

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize(("size", "stride", "allowed"), [(8, 1, 4), (8, 2, 3), (9, 1, 5), (32, 1, 6), (16, 2, 4)])
def test_one_stage_too_many_is_refused_by_its_number(size: int, stride: int, allowed: int) -> None:
    assert arch_of(*[4] * allowed, stem={"stride": stride}).feature_sizes(size)[-1] == 1
    if allowed == 6:  # the most that a configuration takes
        return
    with pytest.raises(ConfigError) as caught:
        build_model(arch_of(*[4] * (allowed + 1), stem={"stride": stride}), ImageShape(channels=3, size=size, classes=2))
    assert f"stage {allowed + 1} of {allowed + 1}" in caught.value.message
    assert f"allow {allowed} stages" in caught.value.message
    assert "--image-size" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="stage 5 of 6"):  # the first that goes too far
        check_size(arch_of(*[4] * 6), 8)


def rates(model: nn.Module, kind: type[nn.Module]) -> list[float]:
    return [module.p for module in model.modules() if isinstance(module, kind)]


def test_stochastic_depth_rises_linearly_to_the_last_block() -> None:
    model = build_model(arch_of(4, 6, blocks=2, stochastic_depth=0.4), CIFAR10)
    assert rates(model, StochasticDepth) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert not rates(build_model(arch_of(4, 6), CIFAR10), StochasticDepth)


@pytest.mark.parametrize(
    ("place", "where"),
    [
        ("head", {"dropout"}),
        ("block", {"stages.0.0.dropout", "stages.1.0.dropout"}),
        ("stem", {"stem.dropout"}),
        ("stem+block", {"stem.dropout", "stages.0.0.dropout", "stages.1.0.dropout"}),
    ],
)
@pytest.mark.parametrize("block", BLOCKS)
def test_dropout_is_where_it_was_asked_for(block: str, place: str, where: set[str]) -> None:
    model = build_model(arch_of(4, 6, block=block, dropout=0.3, dropout_place=place), CIFAR10)
    assert {name for name, module in model.named_modules() if isinstance(module, nn.Dropout)} == where
    assert set(rates(model, nn.Dropout)) == {0.3}


@pytest.mark.parametrize("block", BLOCKS)
def test_inner_channels_are_rounded_up_and_every_norm_has_the_momentum_asked_for(block: str) -> None:
    model = build_model(arch_of(10, 33, block=block, se_reduction=4, expansion=4, norm_momentum=0.35), CIFAR10)
    assert [module.fc1.out_channels for module in model.modules() if isinstance(module, SqueezeExcitation)] == [3, 9]
    assert {module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {0.35}
    if block == "separable":
        first = model.stages[1][0]
        assert (first.conv1.groups, first.conv1.out_channels, first.conv2.kernel_size) == (10, 10, (1, 1))
    if block == "bottleneck":
        first = model.stages[0][0]
        assert (first.conv1.out_channels, first.conv2.out_channels, first.conv3.out_channels) == (3, 3, 10)


@pytest.mark.parametrize(("pool_size", "cells"), [(1, 1), (2, 2), (4, 4), (8, 4)])
def test_the_classifier_sees_every_pooled_cell(pool_size: int, cells: int) -> None:
    model = build_model(arch_of(4, 6, 8, 10, pool_size=pool_size), CIFAR10)  # 32 → 32 → 16 → 8 → 4
    assert model.classifier.in_features == 10 * cells**2


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("size", [8, 14, 20])
def test_pooling_is_torchs_where_that_refuses_the_map(pool: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on MPS, where the cells do not divide it."""
    model = build_model(arch_of(4, pool=pool, pool_size=3), ImageShape(channels=3, size=size, classes=2))
    assert model.pool.output_size == 3
    x, expected = torch.randn(2, 4, size, size - 1), []
    for refused in (False, True):
        monkeypatch.setattr(layers, "is_refused", lambda x, cells, refused=refused: refused)
        expected.append(model.pool(x))
    assert torch.allclose(*expected, atol=1e-6)
    monkeypatch.undo()
    for device, height, refused in (("mps", 8, True), ("mps", 9, False), ("cpu", 8, False)):
        assert layers.is_refused(SimpleNamespace(device=torch.device(device), shape=(2, 4, height, 9)), 3) == refused


@pytest.mark.parametrize(("pool", "by_hand"), [("avg", lambda x: x.mean((2, 3))), ("max", lambda x: x.amax((2, 3)))])
def test_pooling_is_the_mean_or_the_maximum(pool: str, by_hand: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = build_model(arch_of(4, 6, pool=pool), CIFAR10).eval()
    features: list[torch.Tensor] = []
    model.pool.register_forward_hook(lambda _module, inputs, _output: features.append(inputs[0]))
    with torch.no_grad():
        logits = model(torch.randn(3, 3, 32, 32))
        assert torch.allclose(logits, model.classifier(by_hand(features[0])), atol=1e-5)


def test_the_logit_scale_is_a_factor_on_the_logits() -> None:
    torch.manual_seed(0)
    plain = build_model(arch_of(4, 6), CIFAR10).eval()
    scaled = build_model(arch_of(4, 6, logit_scale=0.125), CIFAR10).eval()
    scaled.load_state_dict(plain.state_dict())
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(scaled(images), 0.125 * plain(images))
    assert "0.125" in repr(Scale(0.125))


@pytest.mark.parametrize("size", [4, 5])
def test_halving_rounds_up_and_averages_what_is_there(size: int) -> None:
    x = torch.arange(float(size * size)).view(1, 1, size, size)
    half = math.ceil(size / 2)
    for i in range(half):
        for j in range(half):
            cell = x[0, 0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            assert average_halving()(x)[0, 0, i, j] == pytest.approx(cell.mean().item())
            assert maximum_halving()(x)[0, 0, i, j] == cell.max()


def test_he_initialisation_follows_the_fan_out() -> None:
    torch.manual_seed(0)
    weight = build_model(arch_of(64, 128), CIFAR10).stages[1][0].conv1.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.02)


@pytest.mark.parametrize("block", BLOCKS)
def test_dirac_convolutions_pass_their_input_on(block: str) -> None:
    torch.manual_seed(0)
    model = build_model(arch_of(6, 12, block=block, init="dirac"), CIFAR10)
    checked = 0
    for module in model.modules():
        if not isinstance(module, nn.Conv2d) or module.kernel_size == (1, 1) or module.stride != (1, 1):
            continue
        x = torch.randn(2, module.in_channels, 7, 7)
        passed = min(module.in_channels, module.out_channels)
        with torch.no_grad():
            y = module(x)
        assert torch.allclose(y[:, :passed], x[:, :passed], atol=1e-6)
        assert not module.out_channels > passed or y[:, passed:].std() > 0.1  # the rest stay random
        checked += 1
    assert checked >= 2
    if block == "bottleneck":  # convolutions of 1×1 stay random
        weight = model.stages[0][0].conv3.weight
        assert weight.count_nonzero() == weight.numel()


def copy_by_order(source: nn.Module, target: nn.Module) -> None:
    """Weights and statistics, matched by their order and shape."""
    ours, theirs = list(target.state_dict().values()), list(source.state_dict().values())
    assert [t.shape for t in ours] == [t.shape for t in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        mine.copy_(other)


def shaken(module: nn.Module) -> nn.Module:
    """BatchNorm that does something: random statistics and weights."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return module.eval()


@pytest.mark.parametrize(("channels_in", "stride"), [(12, 1), (8, 2)])
@pytest.mark.parametrize(
    ("name", "theirs", "factor"), [("basic", torchvision_resnet.BasicBlock, 1), ("bottleneck", torchvision_resnet.Bottleneck, 4)]
)
def test_a_block_computes_what_torchvisions_does(
    name: str, theirs: type[nn.Module], factor: int, channels_in: int, stride: int
) -> None:
    torch.manual_seed(0)
    channels = 12
    arch = arch_of(channels, block=name, expansion=4)
    ours = BLOCKS[name](BlockPlan(arch, arch.stages[0], channels_in, stride, 0.0)).eval()
    shortcut = None
    if stride != 1 or channels_in != channels:
        shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
    reference = shaken(theirs(channels_in, channels // factor, stride, shortcut))
    copy_by_order(reference, ours)
    x = torch.randn(2, channels_in, 9, 9)
    with torch.no_grad():
        assert torch.allclose(ours(x), reference(x), atol=1e-5)


def test_squeeze_and_excitation_computes_what_torchvisions_does() -> None:
    torch.manual_seed(0)
    ours, theirs = SqueezeExcitation(12, 3), torchvision_ops.SqueezeExcitation(12, 3)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 12, 5, 5)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_stochastic_depth_drops_what_torchvisions_drops() -> None:
    x = torch.randn(64, 3, 5, 5)
    ours, theirs = StochasticDepth(0.3), torchvision_ops.StochasticDepth(0.3, mode="row")
    torch.manual_seed(0)
    dropped = ours(x)
    torch.manual_seed(0)
    assert torch.equal(dropped, theirs(x))
    assert 0 < int(dropped.flatten(1).any(1).sum()) < 64
    assert torch.equal(ours.eval()(x), x)


def test_a_preactivation_block_is_norm_activation_convolution_twice() -> None:
    torch.manual_seed(0)
    arch = arch_of(6, block="preact")
    for channels_in, stride in ((6, 1), (4, 2)):
        block = shaken(BLOCKS["preact"](BlockPlan(arch, arch.stages[0], channels_in, stride, 0.0)))
        assert isinstance(block, ResidualBlock)
        x = torch.randn(2, channels_in, 9, 9)
        with torch.no_grad():
            active = F.relu(block.norm1(x))
            residual = block.conv2(F.relu(block.norm2(block.conv1(active))))
            expected = residual + (x if stride == 1 else block.shortcut(active))
            assert torch.allclose(block(x), expected, atol=1e-6)


def test_a_preactivated_network_normalises_and_activates_at_its_end() -> None:
    preact, basic = (build_model(arch_of(4, 6, block=name), CIFAR10) for name in ("preact", "basic"))
    assert isinstance(preact.norm, nn.BatchNorm2d)
    assert isinstance(preact.activation, nn.ReLU)
    assert isinstance(preact.stem.norm, nn.Identity)
    assert isinstance(basic.norm, nn.Identity)
    assert isinstance(basic.stem.norm, nn.BatchNorm2d)


WHITENING = arch_of(6, stem={"type": "whitening"})


def natural_images(channels: int, size: int = 16, count: int = 400) -> Tensor:
    """Smooth, with channels that agree: neighbouring pixels are alike, as in photographs. Mean about 0."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 1, size // 4, size // 4, generator=generator)
    shared = F.interpolate(coarse, size=size, mode="bilinear")
    own = torch.randn(count, channels, size, size, generator=generator)
    return shared + 0.3 * own


def patches_of(outputs: Tensor) -> Tensor:
    """(N, C, H, W) → (N·H·W, C)"""
    return outputs.permute(0, 2, 3, 1).flatten(0, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_frozen_convolution_decorrelates_its_training_images(channels: int) -> None:
    whiten = WhiteningConv(channels)
    images = natural_images(channels)
    before = torch.corrcoef(patches_of(images.unfold(2, 2, 1).unfold(3, 2, 1).flatten(4).movedim(4, 1).flatten(1, 2)).T)
    whiten.initialise_from(images)
    half = channels * 4
    white = patches_of(F.conv2d(images, whiten.weight))
    covariance = (white.T @ white / len(white))[:half, :half]
    assert torch.allclose(covariance, torch.eye(half), atol=0.02)
    assert (before - torch.eye(half)).abs().max() > 0.5, "the images were correlated before"
    assert torch.equal(white[:, half:], -white[:, :half]), "each direction comes with both signs"


def test_directions_come_strongest_first_and_weak_ones_are_not_blown_up() -> None:
    whiten = WhiteningConv(1)
    flat = torch.randn(300, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()  # every pixel of an image alike: one direction only
    whiten.initialise_from(flat)
    first, *rest = whiten.weight[:4].flatten(1)
    # A mean of four equal pixels, brought to deviation 1.
    assert torch.allclose(first.abs(), torch.full((4,), 0.25) / flat.square().mean().sqrt(), atol=1e-3)
    largest = 1 / np.sqrt(WhiteningConv.EPSILON)
    assert all(filters.norm() <= largest * 1.001 for filters in rest)


def test_the_weights_are_frozen_counted_and_saved() -> None:
    shape = ImageShape(channels=3, size=16, classes=4)
    model = build_model(WHITENING, shape)
    frozen = {name: p.numel() for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"stem.whiten.weight": 24 * 3 * 2 * 2}
    assert count_params(WHITENING, shape) == sum(p.numel() for p in model.parameters())
    assert "stem.whiten.weight" in model.state_dict()


@pytest.mark.parametrize(("stem", "decided"), [("whitening", {"stem.whiten.weight"}), ("conv", set())])
def test_images_decide_the_frozen_weights_and_nothing_else(stem: str, decided: set[str]) -> None:
    model = build_model(arch_of(6, block="preact", stem={"type": stem}), ImageShape(channels=3, size=16, classes=4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.initialise_from(natural_images(3))
    assert {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])} == decided


@pytest.mark.parametrize("images", [torch.zeros(50, 3, 8, 8), natural_images(1).expand(-1, 3, -1, -1)])
def test_images_without_colour_give_finite_weights(images: Tensor) -> None:
    whiten = WhiteningConv(3)
    whiten.initialise_from(images)
    assert torch.isfinite(whiten.weight).all()


# ------------------------------------------------------------------------------------- networks of the CIFAR-10 speed runs


def record_like(**fields: object) -> ArchConfig:
    record = {
        "stem": {"type": "whitening_only"},
        "downsample": "transition",
        "block": "plain",
        "activation": "gelu",
        "pool": "max",
    }
    return arch_of(8, 12, **record | fields)


def test_stages_of_the_record_pool_after_their_first_convolution() -> None:
    torch.manual_seed(0)
    model = build_model(record_like(), ImageShape(channels=3, size=16, classes=4)).eval()
    images = torch.randn(2, 3, 16, 16)
    x = F.gelu(F.conv2d(images, model.stem.whiten.weight, model.stem.whiten.bias))
    assert x.shape == (2, 24, 15, 15)
    for (convolution, _, norm, _), block in model.stages:
        x = F.gelu(norm(F.max_pool2d(F.conv2d(x, convolution.weight, padding=1), 2)))
        x = F.gelu(block.norm1(F.conv2d(x, block.conv1.weight, padding=1)))
    assert x.shape == (2, 12, 3, 3), "15 → 7 → 3"
    assert torch.allclose(model(images), model.classifier(x.amax((2, 3))), atol=1e-6)


def test_batch_norms_scale_stays_one_where_it_is_not_trained() -> None:
    model = build_model(record_like(norm_scale=False), ImageShape(channels=3, size=16, classes=4))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [(norm.weight.requires_grad, norm.bias.requires_grad) for norm in norms] == [(False, True)] * 4
    assert all(torch.equal(norm.weight, torch.ones_like(norm.weight)) for norm in norms)


def test_a_block_does_not_vanish_where_no_scale_could_bring_it_back() -> None:
    shape = ImageShape(channels=3, size=16, classes=4)
    arch = record_like(block="basic", norm_scale=False, zero_init=True)
    assert not any((m.weight == 0).all() for m in build_model(arch, shape).modules() if isinstance(m, nn.BatchNorm2d))
    assert arch.canonical() == record_like(block="basic", norm_scale=False).canonical()


def test_transitions_need_two_pixels_in_the_first_stage_too() -> None:
    check_size(record_like(), 5)  # 4 → 2 → 1
    with pytest.raises(ConfigError, match="stage 2 of 2 would halve a feature map of 1×1"):
        check_size(record_like(), 4)
