"""The sampler's arguments are ours, and it learns what the outcomes mean to teach it."""

import inspect

import numpy as np
import optuna
import pytest
from optuna.samplers._tpe.sampler import TPESampler, _split_trials
from optuna.trial import TrialState

from nas.search import samplers
from nas.search.samplers import SAMPLERS, STARTUP_TRIALS


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_follows_its_seed(name: str) -> None:
    def draws(seed: int) -> list[float]:
        study = optuna.create_study(sampler=SAMPLERS[name](seed), direction="maximize")
        values = []
        for _ in range(STARTUP_TRIALS + 3):
            trial = study.ask()
            values.append(trial.suggest_float("x", 0.0, 1.0))
            study.tell(trial, -abs(values[-1] - 0.3))
        return values

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_no_argument_of_tpe_that_changes_draws_is_left_to_its_default() -> None:
    sampler = SAMPLERS["tpe"](3)
    assert isinstance(sampler, TPESampler)
    assert (sampler._multivariate, sampler._group, sampler._constant_liar) == (True, False, True)
    assert (sampler._n_startup_trials, sampler._n_ei_candidates) == (STARTUP_TRIALS, 24)
    source = inspect.getsource(samplers.tpe)
    for argument in ("n_startup_trials", "n_ei_candidates", "multivariate", "group", "constant_liar", "seed"):
        assert f"{argument}=" in source


def test_over_budget_and_diverged_trials_are_bad_ones_and_trained_ones_come_first() -> None:
    """Of 40 trials, 24 over budget, the best of the trained ones are still those that TPE calls good."""
    study = optuna.create_study(direction="maximize", sampler=SAMPLERS["tpe"](0))
    rng = np.random.default_rng(0)
    for number in range(40):
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0)
        if number % 5 < 3:
            trial.set_constraint("params", 0.5)
            study.tell(trial, state=TrialState.PRUNED)
        elif number % 10 == 3:
            trial.report(0.99, 1)
            trial.set_constraint("divergence", 1.0)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, float(rng.uniform(0.5, 0.9)))
    trained = sorted((t for t in study.trials if t.state == TrialState.COMPLETE), key=lambda t: -t.value)
    good, bad = _split_trials(study, study.trials, 4)
    assert {t.number for t in good} == {t.number for t in trained[:4]}
    assert len(bad) == 36
