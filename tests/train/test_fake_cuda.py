"""What computes on a GPU, on tensors that only claim to be there: one that is left on the host raises, and so does a read by it.

torch's FakeTensorMode knows the shapes, types and devices of what every operation would give, without a GPU. It does not know
values, so that whatever the host would have to wait for raises there. Backward passes do not work on such tensors: autograd asks
CUDA for its device. So gradients are made up here, and what backward passes do is not seen; on the CPU the reads within whole
steps are counted instead.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode

from nas.config import AugmentConfig, Candidate, ImageShape, OptimiserName, TrainConfig
from nas.data import loader, stream
from nas.data.augment import EXAMPLES
from nas.data.augment.draw import Draw
from nas.data.images import ImageSet
from nas.data.loader import Resident, Rows, TrainBatches
from nas.data.stream import Streamed
from nas.device import Precision
from nas.models import build_model
from nas.models.blocks import BLOCKS
from nas.models.resnet import STEMS
from nas.space.recipes import load_recipe, recipe_names
from nas.train import optimiser
from nas.train.distributed import ALONE
from nas.train.evaluate import TTA, _Moments, predict_logits
from nas.train.loop import _Trainer
from tests.models.test_conformance import VARIATIONS, small_arch, with_stem

GPU = torch.device("cuda", 0)
SHAPE = ImageShape(channels=3, size=8, classes=5)
N, BATCH = 24, 8
FORMATS = {
    name: Precision(kind, kind is torch.float16, "for the test")
    for name, kind in (("fp32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16))
}


class BlockingCopies(TorchDispatchMode):
    """Raises where the host would wait for a copy to or from the GPU."""

    active = False  # while what is computed with is made

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[0] if func is torch.ops.aten._to_copy.default else args[1]
            waits = not ((kwargs or {}).get("non_blocking") or args[2:3] == (True,))
            if self.active and waits and result.device.type != source.device.type:
                raise AssertionError(f"the host waits for a copy from {source.device} to {result.device}")
        return result


class OnHost(torch.Generator):
    def __new__(cls, device: object = None) -> "OnHost":
        return super().__new__(cls)


class IdleStream:
    """In place of CUDA's streams and events."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def working(self) -> AbstractContextManager[object]:
        return nullcontext()

    def nothing(self, *_: Any) -> None:
        pass

    wait_for_consumer = hand_over = record = synchronize = nothing


def gathered(rows: Rows, parts: Iterable[Tensor], size: int, device: torch.device) -> Iterator[Tensor]:
    """As `nas.data.stream.gathered`, without its thread: two at once may not use one FakeTensorMode."""
    slot = stream._Slot(size, rows.shape[1:], device)
    for part in parts:
        slot.fill(rows, part)
        yield slot.send().permute(0, 3, 1, 2)


def fused_sgd(*lists: Sequence[Tensor], grad_scale: Tensor | None, found_inf: Tensor | None, **_: object) -> None:
    """In place of torch's kernel, which has no shape to tell."""
    every = [*chain(*lists), *(one for one in (grad_scale, found_inf) if one is not None)]
    assert {tensor.device for tensor in every} == {GPU}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockingCopies]:
    """Within the test tensors are as on a GPU."""
    if torch.__version__ < (2, 14):  # 2.6 does so; releases between were not tried
        pytest.skip("this torch asks CUDA's driver about a tensor that only claims to be on a GPU")
    monkeypatch.setattr(torch, "Generator", OnHost)
    monkeypatch.setattr(loader, "side_stream", IdleStream)
    monkeypatch.setattr(stream, "gathered", gathered)
    monkeypatch.setattr(torch, "_fused_sgd_", fused_sgd)
    monkeypatch.setattr(torch.cuda, "Event", IdleStream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: None)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(nn.Module, "to", lambda self, *_, **__: self)  # torch cannot move such parameters; they are there
    for name in ("chance", "order", "counts"):  # numbers of the host, which it may read
        monkeypatch.setattr(Draw, name, unset_fake_temporarily()(getattr(Draw, name)))
    with FakeTensorMode(), BlockingCopies() as copies:
        yield copies


def images() -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet(rng.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8), np.arange(N, dtype=np.int64) % SHAPE.classes)


def placed(kind: type[Resident] = Resident) -> Resident:
    return kind(images(), (120.0,) * 3, (60.0,) * 3, GPU)


