"""Private names of Optuna, and why they are needed; a test fails if one of them changes."""

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
    """The storage's ID of the trial; its number is its place in the study."""
    return trial._trial_id


class LeanRDBStorage(optuna.storages.RDBStorage):
    """Optuna's storage in a database, with a faster way to add a trial and to find new ones: the public methods take three
    statements for each parameter, and read every trial."""

    def add_trial(self, study_id: int, template: FrozenTrial | None) -> FrozenTrial:
        return self._create_new_trial(study_id, template)

    def newer_trials(self, study_id: int, trial_id: int) -> list[FrozenTrial]:
        """Trials with a larger ID than this one (-1: all), in the order of their numbers."""
        return self._get_trials(study_id, None, set(), trial_id)

    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Any) -> TrialModel:
        """Within the transaction that adds a trial; its parameters are added with one statement. The caller must make sure that
        their ranges are those of earlier trials."""
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
    """The value as it is read back: a tuple becomes a list."""
    return json.loads(json.dumps(value))


def as_stored(trial: FrozenTrial) -> FrozenTrial:
    """The trial as it is read back."""
    stored = copy.copy(trial)
    stored.params = {
        name: trial.distributions[name].to_external_repr(trial.distributions[name].to_internal_repr(value))
        for name, value in trial.params.items()
    }
    stored.user_attrs, stored.system_attrs = through_json(trial.user_attrs), through_json(trial.system_attrs)
    return stored


def live_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """A handle on a running trial: Optuna returns one only from `ask`, for new trials."""
    return optuna.Trial(study, trial._trial_id)


def begin_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """Adds a running trial and returns it: `Study.add_trial` does not say which one it became."""
    return optuna.Trial(study, storage_of(study).create_new_trial(study._study_id, trial))


def stored_trial(trial: optuna.Trial) -> FrozenTrial:
    """The trial as stored now: `Study.get_trials` would read every unfinished trial, at each epoch of each."""
    return trial.storage.get_trial(trial._trial_id)


def overwrite_value(trial: optuna.Trial, value: float, step: int) -> None:
    """Replaces an intermediate value: `Trial.report` keeps the first one."""
    trial.storage.set_trial_intermediate_value(trial._trial_id, step, value)


def give_up(study: optuna.Study, trial: FrozenTrial) -> None:
    """Fails a waiting trial: `Study.tell` takes only running ones."""
    storage_of(study).set_trial_state_values(trial._trial_id, TrialState.FAIL)


def set_attributes(study: optuna.Study, trial: FrozenTrial, attributes: Mapping[str, Any]) -> None:
    """Stores a sampler's attributes of a trial that it draws."""
    for name, value in attributes.items():
        storage_of(study).set_trial_system_attr(trial._trial_id, name, value)


def attributes_without_constraints(trial: FrozenTrial) -> dict[str, Any]:
    """A sampler's attributes of a trial without the constraints, which are among them and cannot be set again."""
    return {name: value for name, value in trial.system_attrs.items() if not name.startswith(_CONSTRAINTS_KEY)}


class RememberingTPESampler(optuna.samplers.TPESampler):
    """Converts each finished trial to numbers once, and not for each draw, which takes a quarter of a draw's time at 2,000
    trials."""

    rows: dict[int, list[float]] | None = None
    """By number, a trial's parameters in TPE's own representation; the code that makes the samplers of a study keeps it."""

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
