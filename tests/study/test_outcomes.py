"""How each outcome is recorded, and what the records say afterwards: the design's table, row by row."""

from collections import Counter
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from nas.budget import Cost
from nas.config import Candidate
from nas.space.space import Space
from nas.study import outcomes
from nas.study.outcomes import COUNTED, OUTCOMES, best_trials, count_outcomes, count_trained, outcome_of
from nas.study.trials import TrialRecord, flop_of


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))


@pytest.fixture
def candidate(space: Space) -> Candidate:
    return space.candidate(space.first_values)


def running(study: optuna.Study, candidate: Candidate, *curve: float) -> optuna.Trial:
    """A trial that has reported these accuracies."""
    trial = study.ask()
    outcomes.describe(trial, candidate, Cost(1234, 5678, {"params": -0.5}))
    for epoch, accuracy in enumerate(curve, 1):
        trial.report(accuracy, epoch)
    return trial


def frozen(study: optuna.Study, trial: optuna.Trial) -> optuna.trial.FrozenTrial:
    return study.get_trials()[trial.number]


TABLE: list[tuple[str, TrialState, float | None, dict[str, float], bool]] = [
    ("trained", TrialState.COMPLETE, 0.7, {}, True),
    ("pruned_early", TrialState.PRUNED, 0.7, {}, True),
    ("diverged", TrialState.PRUNED, 0.7, {"divergence": 1.0}, True),
    ("failed", TrialState.FAIL, None, {}, False),
]


@pytest.mark.parametrize(("outcome", "state", "value", "constraints", "counts"), TABLE)
def test_an_outcome_is_recorded_as_the_table_says(
    study: optuna.Study,
    candidate: Candidate,
    outcome: Any,
    state: TrialState,
    value: float | None,
    constraints: dict[str, float],
    counts: bool,
) -> None:
    trial = running(study, candidate, 0.5, 0.8, 0.7)
    outcomes.record(study, trial, outcome)
    found = frozen(study, trial)
    assert (found.state, found.value, found.constraints) == (state, value, constraints)
    assert found.intermediate_values == {1: 0.5, 2: 0.8, 3: 0.7}
    assert found.user_attrs["outcome"] == outcome_of(found) == outcome
    assert (outcome in COUNTED) is counts
    assert count_trained(count_outcomes([found])) == int(counts)


def test_over_budget_is_pruned_with_a_positive_constraint_and_all_that_it_costs(
    study: optuna.Study, candidate: Candidate
) -> None:
    trial = study.ask()
    cost = Cost(8000, 5_000_000, {"params": 0.6, "macs": -0.1})
    outcomes.describe(trial, candidate, cost)
    outcomes.record(study, trial, "over_budget", cost.excess)
    found = frozen(study, trial)
    assert (found.state, found.value, found.constraints) == (TrialState.PRUNED, None, {"params": 0.6, "macs": -0.1})
    network = {"architecture": candidate.arch.one_line(), "digest": candidate.digest}
    assert found.user_attrs == {"params": 8000, "macs": 5_000_000, **network, "outcome": "over_budget"}
    assert count_trained(count_outcomes([found])) == 0
    measured = study.ask()
    outcomes.describe(measured, candidate, Cost(1234, 5678, {"params": -0.5}, memory=4096, latency_ms=1.5))
    costs = {"params": 1234, "macs": 5678, "memory": 4096, "latency_ms": 1.5}
    assert frozen(study, measured).user_attrs == {**costs, **network}


def test_an_epoch_of_the_hardest_images_counts_as_those_images(study: optuna.Study, candidate: Candidate) -> None:
    half = candidate.model_copy(update={"train": candidate.train.model_copy(update={"hardest": 0.5})})
    trials = [running(study, one, 0.5, 0.6) for one in (candidate, half)]
    for trial, one in zip(trials, (candidate, half), strict=True):
        outcomes.describe(trial, one, Cost(1234, 5678, {"params": -0.5}))
    whole, part = (flop_of(frozen(study, trial), 1000) for trial in trials)
    assert whole == 6 * 5678 * 1000 * 2
    assert part == whole / 2


