"""What follows from a study's trials, against answers computed by hand."""

from typing import Any

import numpy as np
import pytest

from nas.report import facts
from nas.report.facts import TimeShare
from nas.study.trials import TrialRecord
from tests.report.trials import training

SOME = [
    training(0, [0.3, 0.5], seconds=20.0),
    training(1, (), "over_budget", over={"params": 0.5}),
    training(2, [0.4], "pruned_early", seconds=8.0),
    training(3, [0.6, 0.4], seconds=30.0),
    training(4, [0.9], "diverged", seconds=2.0),
    training(5, [0.5, 0.7], seconds=25.0),
    training(6, [0.3, 0.5], "duplicate"),
    training(7, [0.1], "running", seconds=3.0),
]


def test_history_keeps_the_best_of_those_that_got_to_their_end() -> None:
    points = facts.history(SOME)
    assert [(one.number, one.outcome, best) for one, best in points] == [
        (0, "trained", 0.5),
        (2, "pruned_early", 0.5),
        (3, "trained", 0.5),
        (4, "diverged", 0.5),
        (5, "trained", 0.7),
    ], "what diverged was better for a moment, and a duplicate is nothing new"
    assert [one.accuracy for one, _ in points] == [0.5, 0.4, 0.4, 0.9, 0.7]


def test_history_goes_by_the_order_of_the_ends_and_has_no_best_before_the_first() -> None:
    late = [training(0, [0.5], ended=30), training(1, [0.7], ended=10), training(2, [0.6], ended=20)]
    assert [(one.number, best) for one, best in facts.history(late)] == [(1, 0.7), (2, 0.7), (0, 0.7)]
    assert [best for _, best in facts.history([training(0, [0.4], "pruned_early"), training(1, [0.3])])] == [None, 0.3]
    assert facts.history([]) == []
    assert facts.history([training(0, [0.9], imported=True)]) == []


def test_share_over_budget_of_the_last_draws_and_of_all() -> None:
    draws = [training(n, (), "over_budget", over={"params": 1.0}) if n in (0, 1, 4) else training(n, [0.5]) for n in range(6)]
    shares = [(1.0, 1.0), (1.0, 1.0), (0.5, 2 / 3), (0.0, 0.5), (0.5, 0.6), (0.5, 0.5)]
    assert facts.over_budget_share(draws, window=2) == shares
    taken_over, running = training(0, [0.5], imported=True), training(1, [0.5], "running")
    assert facts.over_budget_share([taken_over, running]) == []
    twin = training(1, (), "duplicate", over={"params": 0.2})
    assert [overall for _, overall in facts.over_budget_share([training(0, [0.5]), twin])] == [0.0, 0.5]


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(3, 0.5)], [0]),
        ([(1, 0.5), (2, 0.7), (3, 0.9)], [0, 1, 2]),
        ([(3, 0.9), (2, 0.7), (1, 0.5)], [2, 1, 0]),
        ([(1, 0.5), (2, 0.4), (3, 0.5), (4, 0.6)], [0, 3]),
        ([(2, 0.5), (2, 0.8), (1, 0.8)], [2]),
        ([(1, 0.5), (1, 0.5)], [0]),
    ],
)
def test_front(points: list[tuple[float, float]], front: list[int]) -> None:
    assert facts.pareto_front(points) == front


def test_time_goes_by_outcome_the_most_first() -> None:
    finals = [training(0, [0.8, 0.9], seconds=50.0, finalist=5), training(1, (), "running", finalist=0)]
    assert facts.time_spent(SOME, finals) == [
        TimeShare("trained", 75.0, 3, 6),
        TimeShare("finalist", 50.0, 1, 2),
        TimeShare("pruned_early", 8.0, 1, 1),
        TimeShare("running", 3.0, 1, 1),
        TimeShare("diverged", 2.0, 1, 1),
    ]
    assert facts.time_spent([], []) == []


def test_elapsed_time_is_from_the_first_draw_to_the_last_end() -> None:
    assert facts.elapsed_seconds(SOME) == 7 * 60, "trial 6 ends a minute after minute 6; trial 7 has not ended"
    assert facts.elapsed_seconds([]) == 0.0
    assert facts.elapsed_seconds([training(0, [0.5], began=0, ended=90), training(1, [0.5], ended=5000, imported=True)]) == 5400.0


