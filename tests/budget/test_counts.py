"""Parameters, multiply-adds, peak memory and layers, against sums by hand and torchinfo's. A float32 has 4 bytes."""

import subprocess
import sys
from collections.abc import Callable

import fvcore.nn
import pytest
import torch
import torchinfo
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import nas.budget.counts
from nas.budget import Layer, calls_of, count_macs, count_params, follow, layers_of, macs_of, params_of, peak_memory
from nas.config import ArchConfig, BlockName, ImageShape, StemConfig
from nas.models import build_model
from nas.paths import shipped_names
from nas.space.space_file import CIFAR10, load_preset
from tests.reported import REPORTED, arch_of

SMALL = arch_of(8, 16)


def test_parameters_are_counted_without_allocating_any(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[nn.Module] = []
    monkeypatch.setattr(nas.budget.counts, "build_model", lambda *a: built.append(build_model(*a)) or built[-1])
    count_params(SMALL, CIFAR10)
    (network,) = built
    assert {tensor.device.type for tensor in [*network.parameters(), *network.buffers()]} == {"meta"}


def test_counting_leaves_random_numbers_threads_and_attention_alone() -> None:
    before = torch.get_num_threads()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    try:
        torch.set_num_threads(3)
        count_params(SMALL, CIFAR10)
        count_macs(SMALL, CIFAR10)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.rand(3), expected)
    assert torch.backends.mha.get_fastpath_enabled()


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
    assert macs_of(build_model(SMALL, CIFAR10).eval(), torch.zeros(1, 3, 32, 32)).products == convolutions


class Applies(nn.Module):
    """A function of an image and random weights."""

    def __init__(self, function: Callable[..., Tensor], *weights: tuple[int, ...]) -> None:
        super().__init__()
        self.function, self.weights = function, nn.ParameterList([torch.rand(shape) for shape in weights])

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.weights)


class Attends(nn.Module):
    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.weights)[0]


# The module, the image's shape, and by hand: each weight or pair of values at each place where it is used.
PRODUCTS: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {
    "convolution of 1 dimension, same": (nn.Conv1d(4, 6, 3, padding="same"), (4, 8), 6 * 4 * 3 * 8),
    "convolution in groups, same": (nn.Conv2d(4, 6, 3, padding="same", groups=2), (4, 8, 8), 6 * 2 * 9 * 64),
    "convolution of even size, dilated, same": (nn.Conv2d(4, 6, 4, padding="same", dilation=2), (4, 8, 8), 6 * 4 * 16 * 64),
    "convolution in strides, valid": (nn.Conv2d(4, 6, 3, stride=2, padding="valid"), (4, 8, 8), 6 * 4 * 9 * 3 * 3),
    "convolution padded by a number": (nn.Conv2d(4, 6, 3, padding=1), (4, 8, 8), 6 * 4 * 9 * 64),
    "transposed convolution": (nn.ConvTranspose2d(4, 6, 3), (4, 8, 8), 4 * 6 * 9 * 64),
    "deformable convolution": (
        Applies(lambda x, w: torchvision.ops.deform_conv2d(x, torch.zeros(1, 18, 8, 8), w, padding=1), (6, 2, 3, 3)),
        (4, 8, 8),
        6 * 2 * 9 * 64,
    ),
    "bilinear": (Applies(lambda x, w: F.bilinear(x, x[..., :3], w), (5, 8, 3)), (7, 8), 7 * 5 * (8 * 3 + 3)),
    "tensordot": (Applies(lambda x, w: torch.tensordot(x, w, ([2], [1])), (5, 8)), (7, 8), 7 * 5 * 8),
    "inner": (Applies(torch.inner, (5, 8)), (7, 8), 7 * 5 * 8),
    "einsum": (Applies(lambda x, w: torch.einsum("bij,jk->bik", x, w), (8, 2)), (7, 8), 7 * 8 * 2),
    "matmul": (Applies(torch.matmul, (8, 5)), (7, 8), 7 * 8 * 5),
    "matmul that repeats its image": (Applies(lambda x, w: x[:, None] @ w, (3, 8, 2)), (7, 8), 3 * 7 * 8 * 2),
    "matmul of a vector": (Applies(torch.matmul, (8,)), (7, 8), 7 * 8),
    "matmul with a vector": (Applies(lambda x, w: w @ x[0], (7,)), (7, 8), 7 * 8),
    "baddbmm": (Applies(lambda x, w: torch.baddbmm(x[..., :2], x, w), (1, 8, 2)), (7, 8), 7 * 8 * 2),
    "mv": (Applies(lambda x, w: torch.mv(x[0], w), (8,)), (7, 8), 7 * 8),
    "addmv": (Applies(lambda x, w: torch.addmv(w[:7], x[0], w), (8,)), (7, 8), 7 * 8),
    "dot": (Applies(lambda x, w: torch.dot(x[0], w), (8,)), (8,), 8),
    "outer": (Applies(lambda x, w: torch.outer(x[0], w), (8,)), (7,), 7 * 8),
    "kron": (Applies(lambda x, w: torch.kron(x[0], w), (2, 3)), (7, 8), 7 * 8 * 2 * 3),
    # 7 tokens of 8 values in 2 heads: projections, and products of queries, keys and values.
    "attention": (Attends(weights=False), (7, 8), 7 * 8 * 24 + 7 * 8 * 8 + 2 * 2 * 7 * 7 * 4),
    "attention that tells its weights": (Attends(weights=True), (7, 8), 7 * 8 * 24 + 7 * 8 * 8 + 2 * 2 * 7 * 7 * 4),
}


