"""What follows from a study's record: pure functions, each tested against answers computed by hand. Draws nothing."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from nas.study.outcomes import COUNTED
from nas.study.trials import TrialRecord

# ------------------------------------------------------------------------------------------------------ the search


def history(trials: Iterable[TrialRecord]) -> list[tuple[TrialRecord, float | None]]:
    """Every network that trained, in the order in which they ended, with the highest accuracy of a training that ran to its end,
    up to this one; None before there was one."""
    trained = [one for one in trials if one.outcome in COUNTED and one.accuracy is not None and not one.imported]
    trained.sort(key=lambda one: (one.ended.timestamp() if one.ended else float("inf"), one.number))
    best: float | None = None
    points = []
    for one in trained:
        if one.outcome == "trained":
            best = max(one.accuracy or 0.0, best or 0.0)
        points.append((one, best))
    return points


def over_budget_share(trials: Iterable[TrialRecord], window: int = 20) -> list[tuple[float, float]]:
    """After each draw the share of the last `window` draws, and of all so far, that were over budget. A duplicate is a draw; a
    result that another study brought is none."""
    over = [int(bool(one.over)) for one in trials if not one.imported and one.outcome not in ("running", "waiting")]
    sums = [0, *accumulate(over)]
    return [((sums[n] - sums[max(0, n - window)]) / min(n, window), sums[n] / n) for n in range(1, len(over) + 1)]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, value) of which no other is at least as good in both and better in one; by rising cost.
    Of equal ones the first."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


@dataclass(frozen=True)
class TimeShare:
    what: str
    seconds: float
    trainings: int
    epochs: int


def time_spent(trials: Iterable[TrialRecord], finals: Iterable[TrialRecord]) -> list[TimeShare]:
    """Seconds that workers trained and evaluated, by what became of it; the most first."""
    timed: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for one, what in [(one, one.outcome) for one in trials] + [(one, "finalist") for one in finals]:
        if one.seconds is not None:
            timed[what].append((one.seconds, one.epochs))
    shares = [TimeShare(what, sum(s for s, _ in known), len(known), sum(n for _, n in known)) for what, known in timed.items()]
    return sorted(shares, key=lambda one: -one.seconds)


def elapsed_seconds(trials: Iterable[TrialRecord]) -> float:
    """Between the first one's beginning and the last one's end, pauses included."""
    own = [one for one in trials if not one.imported]
    began = [one.began for one in own if one.began is not None]
    ended = [one.ended for one in own if one.ended is not None]
    return (max(ended) - min(began)).total_seconds() if began and ended else 0.0


# ------------------------------------------------------------------------------------------------- what mattered


@dataclass(frozen=True)
class Importance:
    slots: dict[str, float]  # share of the explained differences, the largest first; together 1
    explained: float  # R² on networks that the forest was not fitted to: below 0.1 the shares mean little.
    networks: int


def comparable(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Networks that are taken to reach something at their end, whether they got there or were pruned."""
    return [one for one in trials if one.projected is not None and one.outcome in ("trained", "pruned_early")]


LEAST_NETWORKS = 12  # fewer say nothing about a dozen of parameters
FOLDS, TREES, SHUFFLES = 3, 60, 3


def importance(trials: Iterable[TrialRecord]) -> Importance | None:
    """How much each drawn parameter matters for the accuracy: a random forest is fitted to two thirds of the networks, and of the
    others one parameter is shuffled; the more that worsens the prediction, the more it matters (Breiman 2001, section 10).

    A network's accuracy is the one it is taken to reach at its end, since few get there. None where too few were trained, or all
    are alike.
    """
    # sklearn takes a second to import
    from sklearn.ensemble import RandomForestRegressor

    known = comparable(trials)
    slots = by_slot(known)
    if len(known) < LEAST_NETWORKS or not slots:
        return None
    table = np.array([_places(column) for column in slots.values()]).T
    values = np.array([one.projected for one in known])
    if np.ptp(values) == 0:
        return None
    random = np.random.default_rng(0)
    fold = random.permutation(len(known)) % FOLDS
    worse, unexplained = np.zeros(len(slots)), 0.0
    for held_out in range(FOLDS):
        inside, outside = fold != held_out, fold == held_out
        forest = RandomForestRegressor(TREES, min_samples_leaf=2, max_features=0.5, random_state=0)
        forest.fit(table[inside], values[inside])
        error = float(((forest.predict(table[outside]) - values[outside]) ** 2).sum())
        unexplained += error
        shuffled = np.tile(table[outside], (len(slots), SHUFFLES, 1, 1))
        for column, again in np.ndindex(len(slots), SHUFFLES):
            shuffled[column, again, :, column] = random.permutation(table[outside, column])
        # All in one call, since each costs sklearn more than the prediction.
        predicted = forest.predict(shuffled.reshape(-1, len(slots))).reshape(len(slots), SHUFFLES, -1)
        worse += ((predicted - values[outside]) ** 2).sum((1, 2)) / SHUFFLES - error
    total = float(((values - values.mean()) ** 2).sum())
    worse = np.maximum(worse, 0.0)
    shares = zip(slots, (worse / worse.sum()).tolist(), strict=True) if worse.any() else ()
    return Importance(dict(sorted(shares, key=lambda item: -item[1])), 1 - unexplained / total, len(known))


