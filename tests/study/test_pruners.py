"""Where successive halving looks, whom it stops, and that a verdict may be asked for again."""

import itertools
import random
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from nas.study.pruners import PRUNERS, REDUCTION, Asha, Hyperband, asha_epochs, asha_rungs, is_best, survivors


@pytest.mark.parametrize("epochs", range(1, 41))
def test_rungs_lie_below_the_last_epoch_and_the_pruner_uses_just_these(epochs: int) -> None:
    rungs = asha_rungs(epochs)
    assert all(1 <= rung < epochs for rung in rungs)
    assert len(rungs) <= 2
    assert all(later == REDUCTION * earlier for earlier, later in itertools.pairwise(rungs))
    study = optuna.create_study(direction="maximize", pruner=PRUNERS["asha"](epochs))
    good, bad = study.ask(), study.ask()
    stopped = []
    for epoch in range(1, epochs):  # as the coordinator does: it does not ask after the last one
        good.report(0.9, epoch)
        assert not good.should_prune(), "the first one has nobody to be compared with"
        bad.report(0.1, epoch)
        if bad.should_prune():
            stopped.append(epoch)
    assert stopped == rungs


@pytest.mark.parametrize(("epochs", "rungs"), [(1, []), (2, [1]), (9, [1, 3]), (10, [2, 6]), (18, [2, 6]), (40, [5, 15])])
def test_rungs_are_about_a_ninth_and_a_third_of_the_whole(epochs: int, rungs: list[int]) -> None:
    assert asha_rungs(epochs) == rungs


def test_at_a_rung_only_the_best_third_goes_on() -> None:
    study = optuna.create_study(direction="maximize", pruner=PRUNERS["asha"](18))
    assert not study.ask().should_prune(), "without an epoch there is no verdict"
    gone_on = []
    for accuracy in (0.50, 0.60, 0.55, 0.40, 0.58, 0.61, 0.59, 0.70, 0.30):
        trial = study.ask()
        trial.report(accuracy / 2, 1)
        assert not trial.should_prune(), "epoch 1 is no rung"
        trial.report(accuracy, 2)
        stopped = trial.should_prune()
        if not stopped:
            gone_on.append(accuracy)
        study.tell(trial, state=TrialState.PRUNED)
    assert gone_on == [0.50, 0.60, 0.61, 0.70]


@pytest.mark.parametrize("name", ["asha", "hyperband"])
def test_other_trials_are_read_at_a_rung_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study, read = optuna.create_study(direction="maximize", pruner=PRUNERS[name](18)), []
    study.ask()
    trial = study.ask()
    get_trials = study.get_trials
    monkeypatch.setattr(study, "get_trials", lambda **asked: read.append(epoch) or get_trials(**asked))
    for epoch in range(1, 18):
        trial.report(0.5, epoch)
        study.pruner.prune(study, get_trials()[1])
    assert read in ([2, 6], [6]), "of Hyperband, a bracket may begin at the second rung"


