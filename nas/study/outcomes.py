"""How a trial can end, how that is recorded in the study, and what the records say: counts, the best.

The outcome is a user attribute written before the trial is told, so that a decision which a crash cut off is carried out at
the next start instead of being taken anew.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.budget import Cost
from nas.config import Candidate
from nas.study.optuna_private import overwrite_value, stored_trial

Outcome = Literal["trained", "pruned_early", "diverged", "over_budget", "duplicate", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
COUNTED: tuple[Outcome, ...] = ("trained", "pruned_early", "diverged")  # what `--trials` counts: networks that trained

DIVERGENCE = "divergence"  # the constraint that one which diverged breaks; no limit of a budget

_STATES: dict[Outcome, TrialState] = {
    "trained": TrialState.COMPLETE,
    "pruned_early": TrialState.PRUNED,
    "diverged": TrialState.PRUNED,
    "over_budget": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def stored(study: optuna.Study, trial: optuna.Trial) -> FrozenTrial:
    """The trial as the storage has it now."""
    return stored_trial(study, trial)


def last_value(trial: FrozenTrial) -> float | None:
    """What was reported last: the study's metric of the validation images after the last epoch that was trained."""
    curve = trial.intermediate_values
    return curve[max(curve)] if curve else None


def describe(trial: optuna.Trial, candidate: Candidate, cost: Cost) -> None:
    """What the dashboard and the tables show of every trial."""
    trial.set_user_attr("params", cost.params)
    trial.set_user_attr("macs", cost.macs)
    for name in ("flash", "ram", "memory", "latency_ms"):
        if (value := getattr(cost, name)) is not None:
            trial.set_user_attr(name, value)
    for name in ("sam_rho", "epoch_images"):
        if value := getattr(candidate.train, name):
            trial.set_user_attr(name, value)
    trial.set_user_attr("architecture", candidate.arch.one_line())
    trial.set_user_attr("digest", candidate.digest)


def record(study: optuna.Study, trial: optuna.Trial, outcome: Outcome, excess: dict[str, float] | None = None) -> None:
    """Ends a trial that is still running. `excess` names the limits it broke; positive values mark it as infeasible."""
    known = stored(study, trial).constraints if excess else {}  # what a crash left behind is not set twice
    for name, value in (excess or {}).items():
        if name not in known:
            trial.set_constraint(name, value)
    decide(trial, outcome)
    finish(study, trial)


def decide(trial: optuna.Trial, outcome: Outcome) -> None:
    """From here on the outcome is fixed, whatever is cut off before `finish`."""
    trial.set_user_attr("outcome", outcome)


def report(study: optuna.Study, trial: optuna.Trial, value: float, epoch: int) -> None:
    """Stores the value of the validation images after an epoch, in place of what another run may have stored for it."""
    overwrite_value(study, trial, value, epoch)


def finish(study: optuna.Study, trial: optuna.Trial) -> None:
    """Tells the trial as its recorded outcome says."""
    frozen = stored(study, trial)
    outcome: Outcome = frozen.user_attrs["outcome"]
    if outcome == "diverged" and DIVERGENCE not in frozen.constraints:
        # A curve that looked good before it exploded must not teach the sampler that this was good.
        trial.set_constraint(DIVERGENCE, 1.0)
    value = last_value(frozen) if outcome == "trained" else None
    study.tell(trial, value, state=_STATES[outcome])


def record_duplicate(study: optuna.Study, trial: optuna.Trial, twin: FrozenTrial) -> None:
    """Ends a trial as its finished twin ended, curve and all, without training anything."""
    trial.set_user_attr("duplicate_of", twin.number)
    trial.set_user_attr("outcome", "duplicate")
    known = stored(study, trial)
    for step in twin.intermediate_values.keys() - known.intermediate_values.keys():
        trial.report(twin.intermediate_values[step], step)
    for name in twin.constraints.keys() - known.constraints.keys():
        trial.set_constraint(name, twin.constraints[name])
    study.tell(trial, twin.value if twin.state == TrialState.COMPLETE else None, state=twin.state)


def broken_limits(trial: FrozenTrial) -> dict[str, float]:
    """The limits of the budget that it breaks, by how much as a share of each; empty where it fits."""
    return {name: value for name, value in trial.constraints.items() if value > 0 and name != DIVERGENCE}


def outcome_of(trial: FrozenTrial) -> str:
    """One of OUTCOMES, also where it is recorded and not told yet; `running` for a trial that has not ended, or `waiting` for one
    that a warm start has enqueued."""
    if trial.state == TrialState.WAITING:
        return "waiting"
    return trial.user_attrs.get("outcome", "failed" if trial.state.is_finished() else "running")


def count_outcomes(trials: Iterable[FrozenTrial]) -> Counter[str]:
    """Of each outcome, and `imported` for results that another study brought."""
    return Counter("imported" if trial.user_attrs.get("imported") else outcome_of(trial) for trial in trials)


def count_trained(counts: Mapping[str, int]) -> int:
    return sum(counts.get(outcome, 0) for outcome in COUNTED)


def best_trials(trials: Iterable[FrozenTrial], count: int) -> list[FrozenTrial]:
    """The trained ones of highest value, best first; of equal ones the smaller network first."""
    trained = [t for t in trials if outcome_of(t) == "trained"]
    return sorted(trained, key=lambda t: (last_value(t), -t.user_attrs["params"], -t.number), reverse=True)[:count]


def best_so_far(trials: Iterable[FrozenTrial]) -> list[float]:
    """The highest value that was known when each network had trained, in the order of their ends; from the first
    on that got to its end."""
    counted = [t for t in trials if outcome_of(t) in COUNTED and t.datetime_complete is not None]
    values: list[float] = []
    for trial in sorted(counted, key=lambda t: (t.datetime_complete, t.number)):
        if outcome_of(trial) == "trained":
            values.append(max([*values[-1:], trial.value or 0.0]))
        elif values:
            values.append(values[-1])
    return values


def best_trial(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    return next(iter(best_trials(trials, 1)), None)
