"""Finalists: how many a search can afford, how they are trained after it, cut off and gone on with, and who is the best then."""

import os
import shlex
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest

from nas.config import StudyConfig
from nas.display.terminal import finalists_plan
from nas.errors import ConfigError, StudyError
from nas.paths import study_paths
from nas.runs.select import find_subject
from nas.specs import SearchSpec
from nas.study import outcomes
from nas.study.finalists import (
    Finalist,
    Round,
    best_of,
    check_request,
    choose,
    create_sibling_study,
    enqueue_trainings,
    epochs_spent,
    finalists_of,
    plan_round,
    reserved_flop,
    sibling,
)
from nas.study.optuna_private import overwrite_value
from nas.study.pruners import Asha
from nas.study.run import SearchResult, run_search
from nas.study.source import Progress
from nas.study.storage import open_study
from nas.study.trials import TrialRecord
from tests.conftest import Done, QuietDisplay


@pytest.mark.parametrize(
    ("spent", "expected"),
    [
        (0, None),
        (100, None),  # two trainings as long as the search's are 36 of 100 epochs
        (160, Round(2, 18, 1)),
        (300, Round(2, 18, 2)),
        (467, Round(2, 27, 2)),  # 100 networks under successive halving: 108 of 467 epochs
        (1080, Round(4, 27, 2)),
        (100_000, Round(8, 27, 2)),
    ],
)
def test_unless_told_otherwise_they_cost_about_a_fifth_of_the_search(spent: int, expected: Round | None) -> None:
    found = plan_round(spent, 18)
    assert found == expected
    if found and spent < 10_000:
        assert found.cost / spent < 0.26


def test_what_is_asked_for_is_done_and_the_rest_follows() -> None:
    assert plan_round(467, 18, count=0) is None
    assert plan_round(10, 18, count=3) == Round(3, 27, 2)
    assert plan_round(10, 18, count=3, epochs=40, seeds=1) == Round(3, 40, 1)
    assert plan_round(1000, 18, epochs=20) == Round(5, 20, 2)
    assert plan_round(10, 18, epochs=20) == Round(2, 20, 1), "who names epochs wants finalists"
    assert plan_round(100 * Asha(18).expected_epochs(100), 18) == Round(2, 27, 2)


