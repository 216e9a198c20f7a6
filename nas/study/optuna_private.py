"""What has no public name in Optuna, and why it is needed; a test fails where one of these moves."""

import optuna
from optuna.trial import FrozenTrial


def live_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """A handle on a trial that is still running: Optuna hands one out by `ask` alone, for new trials."""
    return optuna.Trial(study, trial._trial_id)


def overwrite_value(study: optuna.Study, trial: optuna.Trial | FrozenTrial, value: float, step: int) -> None:
    """Stores an intermediate value in place of another: `Trial.report` keeps the first one."""
    study._storage.set_trial_intermediate_value(trial._trial_id, step, value)


def give_up(study: optuna.Study, trial: FrozenTrial) -> None:
    """Fails a trial that is still waiting: `Study.tell` takes running ones alone."""
    study._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.FAIL)
