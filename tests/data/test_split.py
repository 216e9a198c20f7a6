"""Which images train and which choose: disjoint, in each class's share, and fixed by labels and seed alone."""

import numpy as np
import pytest

from nas.config import DataConfig
from nas.data.datasets import Dataset, ImageSet, split, stratified
from nas.errors import DataError


def made(counts: list[int], validation: bool = False) -> Dataset:
    """A data set of these many images a class, in mixed order."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    images = np.zeros((len(labels), 8, 8, 1), np.uint8)
    part = ImageSet(images, labels)
    return Dataset("made", tuple(f"c{i}" for i in range(len(counts))), part, part if validation else None, None, (0.0,), (1.0,))


def test_split_is_disjoint_and_whole() -> None:
    data = made([100, 50, 7])
    parts = split(data, DataConfig(dataset="made"))
    assert parts.validation is not None
    assert sorted([*parts.train, *parts.validation]) == list(range(157))


def test_split_gives_each_class_its_share() -> None:
    data = made([100, 50, 7, 2])
    parts = split(data, DataConfig(dataset="made", validation=0.1))
    assert parts.validation is not None
    assert np.bincount(data.train.labels[parts.validation]).tolist() == [10, 5, 1, 1]
    assert len(parts.validation) == 17


def test_split_follows_from_labels_and_seed_alone() -> None:
    data = made([60, 60])
    first, same, other = (split(data, DataConfig(dataset="made", seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.validation, same.validation)
    np.testing.assert_array_equal(first.train, same.train)
    assert first.validation is not None
    assert other.validation is not None
    assert first.validation.tolist() != other.validation.tolist()


def test_subset_leaves_the_validation_images_as_they_are() -> None:
    data = made([100, 50, 10])
    whole = split(data, DataConfig(dataset="made"))
    small = split(data, DataConfig(dataset="made", subset=36))
    np.testing.assert_array_equal(small.validation, whole.validation)
    assert len(small.train) == 36
    assert set(small.train) < set(whole.train)
    assert np.bincount(data.train.labels[small.train]).tolist() == [23, 11, 2]


@pytest.mark.parametrize("subset", [3, 4, 77, 142, 143])
def test_subset_has_exactly_as_many_images_as_were_asked_for_and_some_of_each_class(subset: int) -> None:
    data = made([150, 6, 4])
    small = split(data, DataConfig(dataset="made", subset=subset)).train
    assert len(small) == len(set(small.tolist())) == subset
    assert set(data.train.labels[small].tolist()) == {0, 1, 2}


@pytest.mark.parametrize("subset", [1, 2, 144])
def test_subset_of_fewer_images_than_classes_or_more_than_there_are_is_refused(subset: int) -> None:
    with pytest.raises(DataError) as refused:
        split(made([150, 6, 4]), DataConfig(dataset="made", subset=subset))
    assert refused.value.message == (
        "--train-subset takes at least one image of each of the 3 classes and at most the 143 that are there to train on, "
        f"not {subset}"
    )


def test_subset_of_classes_that_are_left_with_a_single_image_is_taken() -> None:
    data = made([2, 2, 20])
    assert len(split(data, DataConfig(dataset="made", subset=10)).train) == 10


def test_class_with_a_single_image_cannot_be_split() -> None:
    with pytest.raises(DataError) as refused:
        split(made([20, 1]), DataConfig(dataset="made"))
    assert refused.value.message == (
        "class 'c1' has a single image; each class needs at least two, one to train and one to choose"
    )
    assert refused.value.hint == "add images to it, or leave the class out"


def test_validation_images_of_the_data_set_itself_are_taken_as_they_are() -> None:
    parts = split(made([20, 1], validation=True), DataConfig(dataset="made"))
    assert parts.validation is None
    assert parts.train.tolist() == list(range(21))


def test_shares_are_kept_for_any_counts() -> None:
    """Neither side of a split lacks a class, no class is off its share by more than rounding, and sizes are exact."""
    rng = np.random.default_rng(1)
    for seed in range(150):
        counts = rng.integers(2, 120, size=rng.integers(2, 12))
        labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        share = rng.uniform(0.02, 0.98)
        taken = np.bincount(labels[stratified(labels, share, seed)], minlength=len(counts))
        assert ((taken >= 1) & (taken < counts)).all()
        assert (np.abs(taken - np.clip(counts * share, 1, counts - 1)) <= 1).all()
        total = int(rng.integers(len(counts), len(labels) + 1))
        subset = stratified(labels, total / len(labels), seed, total=total)
        assert len(np.unique(subset)) == total
        assert (np.bincount(labels[subset], minlength=len(counts)) >= 1).all()