MISTAKES: dict[str, tuple[tuple[Any, ...], str]] = {
    "more than trials": ((5, None, None, 4, 18), "--finalists 5 is larger than --trials 4"),
    "negative": ((-1, None, None, 4, 18), "--finalists must be a number of networks, 0 for none, but is -1"),
    "no seed": ((2, None, 0, 4, 18), "--finalist-seeds must be at least 1, but is 0"),
    "shorter": ((2, 17, None, 4, 18), "--finalist-epochs must be at least the search's 18, but is 17"),
    "endless": ((2, 10**9, None, 4, 18), "--finalist-epochs must be at least 1 and at most 100,000, but is 1000000000"),
    "off and yet told": ((0, 20, None, 4, 18), "--finalists 0 means no finalists, so --finalist-epochs"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_invalid_finalist_options_are_refused(mistake: str) -> None:
    asked, message = MISTAKES[mistake]
    with pytest.raises(ConfigError) as refused:
        check_request(*asked)
    assert refused.value.message.startswith(message)


def searched(*values: float | None) -> optuna.Study:
    """A study of networks with these accuracies; None for one that was pruned after an epoch."""
    study = optuna.create_study(study_name="mine", direction="maximize")
    for value in values:
        outcomes.finish(study, ended(study, value))
    return study


def ended(study: optuna.Study, value: float | None) -> optuna.Trial:
    """One that is recorded and not told."""
    trial = study.ask()
    trial.set_user_attr("params", 100)
    trial.set_user_attr("architecture", "basic")
    for epoch in range(1, 4 if value else 2):
        overwrite_value(trial, value or 0.1, epoch)
    outcomes.decide(trial, "trained" if value else "pruned_early")
    return trial


def begin(study: optuna.Study, *final_round: int | None) -> tuple[optuna.Study, list[optuna.trial.FrozenTrial], Round]:
    """The sibling study with its trainings enqueued, what they train, and the round."""
    asked, trials = choose(study, 3, *final_round)
    finals = create_sibling_study(study, asked)
    enqueue_trainings(finals, trials, asked)
    return finals, trials, asked


def train(finals: optuna.Study, values: dict[tuple[int, int], float]) -> None:
    """What is enqueued, with these accuracies by trial and seed; the others fail."""
    while any(trial.state == optuna.trial.TrialState.WAITING for trial in finals.get_trials()):
        trial = finals.ask()
        value = values.get((trial.user_attrs["finalist"], trial.user_attrs["seed"]))
        if value is not None:
            overwrite_value(trial, value, 1)
        outcomes.decide(trial, "failed" if value is None else "trained")
        outcomes.finish(finals, trial)


def test_the_winner_is_the_best_mean_and_not_the_best_of_the_search() -> None:
    study = searched(0.6, 0.8, None, 0.7)
    assert epochs_spent(study.get_trials()) == 10
    finals, trials, asked = begin(study, 2, 4, 2)
    assert (asked, [trial.number for trial in trials]) == (Round(2, 4, 2), [1, 3])
    assert enqueue_trainings(finals, trials, asked) == 4, "as before"
    order = [(trial.user_attrs["finalist"], trial.user_attrs["seed"]) for trial in finals.get_trials()]
    assert order == [(1, 0), (3, 0), (1, 1), (3, 1)], "all by the first seed before any by the second"
    assert finalists_of(study) == []
    assert best_of(study)[0].number == 1
    train(finals, {(1, 0): 0.9, (3, 0): 0.85, (1, 1): 0.7, (3, 1): 0.85})
    assert finalists_of(study) == [Finalist(3, 4, (0.85, 0.85)), Finalist(1, 4, (0.9, 0.7))]
    winner = finalists_of(study)[1]
    assert (winner.mean, winner.deviation) == (pytest.approx(0.8), pytest.approx(0.1 * 2**0.5))
    assert best_of(study)[0].number == 3
    assert len(study.get_trials()) == 4, "the sampler's history is what it was"


def test_until_all_were_trained_by_the_same_seeds_they_are_compared_by_those_that_all_have() -> None:
    study = searched(0.6, 0.8)
    finals, trials, asked = begin(study, 2, 4, 2)
    train(finals, {(1, 0): 0.75, (0, 0): 0.7, (0, 1): 0.9})
    assert [finalist.number for finalist in finalists_of(study)] == [1, 0]
    assert enqueue_trainings(finals, trials, asked) == 4, "the one that failed is trained again"
    train(finals, {(1, 1): 0.8})
    assert [finalist.number for finalist in finalists_of(study)] == [0, 1]


def test_more_finalists_or_seeds_are_added_to_those_there_are_and_other_epochs_are_refused() -> None:
    study = searched(0.6, 0.8, 0.7)
    one = Round(1, 4, 1)
    finals = create_sibling_study(study, one)
    enqueue_trainings(finals, outcomes.best_trials(study.get_trials(), 1), one)
    train(finals, {(1, 0): 0.9})
    asked, trials = choose(study, 3, 3, None, 2)
    assert asked == Round(3, 4, 2), "a round that has begun goes on with its epochs"
    assert enqueue_trainings(create_sibling_study(study, asked), trials, asked) == 6
    with pytest.raises(StudyError, match="were trained for 4 epochs, so results of 5 epochs would not be comparable"):
        create_sibling_study(study, Round(2, 5, 1))


def test_there_are_no_more_than_ran_to_their_end() -> None:
    assert choose(searched(None, None), 3, 2, None, None) is None
    assert choose(searched(0.5, None), 3, 2, None, None)[0].count == 1
    assert choose(searched(0.5, *[None] * 100), 3, None, None, None) is None, "of one alone nothing is to be chosen"


def test_a_result_that_a_draw_keeps_back_is_a_finalist() -> None:
    """As where the time is up while a draw is under way."""
    study = searched(0.6, 0.7)
    ended(study, 0.8)
    finals, trials, _ = begin(study, 2, 4, 1)
    assert [trial.number for trial in trials] == [2, 1]
    train(finals, {(2, 0): 0.9, (1, 0): 0.7})
    assert best_of(study)[0].number == 2


def test_a_crash_while_the_sibling_study_is_founded_loses_nothing() -> None:
    study = searched(0.6, 0.8)
    optuna.create_study(study_name="mine finalists", storage=study._storage, direction="maximize")
    assert finalists_of(study) == []
    assert best_of(study)[0].number == 1
    asked, trials = choose(study, 3, 2, 4, 2)
    assert enqueue_trainings(create_sibling_study(study, asked), trials, asked) == 4


def test_what_has_not_begun_and_is_not_wanted_any_more_is_given_up() -> None:
    study = searched(0.6, 0.8)
    finals, _, asked = begin(study, 2, 4, 2)
    begun = finals.ask()
    for value in (0.9, 0.95):
        outcomes.finish(study, ended(study, value))
    again, best = choose(study, 3, 2, None, None)
    assert (again, [trial.number for trial in best]) == (asked, [3, 2])
    assert enqueue_trainings(finals, best, again) == 5, "four, and the one that is being trained"
    left = [trial.user_attrs["finalist"] for trial in finals.get_trials() if trial.state.name == "WAITING"]
    assert (begun.user_attrs["finalist"], left) == (1, [3, 2, 3, 2])


class Stopping(QuietDisplay):
    """Presses Ctrl-C in the finalists' first training."""

    def __init__(self) -> None:
        super().__init__()
        self.pressed = False

    def update(self, progress: Progress) -> None:
        if self.finalists and not self.pressed and any(running.last for running in progress.running.values()):
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)


class StoppingAtTheGoal(QuietDisplay):
    """Presses Ctrl-C when the search's last training has ended."""

    def ended(self, row: TrialRecord, progress: Progress) -> None:
        if progress.trained == progress.goal:
            os.kill(os.getpid(), signal.SIGINT)


SPACE = """
version: 1
budget: {params: 4k, macs: 1M}
arch:
  stages: 1
  stage: {blocks: 1, channels: {type: int, low: 2, high: 8}}
train:
  epochs: 2
  batch_size: 64
  augment: {crop_padding: 1, flip: none}
"""


def run(display: QuietDisplay, **changes: Any) -> SearchResult:
    Path("small.yaml").write_text(SPACE)
    request = {"study": "mine", "space": "small.yaml", "dataset": "digits", "train_subset": 200, "trials": 3, "device": "cpu"}
    return run_search(SearchSpec(**{**request, **changes}), display)


def test_they_are_trained_after_the_search_by_the_same_workers_and_go_on_where_they_were_cut_off() -> None:
    finals = {"finalists": 2, "finalist_epochs": 3, "finalist_seeds": 2, "pruner": "none"}
    at_the_goal = StoppingAtTheGoal()
    result = run(at_the_goal, **finals)
    assert (result.interrupted, result.progress.trained, at_the_goal.finalists) == (True, 3, None)
    assert not any("the search continues for the remaining time" in note for note in at_the_goal.notes)
    display = Stopping()
    first = run(display, **finals)
    assert display.pressed
    assert first.interrupted
    assert first.progress.trained == 3
    again = QuietDisplay()
    result = run(again, **finals)
    assert not result.interrupted
    assert any("resumes after epoch" in note for note in again.notes)
    assert [len(finalist.accuracies) for finalist in result.finalists] == [2, 2]
    paths = study_paths("mine")
    study = open_study(paths)
    assert outcomes.count_trained(outcomes.count_outcomes(study.get_trials())) == 3, "the sampler's history is what it was"
    trials = [trial for trial in study.get_trials() if trial.state.is_finished()]
    assert {f.number for f in result.finalists} == {t.number for t in outcomes.best_trials(trials, 2)}
    assert len(list(paths.finalists.trials.glob("*/metrics.jsonl"))) == 4
    assert all(len(file.read_text().splitlines()) == 3 for file in paths.finalists.trials.glob("*/metrics.jsonl"))
    best = find_subject(paths, "best")
    assert best.title == f"trial {result.finalists[0].number}"
    assert best.accuracy == result.finalists[0].mean
    assert run(QuietDisplay(), **finals).finalists == result.finalists, "a third time nothing is trained"


def test_commands_name_the_winner(nas: Callable[..., Done]) -> None:
    Path("small.yaml").write_text(SPACE)
    options = shlex.split(
        "--study mine --space small.yaml --dataset digits --train-subset 200 --trials 3 --device cpu --pruner none"
    )
    done = nas("search", *options, "--finalists", "2", "--finalist-epochs", "2", "--finalist-seeds", "1")
    assert done.code == 0, done.err
    assert "finalists the best 2 again, 2 epochs with one seed: 4 epochs (the search: about 6)" in done.err
    winner = next(line for line in done.out.splitlines() if line.startswith("Winner"))
    number = winner.split("trial ")[1].split(":")[0]
    assert f"Study mine, best: trial {int(number):4d}" in nas("best", "--study", "mine").out
    assert f"finalist   trial {number}: " in nas("list", "--study", "mine").out
    assert f"Study mine, trial {number}, validation accuracy" in nas("show", "best", "--study", "mine").out
    refused = nas("search", "--study", "mine", "--finalist-epochs", "5")
    assert refused.code == 1
    assert "the finalists of study 'mine' were trained for 2 epochs" in refused.err


def test_compute_that_is_too_little_for_finalists_goes_into_the_search() -> None:
    run(QuietDisplay(), trials=4, finalists=0, pruner="none")
    costs = [
        record.flop or 0.0 for record in map(partial(TrialRecord.of, images=200), open_study(study_paths("mine")).get_trials())
    ]
    spent, display = sum(costs), QuietDisplay()
    result = run(display, study="limited", trials=50, flop=spent, pruner="none")
    assert any("the search continues for the remaining compute" in note for note in display.notes)
    assert (result.progress.trained, result.finalists) == (4, [])


@pytest.mark.parametrize(
    ("flop", "count", "trial_flop", "expected"),
    [(None, 2, 10e12, 0.0), (100e12, None, 10e12, 20e12), (100e12, 2, None, 20e12), (100e12, 2, 10e12, 40e12)],
)
def test_compute_is_reserved_only_where_it_is_limited(
    flop: float | None, count: int | None, trial_flop: float | None, expected: float
) -> None:
    config = StudyConfig(trial_compute=trial_flop)
    assert reserved_flop(flop, Round(2, 6, 1), count, 3, config, None) == pytest.approx(expected)
    assert reserved_flop(flop, None, None, 3, config, None) == 0.0


def test_finalists_that_leave_the_search_nothing_are_refused() -> None:
    config = StudyConfig(trial_compute=10e12, final_compute=15e12)
    with pytest.raises(ConfigError, match="finalists need 30TFLOP, and --compute 29TFLOP would leave the search nothing"):
        reserved_flop(29e12, Round(2, 6, 1), 2, 3, config, 10**8)


def test_the_search_leaves_what_a_given_number_of_finalists_needs_of_the_compute() -> None:
    trial, display = 1e9, QuietDisplay()
    finals = {"finalists": 2, "finalist_epochs": 4, "finalist_seeds": 1}  # twice as long as a trial, so as much as four
    result = run(display, trials=50, flop=7.5 * trial, trial_compute=trial, pruner="none", **finals)
    assert display.plan is not None
    assert finalists_plan(display.plan).startswith("the best 2 again, 4 epochs with one seed: 8 epochs, in the last 4")
    assert display.plan.finalist_flop == pytest.approx(4 * trial)
    assert result.progress.trained == 4, "3.5 are left for the search; what has begun is trained to the end"
    assert [len(finalist.accuracies) for finalist in result.finalists] == [1, 1]


def test_finalists_too_are_ranked_for_the_final_training() -> None:
    config = StudyConfig(trial_compute=1e9, final_compute=1e10)
    finals = {"finalists": 2, "finalist_epochs": 6, "finalist_seeds": 1}
    run(QuietDisplay(), trials=3, trial_compute=config.trial_compute, final_compute=config.final_compute, pruner="none", **finals)
    study = open_study(study_paths("mine"))
    for trials, times in ((study.get_trials(), 1.0), (sibling(study).get_trials(), 3.0)):
        records = [TrialRecord.of(trial, images=200) for trial in trials if trial.user_attrs["outcome"] == "trained"]
        assert len(records) == (3 if times == 1 else 2)
        for record in records:
            assert record.flop == pytest.approx(config.compute_of(record.macs or 0, 10**6, times), rel=0.02)
            assert 0 < (record.flop or 0.0) < times * 1e9


def test_finalists_get_a_fifth_of_the_time_limit() -> None:
    display = QuietDisplay()
    result = run(display, trials=100_000, timeout=12.0, finalists=2, finalist_epochs=2, finalist_seeds=1)
    assert display.finalists == Round(2, 2, 1)
    assert [len(finalist.accuracies) for finalist in result.finalists] == [1, 1]
    assert 0 < result.progress.trained < 100_000
    assert not result.interrupted, "the time was the search's to be used up"
