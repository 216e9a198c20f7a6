"""The view of a study's trials that samplers get, so that they can learn from all of them.

Many of Optuna's samplers and pruners read only completed trials, of which a search with pruning has few. In this view each
trained network has a value, duplicates are left out, and a candidate over budget has a violated constraint.
"""

import math
from collections import defaultdict
from collections.abc import Container, Sequence
from statistics import median
from typing import Any, cast

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.study.optuna_private import attributes_without_constraints
from nas.study.outcomes import DIVERGENCE
from nas.study.owned import RoutedStorage

BUDGET = "budget"
"""The only constraint of a trial in the view: the logarithm of its cost over the limits, at most 0 if it fits."""


class HistoryView(RoutedStorage):
    """The storage of one study that has only the given trials. `written` holds the attributes that a sampler sets on the trial
    that it draws."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self.trials = trials
        self.written: dict[str, Any] = {}

    @property
    def study(self) -> optuna.Study:
        return optuna.Study("history", self, optuna.samplers.RandomSampler(), optuna.pruners.NopPruner())

    def get_study_id_from_name(self, study_name: str) -> int:
        return 0

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [StudyDirection.MAXIMIZE]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self.trials if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.written[key] = value


def history_view(trials: Sequence[FrozenTrial]) -> HistoryView:
    return HistoryView(trials)  # type: ignore[abstract]


def is_duplicate(trial: FrozenTrial) -> bool:
    return "duplicate_of" in trial.user_attrs


def excess(trial: FrozenTrial, limit: int | None) -> float:
    """By which share a trial exceeds its limits; at most 0 if it fits. `limit`: of parameters, instead of the study's own
    limits."""
    broken = {name: value for name, value in trial.constraints.items() if name != DIVERGENCE}
    if limit is not None and "params" in trial.user_attrs:
        others = max((value for name, value in broken.items() if name != "params"), default=-1.0)
        return float(max(trial.user_attrs["params"] / limit - 1, others))
    return float(trial.user_attrs.get("excess", max(broken.values(), default=0.0)))


def projected_values(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    """By number, the expected final value of each trained network: of a completed one its value; of a pruned one its last value
    plus the typical gain of the others after that epoch."""
    values = {trial.number: cast(float, trial.value) for trial in trials if trial.state == TrialState.COMPLETE}
    trained = [trial for trial in trials if trial.state.is_finished() and trial.intermediate_values]
    gains = defaultdict(list)
    for trial in trained:
        if trial.state == TrialState.COMPLETE:
            for epoch, value in trial.intermediate_values.items():
                gains[epoch].append(values[trial.number] - value)
    typical = {epoch: median(found) for epoch, found in gains.items()}
    for trial in trained:
        if trial.number not in values:
            epoch = max(trial.intermediate_values)
            values[trial.number] = trial.intermediate_values[epoch] + typical.get(epoch, 0.0)
    return values


def all_with_values(study: optuna.Study, limit: int | None = None, over_budget: bool = True) -> list[FrozenTrial]:
    """The study's finished trials, each as a completed one with a value and one constraint.

    A diverged trial has the worst value. A trial over budget has a middling value, so that only its constraint teaches. Failed
    trials, duplicates, and untrained networks that would fit now are left out.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if not is_duplicate(trial)]
    values = projected_values([trial for trial in trials if trial.state != TrialState.FAIL])
    over = {trial.number: excess(trial, limit) for trial in trials}
    diverged = {trial.number for trial in trials if trial.constraints.get(DIVERGENCE, 0.0) > 0}
    fitting = [value for number, value in values.items() if over[number] <= 0 and number not in diverged]
    if not fitting:
        over_budget = over_budget and limit is None
    middling, worst = (median(fitting), min(fitting)) if fitting else (0.0, 0.0)
    result = []
    for trial in trials:
        number = trial.number
        if not trial.state.is_finished():
            result.append(trial)
        elif trial.state == TrialState.FAIL or (over[number] > 0 and not over_budget):
            continue
        elif over[number] > 0:
            result.append(_complete(trial, middling, over[number]))
        elif number in diverged:
            result.append(_complete(trial, worst, over[number]))
        elif number in values:
            result.append(_complete(trial, values[number], over[number]))
    return result


def _complete(trial: FrozenTrial, value: float, over: float) -> FrozenTrial:
    shown = FrozenTrial(
        number=trial.number,
        state=TrialState.COMPLETE,
        value=value,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=attributes_without_constraints(trial),
        intermediate_values=trial.intermediate_values,
        trial_id=trial.number,
    )
    shown.set_constraint(BUDGET, math.log1p(max(over, -0.999)))
    return shown
