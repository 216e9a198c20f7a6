"""What the figures show of a study: every curve, the budget where it is, costs that a reader can tell apart."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nas.report.charts import search_charts
from nas.report.record import FullRecord
from nas.study.trials import TrialRecord
from tests.report.trials import training


def traces(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data}


def chart(name: str, trials: Sequence[TrialRecord], best: int | None = None, **known: Any) -> Any:
    """The figure of that name, of a study of these trials."""
    settings = SimpleNamespace(space="resnet", budget=SimpleNamespace(params=known.pop("limit", None), macs=None))
    record = {"finals": [], "references": [], "importance": None, "chosen_run": None, "metric": "accuracy", **known}
    shown = SimpleNamespace(trials=trials, best=None if best is None else trials[best], settings=settings, **record)
    return next(one.figure for one in search_charts(cast(FullRecord, shown)) if one.id == name)


def costs(values: Sequence[int], **known: Any) -> Any:
    trials = [training(n, [0.5], params=value) for n, value in enumerate(values)]
    return chart("accuracy-params", trials, 0, **known)


def parallel(columns: dict[str, list[Any]]) -> Any:
    drawn = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return chart("parallel", [training(n, [0.5 + 0.1 * n], drawn=one) for n, one in enumerate(drawn)])


def test_network_of_one_epoch_is_seen_among_the_curves() -> None:
    given_up = [training(0, [0.3], "pruned_early"), training(1, [0.2, 0.4, 0.5], "pruned_early")]
    shown = traces(chart("curves", given_up))["pruned early"]
    assert list(shown.x) == [1, None, 1, 2, 3, None]
    assert shown.mode == "lines+markers"
    assert [size > 0 for size in shown.marker.size] == [True, False, False, False, True, False], "where each was given up"


def test_every_training_with_a_curve_is_drawn() -> None:
    outcomes = ["trained", "pruned_early", "diverged", "failed", "running"]
    trainings = [training(n, [0.1, 0.2], outcome) for n, outcome in enumerate(outcomes)] + [training(9, [0.6], "trained")]
    shown = traces(chart("curves", trainings, -1, finals=[training(0, [0.7], finalist=9)]))
    others = ["pruned early", "failed", "diverged", "not ended", "completed"]
    assert list(shown) == [*others, "finalists, trained again", "the best, trial 9"]


def test_budget_is_named_where_its_line_stands() -> None:
    wide = costs([1000, 50_000], limit=60_000.0)
    assert wide.layout.xaxis.type == "log"
    (line,), (name,) = wide.layout.shapes, wide.layout.annotations
    assert line.x0 == 60_000.0
    assert name.x == pytest.approx(math.log10(60_000)), "a text on a logarithmic axis stands by the logarithm"
    narrow = costs([4_900_000, 5_000_000], limit=5_000_000.0)
    assert narrow.layout.xaxis.type != "log", "between which no power of ten lies"
    assert narrow.layout.annotations[0].x == 5_000_000.0


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([20_000, 90_000], ["10k", "20k", "30k", "50k", "70k", "100k"]),
        ([2_000, 90_000], ["1k", "2k", "5k", "10k", "20k", "50k", "100k"]),
        ([2_000, 90_000_000], ["1k", "10k", "100k", "1M", "10M", "100M"]),
    ],
)
def test_costs_are_labelled_in_full(values: list[int], labels: list[str]) -> None:
    assert list(costs(values).layout.xaxis.ticktext)[: len(labels)] == labels


def test_retrained_network_stands_beside_the_search() -> None:
    retrained = SimpleNamespace(card=SimpleNamespace(params=1000), test_score=0.9)
    drawn = traces(costs([1000, 50_000], chosen_run=retrained))
    shown = drawn["retrained network (test)"]
    assert (list(shown.x), list(shown.y)) == ([1000.0], [90.0])
    front = drawn["Pareto front: no cheaper network was as accurate"]
    assert (list(front.x), front.mode, front.line.shape) == ([1000.0], "lines+markers", "hv")
    assert "retrained network (test)" not in traces(costs([1000, 50_000]))


def test_first_axis_of_parallel_coordinates_has_room_for_its_words() -> None:
    narrow = parallel({"pool": ["avg", "max"], "block": ["bottleneck", "basic"]})
    wide = parallel({"block": ["bottleneck", "basic"], "pool": ["avg", "max"]})
    assert narrow.layout.margin.l < wide.layout.margin.l
    assert wide.layout.margin.l >= 6.5 * len("bottleneck")


def test_time_says_what_it_bought() -> None:
    running = [training(n, [0.1, 0.2], "running", seconds=30) for n in (1, 2)]
    (bars,) = chart("time", [training(0, [0.5] * 18, seconds=600), *running]).data
    assert list(bars.y) == ["completed<br>1 training, 18 epochs", "not ended<br>2 trainings, 4 epochs"]
    assert list(bars.x) == [10.0, 1.0], "minutes"


def test_few_epochs_are_numbered_one_by_one() -> None:
    def step(epochs: int) -> float | None:
        return chart("curves", [training(0, [0.5] * epochs)], 0).layout.xaxis.dtick

    assert (step(3), step(30)) == (1, None)


def test_few_numbers_are_ticks_of_three_digits() -> None:
    figure = parallel({"lr": [0.0123456789, 0.1], "blocks": [1, 12]})
    assert [axis.ticktext for axis in figure.data[0].dimensions[:2]] == [("0.0123", "0.1"), ("1", "12")]