@pytest.fixture(params=["fvcore", "torch"])
def counter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("nas.budget.macs.FVCORE_FAILED", None if request.param == "fvcore" else "a test says so")
    return str(request.param)


@pytest.mark.parametrize("product", PRODUCTS)
def test_multiplications_are_counted_by_hand(counter: str, product: str) -> None:
    model, shape, macs = PRODUCTS[product]
    found = macs_of(model.eval(), torch.zeros(1, *shape))
    unseen = counter == "torch" and product in ("outer", "kron")  # for torch they multiply elements
    assert (found.total, found.uncounted) == (0 if unseen else macs, {})


def test_products_alone_are_what_papers_state(counter: str) -> None:
    """Table 4 of arXiv 1905.02244 has 56 M."""
    found = macs_of(torchvision.models.mobilenet_v3_small().eval(), torch.zeros(1, 3, 224, 224))
    assert (round(found.total / 1e6, 2), round(found.products / 1e6, 2)) == (59.65, 56.51)


NORMS = [
    nn.BatchNorm2d(3, affine=False),
    nn.InstanceNorm2d(3),
    nn.GroupNorm(3, 3),
    nn.GroupNorm(1, 3, affine=False),
    nn.LayerNorm(8),
]
RESIZES = [nn.Upsample(scale_factor=2), nn.UpsamplingBilinear2d(scale_factor=2), nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(2)]


