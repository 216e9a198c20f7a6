"""Which images a retraining trains on and is judged on."""

from dataclasses import replace

import numpy as np
import pytest

from nas.config import DataConfig
from nas.data.images import Dataset, ImageSet
from nas.data.splits import DataSelection, select_data, split
from nas.errors import ConfigError, DataError

CONFIG = DataConfig(dataset="folder", folder="x", validation=0.2)


def dataset(labels: list[int]) -> Dataset:
    of = np.array(labels, np.int64)
    images = np.zeros((len(of), 4, 4, 1), np.uint8)
    test = ImageSet(images[:3], of[:3])
    classes = tuple(str(label) for label in range(max(labels) + 1))
    return Dataset("made", classes, ImageSet(images, of), None, test, (0.0,), (1.0,))


def test_everything_trains_unless_told_otherwise() -> None:
    chosen = select_data(dataset([0, 1] * 50), CONFIG, DataSelection())
    assert chosen.train is None
    assert chosen.hold_out is None
    assert chosen.train_images == 100


def test_held_out_images_neither_train_nor_chose_in_the_search() -> None:
    data = dataset([0] * 60 + [1] * 40)
    chosen = select_data(data, CONFIG, DataSelection(hold_out=0.1))
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
    whole, part = (select_data(data, CONFIG, DataSelection(hold_out=0.1, subset=subset)) for subset in (None, 20))
    assert part.train_images == 20
    assert set(part.train_indices) <= set(whole.train_indices)
    assert whole.hold_out is not None
    assert part.hold_out is not None
    assert part.hold_out.tolist() == whole.hold_out.tolist()


def test_test_labels_train_only_where_asked_and_are_never_held_out() -> None:
    data = dataset([0, 1] * 50)
    chosen = select_data(data, CONFIG, DataSelection(include_test_labels=True, hold_out=0.1))
    assert chosen.train_images == 93
    assert chosen.hold_out is not None
    assert chosen.hold_out.max() < 100


@pytest.mark.parametrize("share", [-0.1, 0.6])
def test_share_that_means_nothing_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"--hold-out takes a share of the images above 0 and up to 0.5"):
        select_data(dataset([0, 1] * 50), CONFIG, DataSelection(hold_out=share))


def test_class_with_nothing_to_hold_out_is_named() -> None:
    with pytest.raises(DataError, match="class '1' has too few images to hold one out"):
        select_data(dataset([0] * 50 + [1, 1]), CONFIG, DataSelection(hold_out=0.1))


def test_test_images_join_the_others_where_they_lie() -> None:
    data = dataset([0, 1] * 50)
    chosen = select_data(data, CONFIG, DataSelection(include_test_labels=True))
    assert data.test is not None
    assert chosen.images.arrays[0] is data.train.images
    assert chosen.images.arrays[1] is data.test.images


# ------------------------------------------------------------------------------------------------------------- groups


def grouped(labels: list[int], groups: list[int]) -> Dataset:
    made = dataset(labels)
    owners = np.array(groups, np.int64)
    names = tuple(f"patient {i}" for i in range(max(groups) + 1))
    return replace(made, train=replace(made.train, groups=owners), test=None, groups=names)


@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_no_group_is_parted_between_what_trains_what_chose_and_what_is_held_out(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    owners = rng.integers(0, 60, 900)
    data = grouped((rng.random(900) < 0.2).astype(int).tolist(), owners.tolist())
    config = CONFIG.model_copy(update={"seed": seed})
    chosen = select_data(data, config, DataSelection(hold_out=share))
    selected = split(data, config).validation
    assert chosen.hold_out is not None
    assert selected is not None
    held_out = set(owners[chosen.hold_out])
    assert not held_out & set(owners[chosen.train_indices])
    assert not held_out & set(owners[selected])
    assert set(selected) <= set(chosen.train_indices), "those that chose train now"
    assert sorted([*chosen.hold_out, *chosen.train_indices]) == list(range(900))
    assert len(chosen.hold_out) == pytest.approx(share * 900, abs=30)
    assert data.train.labels[chosen.hold_out].mean() == pytest.approx(data.train.labels.mean(), abs=0.05)


def test_class_whose_groups_cannot_be_held_out_is_named() -> None:
    """Of its two groups one chose in the search."""
    data = grouped([0] * 60 + [1] * 20, [i % 12 for i in range(60)] + [i % 2 for i in range(20)])
    with pytest.raises(DataError, match="the groups of class '1' are too few to hold some out and train on others") as refused:
        select_data(data, CONFIG, DataSelection(hold_out=0.2))
    assert refused.value.hint == "leave --hold-out away, or add images of other groups to the class"


def test_name_says_what_was_trained_on() -> None:
    assert DataSelection().suffix == ""
    assert DataSelection(True, 100, 0.25).suffix == "-hold-out-25-subset-100-with-test-labels"


def test_own_validation_images_of_a_data_set_train_too() -> None:
    data = dataset([0, 1] * 50)
    assert select_data(replace(data, validation=data.test), CONFIG, DataSelection()).train_images == 103
