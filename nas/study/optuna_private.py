"""What has no public name in Optuna, and why it is needed; a test fails where one of these moves."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers._tpe import _truncnorm
from optuna.storages import BaseStorage
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


def with_cache(storage: BaseStorage) -> BaseStorage:
    """Keeps what cannot change any more in memory, as Optuna does by itself where it is given a database."""
    return optuna.storages.get_storage(storage)


def live_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """A handle on a trial that is still running: Optuna hands one out by `ask` alone, for new trials."""
    return optuna.Trial(study, trial._trial_id)


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
    """What a sampler remembers of a trial that it draws; one that is not stored yet takes it along."""
    if trial._trial_id < 0:
        trial.system_attrs.update(attributes)
        return
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