def by_slot(trials: Sequence[TrialRecord]) -> dict[str, list[Any]]:
    """Columns of what was drawn, in the order of the draws, None where a network lacks it; only what varies."""
    slots = dict.fromkeys(slot for one in trials for slot in one.drawn)
    columns = {slot: [one.drawn.get(slot) for one in trials] for slot in slots}
    return {slot: column for slot, column in columns.items() if len(set(column)) > 1}


def _places(values: Sequence[Any]) -> list[float]:
    """As numbers: words by their order among all, -1 where a network lacks it."""
    order = {word: float(n) for n, word in enumerate(sorted({value for value in values if isinstance(value, str)}))}
    return [-1.0 if value is None else order[value] if isinstance(value, str) else float(value) for value in values]


@dataclass(frozen=True)
class Trait:
    """What the best networks have in common in one parameter."""

    slot: str
    best: str  # range of the middle half of the best, or the commonest word with its share
    others: str  # the same of all others
    lift: float  # how far apart the two are, in [0, 1]: difference of shares, or Kolmogorov's and Smirnov's distance


def shared_traits(trials: Iterable[TrialRecord], share: float = 0.1, least: int = 5) -> list[Trait]:
    """Of the best tenth (at least `least`) against the others, by what they are taken to reach; the clearest first. Empty where
    there are fewer than `least` others."""
    known = comparable(trials)
    known.sort(key=lambda one: (-(one.projected or 0.0), one.number))
    count = max(least, round(share * len(known)))
    best, others = known[:count], known[count:]
    if len(others) < least:
        return []
    traits = []
    for slot in by_slot(known):
        of_best = [one.drawn[slot] for one in best if slot in one.drawn]
        of_others = [one.drawn[slot] for one in others if slot in one.drawn]
        if not of_best or not of_others:
            continue
        compare = _compare_words if isinstance(of_best[0], str | bool) or len({*of_best, *of_others}) <= 3 else _compare_numbers
        traits.append(Trait(slot, *compare(of_best, of_others)))
    return sorted(traits, key=lambda trait: -trait.lift)


def _compare_words(best: list[Any], others: list[Any]) -> tuple[str, str, float]:
    """By the value whose share among the best exceeds that among the others most."""
    shares = {value: (best.count(value) / len(best), others.count(value) / len(others)) for value in dict.fromkeys(best)}
    value, (ours, theirs) = max(shares.items(), key=lambda item: item[1][0] - item[1][1])
    return f"{value} in {ours:.0%}", f"{value} in {theirs:.0%}", ours - theirs


def _compare_numbers(best: list[float], others: list[float]) -> tuple[str, str, float]:
    from scipy.stats import ks_2samp  # takes most of a second to import

    def middle_half(values: list[float]) -> str:
        low, high = np.quantile(values, [0.25, 0.75])
        return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"

    return middle_half(best), middle_half(others), float(ks_2samp(best, others, method="asymp").statistic)


# ----------------------------------------------------------------------------------------------- a trained network


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64 (classes, classes): how often an image of the row's class was taken for the column's."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def class_accuracy(matrix: np.ndarray) -> list[float | None]:
    """Of each class, the share of its images that were recognised; None of a class without images."""
    return [float(row[i] / row.sum()) if row.sum() else None for i, row in enumerate(matrix)]


def commonest_mistakes(matrix: np.ndarray, count: int = 5) -> list[tuple[int, int, int]]:
    """Label, prediction, and how often; the most frequent first, of equal ones the first by label and prediction."""
    found = [(int(i), int(j), int(matrix[i, j])) for i, j in zip(*np.nonzero(matrix), strict=True) if i != j]
    return sorted(found, key=lambda one: -one[2])[:count]