def drawn(count: int, accuracy: Any, seed: int = 0) -> list[TrialRecord]:
    """Networks of a width, a kernel and an activation, none of which is drawn with the others in mind."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        width, kernel, activation = random.integers(8, 65), random.choice([3, 5]), random.choice(["relu", "silu"])
        slots = {"width": int(width), "kernel": int(kernel), "activation": str(activation), "fixed": 1}
        made.append(training(number, [accuracy(slots, random)], drawn=slots))
    return made


def test_importance_orders_what_the_accuracy_was_made_of() -> None:
    def accuracy(slots: dict[str, Any], random: np.random.Generator) -> float:
        return 0.5 + slots["width"] / 200 + 0.06 * (slots["activation"] == "silu") + 0.001 * random.random()

    found = facts.importance(drawn(120, accuracy))
    assert list(found.slots)[:2] == ["width", "activation"]
    assert found.slots["kernel"] < 0.02
    assert "fixed" not in found.slots
    assert sum(found.slots.values()) == pytest.approx(1.0)
    assert found.explained > 0.9
    assert found.networks == 120


def test_importance_says_when_nothing_explains_anything() -> None:
    found = facts.importance(drawn(90, lambda slots, random: random.random()))
    assert found.explained < 0.1


def test_importance_goes_by_what_a_network_is_taken_to_reach() -> None:
    """Pruned networks take part, by their projected value; those without one, and duplicates, do not."""
    known = drawn(30, lambda slots, random: slots["width"] / 100)
    others = [
        training(30, (), "over_budget", drawn={"width": 99}, over={"params": 1.0}),
        training(31, [0.1], "duplicate", drawn={"width": 8}),
        training(32, [0.1], "diverged", drawn={"width": 8}),
    ]
    assert facts.importance(known + others) == facts.importance(known)


@pytest.mark.parametrize(
    "trainings",
    [
        [],
        drawn(facts.LEAST_NETWORKS - 1, lambda slots, random: random.random()),
        drawn(20, lambda slots, random: 0.5),
        [training(n, [n / 100], drawn={"width": 8}) for n in range(20)],
    ],
    ids=["nothing", "too few", "all as good", "nothing varied"],
)
def test_importance_of_what_tells_nothing_is_none(trainings: list[TrialRecord]) -> None:
    assert facts.importance(trainings) is None


def test_traits_of_the_best_against_the_others() -> None:
    best = [training(n, [0.9], drawn={"activation": "silu", "width": 50 + n, "lr": 0.1}) for n in range(5)]
    others = [
        training(n, [0.5], drawn={"activation": "silu" if n < 10 else "relu", "width": 10 + n, "lr": 0.1}) for n in range(5, 25)
    ]
    found = {trait.slot: trait for trait in facts.shared_traits(others + best)}
    assert set(found) == {"activation", "width"}
    assert (found["activation"].best, found["activation"].others) == ("silu in 100%", "silu in 25%")
    assert found["activation"].lift == pytest.approx(0.75)
    assert (found["width"].best, found["width"].others) == ("51 to 53", "19.8 to 29.2")
    assert found["width"].lift == 1.0, "no other is as wide as any of the best"
    assert [trait.slot for trait in facts.shared_traits(others + best)] == ["width", "activation"]


def test_traits_need_some_others() -> None:
    assert facts.shared_traits([]) == []
    assert facts.shared_traits([training(n, [n / 10], drawn={"width": n}) for n in range(9)]) == []
    assert facts.shared_traits([training(n, [n / 10], drawn={"width": n}) for n in range(10)]) != []


def test_columns_hold_what_varies_and_say_what_is_lacking() -> None:
    rows = [training(0, [0.5], drawn={"stages": 3, "a": 1}), training(1, [0.5], drawn={"stages": 4, "a": 1, "stage3.blocks": 2})]
    assert facts.by_slot(rows) == {"stages": [3, 4], "stage3.blocks": [None, 2]}


def test_confusion_by_hand() -> None:
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0, 2])
    matrix = facts.confusion(labels, predicted, 4)
    assert matrix.tolist() == [[1, 2, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert facts.class_accuracy(matrix) == [1 / 3, 0.5, 1.0, None]
    assert facts.commonest_mistakes(matrix) == [(0, 1, 2), (1, 0, 1)]
    assert len(facts.commonest_mistakes(np.ones((5, 5), dtype=np.int64))) == 5
    assert facts.commonest_mistakes(np.eye(3, dtype=np.int64)) == []
