"""Which images train and which choose: disjoint, in each class's share, and fixed by labels and seed alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from nas.config import DataConfig
from nas.data.images import Dataset, ImageSet
from nas.data.splits import DataSelection, grouped, select_data, split, stratified
from nas.errors import DataError, NasError

CONFIG = DataConfig(dataset="folder", folder="x", validation=0.2)


def dataset(labels: Sequence[int], groups: Sequence[int] | None = None) -> Dataset:
    """Grey images of 8×8, three of which are the test images, too."""
    of, owners = np.array(labels, np.int64), None if groups is None else np.array(groups, np.int64)
    train = ImageSet(np.zeros((len(of), 8, 8, 1), np.uint8), of, owners)
    classes = tuple(f"c{i}" for i in range(max(labels) + 1))
    names = tuple(f"patient {i}" for i in range(max(groups or [-1]) + 1))
    return Dataset("made", classes, train, None, ImageSet(train.images[:3], of[:3]), (0.0,), (1.0,), groups=names)


def made(counts: list[int]) -> Dataset:
    """A data set of these many images a class, in mixed order."""
    return dataset(np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).tolist())


def test_split_is_disjoint_and_whole_and_gives_each_class_its_share() -> None:
    data = made([100, 50, 7, 2])
    parts = split(data, DataConfig(dataset="made", validation=0.1))
    assert sorted([*parts.train, *parts.validation]) == list(range(159))
    assert np.bincount(data.train.labels[parts.validation]).tolist() == [10, 5, 1, 1]


def test_split_follows_from_labels_and_seed_alone() -> None:
    data = made([60, 60])
    first, same, other = (split(data, DataConfig(dataset="made", seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.validation, same.validation)
    np.testing.assert_array_equal(first.train, same.train)
    assert first.validation.tolist() != other.validation.tolist()
    labels, groups = of_patients(0)
    np.testing.assert_array_equal(grouped(labels, groups, 0.1, 3), grouped(labels, groups, 0.1, 3))
    assert grouped(labels, groups, 0.1, 3).tolist() != grouped(labels, groups, 0.1, 4).tolist()


def test_subset_leaves_the_validation_images_as_they_are() -> None:
    data = made([100, 50, 10])
    whole = split(data, DataConfig(dataset="made"))
    small = split(data, DataConfig(dataset="made", subset=36))
    np.testing.assert_array_equal(small.validation, whole.validation)
    assert len(small.train) == 36
    assert set(small.train) < set(whole.train)
    assert np.bincount(data.train.labels[small.train]).tolist() == [23, 11, 2]


@pytest.mark.parametrize(("counts", "subset"), [*(([150, 6, 4], subset) for subset in (3, 4, 77, 142, 143)), ([2, 2, 20], 10)])
def test_subset_has_exactly_as_many_images_as_were_asked_for_and_some_of_each_class(counts: list[int], subset: int) -> None:
    data = made(counts)
    small = split(data, DataConfig(dataset="made", subset=subset)).train
    assert len(small) == len(set(small.tolist())) == subset
    assert set(data.train.labels[small].tolist()) == {0, 1, 2}


def test_a_number_of_validation_images_is_kept_exactly_and_is_the_share_that_it_is() -> None:
    data = made([100, 50, 10])
    of_number, of_share = (split(data, DataConfig(dataset="made", validation=validation)) for validation in (32, 0.2))
    np.testing.assert_array_equal(of_number.validation, of_share.validation)
    most = split(made([150, 6, 4]), DataConfig(dataset="made", validation=157))
    assert np.bincount(made([150, 6, 4]).train.labels[most.train]).tolist() == [1, 1, 1]
    held_out = select_data(data, DataConfig(dataset="made", validation=32), DataSelection(hold_out=0.1)).hold_out
    assert held_out is not None
    assert of_number.validation is not None
    assert len(held_out) == 16
    assert not set(held_out) & set(of_number.validation)


SUBSETS = "--train-subset must be between 3 (one image for each class) and 143 (all training images beside 17 validation images)"
SHARES = (
    "--validation must be between 3 and 157 of the 160 training images, so that each of the 3 classes has a training and a "
    "validation image"
)
ONE = "class 'c1' has only one image; each class needs at least two, one for training and one for validation"


@pytest.mark.parametrize(
    ("counts", "config", "message"),
    [
        *(([150, 6, 4], {"subset": number}, f"{SUBSETS}, but is {number}") for number in (1, 2, 144)),
        *(([150, 6, 4], {"validation": number}, f"{SHARES}, but is {number}") for number in (1, 2, 158, 1000)),
        ([20, 1], {}, ONE),
    ],
)
def test_what_leaves_a_class_without_an_image_is_refused(counts: list[int], config: dict[str, int], message: str) -> None:
    with pytest.raises(DataError) as refused:
        split(made(counts), DataConfig(dataset="made", **config))
    assert refused.value.message == message
    assert refused.value.hint == ("add images to it, or remove the class" if message == ONE else None)


def test_validation_images_of_the_data_set_itself_are_taken_as_they_are() -> None:
    data = made([20, 1])
    parts = split(replace(data, validation=data.train), DataConfig(dataset="made"))
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
        subset = stratified(labels, total, seed, leave=0)
        assert len(np.unique(subset)) == total
        assert (np.bincount(labels[subset], minlength=len(counts)) >= 1).all()
        total = int(rng.integers(len(counts), len(labels) - len(counts) + 1))
        chosen = np.bincount(labels[stratified(labels, total, seed)], minlength=len(counts))
        assert chosen.sum() == total
        assert ((chosen >= 1) & (chosen < counts)).all()


def of_patients(seed: int, patients: int = 300, images: int = 6000, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Labels and groups: rare and common classes, of which each patient has some more than others."""
    rng = np.random.default_rng(seed)
    common = 0.5 ** np.arange(classes)
    leaning = rng.dirichlet(3 * common / common.sum(), size=patients)
    groups = rng.integers(0, patients, images)
    labels = np.array([rng.choice(classes, p=leaning[group]) for group in groups])
    return labels, groups


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_both_sides_and_each_class_has_about_its_share(seed: int) -> None:
    labels, groups = of_patients(seed)
    chosen = grouped(labels, groups, 0.1, seed)
    assert not set(groups[chosen]) & set(np.delete(groups, chosen))
    shares = np.bincount(labels[chosen], minlength=5) / np.bincount(labels)
    assert shares == pytest.approx([0.1] * 5, abs=0.03)