@pytest.mark.parametrize("layer", [*NORMS, *RESIZES, torchvision.models.mobilenet_v3_small(num_classes=10)])
def test_torch_counts_as_fvcore_does(layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    by_fvcore = macs_of(layer.eval(), torch.zeros(1, 3, 8, 8))
    monkeypatch.setattr("nas.budget.macs.FVCORE_FAILED", "a test says so")
    by_torch = macs_of(layer, torch.zeros(1, 3, 8, 8))
    assert by_torch.total == by_fvcore.total > 0
    assert by_torch.products == by_fvcore.products
    assert by_torch.by_module.items() <= by_fvcore.by_module.items()
    assert params_of(layer) == fvcore.nn.parameter_count(layer)[""]


@pytest.mark.parametrize("preset", [*shipped_names("preset"), "everything"])
def test_torch_counts_every_preset_as_fvcore_does(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = EVERYTHING if preset == "everything" else load_preset(preset).candidate.arch
    by_fvcore = count_params(arch, CIFAR10), count_macs(arch, CIFAR10)
    monkeypatch.setattr("nas.budget.macs.FVCORE_FAILED", "a test says so")
    assert (count_params(arch, CIFAR10), count_macs(arch, CIFAR10)) == by_fvcore


def test_torch_counts_where_fvcore_cannot_be_imported() -> None:
    code = """if True:
        import sys
        sys.modules["fvcore"] = None  # its import fails
        from nas.budget import count_macs, count_params
        from nas.config import ArchConfig, ImageShape
        arch, shape = (kind.model_validate_json(text) for kind, text in zip((ArchConfig, ImageShape), sys.argv[1:]))
        print(count_params(arch, shape), count_macs(arch, shape))
    """
    said = subprocess.run([sys.executable, "-c", code, SMALL.to_json(), CIFAR10.to_json()], capture_output=True, text=True)
    assert said.stdout.split() == [str(count_params(SMALL, CIFAR10)), str(count_macs(SMALL, CIFAR10))], said.stderr
    assert said.stderr.count("fvcore cannot be imported (ModuleNotFoundError: ") == 1


def test_multiplications_without_a_rule_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recurs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = nn.LSTM(8, 4, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.recurrent(x)[0][:, -1])

    found = macs_of(Recurs().eval(), torch.zeros(1, 5, 8))
    assert (found.total, found.uncounted) == (8, {"lstm": 1})
    assert found.by_module["head"] == 8
    assert macs_of(nn.Upsample(scale_factor=2, mode="bilinear"), torch.zeros(1, 3, 4, 4)).uncounted == {}
    chain = Applies(lambda x, *w: torch.linalg.multi_dot([x[0], *w]), (8, 5), (5, 2))
    found = macs_of(chain, torch.zeros(1, 7, 8))
    assert (found.total, found.uncounted) == (0, {"linalg_multi_dot": 1})
    monkeypatch.setattr("nas.budget.macs.FVCORE_FAILED", "a test says so")
    found = macs_of(chain, torch.zeros(1, 7, 8))
    assert (found.total, found.uncounted) == (8 * 5 * 2 + 7 * 8 * 2, {}), "torch takes it apart, in the cheapest order"


SHAPE = ImageShape(channels=3, size=8, classes=10)
IMAGE = 3 * 8**2 * 4
MAP = 8**2 * 4
"""One channel of a map as large as the image."""


# The image has 3 channels.
LAYERS = {
    "a convolution holds its input and its output": (nn.Conv2d(3, 5, 3, padding=1), IMAGE + 5 * MAP),
    "the worst is the first, and then the image is gone": (
        nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 2, 1), nn.Conv2d(2, 4, 1)),
        (3 + 16) * MAP,
    ),
    "the worst is the last": (nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 16, 1)), (2 + 16) * MAP),
    "a view shares what it views": (nn.Sequential(nn.Flatten(), nn.Linear(3 * 8**2, 10)), IMAGE + 10 * 4),
    "an operation in place makes nothing": (nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(inplace=True)), IMAGE + 5 * MAP),
    "where the maxima were is not kept": (nn.MaxPool2d(2), IMAGE + IMAGE // 4),
    "nor of all": (nn.AdaptiveMaxPool2d(1), IMAGE + 3 * 4),
}


def of(layers: nn.Module, *size: int) -> int:
    return follow(layers.eval().to("meta"), torch.empty(1, *size, device="meta")).peak


@pytest.mark.parametrize("what", LAYERS)
def test_peak_of_layers_is_counted_by_hand(what: str) -> None:
    layers, peak = LAYERS[what]
    assert of(layers, 3, 8, 8) == peak


