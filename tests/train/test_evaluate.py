"""Evaluation against a plain loop over single images; metrics against scikit-learn; BatchNorm's statistics taken anew."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas.config import ArchConfig, AugmentConfig, ImageShape, StageConfig
from nas.data.images import ImageSet
from nas.data.loader import Resident
from nas.device import Precision, pick_precision
from nas.models import build_model
from nas.train.evaluate import (
    EVALUATION_BATCH,
    TTA,
    Scores,
    Stopped,
    evaluate,
    fitting_tta,
    predict_logits,
    reestimate_norm,
    tally,
)

FP32 = Precision(None, False, "for the test")
BF16 = Precision(torch.bfloat16, False, "for the test")
MEAN, STD = (100.0, 120.0, 90.0), (50.0, 60.0, 70.0)


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    arch = ArchConfig(stages=(StageConfig(blocks=1, channels=6),), dropout=0.5, dropout_place="stem+block", stochastic_depth=0.5)
    model = build_model(arch, ImageShape(channels=3, size=8, classes=4))
    with torch.no_grad():
        model.train()(torch.randn(64, 3, 8, 8))  # BatchNorm's statistics are not those it starts with
    return model


def data(count: int = 23, indices: np.ndarray | None = None) -> Resident:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
    return Resident(ImageSet(images, rng.integers(0, 4, count)), MEAN, STD, torch.device("cpu"), indices)


def views_of(image: torch.Tensor, tta: str) -> list[tuple[float, torch.Tensor]]:
    """With the weight of each."""
    if tta == "none":
        return [(1.0, image)]
    if tta == "flip":
        return [(0.5, image), (0.5, image.flip(2))]
    assert tta == "flip_shift"
    size = image.shape[-1]
    mirrored = F.pad(image, (1, 1, 1, 1), mode="reflect")
    shifted = [mirrored[:, at : at + size, at : at + size] for at in (0, 2)]
    return [
        (0.25, image),
        (0.25, image.flip(2)),
        *((0.125, view) for one in shifted for view in (one, one.flip(2))),
    ]


def plain_loop(model: torch.nn.Module, resident: Resident, tta: str) -> torch.Tensor:
    """Logits of one image after another, normalised by hand."""
    model.eval()
    rows = []
    for pixels in resident.take(torch.arange(len(resident)))[0]:
        image = (pixels.double() - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        with torch.no_grad():
            rows.append(sum(weight * model(view.float()[None])[0] for weight, view in views_of(image, tta)))
    return torch.stack(rows)


@pytest.mark.parametrize("batch", [5, 23, 1000])
@pytest.mark.parametrize("tta", TTA)
@pytest.mark.parametrize("subset", [None, [3, 4, 9, 22]])
def test_loss_and_accuracy_are_those_of_a_plain_loop(
    model: torch.nn.Module, batch: int, tta: str, subset: list[int] | None
) -> None:
    resident = data(indices=None if subset is None else np.array(subset))
    expected = plain_loop(model, resident, tta)
    labels = resident.labels
    assert labels is not None
    logits = predict_logits(model.train(), resident, FP32, tta, batch=batch)
    assert torch.allclose(logits, expected, atol=1e-4)
    if tta != "none":
        return
    loss, accuracy, *_ = Scores.of(tally(model.train(), resident, FP32, batch=batch))
    assert loss == pytest.approx(F.cross_entropy(expected, labels).item(), abs=1e-4)
    assert accuracy == pytest.approx((expected.argmax(1) == labels).float().mean().item())


def test_logits_come_as_float32_whatever_was_computed_in(model: torch.nn.Module) -> None:
    exact, rough = (predict_logits(model, data(), precision) for precision in (FP32, BF16))
    assert exact.dtype == rough.dtype == torch.float32
    assert torch.allclose(exact, rough, atol=0.1)
    assert not torch.equal(exact, rough)


def test_what_is_predicted_in_float32_is_so_on_cuda_too(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    cudnn, seen = torch.backends.cudnn, []
    monkeypatch.setattr(cudnn, "benchmark", True)  # as in a training
    model.register_forward_pre_hook(lambda *_: seen.append((cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic)))
    for precision in (FP32, BF16):
        predict_logits(model, data(), precision)
    reestimate_norm(model, data(), FP32)
    assert set(seen) == {(False, False, True), (True, True, False)}
    assert seen[0] == seen[-1] == (False, False, True)
    assert (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic) == (True, True, False)


def test_fewer_images_at_a_time_where_memory_runs_out(model: torch.nn.Module) -> None:
    resident, seen = data(), []
    expected = predict_logits(model, resident, FP32)
    copied = copy.deepcopy(model)
    reestimate_norm(copied, resident, FP32)

    def refuse(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(inputs[0]))
        if len(inputs[0]) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(refuse)
    assert torch.allclose(predict_logits(model, resident, FP32), expected, atol=1e-5)
    assert seen == [23, 23, 23, 8, 8, 7]  # up to 500, 125, 31, and 8
    reestimate_norm(model, resident, FP32)
    for name, value in copied.state_dict().items():
        assert torch.allclose(model.state_dict()[name].double(), value.double(), atol=1e-5), name
    model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory.")))
    with pytest.raises(torch.OutOfMemoryError):
        predict_logits(model, resident, FP32)


def test_evaluation_leaves_weights_statistics_and_random_numbers_alone(model: torch.nn.Module) -> None:
    before, random = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    evaluate(model.train(), data(), FP32)
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(("batch", "batches"), [(5, 5), (23, 1), (1000, 1)])
def test_it_may_be_stopped_before_each_batch(model: torch.nn.Module, batch: int, batches: int) -> None:
    for allowed in range(batches + 1):
        asked = []

        def should_stop(asked: list[int] = asked, allowed: int = allowed) -> bool:
            asked.append(1)
            return len(asked) > allowed

        if allowed == batches:
            tally(model, data(), FP32, batch=batch, should_stop=should_stop)
            assert len(asked) == batches
        else:
            with pytest.raises(Stopped):
                tally(model, data(), FP32, batch=batch, should_stop=should_stop)


def test_only_a_network_that_saw_mirrored_images_is_averaged_over_them() -> None:
    assert fitting_tta(AugmentConfig(flip="none")) == "none"
    assert fitting_tta(AugmentConfig(flip="horizontal")) == fitting_tta(AugmentConfig(flip="alternating")) == "flip"


CPU = torch.device("cpu")


def unlabelled(levels: np.ndarray) -> Resident:
    return Resident(levels, (0.0,), (1.0,), CPU)


def levels(count: int, low: int, high: int) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, (count, 6, 6, 1), dtype=np.uint8)


def test_statistics_become_those_of_the_images() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1, momentum=0.1), nn.Flatten(), nn.Linear(36, 2)).eval()
    shifted = levels(2 * EVALUATION_BATCH, 100, 200)
    reestimate_norm(model, unlabelled(shifted), pick_precision(CPU))
    norm = model[0]
    assert norm.running_mean.item() == pytest.approx(shifted.mean(), rel=1e-5)
    assert norm.running_var.item() == pytest.approx(shifted.var(), rel=1e-3)
    assert (norm.momentum, norm.training) == (0.1, False)


def three_norms() -> nn.Module:
    """Whose last maps are 1×1."""
    torch.manual_seed(0)
    parts = [(nn.Conv2d(into, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU()) for into in (1, 4)]
    return nn.Sequential(*(part for three in parts for part in three), nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2))


def adapted(images: np.ndarray, batch: int = EVALUATION_BATCH) -> torch.Tensor:
    """Logits of the first 20 images under the statistics of all."""
    model = three_norms()
    reestimate_norm(model, unlabelled(images), FP32, batch=batch)
    return predict_logits(model, unlabelled(images[:20]), FP32)


@pytest.mark.parametrize("batch", [1, 7, 50, 99])
def test_statistics_are_of_the_images_whatever_the_batches(batch: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (100, 7, 7, 1), dtype=np.uint8)
    assert torch.allclose(adapted(images, batch), adapted(images), atol=1e-4)


def test_statistics_are_those_that_each_layer_sees_of_all_images() -> None:
    images = np.random.default_rng(1).integers(0, 256, (100, 7, 7, 1), dtype=np.uint8)
    model = three_norms()
    whole = next(unlabelled(images).batches(100))[0]
    expected = model.train()(whole)[:20]  # one batch: its own statistics, of a population's variance
    assert torch.allclose(adapted(images), expected, atol=0.03)


def test_one_image_more_changes_next_to_nothing() -> None:
    images = np.random.default_rng(1).integers(0, 256, (EVALUATION_BATCH + 1, 7, 7, 1), dtype=np.uint8)
    images[-1] = 255
    assert torch.allclose(adapted(images[:-1]), adapted(images), atol=0.05)
    assert torch.isfinite(adapted(np.full((1, 7, 7, 1), 9, np.uint8))).all(), "a single image is no error"


def test_weights_stay_and_dropout_stays_off() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(36, 2)).train()
    before = [parameter.clone() for parameter in model.parameters()]
    data = unlabelled(levels(64, 0, 256))
    reestimate_norm(model, data, pick_precision(CPU))
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert not any(module.training for module in model.modules())
    first = predict_logits(model, data, pick_precision(CPU))
    assert torch.equal(first, predict_logits(model, data, pick_precision(CPU)))
