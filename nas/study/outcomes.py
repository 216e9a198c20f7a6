"""How a trial can end, how the study records it, and what the records say: counts, the best trials.

The outcome is a user attribute that is written before the trial is told. If a crash comes in between, the next start carries out
the decision and does not make it again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.budget import Cost
from nas.config import Candidate, TrainConfig
from nas.study.optuna_private import stored_trial

Outcome = Literal["trained", "pruned_early", "diverged", "over_budget", "duplicate", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
COUNTED: tuple[Outcome, ...] = ("trained", "pruned_early", "diverged")  # what `--trials` counts: networks that trained

DIVERGENCE = "divergence"  # the constraint that a diverged trial violates; not a limit of a budget

_STATES: dict[Outcome, TrialState] = {
    "trained": TrialState.COMPLETE,
    "pruned_early": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "over_budget": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def last_value(trial: FrozenTrial) -> float | None:
    """The last reported value: the study's metric on the validation images after the last trained epoch."""
    curve = trial.intermediate_values
    return curve[max(curve)] if curve else None


def describe(trial: optuna.Trial, candidate: Candidate, cost: Cost) -> None:
    """Stores what the dashboard and the tables show of every trial."""
    trial.set_user_attr("params", cost.params)
    trial.set_user_attr("macs", cost.macs)
    for name in ("flash", "ram", "memory", "latency_ms"):
        if (value := getattr(cost, name)) is not None:
            trial.set_user_attr(name, value)
    for name in ("sam_rho", "epoch_images", "hardest"):
        if (value := getattr(candidate.train, name)) != TrainConfig.model_fields[name].default:
            trial.set_user_attr(name, value)
    trial.set_user_attr("architecture", candidate.arch.one_line())
    trial.set_user_attr("digest", candidate.digest)


def record(study: optuna.Study, trial: optuna.Trial, outcome: Outcome, excess: dict[str, float] | None = None) -> None:
    """Ends a running trial. `excess` names the limits that it exceeds; positive values mark it as infeasible."""
    known = stored_trial(trial).constraints if excess else {}  # a constraint that was set before a crash is not set twice
    for name, value in (excess or {}).items():
        if name not in known:
            trial.set_constraint(name, value)
    decide(trial, outcome)
    finish(study, trial)


def decide(trial: optuna.Trial, outcome: Outcome) -> None:
    """Records the outcome, which is then fixed, whatever happens before `finish`."""
    trial.set_user_attr("outcome", outcome)


def finish(study: optuna.Study, trial: optuna.Trial) -> None:
    """Tells the trial with its recorded outcome."""
    frozen = stored_trial(trial)
    outcome: Outcome = frozen.user_attrs["outcome"]
    if outcome == "diverged" and DIVERGENCE not in frozen.constraints:
        # A curve that looked good before the loss exploded must not teach the sampler that it was good.
        trial.set_constraint(DIVERGENCE, 1.0)
    value = last_value(frozen) if outcome == "trained" else None
    study.tell(trial, value, state=_STATES[outcome])


def record_duplicate(study: optuna.Study, trial: optuna.Trial, twin: FrozenTrial) -> None:
    """Ends a trial like its finished twin, with the same curve and without a training."""
    trial.set_user_attr("duplicate_of", twin.number)
    trial.set_user_attr("outcome", "duplicate")
    known = stored_trial(trial)
    for step in twin.intermediate_values.keys() - known.intermediate_values.keys():
        trial.report(twin.intermediate_values[step], step)
    for name in twin.constraints.keys() - known.constraints.keys():
        trial.set_constraint(name, twin.constraints[name])
    study.tell(trial, twin.value if twin.state == TrialState.COMPLETE else None, state=twin.state)


def broken_limits(trial: FrozenTrial) -> dict[str, float]:
    """The budget's limits that it exceeds, each by which share; empty if it fits."""
    return {name: value for name, value in trial.constraints.items() if value > 0 and name != DIVERGENCE}


def outcome_of(trial: FrozenTrial) -> str:
    """One of OUTCOMES, also if it is recorded but not told yet; `running` for an unfinished trial, or `waiting` for an enqueued
    one."""
    if trial.state == TrialState.WAITING:
        return "waiting"
    return trial.user_attrs.get("outcome", "failed" if trial.state.is_finished() else "running")


def count_outcomes(trials: Iterable[FrozenTrial]) -> Counter[str]:
    """Number of trials for each outcome, and `imported` for results of another study."""
    return Counter("imported" if trial.user_attrs.get("imported") else outcome_of(trial) for trial in trials)


def count_trained(counts: Mapping[str, int]) -> int:
    return sum(counts.get(outcome, 0) for outcome in COUNTED)


def best_trials(trials: Iterable[FrozenTrial], count: int) -> list[FrozenTrial]:
    """The completed trials with the highest values, best first; of equal ones the smaller network first."""
    trained = [t for t in trials if outcome_of(t) == "trained"]
    return sorted(trained, key=lambda t: (last_value(t), -t.user_attrs["params"], -t.number), reverse=True)[:count]


def best_so_far(trials: Iterable[FrozenTrial]) -> list[float]:
    """The highest value so far after each trained network, in the order in which they ended, from the first completed one on."""
    counted = [t for t in trials if outcome_of(t) in COUNTED and t.datetime_complete is not None]
    values: list[float] = []
    for trial in sorted(counted, key=lambda t: (t.datetime_complete, t.number)):
        if outcome_of(trial) == "trained":
            values.append(max([*values[-1:], trial.value or 0.0]))
        elif values:
            values.append(values[-1])
    return values