def test_groups_are_split_as_evenly_as_scikit_learn_does() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    ours, theirs = [], []
    for seed in range(5):
        labels, groups = of_patients(seed)
        folds = StratifiedGroupKFold(10, shuffle=True, random_state=seed)
        for found, chosen in ((ours, grouped(labels, groups, 0.1, seed)), (theirs, next(folds.split(labels, labels, groups))[1])):
            found.append(np.abs(np.bincount(labels[chosen], minlength=5) / np.bincount(labels) - 0.1).mean())
    assert np.mean(ours) < 1.5 * np.mean(theirs)


def test_groups_of_one_image_each_are_split_as_images_are() -> None:
    labels = np.repeat(np.arange(3), [200, 100, 20])
    chosen = grouped(labels, np.arange(320), 0.1, 0)
    assert np.bincount(labels[chosen]).tolist() == [20, 10, 2]


def test_a_rare_class_is_on_both_sides_where_any_split_allows_it() -> None:
    # Class 1 lies in two groups of many, both of which the greedy assignment would train on.
    labels = [0] * 100 + [1, 1, 0, 0]
    groups = [i // 10 for i in range(100)] + [10, 11, 10, 11]
    data = dataset(labels, groups)
    for seed in range(10):
        parts = split(data, DataConfig(dataset="made", seed=seed))
        assert 1 in data.train.labels[parts.validation]
        assert 1 in data.train.labels[parts.train]
        assert sorted([*parts.train, *parts.validation]) == list(range(104))


def test_subset_of_a_grouped_set_takes_from_the_training_side_alone() -> None:
    labels, groups = of_patients(1)
    data = dataset(labels.tolist(), groups.tolist())
    parts = split(data, DataConfig(dataset="made", subset=500))
    assert parts.validation is not None
    assert len(parts.train) == 500
    assert not set(groups[parts.train]) & set(groups[parts.validation])


def test_class_of_a_single_group_is_refused_with_the_groups_name() -> None:
    with pytest.raises(DataError) as refused:
        split(dataset([0] * 20 + [1] * 3, [i // 4 for i in range(20)] + [5] * 3), DataConfig(dataset="made"))
    assert refused.value.message == (
        "all 3 images of class 'c1' belong to the group 'patient 5'; each class needs at least two groups, one for training and "
        "one for validation"
    )
    assert str(refused.value.hint).endswith("remove the class, or leave out --group-column or --group-duplicates")


def test_groups_that_no_split_can_part_are_refused_with_the_class_that_is_left_out() -> None:
    # Each two of the three groups share a class: whichever side has two of them has all of one class.
    with pytest.raises(DataError, match=r"class 'c\d' has no (training|validation) images: if one of its 2 groups"):
        split(dataset([0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 0]), DataConfig(dataset="made"))


def test_all_labelled_images_train_by_default() -> None:
    data = dataset([0, 1] * 50)
    chosen = select_data(data, CONFIG, DataSelection())
    assert (chosen.train, chosen.hold_out, chosen.train_images) == (None, None, 100)
    own_validation = replace(data, validation=data.test)
    assert select_data(own_validation, CONFIG, DataSelection()).train_images == 103


def test_held_out_images_neither_train_nor_chose_in_the_search() -> None:
    data = dataset([0] * 60 + [1] * 40)
    chosen = select_data(data, CONFIG, DataSelection(hold_out=0.1))
    assert len(chosen.hold_out) == 10
    assert np.bincount(data.train.labels[chosen.hold_out]).tolist() == [6, 4]
    assert not set(chosen.hold_out) & set(chosen.train_indices)
    assert len(chosen.train_indices) == 90
    selected = split(data, CONFIG).validation
    assert not set(chosen.hold_out) & set(selected)
    assert set(selected) <= set(chosen.train_indices), "those that chose train now"


def test_subset_is_drawn_of_what_is_left_and_the_held_out_images_stay_the_same() -> None:
    data = dataset([0, 1] * 50)
    whole, part = (select_data(data, CONFIG, DataSelection(hold_out=0.1, subset=subset)) for subset in (None, 20))
    assert part.train_images == 20
    assert set(part.train_indices) <= set(whole.train_indices)
    assert part.hold_out.tolist() == whole.hold_out.tolist()


def test_test_labels_train_only_where_asked_and_are_never_held_out() -> None:
    data = dataset([0, 1] * 50)
    chosen = select_data(data, CONFIG, DataSelection(include_test_labels=True, hold_out=0.1))
    assert chosen.train_images == 93
    assert chosen.hold_out.max() < 100
    assert chosen.images.arrays[0] is data.train.images
    assert chosen.images.arrays[1] is data.test.images


@pytest.mark.parametrize(
    ("labels", "share", "message"),
    [
        ([0, 1] * 50, -0.1, "--hold-out must be a share above 0 and at most 0.5"),
        ([0, 1] * 50, 0.6, "--hold-out must be a share above 0 and at most 0.5"),
        ([0] * 50 + [1, 1], 0.1, "class 'c1' has too few images to hold one out"),
    ],
)
def test_invalid_hold_out_shares_are_refused(labels: list[int], share: float, message: str) -> None:
    with pytest.raises(NasError, match=message):
        select_data(dataset(labels), CONFIG, DataSelection(hold_out=share))


@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_no_group_is_split_between_training_validation_and_held_out_images(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    owners = rng.integers(0, 60, 900)
    data = dataset((rng.random(900) < 0.2).astype(int).tolist(), owners.tolist())
    config = CONFIG.model_copy(update={"seed": seed})
    chosen = select_data(data, config, DataSelection(hold_out=share))
    selected = split(data, config).validation
    held_out = set(owners[chosen.hold_out])
    assert not held_out & set(owners[chosen.train_indices])
    assert not held_out & set(owners[selected])
    assert set(selected) <= set(chosen.train_indices), "those that chose train now"
    assert sorted([*chosen.hold_out, *chosen.train_indices]) == list(range(900))
    assert len(chosen.hold_out) == pytest.approx(share * 900, abs=30)
    assert data.train.labels[chosen.hold_out].mean() == pytest.approx(data.train.labels.mean(), abs=0.05)


def test_class_whose_groups_cannot_be_held_out_is_named() -> None:
    """Of its two groups one chose in the search."""
    data = dataset([0] * 60 + [1] * 20, [i % 12 for i in range(60)] + [i % 2 for i in range(20)])
    with pytest.raises(DataError, match="class 'c1' has too few groups for training and held-out images") as refused:
        select_data(data, CONFIG, DataSelection(hold_out=0.2))
    assert refused.value.hint == "leave out --hold-out, or add images of other groups to the class"


def test_the_suffix_of_a_run_names_its_data_selection() -> None:
    assert DataSelection().suffix == ""
    assert DataSelection(True, 100, 0.25).suffix == "-hold-out-25-subset-100-with-test-labels"
