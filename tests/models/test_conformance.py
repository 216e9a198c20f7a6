"""What every block, stem and activation promises, checked for each entry of the registries."""

from typing import Any, get_args

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas.config import (
    ActivationName,
    ArchConfig,
    BlockName,
    DownsampleName,
    DropoutPlace,
    ImageShape,
    InitName,
    PoolName,
    StageConfig,
    StemName,
)
from nas.models import ResNet, build_model
from nas.models.blocks import BLOCKS, ResidualBlock
from nas.models.layers import ACTIVATIONS, SqueezeExcitation
from nas.models.resnet import STEMS

STAGES = (StageConfig(blocks=2, channels=8), StageConfig(blocks=2, channels=12))

VARIATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    **{f"downsample {name}": {"downsample": name} for name in get_args(DownsampleName)},
    **{f"dropout {place}": {"dropout": 0.2, "dropout_place": place} for place in get_args(DropoutPlace)},
    **{f"pool {name}": {"pool": name} for name in get_args(PoolName)},
    **{f"init {name}": {"init": name} for name in get_args(InitName)},
    "pool of 2": {"pool_size": 2},
    "pool larger than the map": {"pool_size": 8},
    "squeeze and excitation": {"se_reduction": 2},
    "squeezed to one channel": {"se_reduction": 64},
    "stochastic depth": {"stochastic_depth": 0.3},
    "zero initialisation": {"zero_init": True},
    "zero initialisation with squeeze and excitation": {"zero_init": True, "se_reduction": 2},
    "expansion 1": {"expansion": 1},
    "expansion 4": {"expansion": 4},
    "expansion that does not divide": {"expansion": 5},
    "momentum": {"norm_momentum": 0.4},
    "logit scale": {"logit_scale": 0.25},
    "a stem that halves": {"stem": {"stride": 2}},
    "a stem that pools": {"stem": {"pool": "max"}},
    "a stem that halves and pools": {"stem": {"stride": 2, "pool": "max"}, "stages": STAGES[:1]},
    "a stem of its own width": {"stem": {"channels": 5, "kernel": 5}},
    "large kernels": {"stages": (StageConfig(blocks=1, channels=6, kernel=7, skip_kernel=5),) * 2},
    "one stage": {"stages": (StageConfig(blocks=1, channels=6),)},
    "stages that narrow": {"stages": (StageConfig(blocks=1, channels=8), StageConfig(blocks=1, channels=4))},
    "everything at once": {
        "downsample": "avgpool",
        "dropout": 0.1,
        "dropout_place": "stem+block",
        "se_reduction": 2,
        "stochastic_depth": 0.1,
        "zero_init": True,
        "init": "dirac",
        "pool": "max",
        "pool_size": 2,
        "logit_scale": 2.0,
        "norm_momentum": 0.3,
        "activation": "silu",
    },
}


def small_arch(**changes: Any) -> ArchConfig:
    # At least two channels within a bottleneck: the scale of a single one is undone by the next BatchNorm.
    return ArchConfig.model_validate({"stages": STAGES, "expansion": 2, **changes})


def with_stem(changes: dict[str, Any], stem: str) -> dict[str, Any]:
    return {**changes, "stem": {**changes.get("stem", {}), "type": stem}}


def images_for(shape: ImageShape, count: int = 6) -> torch.Tensor:
    return torch.randn(count, shape.channels, shape.size, shape.size)


def gradients_after(model: ResNet, images: torch.Tensor, classes: int) -> dict[str, torch.Tensor]:
    """Of each trained parameter, from one backward pass in training mode; fails where one has none or it is not finite."""
    model.zero_grad(set_to_none=True)
    logits = model.train()(images)
    assert logits.shape == (len(images), classes)
    assert torch.isfinite(logits).all()
    F.cross_entropy(logits, torch.arange(len(images)) % classes).backward()
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"
            found[name] = parameter.grad.clone()
        else:
            assert parameter.grad is None, f"{name} is frozen and yet gets a gradient"
    return found


def step(model: ResNet, lr: float = 0.1) -> None:
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr).step()


def check_trains(arch: ArchConfig, shape: ImageShape) -> None:
    torch.manual_seed(1)
    model = build_model(arch, shape)
    for module in model.modules():
        if isinstance(module, SqueezeExcitation):  # a few squeezed channels behind a ReLU may all be dead by chance
            nn.init.ones_(module.fc1.bias)
    images = images_for(shape)
    model.initialise_from(images)
    gradients = gradients_after(model, images, shape.classes)
    if arch.zero_init:  # what lies behind a zero learns from the second step on
        step(model)
        gradients = gradients_after(model, images, shape.classes)
    silent = [name for name, gradient in gradients.items() if not gradient.any()]
    assert not silent, f"no gradient reaches {silent}"
    step(model)
    with torch.no_grad():
        assert torch.isfinite(model.eval()(images)).all()


def test_the_registries_hold_exactly_what_the_configuration_names() -> None:
    assert tuple(BLOCKS) == get_args(BlockName)
    assert tuple(STEMS) == get_args(StemName)
    assert tuple(ACTIVATIONS) == get_args(ActivationName)


