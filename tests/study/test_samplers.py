"""The sampler's arguments are ours, a draw follows from a seed and the study, and it learns what the outcomes should teach it."""

import inspect
import itertools
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import TrialState

from nas.config import StrategyConfig
from nas.study.history import all_with_values
from nas.study.samplers import SAMPLERS, STARTUP_TRIALS, SeededSampler, Tpe, ask
from nas.study.strategies import make_sampler

SLOW = {"gp"}
"""Take a second or more for each draw: they draw less."""
MOST = [pytest.param(name, marks=[pytest.mark.exhaustive] if name in SLOW else []) for name in SAMPLERS]
PHASES = {"random": STARTUP_TRIALS // 2, "tpe": 2 * STARTUP_TRIALS}
"""With so many trials told, the draws are still random, or TPE's."""


def draw(trial: optuna.Trial) -> dict[str, Any]:
    """As a space does it: numbers, words, and what is there for some words only."""
    values: dict[str, Any] = {
        "lr": trial.suggest_float("lr", 0.001, 1.0, log=True),
        "stages": trial.suggest_int("stages", 2, 4),
        "block": trial.suggest_categorical("block", ["basic", "preact"]),
    }
    for stage in range(values["stages"]):
        values[f"channels{stage}"] = trial.suggest_int(f"channels{stage}", 8, 512, log=True)
    return values


def study_of(count: int, sampler: SeededSampler) -> optuna.Study:
    """The same trials whatever the sampler."""
    study = optuna.create_study(sampler=sampler, direction="maximize")
    others = optuna.samplers.RandomSampler(seed=0)
    rng = np.random.default_rng(0)
    for number in range(count):
        study.sampler = others
        trial = study.ask()
        values = draw(trial)
        if number % 3 == 0:
            trial.set_constraint("params", 0.5)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, -abs(values["lr"] - 0.1) + 0.01 * float(rng.normal()))
    study.sampler = sampler
    return study


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_draw_follows_from_its_seed_and_the_study(name: str, phase: str) -> None:
    def drawn(seed: int) -> dict[str, Any]:
        sampler = make_sampler(StrategyConfig(name=name), study_seed=seed)
        study = study_of(PHASES[phase], sampler)
        sampler.seed(seed)
        return draw(study.ask())

    first = drawn(1)
    assert first == drawn(1)
    seeds = range(2, 4) if name in SLOW else range(2, 7)
    assert all(one != other for one, other in itertools.combinations([first, *map(drawn, seeds)], 2))


@pytest.mark.parametrize("name", MOST)
def test_a_search_that_is_cut_off_before_each_draw_draws_the_same(name: str) -> None:
    """Each time the trials are all that is left; one of them is still being trained."""

    def search(cut_off: bool) -> list[dict[str, Any]]:
        storage = optuna.storages.InMemoryStorage()
        sampler = make_sampler(StrategyConfig(name=name))
        study = optuna.create_study(storage=storage, study_name="s", sampler=sampler, direction="maximize")
        drawn: list[dict[str, Any]] = []
        before: optuna.Trial | None = None
        for number in range(STARTUP_TRIALS + (3 if name in SLOW else 10)):
            if cut_off:
                sampler = make_sampler(StrategyConfig(name=name))
                study = optuna.load_study(storage=storage, study_name="s", sampler=sampler)
            sampler.seed(1000 + number)
            trial = study.ask()
            drawn.append(draw(trial))
            if before is not None:
                study.tell(before, -abs(drawn[-2]["lr"] - 0.1))
            before = trial
        return drawn

    assert search(cut_off=False) == search(cut_off=True)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", MOST)
def test_a_draw_follows_from_the_trials_that_are_handed_over_and_reads_none(
    name: str, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        "lr": optuna.distributions.FloatDistribution(0.001, 1.0, log=True),
        "stages": optuna.distributions.IntDistribution(2, 4),
        "block": optuna.distributions.CategoricalDistribution(["basic", "preact"]),
    }
    sampler = make_sampler(StrategyConfig(name=name))
    study = study_of(PHASES[phase], sampler)
    sampler.seed(3)
    asked = study.ask(distributions)
    sampler.seed(3)
    trials = study.get_trials(deepcopy=False)[:-1]
    monkeypatch.setattr(optuna.storages.InMemoryStorage, "get_all_trials", pytest.fail)
    drawn = ask(study, distributions, trials)
    monkeypatch.undo()
    assert drawn.params == asked.params
    assert study.trials[-1].system_attrs == study.trials[-2].system_attrs


def test_no_argument_of_tpe_that_changes_draws_is_left_to_its_default() -> None:
    made = make_sampler(StrategyConfig(name="tpe"))
    assert isinstance(made, Tpe)
    sampler = made.independent
    assert isinstance(sampler, optuna.samplers.TPESampler)
    assert (sampler._multivariate, sampler._group, sampler._constant_liar) == (True, False, True)
    assert (sampler._n_startup_trials, sampler._n_ei_candidates) == (STARTUP_TRIALS, 2)
    assert sampler._gamma is not None
    assert [sampler._gamma(n) for n in (1, 50, 1000)] == [1, 3, 25]
    source = inspect.getsource(Tpe)
    for argument in ("n_startup_trials", "n_ei_candidates", "multivariate", "group", "constant_liar"):
        assert f"{argument}=" in source


def test_over_budget_and_diverged_trials_are_bad_ones_and_trained_ones_come_first() -> None:
    """Of 40 trials, 24 over budget, the best of the trained ones are still those that TPE calls good."""
    sampler = make_sampler(StrategyConfig(name="tpe"))
    sampler.seed(0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
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
    told = all_with_values(study)
    good, bad = _split_trials(study, told, 4)
    assert {t.number for t in good} == {t.number for t in trained[:4]}
    assert len(bad) == 36
