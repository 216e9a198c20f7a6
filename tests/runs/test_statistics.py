"""Means, differences and intervals, against numbers worked out by hand and against scipy."""

import numpy as np
import pytest
from scipy.stats import binomtest

from nas.runs.statistics import accuracy_interval, after_choice, effective_images, paired, spread


@pytest.mark.parametrize(
    ("values", "mean", "deviation", "half"),
    [
        # Deviations -1, 1, 0 hundredths: variance (1 + 1 + 0) / 2 = 1. Standard error 1/√3, t of 2 degrees 4.302653.
        ([0.02, 0.04, 0.03], 0.03, 0.01, 0.0248414),
        # Deviation √0.02, standard error 0.1; t of one degree of freedom, tan(0.475 π), is 12.706205.
        ([0.1, 0.3], 0.2, 0.1414214, 1.2706205),
    ],
)
def test_mean_has_its_deviation_and_the_interval_of_students_t(
    values: list[float], mean: float, deviation: float, half: float
) -> None:
    found = spread(values)
    assert (found.mean, found.deviation) == pytest.approx((mean, deviation))
    assert found.interval == pytest.approx((mean - half, mean + half), abs=1e-6)
    assert found.is_not_zero == (mean > half)


def test_one_value_says_nothing_of_another() -> None:
    found = spread([0.5])
    assert (found.mean, found.deviation, found.interval, found.is_not_zero) == (0.5, None, None, False)
    assert spread([]) is None


def test_pairs_have_the_seed_in_common() -> None:
    found = paired({0: 0.9, 1: 0.8, 3: 0.1}, {1: 0.7, 0: 0.85, 2: 0.2})
    assert found.values == pytest.approx((0.05, 0.1))
    assert paired({0: 0.9}, {1: 0.9}) is None


@pytest.mark.parametrize(("correct", "images"), [(90, 100), (10, 10), (0, 7), (9_300, 10_000), (1, 2)])
def test_interval_is_wilsons(correct: int, images: int) -> None:
    theirs = binomtest(correct, images).proportion_ci(method="wilson")
    assert accuracy_interval(correct / images, images) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize(
    ("correct", "groups", "least", "most"),
    [
        (np.arange(50) % 3 > 0, np.arange(50) * 7, 50 - 1e-9, 50 + 1e-9),  # of one image each
        (np.repeat(np.arange(200) % 4 > 0, 10), np.repeat(np.arange(200), 10), 0.97 * 200, 200),  # copies count once
        (np.arange(100) % 5 > 0, np.arange(100) // 5, 85, 95),  # each has the same share of mistakes: not more than images
        (np.ones(40, bool), np.arange(40) // 10, 4, 4),  # no two groups differ
        (np.zeros(40, bool), np.arange(40) // 10, 4, 4),
        (np.arange(10) % 2 > 0, np.full(10, 3), 1, 1),
    ],
)
def test_images_of_groups_count_as_fewer(correct: np.ndarray, groups: np.ndarray, least: float, most: float) -> None:
    assert least <= effective_images(correct, groups) <= most


def test_interval_of_groups_holds_what_it_promises() -> None:
    """600 draws of 40 groups of 25 images, whose shares of right answers differ as a beta distribution: its mean is 0.8."""
    rng = np.random.default_rng(0)
    groups, held = np.repeat(np.arange(40), 25), np.zeros(2)
    for _ in range(600):
        correct = rng.random(1_000) < rng.beta(8, 2, 40)[groups]
        for which, images in enumerate((effective_images(correct, groups), 1_000)):
            low, high = accuracy_interval(correct.mean(), images)
            held[which] += low <= 0.8 <= high
    assert 0.93 < held[0] / 600 < 0.98
    assert held[1] / 600 < 0.8, "each image by itself: too narrow"


@pytest.mark.parametrize("apart", [0.0, 0.003, 0.02])
@pytest.mark.parametrize(("networks", "seeds"), [(1, 1), (3, 1), (10, 1), (100, 1), (1, 5), (10, 3), (100, 3)])
def test_interval_after_a_choice_holds_what_it_promises(networks: int, seeds: int, apart: float) -> None:
    """Of 500 choices by 5,000 images among networks whose accuracies on all images are 0.9 ± `apart`."""
    rng, excess, held = np.random.default_rng(0), [], 0
    for _ in range(500):
        true = np.clip(0.9 + apart * rng.standard_normal(networks), 0, 1)
        scores = rng.binomial(5_000, np.repeat(true[:, None], seeds, 1)) / 5_000
        network = int(scores.mean(1).argmax())
        found = after_choice(scores.tolist(), network, int(scores[network].argmax()), 5_000)
        assert found.among == networks * seeds
        excess.append((found.measured - true[network], found.value - true[network]))
        held += found.interval[0] <= true[network] <= found.interval[1]
    raw, left = np.mean(excess, 0)
    assert held / 500 >= 0.93
    assert abs(left) < max(0.0018, 0.4 * raw)


def test_the_best_of_equals_is_expected_to_be_as_the_others_and_a_single_one_as_measured() -> None:
    found = after_choice([[0.80], [0.81], [0.80]], 1, 0, 100)
    assert (found.value, found.measured) == (pytest.approx(0.8033, abs=1e-4), 0.81)
    found = after_choice([[0.8]], 0, 0, 500)
    assert (found.value, found.interval) == (0.8, accuracy_interval(0.8, 500))
