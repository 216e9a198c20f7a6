"""Each private name of Optuna is there and does what it is used for; and none is used anywhere else."""

import ast
from pathlib import Path

import numpy as np
import optuna
import pytest
import sqlalchemy
from optuna.samplers._tpe import _truncnorm
from optuna.trial import TrialState

import nas
from nas.study import optuna_private
from nas.study.optuna_private import (
    LeanRDBStorage,
    RememberingTPESampler,
    attributes_without_constraints,
    begin_trial,
    give_up,
    id_of,
    live_trial,
    overwrite_value,
    set_attributes,
    stored_trial,
)
from nas.study.samplers import from_unit, to_unit

PACKAGE = Path(nas.__file__).parent
ELSEWHERE = {"nas/dashboard/view.py", "nas/dashboard/__init__.py"}
"""They show optuna-dashboard a study in its own form."""
NAMES = {"_trial_id", "_study_id", "_storage", "_get_trials", "_user_attrs", "_system_attrs", "_rng", "_contains"}


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))


def test_no_other_file_uses_a_private_name() -> None:
    for file in PACKAGE.rglob("*.py"):
        label = file.relative_to(PACKAGE.parent).as_posix()
        if file.name == "optuna_private.py" or label in ELSEWHERE or "optuna" not in file.read_text():
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optuna"):
                names = [node.module or "", *(name.name for name in node.names)]
                assert not [name for name in names if "._" in name or name.startswith("_")], f"{label}:{node.lineno}"
            if isinstance(node, ast.Attribute) and node.attr in NAMES:
                own = isinstance(node.value, ast.Name) and node.value.id == "self"
                assert own, f"{label}:{node.lineno} uses {node.attr}; see optuna_private.py"


def test_a_running_trial_is_taken_up_again_and_a_value_of_it_overwritten(study: optuna.Study) -> None:
    begun = study.ask()
    drawn = begun.suggest_float("x", 0, 1)
    begun.report(0.3, 1)
    trial = live_trial(study, study.get_trials()[0])
    assert trial.suggest_float("x", 0, 1) == drawn
    overwrite_value(trial, 0.4, 1)
    assert stored_trial(trial).intermediate_values == {1: 0.4}
    study.tell(trial, 0.5)
    assert study.trials[0].intermediate_values == {1: 0.4}


def test_a_waiting_trial_is_given_up(study: optuna.Study) -> None:
    study.enqueue_trial({"x": 0.5})
    give_up(study, study.get_trials()[0])
    assert study.trials[0].state == TrialState.FAIL


def test_attributes_stand_beside_constraints(study: optuna.Study) -> None:
    trial = study.ask()
    trial.set_constraint("params", 0.5)
    set_attributes(study, study.get_trials()[0], {"remembered": [1]})
    assert attributes_without_constraints(study.trials[0]) == {"remembered": [1]}
    assert study.trials[0].constraints == {"params": 0.5}


def test_a_trial_is_added_at_once_as_optuna_adds_it_and_newer_ones_are_read(tmp_path: Path) -> None:
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        "x": optuna.distributions.FloatDistribution(1e-5, 1, log=True),
        "n": optuna.distributions.IntDistribution(8, 64, step=8),
        "kind": optuna.distributions.CategoricalDistribution([None, "a", 2]),
    }
    template = optuna.trial.create_trial(
        value=0.5,
        params={"x": 0.1, "n": 16, "kind": 2},
        distributions=distributions,
        intermediate_values={1: 0.25},
        user_attrs={"a": [1]},
        system_attrs={"b": 2},
    )
    added, statements = [], []
    for kind in (optuna.storages.RDBStorage, LeanRDBStorage):
        storage = kind(f"sqlite:///{tmp_path / kind.__name__}.db", {"poolclass": sqlalchemy.NullPool})
        study = optuna.create_study(storage=storage)
        study.add_trial(template)
        sqlalchemy.event.listen(storage.engine, "before_cursor_execute", lambda *_, kind=kind: statements.append(kind))
        study.add_trial(template)
        added.append(study.get_trials())
    assert added[0] == added[1]
    saved = statements.count(optuna.storages.RDBStorage) - statements.count(LeanRDBStorage)
    assert saved == 3 * len(distributions) - 1, "one statement for all parameters, and not three for each"
    (newer,) = storage.newer_trials(1, id_of(added[1][0]))
    assert newer == added[1][1]
    assert storage.newer_trials(1, id_of(newer)) == []
    assert storage.add_trial(1, None).number == 2


def test_a_trial_that_is_begun_is_the_one_that_was_added(study: optuna.Study) -> None:
    study.enqueue_trial({"x": 0.5})
    trial = begin_trial(study, optuna.trial.create_trial(state=TrialState.RUNNING))
    assert (trial.number, len(study.trials)) == (1, 2)


def test_the_logarithm_of_the_normal_distribution_is_the_same_and_fast() -> None:
    assert _truncnorm._log_ndtr is optuna_private.log_ndtr
    for x in (-40.0, -8.0, -1.5, 0.0, 1.5, 8.0):
        assert _truncnorm._log_ndtr(np.array([x]))[0] == pytest.approx(_truncnorm._log_ndtr_single(x), rel=1e-6, abs=1e-14)


def test_a_sampler_that_remembers_draws_as_optunas(study: optuna.Study) -> None:
    for _ in range(20):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1) - trial.suggest_int("n", 1, 9, log=True))
    space = optuna.search_space.intersection_search_space(study.trials)
    rows: dict[int, list[float]] = {}
    for seed in range(3):
        plain, remembering = (
            kind(seed=seed, multivariate=True, constant_liar=False, n_startup_trials=5)
            for kind in (optuna.samplers.TPESampler, RememberingTPESampler)
        )
        remembering.rows = rows
        trial = study.get_trials()[-1]
        assert plain.sample_relative(study, trial, space) == remembering.sample_relative(study, trial, space)
    assert len(rows) == 20


@pytest.mark.parametrize(
    "distribution",
    [
        optuna.distributions.IntDistribution(8, 512, log=True),
        optuna.distributions.IntDistribution(8, 64, step=8),
        optuna.distributions.FloatDistribution(0.001, 1.0, log=True),
        optuna.distributions.FloatDistribution(0.0, 0.9),
        optuna.distributions.FloatDistribution(0.1, 0.5, step=0.1),
    ],
    ids=str,
)
def test_our_own_scale_of_a_range_is_optunas(distribution: optuna.distributions.BaseDistribution) -> None:
    theirs = optuna._transform._SearchSpaceTransform({"x": distribution}, transform_0_1=True)
    for place in np.linspace(0, 0.999, 50):
        value = from_unit(distribution, float(place))
        assert value == theirs.untransform(np.array([place]))["x"]
        assert to_unit(distribution, value) == theirs.transform({"x": value})[0]