@pytest.mark.parametrize("name", ["asha", "hyperband"])
def test_nobody_is_pruned_before_so_many_have_completed(name: str) -> None:
    study = optuna.create_study(direction="maximize", pruner=PRUNERS[name](4, first_rung=2, startup_trials=3))
    pruned = []
    for number in range(8):
        trial = study.ask()
        trial.report(0.9 - number / 10, 2)
        pruned.append(trial.should_prune())
        study.tell(trial, **({"state": TrialState.FAIL} if number == 1 else {"values": 0.5}))
    assert pruned[:4] == [False] * 4, "one of the first four failed"
    assert any(pruned[4:])


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("seed", range(6))
def test_its_verdicts_are_those_of_optunas_pruner(seed: int, workers: int) -> None:
    """Over random curves, of equal values too, of trainings that end in all ways, one after another or side by side."""
    rng = random.Random(seed)
    epochs = rng.randint(2, 20)
    theirs = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=asha_rungs(epochs)[0], reduction_factor=REDUCTION, min_early_stopping_rate=0, bootstrap_count=0
    )
    studies = [optuna.create_study(direction="maximize", pruner=pruner) for pruner in (Asha(epochs), theirs)]

    def tell(pair: list[optuna.Trial], **how: Any) -> None:
        for study, trial in zip(studies, pair, strict=True):
            study.tell(trial, **how)

    running: dict[int, tuple[list[optuna.Trial], float, int]] = {}
    verdicts = []
    left = 40
    while left or running:
        worker = rng.randrange(workers)
        if worker not in running:
            if left:
                left -= 1
                running[worker] = ([study.ask() for study in studies], rng.random(), 0)
            continue
        pair, level, epoch = running.pop(worker)
        epoch += 1
        value = round(level + 0.1 * rng.random() + 0.02 * epoch, 1)
        if epoch < epochs and rng.random() < 0.02:
            tell(pair, state=rng.choice([TrialState.FAIL, TrialState.PRUNED]))
            continue
        for trial in pair:
            trial.report(value, epoch)
        if epoch == epochs:
            tell(pair, values=value)
        else:
            ours, theirs_says = (trial.should_prune() for trial in pair)
            assert ours == theirs_says, (pair[0].number, epoch)
            verdicts.append(ours)
            if ours:
                tell(pair, state=TrialState.PRUNED)
            else:
                running[worker] = (pair, level, epoch)
    assert {True, False} == set(verdicts)


@pytest.mark.parametrize("reduction", [2, 3])
@pytest.mark.parametrize("reached", range(1, 7))
def test_survivors_are_those_of_every_order_on_average(reached: int, reduction: int) -> None:
    orders = list(itertools.permutations([float(value) for value in range(reached)]))
    gone_on = sum(is_best(order[n], list(order[: n + 1]), reduction) for order in orders for n in range(reached))
    assert survivors(reached, reduction) == pytest.approx(gone_on / len(orders))


def test_survivors_of_none_of_a_part_and_of_many() -> None:
    assert survivors(0) == 0
    assert survivors(0.5) == 0.5
    assert survivors(1.5) == pytest.approx(1.25)
    assert survivors(30_000) == pytest.approx(10_000, rel=0.01)


def test_epochs_of_a_trial_under_successive_halving() -> None:
    assert asha_epochs([], 18, 7) == 18, "without a rung nobody is pruned"
    assert asha_epochs([2, 6], 18, 1) == 18, "the only one is the best"
    assert asha_epochs([2, 6], 18, 2) == pytest.approx((2 * 2 + 1.5 * 4 + 1.25 * 12) / 2)
    endless = 2 + 4 / 3 + 12 / 9
    assert asha_epochs([2, 6], 18, 100_000) == pytest.approx(endless, rel=0.01)
    assert asha_epochs([2, 6], 18, 10) > 1.2 * endless
    assert Asha(18).expected_epochs(10) == asha_epochs([2, 6], 18, 10)
    assert Asha(18).expected_epochs(10**12) == pytest.approx(endless, rel=0.01), "a search that only the time ends"


def test_epochs_that_follow_on_others_are_what_all_have_more() -> None:
    first, later = asha_epochs([2, 6], 18, 10), asha_epochs([2, 6], 18, 20, before=10)
    assert 10 * first + 20 * later == pytest.approx(30 * asha_epochs([2, 6], 18, 30))
    assert later < first


def test_epochs_of_a_trial_in_brackets_are_between_those_of_the_strictest_and_of_none() -> None:
    few, many = Hyperband(18).expected_epochs(6), Hyperband(18).expected_epochs(100_000)
    assert Asha(18).expected_epochs(100_000) < many < few < 18
    assert many == pytest.approx(3 / sum(1 / epochs for epochs in (2 + 4 / 3 + 12 / 9, 6 + 12 / 3, 18)), rel=0.01)
    assert Hyperband(18).expected_epochs(3, before=40) < few