def test_the_image_counts_as_long_as_it_is_read() -> None:
    class Again(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            wide = torch.cat([image, image], 1)
            return torch.cat([wide.relu(), image], 1)

    # The image, its double's activation, and all three together; the double itself was read before.
    assert of(Again(), 3, 8, 8) == IMAGE + 2 * IMAGE + 3 * IMAGE


def test_what_a_variable_still_names_but_nothing_reads_is_not_counted() -> None:
    class Keeps(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            first = image.relu()
            second = first.relu()
            return second.relu()

    assert of(Keeps(), 3, 8, 8) == 2 * IMAGE


def test_weights_are_not_among_it() -> None:
    assert of(nn.Linear(2, 3), 2) == (2 + 3) * 4
    heavy, light = arch_of(8, stem=StemConfig(kernel=15)), arch_of(8, stem=StemConfig(kernel=1))
    assert peak_memory(heavy, SHAPE) == peak_memory(light, SHAPE)


# By hand, at the worst moment: maps as large as the image, of so many channels.
PEAKS = {
    "basic: the block's input, the convolution's output and its BatchNorm's": (arch_of(8), 3 * 8 * MAP),
    "first block of a wider stage, at the shortcut's BatchNorm: both branches": (arch_of(8, 64), 3 * 64 * MAP // 4),
    "a stage a little wider: as before, but that the first stage has its own worst moment": (arch_of(8, 32), 3 * 8 * MAP),
    "preact: the raw input, its BatchNorm's output, and the activated one": (arch_of(8, block="preact"), 3 * 8 * MAP),
    "bottleneck: the input, the third convolution's output and its BatchNorm's": (arch_of(64, block="bottleneck"), 3 * 64 * MAP),
    "squeeze and excitation: input, branch, factors and product": (arch_of(8, se_reduction=4), 3 * 8 * MAP + 8 * 4),
    "whitening stem: 24 whitened channels and their activation": (arch_of(8, stem=StemConfig(type="whitening")), 2 * 24 * MAP),
}


@pytest.mark.parametrize("moment", PEAKS)
def test_peak_of_a_network_is_counted_by_hand(moment: str) -> None:
    arch, peak = PEAKS[moment]
    assert peak_memory(arch, SHAPE) == peak


@pytest.mark.parametrize("block", ["basic", "preact", "bottleneck"])
def test_memory_grows_with_channels_and_images_and_not_with_depth(block: BlockName) -> None:
    peaks = [peak_memory(arch_of(c, 2 * c, block=block), SHAPE) for c in (8, 16, 24, 64)]
    assert peaks == sorted(set(peaks))
    larger = ImageShape(channels=3, size=16, classes=10)
    assert peak_memory(arch_of(8, block=block), larger) == 4 * peak_memory(arch_of(8, block=block), SHAPE)
    assert peak_memory(arch_of(8, blocks=5, block=block), SHAPE) == peak_memory(arch_of(8, block=block), SHAPE)


@pytest.mark.parametrize("fields", [{"dropout": 0.3}, {"stochastic_depth": 0.5}, {"zero_init": True}, {"norm_momentum": 0.5}])
def test_what_only_trains_costs_none(fields: dict[str, object]) -> None:
    assert peak_memory(arch_of(8, 16, **fields), SHAPE) == peak_memory(arch_of(8, 16), SHAPE)


@pytest.mark.parametrize("block", ["basic", "preact", "bottleneck"])
def test_it_is_the_same_on_the_meta_device_and_on_a_real_one(block: BlockName) -> None:
    arch = arch_of(8, 24, block=block, se_reduction=4, downsample="maxpool", pool="max")
    assert follow(build_model(arch, SHAPE).eval(), torch.zeros(1, 3, 8, 8)).peak == peak_memory(arch, SHAPE)


EVERYTHING = arch_of(
    16,
    32,
    blocks=2,
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
    class Prepends(Attends):
        def __init__(self) -> None:
            super().__init__(weights=True)
            self.token = nn.Parameter(torch.zeros(1, 1, 8))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.cat([self.token, x], 1))

    # The projection after the attention is a module that is never called: its weights are handed over.
    inside = 3 * 8 * 8 + 3 * 8 + 8 * 8 + 8
    assert layers(Prepends(), 5, 8) == [
        Layer("", "Prepends", (6, 8), 8),
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