@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("block", BLOCKS)
def test_every_parameter_of_every_variation_learns(block: str, stem: str, variation: str) -> None:
    arch = small_arch(block=block, **with_stem(VARIATIONS[variation], stem))
    check_trains(arch, ImageShape(channels=3, size=8, classes=4))


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("block", BLOCKS)
def test_a_network_of_single_channels_can_be_trained(block: str, stem: str) -> None:
    """Some gradients are 0 there, because BatchNorm undoes the scale of what is before it."""
    torch.manual_seed(0)
    shape = ImageShape(channels=1, size=8, classes=2)
    model = build_model(small_arch(block=block, stem={"type": stem}, stages=(StageConfig(blocks=1, channels=1),) * 2), shape)
    gradients_after(model, images_for(shape), shape.classes)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_learns_with_every_activation(block: str, activation: str) -> None:
    check_trains(small_arch(block=block, activation=activation), ImageShape(channels=3, size=8, classes=4))


@pytest.mark.parametrize("size", [8, 32, 33, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("downsample", get_args(DownsampleName))
@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_takes_every_image(block: str, downsample: str, channels: int, size: int) -> None:
    stages = tuple(StageConfig(blocks=1, channels=c) for c in (4, 6, 8))
    arch = small_arch(block=block, downsample=downsample, stages=stages, pool_size=2)
    check_trains(arch, ImageShape(channels=channels, size=size, classes=3))


@pytest.mark.parametrize(("stride", "pool"), [(1, "none"), (2, "none"), (2, "max")])
@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("downsample", get_args(DownsampleName))
@pytest.mark.parametrize("block", BLOCKS)
def test_feature_maps_have_the_sizes_that_were_foretold(block: str, downsample: str, stem: str, stride: int, pool: str) -> None:
    stages = tuple(StageConfig(blocks=1, channels=c, kernel=k, skip_kernel=3) for c, k in ((4, 3), (5, 5), (6, 1)))
    arch = small_arch(block=block, downsample=downsample, stages=stages, stem={"type": stem, "stride": stride, "pool": pool})
    for size in (33, 47, 64):
        with torch.device("meta"):
            model = build_model(arch, ImageShape(channels=3, size=size, classes=3)).eval()
            seen: list[tuple[int, ...]] = []
            for module in (model.stem, *model.stages):
                module.register_forward_hook(lambda _module, _inputs, output, seen=seen: seen.append(tuple(output.shape)))
            model(torch.empty(2, 3, size, size))
        widths = [arch.stem_channels(3), *(stage.channels for stage in stages)]
        assert seen == [(2, width, s, s) for width, s in zip(widths, arch.feature_sizes(size), strict=True)]


@pytest.mark.parametrize("se_reduction", [0, 2])
@pytest.mark.parametrize("block", [block for block in BLOCKS if block != "plain"])
def test_with_zero_init_every_block_starts_as_its_shortcut(block: str, se_reduction: int) -> None:
    torch.manual_seed(0)
    model = build_model(
        small_arch(block=block, zero_init=True, se_reduction=se_reduction), ImageShape(channels=3, size=8, classes=4)
    )
    checked = 0
    for module in model.modules():
        if not isinstance(module, ResidualBlock):
            continue
        seen: list[torch.Tensor] = []
        handle = module.register_forward_hook(lambda _module, inputs, output, seen=seen: seen.extend([inputs[0], output]))
        for mode in (True, False):
            with torch.no_grad():
                model.train(mode)(images_for(ImageShape(channels=3, size=8, classes=4)))
        handle.remove()
        for before, after in (seen[:2], seen[2:]):
            if before.shape == after.shape:
                assert torch.equal(after, before) or torch.equal(after, ACTIVATIONS["relu"]()(before))
                checked += 1
    assert checked >= 4


@pytest.mark.parametrize("block", BLOCKS)
def test_without_zero_init_a_block_does_more_than_its_shortcut_and_has_no_bias(block: str) -> None:
    torch.manual_seed(0)
    model = build_model(small_arch(block=block), ImageShape(channels=3, size=8, classes=4)).eval()
    assert all(module.bias is None for module in model.modules() if isinstance(module, nn.Conv2d))
    last = model.stages[0][1]
    x = torch.randn(2, 8, 8, 8)
    with torch.no_grad():
        assert not torch.allclose(last(x), x)
        assert not torch.allclose(last(x), F.relu(x))


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("block", BLOCKS)
def test_prediction_is_deterministic_and_does_not_depend_on_the_batch(block: str, stem: str) -> None:
    torch.manual_seed(0)
    arch = small_arch(
        block=block, stem={"type": stem}, dropout=0.5, dropout_place="stem+block", stochastic_depth=0.5, se_reduction=2
    )
    model = build_model(arch, ImageShape(channels=3, size=8, classes=4)).eval()
    images = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        together, again = model(images), model(images)
        alone = torch.cat([model(image[None]) for image in images])
    assert torch.equal(together, again)
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(("kernel", "expected"), [(3, torch.bfloat16), (5, torch.float32)])
def test_depthwise_convolutions_that_are_slow_in_bfloat16_stay_in_float32(kernel: int, expected: torch.dtype) -> None:
    stages = tuple(StageConfig(blocks=2, channels=width, kernel=kernel) for width in (8, 12))
    model = build_model(small_arch(block="separable", stages=stages), ImageShape(channels=3, size=8, classes=4))
    seen: dict[str, torch.dtype] = {}
    for name, module in model.stages.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output.dtype}))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(2, 3, 8, 8)).sum().backward()
    strided = seen.pop("1.0.conv1")
    assert strided == torch.float32
    assert {name: dtype for name, dtype in seen.items() if dtype != torch.bfloat16} == (
        dict.fromkeys(("0.0.conv1", "0.1.conv1", "1.1.conv1"), expected) if expected == torch.float32 else {}
    )
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())
