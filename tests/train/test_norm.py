"""BatchNorm's statistics taken from other images, and the test-time augmentations."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.data.loader import Resident
from nas.train.device import pick_precision
from nas.train.evaluate import EVALUATION_BATCH, flip_averaged, flip_shift_averaged, predict_logits, reestimate_norm

CPU = torch.device("cpu")


def resident(images: np.ndarray) -> Resident:
    return Resident(images, None, (0.0,), (1.0,), CPU)


def images(count: int, low: int, high: int) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, (count, 6, 6, 1), dtype=np.uint8)


def test_statistics_become_those_of_the_images() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1, momentum=0.1), nn.Flatten(), nn.Linear(36, 2)).eval()
    shifted = images(2 * EVALUATION_BATCH, 100, 200)
    reestimate_norm(model, resident(shifted), pick_precision(CPU))
    norm = model[0]
    assert norm.running_mean.item() == pytest.approx(shifted.mean(), rel=1e-2)
    assert norm.running_var.item() == pytest.approx(shifted.var(), rel=2e-2)
    assert (norm.momentum, norm.training) == (0.1, False)


def test_weights_stay_and_dropout_stays_off() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(36, 2)).train()
    before = [parameter.clone() for parameter in model.parameters()]
    data = resident(images(64, 0, 256))
    reestimate_norm(model, data, pick_precision(CPU))
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert not any(module.training for module in model.modules())
    first = predict_logits(model, data, pick_precision(CPU))
    assert torch.equal(first, predict_logits(model, data, pick_precision(CPU)))


class Corner(nn.Module):
    """The pixel in the second row, in its second column, as the only logit."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, 1, 1]


def test_flips_and_shifts_by_hand() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)  # 5 in the second row and column, 6 beside it
    assert flip_averaged(Corner(), image).item() == (5 + 6) / 2
    # Shifted along the diagonals that pixel holds 0 and 10; of their mirror images 1 + 2 = row 0, column 3 and row 2, column 1.
    up_left = (image[0, 0, 0, 0] + image[0, 0, 0, 1]) / 2
    down_right = (image[0, 0, 2, 2] + image[0, 0, 2, 3]) / 2
    assert flip_shift_averaged(Corner(), image).item() == pytest.approx(((5 + 6) / 2) / 2 + (up_left + down_right).item() / 4)


def test_shifts_tell_constant_images_nothing_new() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    image = torch.full((2, 1, 4, 4), 7.0)
    assert torch.allclose(flip_shift_averaged(model, image), model(image), atol=1e-5)
