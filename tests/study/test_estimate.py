"""How long a search takes, before it begins: the arithmetic against closed forms and brute force, the measurement on digits."""

from dataclasses import replace
from typing import Any

import pytest

from nas.budget import Budget, count_macs
from nas.config import BudgetConfig, ImageShape, StudyConfig
from nas.errors import BudgetError, ConfigError, DeviceError, StudyError
from nas.paths import StudyPaths, studies_folder
from nas.space.space_file import load_space, read_space
from nas.specs import SearchSpec
from nas.study import estimate as module
from nas.study.estimate import (
    PERCENTILES,
    START_UP_SECONDS,
    Span,
    TimedNetwork,
    estimate_search,
    search_seconds,
    spread_by_macs,
)
from nas.study.pruners import asha_epochs
from nas.train.pace import Pace
from tests.conftest import TINY_SPACE, QuietDisplay

DIGITS = ImageShape(channels=1, size=8, classes=10)


def timed(start: float, epoch: float) -> TimedNetwork:
    return TimedNetwork(50, 1000, 1000, 64, "a network", start, epoch, 0.0)


def test_likely_is_the_mean_and_high_the_slowest() -> None:
    span = search_seconds([timed(5.0, 10.0)], trials=1, epochs=4, expected_epochs=4.0)
    assert span == Span(START_UP_SECONDS + 45 / 2, START_UP_SECONDS + 45, START_UP_SECONDS + 45)
    networks = [timed(0.0, 1.0), timed(1.0, 2.0), timed(2.0, 6.0)]
    span = search_seconds(networks, trials=100, epochs=100, expected_epochs=10.0)
    assert span.likely == pytest.approx(START_UP_SECONDS + 100 * (10 + 21 + 62) / 3)
    assert span.low == pytest.approx(START_UP_SECONDS + 100 * (10 + 21 + 62) / 3 / 1.1)
    assert span.high == pytest.approx(START_UP_SECONDS + 100 * 62 * 1.1)
    unpruned = search_seconds(networks, trials=100, epochs=10, expected_epochs=10.0)
    assert unpruned.high == pytest.approx(START_UP_SECONDS + 100 * 62), "more than every epoch of the slowest it cannot be"


def test_workers_share_the_trials_and_wait_for_the_last() -> None:
    many = {"trials": 100, "epochs": 9, "expected_epochs": 3.0}
    alone = search_seconds([timed(0.0, 1.0)], **many)
    shared = search_seconds([timed(0.0, 1.0)], **many, workers=4)
    assert shared.low - START_UP_SECONDS == pytest.approx((alone.low - START_UP_SECONDS) / 4)
    assert shared.likely == pytest.approx(START_UP_SECONDS + 75 + 0.75 * 3)
    assert shared.high == pytest.approx(START_UP_SECONDS + 1.1 * 75 + 0.75 * 9)
    on_one = search_seconds([timed(0.0, 1.0)], **many, workers=4, devices=1)
    assert on_one.likely == shared.likely
    assert on_one.high == pytest.approx(START_UP_SECONDS + 1.1 * 300 + 0.75 * 9)
    two = {"trials": 2, "epochs": 9, "expected_epochs": 3.0}  # more workers than trials help nobody
    assert search_seconds([timed(0.0, 1.0)], **two, workers=50) == search_seconds([timed(0.0, 1.0)], **two, workers=2)


def test_finalists_are_a_share_on_top() -> None:
    many = {"trials": 10, "epochs": 9, "expected_epochs": 3.0}
    plain, more = (search_seconds([timed(1.0, 1.0)], **many, finalists=share) for share in (0.0, 0.2))
    for name in ("low", "likely", "high"):
        assert getattr(more, name) - START_UP_SECONDS == pytest.approx(1.2 * (getattr(plain, name) - START_UP_SECONDS))


