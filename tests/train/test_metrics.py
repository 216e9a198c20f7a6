"""What predictions are worth, against scikit-learn; classes that weigh alike, in the loss or in what is drawn."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from nas.config import AugmentConfig, BalanceName, TrainConfig
from nas.data.images import ImageSet
from nas.data.loader import Resident, TrainBatches
from nas.train.evaluate import METRICS, ClassCounts

REFERENCES = {
    "accuracy": reference.accuracy_score,
    "balanced_accuracy": reference.balanced_accuracy_score,
    "macro_f1": lambda labels, predicted: reference.f1_score(labels, predicted, average="macro", zero_division=0.0),
}
CPU = torch.device("cpu")
PLAIN = AugmentConfig(crop_padding=0, flip="none")


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("classes", [2, 3, 12])
def test_metric_is_scikit_learns_also_where_a_class_is_never_there_or_never_predicted(name: str, classes: int) -> None:
    rng = np.random.default_rng(classes)
    for count in (1, 4, 50, 500):
        labels = np.minimum(rng.geometric(0.4, count) - 1, classes - 1)
        predicted = np.where(rng.random(count) < 0.6, labels, rng.integers(0, classes, count))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that were predicted and are not there
            expected = REFERENCES[name](labels, predicted)
        assert METRICS[name](ClassCounts.of(labels, predicted, classes)) == pytest.approx(expected, abs=1e-12)


def test_a_network_that_knows_the_commonest_class_alone_is_worth_little_by_metrics_of_classes() -> None:
    counts = ClassCounts.of(np.repeat([0, 1, 2], [98, 1, 1]), np.zeros(100, np.int64), 3)
    values = {name: metric(counts) for name, metric in METRICS.items()}
    assert values["accuracy"] == 0.98
    assert values["balanced_accuracy"] == pytest.approx(1 / 3)
    assert values["macro_f1"] == pytest.approx((2 * 98 / 198) / 3)


LABELS = np.repeat([0, 1, 2, 4], [600, 60, 6, 30])


def batches(indices: np.ndarray | None = None, balanced: bool = False, seed: int = 0) -> TrainBatches:
    """Of images that are their own number in the set."""
    images = np.arange(len(LABELS), dtype=np.uint32).view(np.uint8).reshape(-1, 1, 1, 4).repeat(8, 1).repeat(8, 2)
    data = Resident(ImageSet(images, LABELS), [0.0] * 4, [1.0] * 4, CPU, indices)
    recipe = TrainConfig(batch_size=16, augment=PLAIN, class_balance="sampling" if balanced else "none")
    return TrainBatches(data, recipe, seed, 5)


@pytest.mark.parametrize("indices", [None, np.arange(0, len(LABELS), 2)], ids=["all", "chosen"])
def test_weights_of_classes_are_scikit_learns(indices: np.ndarray | None) -> None:
    labels = LABELS if indices is None else LABELS[indices]
    weights = batches(indices).class_weights()
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    assert weights[[0, 1, 2, 4]].tolist() == pytest.approx(expected)
    assert weights[3] == 0
    assert weights[torch.from_numpy(labels)].mean() == pytest.approx(1.0)


@pytest.mark.parametrize("indices", [None, np.arange(0, len(LABELS), 2)], ids=["all", "chosen"])
def test_a_balanced_epoch_draws_every_class_as_often_and_its_own_images(indices: np.ndarray | None) -> None:
    seen = np.zeros(5)
    made = batches(indices, balanced=True)
    for epoch in range(12):
        for images, labels in made.epoch(epoch):
            own = LABELS[images[:, :, 0, 0].numpy().astype(np.uint8).copy().view(np.uint32)[:, 0]]
            assert own.tolist() == labels.tolist()
            seen += np.bincount(labels.numpy(), minlength=5)
    assert seen[3] == 0
    assert seen[[0, 1, 2, 4]] / seen.sum() == pytest.approx([0.25] * 4, abs=0.02)


def test_a_balanced_epoch_follows_from_its_seed_and_goes_on_within() -> None:
    def labels(epoch: int, first: int = 0, seed: int = 0) -> list[list[int]]:
        return [labels.tolist() for _, labels in batches(balanced=True, seed=seed).epoch(epoch, first)]

    assert labels(3) == labels(3)
    assert labels(3)[5:] == labels(3, first=5)
    assert labels(3) != labels(4)
    assert labels(3) != labels(3, seed=1)
    assert len(labels(3)) == len(LABELS) // 16


@pytest.mark.parametrize("balance", ["none", "loss", "sampling"])
def test_batches_of_a_recipe_are_drawn_as_it_says(balance: BalanceName) -> None:
    recipe = TrainConfig(batch_size=16, augment=PLAIN, class_balance=balance)
    made = TrainBatches(batches().data, recipe, 0, 5, part=lambda count: slice(0, 5))
    expected = batches(balanced=balance == "sampling").epoch(3)
    assert [labels.tolist() for _, labels in made.epoch(3)] == [labels[:5].tolist() for _, labels in expected]


def test_an_epoch_that_is_not_balanced_is_what_it_was() -> None:
    order = torch.cat([labels for _, labels in batches().epoch(0)])
    assert np.bincount(order.numpy(), minlength=5).sum() == len(LABELS) // 16 * 16
    assert len(set(torch.cat([images[:, :2, 0, 0] for images, _ in batches().epoch(0)]).unbind())) == len(order)


class Bare:
    """The part of a trainer that a loss needs."""

    def __init__(self, weights: torch.Tensor | None, smoothing: float) -> None:
        self.class_weights, self.config = weights, TrainConfig(label_smoothing=smoothing)
        self.train = SimpleNamespace(hardest=None)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_weighted_loss_is_the_same_whole_and_in_parts_and_for_targets_as_shares(smoothing: float) -> None:
    from nas.train.loop import _Trainer

    torch.manual_seed(0)
    logits, labels = torch.randn(12, 5), torch.randint(0, 5, (12,))
    weights = torch.tensor([0.2, 1.0, 3.0, 0.5, 2.0])
    trainer = Bare(weights, smoothing)
    loss = _Trainer.loss(trainer, logits, labels)  # type: ignore[arg-type]
    shares = _Trainer.loss(trainer, logits, F.one_hot(labels, 5).float())  # type: ignore[arg-type]
    parts = [_Trainer.loss(trainer, *part) for part in zip(logits.chunk(3), labels.chunk(3), strict=True)]  # type: ignore[arg-type]
    assert torch.stack(parts).mean() == pytest.approx(float(loss), rel=1e-6)
    assert float(shares) == pytest.approx(float(loss), rel=1e-5)
    if smoothing == 0:
        each = F.cross_entropy(logits, labels, reduction="none")
        assert float((weights[labels] * each).mean()) == pytest.approx(float(loss), rel=1e-6)


def test_without_weights_the_loss_is_torchs_own() -> None:
    from nas.train.loop import _Trainer

    logits, labels = torch.randn(12, 5), torch.randint(0, 5, (12,))
    loss = _Trainer.loss(Bare(None, 0.1), logits, labels)  # type: ignore[arg-type]
    assert torch.equal(loss, F.cross_entropy(logits, labels, label_smoothing=0.1))
