"""Which images a retraining trains on and is judged on."""

from dataclasses import replace

import numpy as np
import pytest

from nas.config import DataConfig
from nas.data.datasets import Dataset, ImageSet, split
from nas.data.material import Material, choose_material
from nas.errors import ConfigError, DataError

CONFIG = DataConfig(dataset="folder", folder="x", validation=0.2)


def dataset(labels: list[int]) -> Dataset:
    of = np.array(labels, np.int64)
    images = np.zeros((len(of), 4, 4, 1), np.uint8)
    test = ImageSet(images[:3], of[:3])
    classes = tuple(str(label) for label in range(max(labels) + 1))
    return Dataset("made", classes, ImageSet(images, of), None, test, (0.0,), (1.0,))


def test_everything_trains_unless_told_otherwise() -> None:
    chosen = choose_material(dataset([0, 1] * 50), CONFIG, Material())
    assert chosen.train is None
    assert chosen.hold_out is None
    assert chosen.train_images == 100


def test_held_out_images_neither_train_nor_chose_in_the_search() -> None:
    data = dataset([0] * 60 + [1] * 40)
    chosen = choose_material(data, CONFIG, Material(hold_out=0.1))
    assert chosen.hold_out is not None
    assert len(chosen.hold_out) == 10
    assert np.bincount(data.train.labels[chosen.hold_out]).tolist() == [6, 4]
    assert not set(chosen.hold_out) & set(chosen.train_indices)
    assert len(chosen.train_indices) == 90
    selected = split(data, CONFIG).validation
    assert selected is not None
    assert not set(chosen.hold_out) & set(selected)
    assert set(selected) <= set(chosen.train_indices), "those that chose train now"


def test_subset_is_drawn_of_what_is_left_and_the_held_out_images_stay_the_same() -> None:
    data = dataset([0, 1] * 50)
    whole, part = (choose_material(data, CONFIG, Material(hold_out=0.1, subset=subset)) for subset in (None, 20))
    assert part.train_images == 20
    assert set(part.train_indices) <= set(whole.train_indices)
    assert whole.hold_out is not None
    assert part.hold_out is not None
    assert part.hold_out.tolist() == whole.hold_out.tolist()


def test_test_labels_train_only_where_asked_and_are_never_held_out() -> None:
    data = dataset([0, 1] * 50)
    chosen = choose_material(data, CONFIG, Material(include_test_labels=True, hold_out=0.1))
    assert chosen.train_images == 93
    assert chosen.hold_out is not None
    assert chosen.hold_out.max() < 100


@pytest.mark.parametrize("share", [-0.1, 0.6])
def test_share_that_means_nothing_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"--hold-out takes a share of the images above 0 and up to 0.5"):
        choose_material(dataset([0, 1] * 50), CONFIG, Material(hold_out=share))


def test_class_with_nothing_to_hold_out_is_named() -> None:
    with pytest.raises(DataError, match="class '1' has too few images to hold one out"):
        choose_material(dataset([0] * 50 + [1, 1]), CONFIG, Material(hold_out=0.1))


def test_name_says_what_was_trained_on() -> None:
    assert Material().suffix == ""
    assert Material(True, 100, 0.25).suffix == "-hold-out-25-subset-100-with-test-labels"


def test_own_validation_images_of_a_data_set_train_too() -> None:
    data = dataset([0, 1] * 50)
    assert choose_material(replace(data, validation=data.test), CONFIG, Material()).train_images == 103