@pytest.mark.parametrize("trials", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_low_likely_and_high_stand_in_this_order(trials: int, workers: int) -> None:
    networks = [timed(1.0, 1.0), timed(0.5, 3.0)]
    span = search_seconds(networks, trials=trials, epochs=18, expected_epochs=asha_epochs([2, 6], 18, trials), workers=workers)
    assert 0 < span.low < span.likely <= span.high


def test_networks_are_spread_by_their_multiply_adds() -> None:
    space = load_space("digits").for_images(DIGITS)
    budget = Budget(space.budget, DIGITS)
    chosen = spread_by_macs(space, budget, seed=0, config=StudyConfig())
    macs = [count_macs(candidate.arch, DIGITS) for _, candidate in chosen]
    assert [percentile for percentile, _ in chosen] == list(PERCENTILES)
    assert macs == sorted(macs)
    assert macs[-1] > 3 * macs[0]
    assert all(budget.check(candidate.arch).fits for _, candidate in chosen)
    assert spread_by_macs(space, budget, seed=0, config=StudyConfig()) == chosen


def test_where_hardly_anything_fits_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DRAWS", 5)
    space = read_space(TINY_SPACE.replace("low: 4, high: 12", "low: 4, high: 4000"), source="the test", name="wide")
    with pytest.raises(BudgetError, match="none of 5 uniform draws of space wide fits its budget") as caught:
        spread_by_macs(space, Budget(space.budget, DIGITS), seed=0, config=StudyConfig())
    assert "stage1.channels" in (caught.value.hint or "")
    assert (caught.value.hint or "").endswith("or raise the budget with --max-params")
    with pytest.raises(BudgetError) as caught:
        spread_by_macs(space, Budget(BudgetConfig(macs=1), DIGITS), seed=0, config=StudyConfig())
    assert (caught.value.hint or "").endswith("or raise budget.macs"), "the limit that they broke"


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nothing is trained: a step takes 0.1 s, a start and a checkpoint 1 s. Holds how long would have been measured."""
    measured: list[float] = []

    def measure(model: Any, train: Any, validation: Any, config: Any, precision: Any, seconds: float) -> Pace:
        measured.append(seconds)
        return Pace(start=1.0, step=0.1, image=0.001, checkpoint=1.0)

    monkeypatch.setattr(module, "measure_pace", measure)
    return measured


def ask(**changes: Any) -> SearchSpec:
    return SearchSpec(**{"space": "digits", "dataset": "digits", "device": "cpu", "trials": 12, **changes})


def test_estimate_founds_no_study(quickly: list[float]) -> None:
    display = QuietDisplay()
    found = estimate_search(ask(), display)
    assert not studies_folder().exists()
    assert (found.study, found.trials, found.epochs) == ("digits-digits", 12, 9)
    assert (found.devices, found.threads) == (["cpu"], 1)
    assert found.train_images + found.validation_images == 1438, "of the digits a fifth is the test set"
    assert found.expected_epochs == pytest.approx(asha_epochs([2, 6], 9, 12, startup=2))
    assert found.pruning.startswith("asha prunes all but the best 1/3 after epochs 2, 6, once 2 networks have completed")
    for one in found.networks:
        steps = found.train_images // one.batch_size
        assert one.epoch == pytest.approx(0.1 * steps + one.validation + 1.0)
        assert one.validation == pytest.approx(0.001 * found.validation_images)
    assert found.whole == search_seconds(found.networks, trials=12, epochs=9, expected_epochs=found.expected_epochs)
    assert len(quickly) == 5
    assert display.notes == ["timing up to 5 networks of space digits, for about 30 s in total"]


def test_where_the_time_is_up_the_rest_follows_from_the_multiply_adds(
    quickly: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEASURED_SECONDS", -1.0)
    found = estimate_search(ask(), QuietDisplay())
    first = found.networks[0]
    assert len(quickly) == 1
    assert [one.timed for one in found.networks] == [True, False, False, False, False]
    for one in found.networks:
        more, steps = one.macs / first.macs, found.train_images // one.batch_size
        assert one.start == pytest.approx(more)
        step = 0.1 * more * one.batch_size / first.batch_size
        assert one.epoch == pytest.approx(step * steps + 0.001 * more * found.validation_images + 1.0)


def test_estimate_uses_the_requested_options(quickly: list[float]) -> None:
    finals = {"finalists": 2, "finalist_epochs": 3, "finalist_seeds": 1}
    few = estimate_search(ask(epochs=2, train_subset=300, trials=3, **finals), QuietDisplay())
    assert (few.epochs, few.train_images, few.trials) == (2, 300, 3)
    many = {"trials": 3, "epochs": 2, "expected_epochs": few.expected_epochs}
    assert few.whole == search_seconds(few.networks, **many, finalists=6 / (3 * few.expected_epochs))


@pytest.mark.parametrize(
    ("pruner", "said"),
    [
        ("median", "; its saving is unknown, so all epochs are counted"),
        ("percentile", "; its saving is unknown, so all epochs are counted"),
        ("none", "none prunes never"),
    ],
)
def test_what_a_pruner_saves_is_not_guessed(pruner: str, said: str, quickly: list[float]) -> None:
    found = estimate_search(ask(pruner=pruner), QuietDisplay())
    assert found.expected_epochs == 9
    assert found.pruning.endswith(said)


def test_the_same_network_is_timed_once(quickly: list[float], tmp_path: Any) -> None:
    text = TINY_SPACE.replace("[basic, preact]", "[basic]").replace("{type: int, low: 4, high: 12}", "8")
    (tmp_path / "one.yaml").write_text(text.replace("{type: float, low: 0.05, high: 0.2, log: true}", "0.1"))
    found = estimate_search(ask(space="one.yaml"), QuietDisplay())
    assert len(quickly) == 1
    assert len({replace(one, percentile=0) for one in found.networks}) == 1
    assert [one.percentile for one in found.networks] == list(PERCENTILES)


def test_study_that_is_there_is_estimated_to_its_end(study: StudyPaths, quickly: list[float]) -> None:
    found = estimate_search(SearchSpec(study="tiny", device="cpu", trials=5), QuietDisplay())
    assert (found.trials, found.epochs) == (3, 2)
    assert found.expected_epochs == pytest.approx(asha_epochs([1], 2, 3, before=2, startup=2))


def test_search_that_would_be_refused_or_is_at_its_end_is_not_estimated(study: StudyPaths, quickly: list[float]) -> None:
    with pytest.raises(StudyError, match="epochs: 2 → 3"):
        estimate_search(SearchSpec(study="tiny", device="cpu", epochs=3), QuietDisplay())
    with pytest.raises(StudyError, match="study 'tiny' already has 2 trained networks, and --trials is 2") as caught:
        estimate_search(SearchSpec(study="tiny", device="cpu", trials=2), QuietDisplay())
    assert caught.value.hint == "nas search --study tiny --estimate --trials 4"
    assert not quickly


def test_a_cluster_is_not_estimated() -> None:  # what else is refused: test_run.py
    with pytest.raises(ConfigError, match="--estimate works for this machine"):
        estimate_search(ask(ray="auto", device="auto"), QuietDisplay())


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (MemoryError("nothing left"), DeviceError, "does not fit in the memory of the host: MemoryError: nothing left"),
        (ZeroDivisionError("ours"), ZeroDivisionError, "ours"),
    ],
)
def test_network_that_does_not_fit_in_memory_is_a_sentence_and_a_fault_of_ours_is_none_of_the_users(
    fault: Exception, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Pace:
        raise fault

    monkeypatch.setattr(module, "measure_pace", fail)
    with pytest.raises(kind, match=message):
        estimate_search(ask(), QuietDisplay())