def network(**changes: Any) -> nn.Module:
    with torch.device(GPU):
        return build_model(small_arch(**changes), SHAPE)


def waiting() -> dict[str, Callable[[Tensor], object]]:
    return {
        "item": lambda x: x.sum().item(),
        "bool": lambda x: bool((x > 0).all()),
        "list": lambda x: x.tolist(),
        "mask": lambda x: x[x > 0],
        "nonzero": lambda x: x.nonzero(),
        "unique": lambda x: x.unique(),
        "repeat": lambda x: x.repeat_interleave(x.long()),
        "host's tensor": lambda x: x + torch.ones(3),
        "host's positions": lambda x: x.index_select(0, torch.tensor([1])),
        "copy": lambda x: x.cpu(),
        "constants": lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=GPU),
    }


@pytest.mark.parametrize("what", waiting())
def test_what_waits_for_the_device_or_lies_elsewhere_raises(gpu: BlockingCopies, what: str) -> None:
    x, gpu.active = torch.ones(3, device=GPU), True
    mismatch = fake_tensor.FakeTensorDeviceMismatchError
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException, mismatch, AssertionError)):
        waiting()[what](x)


@pytest.mark.parametrize("kind", [Resident, Streamed], ids=["resident", "streamed"])
@pytest.mark.parametrize("label", EXAMPLES)
def test_every_augmentation_and_loader(gpu: BlockingCopies, label: str, kind: type[Resident]) -> None:
    data = placed(kind)
    train = TrainBatches(data, TrainConfig(batch_size=BATCH, augment=EXAMPLES[label]), 0, SHAPE.classes)
    gpu.active = True
    for epoch in (0, 1):
        found = list(train.epoch(epoch))
        assert len(found) == N // BATCH
        for pixels, labels in found:
            assert (pixels.device, labels.device) == (GPU, GPU)
            assert (pixels.shape, pixels.dtype) == ((BATCH, 3, 8, 8), torch.float32)


@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize("block", BLOCKS)
def test_every_network(gpu: BlockingCopies, block: str, variation: str) -> None:
    model, gpu.active = network(block=block, **VARIATIONS[variation]), True
    for training in (True, False):
        assert model.train(training)(torch.randn(BATCH, 3, 8, 8, device=GPU)).device == GPU


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("form", FORMATS)
def test_every_stem_in_every_format(gpu: BlockingCopies, stem: str, form: str) -> None:
    model, gpu.active = network(**with_stem({}, stem)).train(), True
    with torch.autocast("cuda", FORMATS[form].autocast, enabled=FORMATS[form].autocast is not None):
        found = model(torch.randn(BATCH, 3, 8, 8, device=GPU))
    assert found.dtype == (FORMATS[form].autocast or torch.float32)


@pytest.mark.parametrize("kind", [Resident, Streamed], ids=["resident", "streamed"])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("tta", TTA)
def test_every_prediction_and_evaluation(gpu: BlockingCopies, tta: str, form: str, kind: type[Resident]) -> None:
    model, data, gpu.active = network(), placed(kind), True
    logits = predict_logits(model, data, FORMATS[form], tta, batch=BATCH)
    assert (logits.device, logits.dtype, logits.shape) == (GPU, torch.float32, (N, SHAPE.classes))


