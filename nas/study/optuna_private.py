"""What has no public name in Optuna, and why it is needed; a test fails where one of these moves."""

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.samplers._tpe import _truncnorm
from optuna.storages import BaseStorage
from optuna.storages._rdb.models import TrialModel, TrialParamModel
from optuna.study._constrained_optimization import _CONSTRAINTS_KEY
from optuna.trial import FrozenTrial, TrialState
from scipy.special import log_ndtr

# It would warn each time that one point is better than all others.
logging.getLogger("optuna._gp.optim_mixed").setLevel(logging.ERROR)

# Optuna computes the logarithm of the normal distribution one number after another, which is half of the time of a draw at 2,000
# trials; a test holds the two against each other.
_truncnorm._log_ndtr = log_ndtr


def storage_of(study: optuna.Study) -> BaseStorage:
    """For another study of the same database, and for the methods below."""
    return study._storage


def id_of(trial: FrozenTrial) -> int:
    """By which a storage knows it; its number is its place in the study."""
    return trial._trial_id


class LeanRDBStorage(optuna.storages.RDBStorage):
    """Optuna's storage in a database, with a faster way to add a trial and to see which were added: what is public takes three
    statements for each parameter, and reads every trial."""

    def add_trial(self, study_id: int, template: FrozenTrial | None) -> FrozenTrial:
        return self._create_new_trial(study_id, template)

    def newer_trials(self, study_id: int, trial_id: int) -> list[FrozenTrial]:
        """Than the trial of that id, or than -1; in the order of their numbers."""
        return self._get_trials(study_id, None, set(), trial_id)

    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Any) -> TrialModel:
        """Within the transaction that adds a trial; its parameters by one statement. That their ranges are those of the trials
        before is left to whoever made them."""
        if template_trial is None:
            return super()._get_prepared_new_trial(study_id, None, session)
        without = copy.copy(template_trial)
        without.params = {}
        trial = super()._get_prepared_new_trial(study_id, without, session)
        rows = [
            {
                "trial_id": trial.trial_id,
                "param_name": name,
                "param_value": template_trial.distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(template_trial.distributions[name]),
            }
            for name, value in template_trial.params.items()
        ]
        if rows:
            session.execute(sqlalchemy.insert(TrialParamModel), rows)
        return trial


def through_json(value: Any) -> Any:
    """As it is read again: a tuple is a list then."""
    return json.loads(json.dumps(value))


def as_stored(trial: FrozenTrial) -> FrozenTrial:
    """As it is read again."""
    stored = copy.copy(trial)
    stored.params = {
        name: trial.distributions[name].to_external_repr(trial.distributions[name].to_internal_repr(value))
        for name, value in trial.params.items()
    }
    stored.user_attrs, stored.system_attrs = through_json(trial.user_attrs), through_json(trial.system_attrs)
    return stored


def live_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """A handle on a trial that is still running: Optuna hands one out by `ask` alone, for new trials."""
    return optuna.Trial(study, trial._trial_id)


def begin_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """Adds a running trial and hands it out: `Study.add_trial` does not say which one it became."""
    return optuna.Trial(study, storage_of(study).create_new_trial(study._study_id, trial))


def stored_trial(study: optuna.Study, trial: optuna.Trial) -> FrozenTrial:
    """As the storage has it now: `Study.get_trials` would read every trial that has not ended, at each epoch of each."""
    return storage_of(study).get_trial(trial._trial_id)


def overwrite_value(study: optuna.Study, trial: optuna.Trial | FrozenTrial, value: float, step: int) -> None:
    """Stores an intermediate value in place of another: `Trial.report` keeps the first one."""
    storage_of(study).set_trial_intermediate_value(trial._trial_id, step, value)


def give_up(study: optuna.Study, trial: FrozenTrial) -> None:
    """Fails a trial that is still waiting: `Study.tell` takes running ones alone."""
    storage_of(study).set_trial_state_values(trial._trial_id, TrialState.FAIL)


def set_attributes(study: optuna.Study, trial: FrozenTrial, attributes: Mapping[str, Any]) -> None:
    """What a sampler remembers of a trial that it draws."""
    for name, value in attributes.items():
        storage_of(study).set_trial_system_attr(trial._trial_id, name, value)


def attributes_without_constraints(trial: FrozenTrial) -> dict[str, Any]:
    """A sampler's attributes of a trial: constraints, which cannot be set anew, stand among them."""
    return {name: value for name, value in trial.system_attrs.items() if not name.startswith(_CONSTRAINTS_KEY)}


class RememberingTPESampler(optuna.samplers.TPESampler):
    """Converts each finished trial to numbers once and not anew for each draw, which of 2,000 trials is a fourth of its time."""

    rows: dict[int, list[float]] | None = None
    """By number, a trial's parameters in TPE's own representation; whoever makes the samplers of one study keeps it."""

    def _get_internal_repr(
        self, trials: Sequence[FrozenTrial], search_space: dict[str, BaseDistribution], study: optuna.Study
    ) -> dict[str, np.ndarray]:
        if self.rows is None:
            return super()._get_internal_repr(list(trials), search_space, study)
        rows = []
        for trial in trials:
            row = self.rows.get(trial.number)
            if row is None:
                params = self._get_params(trial, study)
                if not search_space.keys() <= params.keys():
                    continue
                row = [distribution.to_internal_repr(params[name]) for name, distribution in search_space.items()]
                if trial.state.is_finished():
                    self.rows[trial.number] = row
            rows.append(row)
        table = np.asarray(rows, dtype=float).reshape(len(rows), len(search_space))
        return {name: table[:, column] for column, name in enumerate(search_space)}