@pytest.mark.parametrize("outcome", ["trained", "pruned_early", "diverged", "failed"])
def test_a_duplicate_ends_as_its_twin_did(study: optuna.Study, candidate: Candidate, outcome: Any) -> None:
    first, second = running(study, candidate, 0.5, 0.6), running(study, candidate)
    outcomes.record(study, first, outcome)
    twin = frozen(study, first)
    outcomes.record_duplicate(study, second, twin)
    found = frozen(study, second)
    assert (found.state, found.value, found.constraints) == (twin.state, twin.value, twin.constraints)
    assert found.intermediate_values == twin.intermediate_values
    assert (found.user_attrs["outcome"], found.user_attrs["duplicate_of"]) == ("duplicate", first.number)
    assert count_trained(count_outcomes([found])) == 0


@pytest.mark.parametrize("outcome", ["trained", "pruned_early", "diverged", "over_budget", "failed"])
def test_a_record_that_a_crash_cut_off_is_carried_out_by_what_it_says(
    study: optuna.Study, candidate: Candidate, outcome: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    excess = {"params": 0.5} if outcome == "over_budget" else None
    whole, cut = running(study, candidate, 0.5), running(study, candidate, 0.5)
    outcomes.record(study, whole, outcome, excess)
    with monkeypatch.context() as patched:
        patched.setattr(study, "tell", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            outcomes.record(study, cut, outcome, excess)
    assert frozen(study, cut).state == TrialState.RUNNING
    assert outcome_of(frozen(study, cut)) == outcome, "it is decided, only nobody was told"
    outcomes.finish(study, optuna.Trial(study, frozen(study, cut)._trial_id))
    one, other = frozen(study, whole), frozen(study, cut)
    assert (one.state, one.value, one.constraints) == (other.state, other.value, other.constraints)


def test_what_a_crash_left_behind_is_not_recorded_twice(study: optuna.Study, candidate: Candidate) -> None:
    trial = running(study, candidate)
    trial.set_constraint("params", 0.5)
    outcomes.record(study, trial, "over_budget", {"params": 0.5, "macs": 0.1})  # a warning of Optuna's would fail this test
    assert frozen(study, trial).constraints == {"params": 0.5, "macs": 0.1}
    first, second = running(study, candidate, 0.5, 0.6), running(study, candidate, 0.5)
    outcomes.record(study, first, "diverged")
    second.set_constraint("divergence", 1.0)
    outcomes.record_duplicate(study, second, frozen(study, first))
    assert frozen(study, second).intermediate_values == {1: 0.5, 2: 0.6}


def test_every_outcome_has_a_row(study: optuna.Study, candidate: Candidate) -> None:
    trial = running(study, candidate, 0.5, 0.6)
    assert TrialRecord.of(frozen(study, trial)).outcome == "running"
    outcomes.record(study, trial, "trained")
    trained = TrialRecord(0, "trained", 0.6, 2, 1234, 5678, candidate.arch.one_line())
    assert TrialRecord.of(frozen(study, trial)).row() == trained.row()
    bare = study.ask()
    study.tell(bare, state=TrialState.FAIL)
    assert TrialRecord.of(frozen(study, bare)).row() == TrialRecord(1, "failed", None, 0, None, None, None, flop=0.0).row()


def test_only_three_outcomes_count_and_results_of_another_study_do_not(study: optuna.Study, candidate: Candidate) -> None:
    assert set(COUNTED) == {"trained", "pruned_early", "diverged"} < set(OUTCOMES)
    assert count_trained(Counter(dict.fromkeys([*OUTCOMES, "running", "imported"], 1))) == 3
    trial = running(study, candidate, 0.5)
    trial.set_user_attr("imported", True)
    outcomes.record(study, trial, "trained")
    assert count_outcomes(study.get_trials()) == {"imported": 1}


def test_the_best_is_the_most_accurate_then_the_smaller_one(study: optuna.Study, candidate: Candidate) -> None:
    for accuracy, params, outcome in [
        (0.6, 10, "trained"),
        (0.8, 300, "trained"),
        (0.8, 200, "trained"),
        (0.8, 200, "trained"),
        (0.9, 10, "pruned_early"),
        (0.95, 10, "diverged"),
    ]:
        trial = running(study, candidate, accuracy)
        trial.set_user_attr("params", params)
        outcomes.record(study, trial, outcome)
    assert [trial.number for trial in best_trials(study.get_trials(), 2)] == [2, 3]
    untold = running(study, candidate, 0.85)
    outcomes.decide(untold, "trained")
    (best,) = best_trials(study.get_trials(), 1)
    assert best.number == untold.number, "what a draw that was cut off keeps back is a result"
    assert best_trials([], 1) == []