class NoDoubles(TorchDispatchMode):
    """As on MPS."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.float64 and result.device.type != "cpu":
            raise TypeError("MPS has no float64")
        return result


def test_statistics_are_taken_anew_without_float64_on_the_device(gpu: BlockingCopies) -> None:
    with torch.device(GPU):
        norm = nn.BatchNorm2d(3)
    moments = _Moments()
    with NoDoubles():
        moments(norm, (torch.randn(4, 3, 8, 8, device=GPU),))
        with pytest.raises(DataDependentOutputException):  # at its end, where it reads how far they have moved
            moments.give(norm)


RECIPES: dict[str, dict[str, Any]] = {
    **{name: {"optimiser": name} for name in get_args(OptimiserName)},
    "sharpness": {"sam_rho": 0.05},
    "no average": {"ema_epochs": 0.0},
    "smoothing": {"label_smoothing": 0.1},
    "weights of classes": {"class_balance": "loss"},
    "classes drawn": {"class_balance": "sampling"},
    "decay": {"decay_norm_and_bias": True, "norm_bias_lr": 64.0},
    "no momentum": {"momentum": 0.0, "nesterov": False},
    "mixed": {"augment": {"mix": "mixup_or_cutmix", "flip": "alternating"}},
    "hardest": {"hardest": 0.9, "augment": {"flip": "alternating"}, "epoch_images": 3 * BATCH},
}
SHIPPED = [*RECIPES, *(f"recipe {name}" for name in recipe_names() if name != "auto")]


def recipe_of(name: str) -> TrainConfig:
    if name in RECIPES:
        return TrainConfig.model_validate({"epochs": 1, "batch_size": BATCH, **RECIPES[name]})
    candidate = Candidate(arch=small_arch(), train=TrainConfig(augment=AugmentConfig(flip="horizontal")))
    fitted = load_recipe(name.removeprefix("recipe "), 200)[1].fit(candidate, 200).train
    return fitted.model_copy(update={"batch_size": BATCH, "min_steps": 1, "epoch_images": 2 * BATCH})


@pytest.mark.parametrize(
    ("name", "form"),
    [*((name, "fp16") for name in SHIPPED), *((name, "bf16") for name in get_args(OptimiserName)), ("sgd", "fp32")],
)
def test_every_step_but_for_its_backward_pass(gpu: BlockingCopies, monkeypatch: pytest.MonkeyPatch, name: str, form: str) -> None:
    recipe, data, model, average = recipe_of(name), placed(), network(), network()
    # A copy of such a tensor would belong to another mode.
    monkeypatch.setattr(optimiser, "copy", SimpleNamespace(deepcopy=lambda of: average))

    def made_up(loss: Tensor) -> None:
        assert loss.device == GPU
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None

    monkeypatch.setattr(Tensor, "backward", made_up)
    # What is read once, before the first step.
    monkeypatch.setattr(TrainBatches, "class_weights", lambda self: torch.ones(SHAPE.classes, device=GPU))
    with monkeypatch.context() as once:
        once.setattr(torch, "unique_consecutive", lambda *_, **__: (None, torch.ones(SHAPE.classes, device=GPU).long()))
        train = TrainBatches(data, recipe, 0, SHAPE.classes)
    trainer = _Trainer(model, train, recipe, FORMATS[form], 2, ALONE, True, lambda progress: None)
    gpu.active = True
    trainer.run_epoch(lambda: False)
    assert trainer.epoch_step == len(train) > 1
    assert trainer.totals.device == GPU
    if trainer.average:
        assert {tensor.device for tensor in trainer.average.model.state_dict().values()} == {GPU}


# ------------------------------------------------------------------------------------------------- whole steps, on the CPU


class HostReads(TorchDispatchMode):
    """Counts what would make the host wait for a GPU."""

    WAITS = tuple(
        getattr(torch.ops.aten, name)
        for name in (
            *("_local_scalar_dense", "nonzero", "_unique2", "unique_consecutive", "unique_dim", "masked_select", "bincount"),
            *("equal", "is_nonzero", "repeat_interleave", "histc"),
        )
    )

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masks = func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_) and any(
            isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        if func.overloadpacket in self.WAITS or masks:
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("scaled", [False, True], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("name", SHIPPED)
def test_no_step_reads_what_it_computes(name: str, scaled: bool) -> None:
    recipe, cpu = recipe_of(name), torch.device("cpu")
    data = Resident(images(), (120.0,) * 3, (60.0,) * 3, cpu)
    train = TrainBatches(data, recipe, 0, SHAPE.classes)
    model = build_model(small_arch(**VARIATIONS["everything at once"]), SHAPE).train()
    trainer = _Trainer(model, train, recipe, Precision(None, scaled, "for the test"), 2, ALONE, True, lambda progress: None)
    for pixels, labels in train.epoch(0):
        with HostReads() as reads:
            trainer.step(pixels, labels)
        assert reads.seen == []
    assert math.isfinite(float(trainer.totals[0]))


@pytest.mark.parametrize("what", ["item", "bool", "mask", "nonzero", "unique", "repeat"])
def test_reads_are_counted(what: str) -> None:
    with HostReads() as reads:
        waiting()[what](torch.ones(3))
    assert reads.seen
