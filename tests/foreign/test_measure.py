"""What networks that are not ours cost, by hand."""

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from nas.config import ImageShape
from nas.foreign.measure import ForeignFacts, Repeat, measure
from tests.foreign.networks import Net, Odd

SHAPE = ImageShape(channels=3, size=8, classes=10)


def of(model: nn.Module, shape: ImageShape = SHAPE) -> ForeignFacts:
    return measure(model, "it", shape)


def test_network_is_counted_and_its_blocks_found() -> None:
    model = Net(num_classes=10).train()  # training is not what is measured
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    found = of(model)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    stem, block, head = 3 * 8 * 9 + 8, 8 * 8 * 9 + 16, 90
    assert found.params == stem + 2 * block + head
    assert found.bytes == 4 * found.params
    assert found.macs == 64 * (3 * 8 * 9 + 2 * (8 * 8 * 9 + 16)) + 80
    assert found.output == (10,)
    assert (found.frozen, found.shared, found.lazy, found.unused, found.unregistered) == (0, (), (), {}, 0)
    assert found.buffers == 2 * (8 + 8 + 1)
    block_macs = 64 * block
    assert found.repeats == (Repeat(name="body.1", kind="Block", shape=(8, 8, 8), params=block, macs=block_macs, count=2),)
    assert [(part.name, part.params) for part in found.parts] == [
        ("stem", stem),
        ("body.0", block),
        ("body.1", block),
        ("head", head),
    ]
    assert sum(layer.params for layer in found.layers) == found.params
    more = of(Net(blocks=3, num_classes=10))
    assert (more.params, more.macs, more.memory) == (found.params + block, found.macs + block_macs, found.memory)


def test_shared_frozen_lazy_and_unused_parameters_count_once_and_are_named() -> None:
    found = of(Odd())
    assert ForeignFacts.from_json(found.to_json()) == found
    assert found.params == (3 * 8 * 9 + 8) + (8 * 8 * 9 + 8) + 8 + 16 + (8 * 64 * 10 + 10) + 30
    assert found.shared == (("second.weight", "third.weight"),)
    assert found.frozen == 8
    assert found.lazy == ("lazy.weight", "lazy.bias")
    assert found.unused == {"never": 30}
    assert sum(layer.params for layer in found.layers) == found.params == sum(part.params for part in found.parts)
    assert found.layers[-1].output == ()


class Returns(nn.Module):
    def __init__(self, result: Any) -> None:
        super().__init__()
        self.head = nn.Linear(3, 10)
        self.result = result

    def forward(self, x: Tensor) -> Any:
        return self.result(self.head(x.mean((2, 3))))


@pytest.mark.parametrize(
    ("result", "output"),
    [
        (lambda y: y, (10,)),
        (lambda y: (y, None), (10,)),
        (lambda y: {"out": y}, (10,)),
        (lambda y: "nothing", None),
        (lambda y: y[:, :3], (3,)),
    ],
)
def test_whatever_it_returns_is_looked_into(result: Any, output: tuple[int, ...] | None) -> None:
    found = of(Returns(result))
    assert found.output == output
    assert found.params == 40


def test_network_that_cannot_be_traced_is_counted_all_the_same() -> None:
    class Once(nn.Module):
        """Runs no more than twice."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 10)
            self.runs = 0

        def forward(self, x: Tensor) -> Tensor:
            self.runs += 1
            if self.runs > 2:
                raise ValueError("once more")
            return self.head(x.mean((2, 3)))

    found = of(Once())
    assert (found.params, found.macs, found.macs_unknown) == (40, None, "ValueError: once more")


@pytest.mark.parametrize(
    ("name", "params"), [("resnet18", 11_181_642), ("squeezenet1_1", 727_626), ("mobilenet_v3_small", 1_528_106)]
)
def test_models_of_torchvision_have_their_parameters(name: str, params: int) -> None:
    model = torchvision.models.get_model(name, num_classes=10)
    found = of(model, ImageShape(channels=3, size=32, classes=10))
    assert found.params == params == sum(weight.numel() for weight in model.parameters())
    assert sum(part.params for part in found.parts) == sum(layer.params for layer in found.layers) == params
    assert found.macs_uncounted == {}
    if name == "resnet18":
        assert [block.name for block in found.repeats] == ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]
        assert [part.name for part in found.parts][-3:] == ["layer4.0", "layer4.1", "fc"]
