"""Strategies by name: how they are described, checked and made; and that no history starves or misleads one."""

import inspect
from functools import cache
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from nas.budget import Cost
from nas.config import BudgetConfig, StrategyConfig, StudyConfig
from nas.errors import ConfigError
from nas.space.space_file import read_space
from nas.study import outcomes
from nas.study.drawing import SearchSource
from nas.study.history import all_with_values, excess, projected_values
from nas.study.optuna_private import overwrite_value, stored_trial
from nas.study.pruners import PRUNERS
from nas.study.samplers import SAMPLERS, _most_telling
from nas.study.strategies import describe, fill_defaults, fill_new, inherit_arguments, make_pruner, make_sampler
from tests.study.scripted import StubBudget, draw_only

TEXT = """
version: 1
budget: {params: 200}
arch:
  stages: 3
  block: {type: categorical, choices: [basic, preact, bottleneck]}
  stage:
    blocks: 1
    channels: {type: int, low: 1, high: 100}
train:
  epochs: 9
  lr: {type: float, low: 0.001, high: 1.0, log: true}
  momentum: {type: float, low: 0.0, high: 0.9}
"""


SPACE = read_space(TEXT, "test.yaml", "test")


class ChannelBudget(StubBudget):
    """Counts the channels of all stages; of uniform draws about three quarters are over 120 of them."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.limits = BudgetConfig(params=most)

    def check(self, arch: Any) -> Cost:
        params = sum(stage.channels for stage in arch.stages)
        return Cost(params, 1, {"params": params / (self.limits.params or 1) - 1})


def quality(candidate: Any) -> float:
    """Highest, 0.9, for a learning rate of 0.1, preact blocks and no more than a medium momentum."""
    train = candidate.train
    off = abs(np.log10(train.lr) + 1) / 4 + abs(train.momentum - 0.5) / 4
    return float(0.9 - 0.5 * off - 0.05 * (candidate.arch.block != "preact"))


def draw_next(drawer: SearchSource) -> None:
    drawer.begin_draw()
    while drawer.busy:
        drawer.work()


def end(study: optuna.Study, drawer: SearchSource, running: Any, outcome: outcomes.Outcome) -> None:
    outcomes.decide(running.trial, outcome)
    outcomes.finish(study, running.trial)
    drawer.settle_twins(study.get_trials(deepcopy=False)[running.number])


@cache
def search(name: str, trained: int, seed: int, most: int = 120) -> optuna.Study:
    """Until so many networks have trained; four trainings of five are pruned after their second epoch."""
    study = optuna.create_study(direction="maximize")
    drawer = draw_only(study, make_sampler(StrategyConfig(name=name), seed), SPACE, ChannelBudget(most), seed)
    count = 0
    while count < trained:
        draw_next(drawer)
        running = drawer.ready.popleft()
        value = quality(running.candidate)
        outcome: outcomes.Outcome = "trained" if count % 5 == 0 else "pruned_early"
        for epoch in range(1, 10 if outcome == "trained" else 3):
            overwrite_value(running.trial, value * (0.5 + epoch / 18), epoch)
        end(study, drawer, running, outcome)
        count += 1
    return study


def trained_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [t for t in study.get_trials(deepcopy=False) if outcomes.outcome_of(t) in outcomes.COUNTED]


# ------------------------------------------------------------------------------------------------------------ conformance

SLOW = {"gp"}
"""Take a second for each draw: fewer networks, of one seed, are made with them."""
ADAPTIVE = [
    pytest.param(name, marks=[pytest.mark.exhaustive] if name in SLOW else [])
    for name in sorted(SAMPLERS.keys() - {"random", "qmc"})
]


@pytest.mark.parametrize("name", [*ADAPTIVE, "random", "qmc"])
def test_a_history_of_over_budget_and_pruned_trials_starves_nobody(name: str) -> None:
    """Seven draws in eight are over budget, and four trainings in five are pruned: still each candidate comes in time."""
    networks, most = (16, 120) if name in SLOW else (30, 90)
    study = search(name, networks, 0, most)
    draws = len(study.get_trials(deepcopy=False))
    assert len(trained_trials(study)) == networks
    assert draws < networks * 16, f"{draws} draws for {networks} networks: more than twice as many as uniform ones"


@pytest.mark.parametrize("name", ADAPTIVE)
def test_who_learns_from_a_history_finds_better_networks_than_random_search(name: str) -> None:
    """By the mean of what the last third reaches."""
    networks, seeds = (16, 1) if name in SLOW else (60, 3)

    def late(which: str) -> float:
        found = [t for seed in range(seeds) for t in trained_trials(search(which, networks, seed))[-networks // 3 :]]
        candidates = [SPACE.candidate({s.name: t.params.get(s.name, s.domain) for s in SPACE.slots}) for t in found]
        return float(np.mean([quality(candidate) for candidate in candidates]))

    assert late(name) > late("random") + 0.02


@pytest.mark.parametrize("name", ADAPTIVE)
def test_who_learns_keeps_off_what_is_over_budget_at_least_as_well_as_random_search(name: str) -> None:
    networks, seeds = (16, 1) if name in SLOW else (60, 3)

    def share(which: str) -> float:
        studies = [search(which, networks, seed) for seed in range(seeds)]
        counts = [outcomes.count_outcomes(study.get_trials(deepcopy=False)) for study in studies]
        return sum(c["over_budget"] for c in counts) / sum(sum(c.values()) for c in counts)

    assert share(name) <= share("random") + 0.05


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_curve_that_exploded_misleads_nobody(name: str) -> None:
    """Every network of high momentum looks excellent, and diverges."""
    networks = 16 if name in SLOW else 60

    def ends(which: str) -> float:
        study = optuna.create_study(direction="maximize")
        drawer = draw_only(study, make_sampler(StrategyConfig(name=which), 0), SPACE, ChannelBudget(200), 0)
        for _ in range(networks):
            draw_next(drawer)
            running = drawer.ready.popleft()
            explodes = running.candidate.train.momentum > 0.45
            value = 0.99 if explodes else quality(running.candidate)
            for epoch in range(1, 3 if explodes else 10):
                overwrite_value(running.trial, value, epoch)
            end(study, drawer, running, "diverged" if explodes else "trained")
        return float(np.mean([t.params["momentum"] > 0.45 for t in trained_trials(study)[-networks // 3 :]]))

    assert ends(name) < 0.5


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_space_of_few_networks_is_exhausted_and_not_drawn_from_for_ever(name: str) -> None:
    few = read_space(
        "version: 1\nbudget: {params: 1k}\narch: {stages: 1, stage: {blocks: 1, channels: {type: int, low: 1, high: 6}}}\n"
        "train: {epochs: 9}\n",
        "few.yaml",
        "few",
    )
    study = optuna.create_study(direction="maximize")
    drawer = draw_only(study, make_sampler(StrategyConfig(name=name), 0), few, ChannelBudget(1000), 0)
    found = set()
    while drawer.exhausted is None:
        draw_next(drawer)
        while drawer.ready:
            running = drawer.ready.popleft()
            found.add(running.candidate.arch.stages[0].channels)
            overwrite_value(running.trial, 0.5 + running.candidate.arch.stages[0].channels / 100, 9)
            end(study, drawer, running, "trained")
    assert len(found) >= 3
    assert {outcomes.outcome_of(t) for t in study.get_trials(deepcopy=False)} <= {"trained", "duplicate"}


@pytest.mark.parametrize("name", PRUNERS)
def test_a_pruner_spares_the_best_and_writes_nothing(name: str) -> None:
    """Forty curves of which the early order is the last one's."""
    study = optuna.create_study(direction="maximize")
    pruner = make_pruner(StrategyConfig(name=name), 18)
    qualities = np.random.default_rng(0).permutation(np.linspace(0.3, 0.9, 40))
    spent, finished = 0, []
    for value in qualities:
        trial = study.ask()
        for epoch in range(1, 19):
            trial.report(float(value * (1 - 0.5 / epoch)), epoch)
            spent += 1
            if epoch == 18:
                continue
            frozen, again = stored_trial(trial), make_pruner(StrategyConfig(name=name), 18)
            verdicts = {one.prune(study, frozen) for one in (pruner, pruner, again)}
            assert len(verdicts) == 1, "asked again it says the same, and so does one that has heard of no verdict"
            if True in verdicts:
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            finished.append(float(value))
            study.tell(trial, float(value))
    assert max(finished) == pytest.approx(0.9)
    assert not any(trial.system_attrs for trial in study.trials)
    if name == "none":
        assert spent == 40 * 18
    elif name in ("asha", "hyperband", "median", "percentile"):  # all that judge one by the others
        assert spent < 0.75 * 40 * 18
    expected = pruner.expected_epochs(40)
    if expected is not None:
        assert 1 <= expected <= 18


@pytest.mark.parametrize("name", PRUNERS)
def test_a_pruner_counts_a_duplicate_once_and_compares_nobody_with_larger_networks_than_its_budget_allows(name: str) -> None:
    """A hundred copies of the best curve, and one of a larger network, change no verdict."""

    def verdicts(copies: int, larger: bool) -> list[bool]:
        study = optuna.create_study(direction="maximize")
        pruner = make_pruner(StrategyConfig(name=name), 18)
        found = []
        for number in range(12):
            trial = study.ask()
            trial.set_user_attr("params", 10)
            for epoch in range(1, 19):
                trial.report(0.5 + 0.01 * (number % 4) - 0.02 * (number == 11 and epoch > 3), epoch)
                if number == 11 and epoch < 18:
                    trial.set_user_attr("limit", 20)
                    found.append(pruner.prune(study, stored_trial(trial)))
            study.tell(trial, 0.5 + 0.01 * (number % 4))
            if number == 5:
                for _ in range(copies):
                    copy = study.ask()
                    copy.set_user_attr("duplicate_of", 3)
                    copy.set_user_attr("params", 10)
                    for epoch in range(1, 19):
                        copy.report(0.9, epoch)
                    study.tell(copy, 0.9)
                for _ in range(20 * larger):
                    other = study.ask()
                    other.set_user_attr("params", 30)
                    for epoch in range(1, 19):
                        other.report(0.95, epoch)
                    study.tell(other, 0.95)
        return found

    if name == "hyperband":  # whose brackets go by the trial's number
        pytest.skip("other numbers, other brackets")
    assert verdicts(0, False) == verdicts(100, False) == verdicts(0, True) == verdicts(100, True)


# ---------------------------------------------------------------------------------------------------------------- history


def finished(study: optuna.Study, curve: list[float], outcome: str, **attributes: Any) -> None:
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
    for epoch, value in enumerate(curve, 1):
        trial.report(value, epoch)
    if outcome == "over_budget":
        outcomes.record(study, trial, outcome, {"params": attributes["excess"]})
    else:
        outcomes.decide(trial, outcome)
        outcomes.finish(study, trial)


def test_a_pruned_trial_is_told_with_what_the_others_gained_from_there_on() -> None:
    study = optuna.create_study(direction="maximize")
    finished(study, [0.1, 0.3], "pruned_early")
    assert projected_values(study.get_trials()) == {0: 0.3}, "with its last value, where none is complete"
    study = optuna.create_study(direction="maximize")
    finished(study, [0.2, 0.5, 0.7], "trained")
    finished(study, [0.3, 0.5, 0.8], "trained")
    finished(study, [0.1, 0.4, 0.9], "trained")
    finished(study, [0.1, 0.3], "pruned_early")
    finished(study, [0.15], "pruned_early")
    values = projected_values(study.get_trials())
    assert [values[i] for i in range(5)] == pytest.approx([0.7, 0.8, 0.9, 0.3 + 0.3, 0.15 + 0.5])


def test_each_outcome_is_told_as_what_it_teaches() -> None:
    study = optuna.create_study(direction="maximize")
    finished(study, [0.2, 0.5], "trained", params=10, excess=-0.5)
    finished(study, [0.4], "pruned_early", params=12, excess=-0.4)
    finished(study, [], "over_budget", params=40, excess=1.0)
    finished(study, [0.9], "diverged", params=10, excess=-0.5)
    finished(study, [], "failed")
    twin = study.ask()
    twin.suggest_float("x", 0, 1)
    outcomes.record_duplicate(study, twin, study.trials[0])
    told = all_with_values(study)
    assert [t.number for t in told] == [0, 1, 2, 3]
    assert {t.state for t in told} == {TrialState.COMPLETE}
    assert [t.value for t in told] == pytest.approx([0.5, 0.7, 0.6, 0.5])
    assert [t.constraints["budget"] for t in told] == pytest.approx(np.log([0.5, 0.6, 2.0, 0.5]))
    assert [t.number for t in all_with_values(study, over_budget=False)] == [0, 1, 3]
    assert [len(t.constraints) for t in told] == [1, 1, 1, 1], "the Gaussian process wants as many of each"


def test_with_a_budget_of_its_own_a_draw_sees_what_is_over_that() -> None:
    study = optuna.create_study(direction="maximize")
    finished(study, [0.2, 0.5], "trained", params=10)
    finished(study, [0.2, 0.8], "trained", params=30)
    finished(study, [], "over_budget", params=15, excess=0.5, limit=10)
    assert [excess(t, 20) for t in study.trials] == pytest.approx([-0.5, 0.5, -0.25])
    told = all_with_values(study, limit=20)
    assert [t.number for t in told] == [0, 1], "what was never trained and would fit now says nothing"
    assert [t.constraints["budget"] > 0 for t in told] == [False, True]
    trial = study.ask()
    trial.set_user_attr("params", 10)
    outcomes.record(study, trial, "over_budget", {"params": -0.9, "macs": 0.5})
    assert excess(study.trials[-1], 20) == pytest.approx(0.5), "the other limits are not forgotten"


# ------------------------------------------------------------------------------------------------- descriptions and errors


@pytest.mark.parametrize(("kind", "registry"), [("sampler", SAMPLERS), ("pruner", PRUNERS)])
def test_every_argument_is_spelt_out_and_made_use_of(kind: str, registry: dict[str, Any]) -> None:
    for name, member in registry.items():
        config = StudyConfig.model_validate({kind: name})
        spelt = getattr(fill_defaults(config), kind)
        known = set(inspect.signature(member).parameters) - {"epochs"}
        assert spelt.arguments.keys() == known
        assert fill_defaults(fill_defaults(config)) == fill_defaults(config)
        assert StudyConfig.from_json(fill_defaults(config).to_json()) == fill_defaults(config)
        assert describe(spelt).startswith(name)


@pytest.mark.parametrize(
    ("pruner", "epochs", "train", "waits"),
    [
        ("asha", 18, "{warmup: 0.2}", {"first_rung": 2, "startup_trials": 2}),
        ("hyperband", 18, "{}", {"first_rung": 2, "startup_trials": 2}),
        ("median", 9, "{warmup: 0.2}", {"warmup_epochs": 2, "startup_trials": 5}),
        ("asha", 9, "{schedule: cosine, warmup: 0.5}", {"first_rung": 1}),  # which has none
        ("asha", 9, "{warmup: {type: float, low: 0.01, high: 0.25, log: true}}", {"first_rung": 1}),  # half are below 0.05
        ("asha", 9, "{warmup: {type: float, low: 0.0, high: 0.5}}", {"first_rung": 2}),
        (
            {"name": "asha", "first_rung": None, "startup_trials": 0},
            18,
            "{warmup: 0.2}",
            {"first_rung": None, "startup_trials": 0},
        ),
        ({"name": "asha", "reduction": 4}, 32, "{}", {"first_rung": 2, "reduction": 4, "startup_trials": 2}),
        ("none", 18, "{warmup: 0.2}", {}),
    ],
)
def test_a_new_study_prunes_nobody_early_where_nothing_else_is_said(
    pruner: Any, epochs: int, train: str, waits: dict[str, Any]
) -> None:
    text = f"version: 1\nbudget: {{params: 200}}\narch: {{stages: 1, stage: {{blocks: 1, channels: 8}}}}\ntrain: {train}\n"
    config = StudyConfig.model_validate({"pruner": pruner})
    space = read_space(text, "test.yaml", "test")
    filled = fill_new(config, epochs, space.warmup).pruner
    assert waits.items() <= filled.arguments.items()
    assert fill_defaults(StudyConfig(pruner=filled)).pruner == filled
    before = fill_defaults(config).pruner.arguments
    assert before.get("startup_trials") in (None, 0, 5), "an older study does not say it, and prunes as it did"


MISTAKES = {
    "no such sampler": (
        {"sampler": "tpw"},
        "study.sampler: 'tpw' is not a sampler. Did you mean 'tpe'? Choices: tpe, random, gp",
    ),
    "no such pruner": ({"pruner": "ash"}, "study.pruner: 'ash' is not a pruner. Did you mean 'asha'? Choices: asha, hyperband"),
    "unknown argument": (
        {"sampler": {"name": "tpe", "startup": 3}},
        "study.sampler.startup: unknown argument of tpe. Did you mean 'startup_trials'? Choices: startup_trials, candidates",
    ),
    "argument of one that has none": (
        {"pruner": {"name": "none", "reduction": 3}},
        "study.pruner.reduction: unknown argument of none. It has none.",
    ),
    "value out of range": (
        {"pruner": {"name": "asha", "reduction": 1}},
        "study.pruner.reduction: must be greater than or equal to 2 (got 1)",
    ),
    "choice that there is not": (
        {"pruner": {"name": "patient", "wrapped": "mean"}},
        "study.pruner.wrapped: must be 'median', 'asha' or 'alone' (got 'mean')",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_its_key_and_the_choices(mistake: str) -> None:
    section, message = MISTAKES[mistake]
    with pytest.raises(ConfigError) as refused:
        fill_defaults(StudyConfig.model_validate(section))
    assert refused.value.message.startswith(message)


def test_a_space_file_names_its_strategies_with_arguments() -> None:
    text = TEXT + "study: {sampler: {name: evolution, population: 8}, pruner: median, objective: front}\n"
    study = read_space(text, "test.yaml", "test").study
    assert study.sampler == StrategyConfig(name="evolution", arguments={"population": 8})
    assert study.pruner == StrategyConfig(name="median")
    assert study.objective == "front"
    assert make_sampler(study.sampler).population == 8


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("study: {smapler: tpe}", "study.smapler: unknown key. Did you mean 'sampler'?"),
        ("study: {objective: fronts}", "study.objective: must be 'accuracy' or 'front'"),
        ("study: tpe", "study: must be a mapping of keys to values, but is 'tpe'"),
        ("study: {sampler: 3}", "study.sampler: "),
    ],
)
def test_a_mistake_in_the_study_section_is_refused(section: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_space(f"{TEXT}{section}\n", "test.yaml", "test")
    assert refused.value.message.startswith(f"test.yaml: {message}")


def test_what_a_study_began_with_stays_where_nothing_else_is_said() -> None:
    before = StudyConfig.model_validate({"sampler": {"name": "tpe", "candidates": 24}, "pruner": "asha"})
    asked = StudyConfig.model_validate({"sampler": {"name": "tpe", "startup_trials": 9}, "pruner": "median"})
    said = inherit_arguments(asked, before)
    assert said.sampler.arguments == {"candidates": 24, "startup_trials": 9}
    assert said.pruner == StrategyConfig(name="median")


# ------------------------------------------------------------------------------------------------- a budget for each trial


def front(trials: int, seed: int = 0) -> tuple[optuna.Study, SearchSource]:
    study = optuna.create_study(direction="maximize")
    sampler = make_sampler(StrategyConfig(name="random"), seed)
    drawer = draw_only(study, sampler, SPACE, ChannelBudget(200), seed, least_params=10)
    while len(drawer.ready) < trials:
        draw_next(drawer)
    return study, drawer


def test_along_a_front_each_trial_has_a_budget_of_its_own_that_follows_from_its_number() -> None:
    study, drawer = front(12)
    limits = [trial.user_attrs["limit"] for trial in study.trials]
    assert all(10 <= limit <= 200 for limit in limits)
    assert len(set(limits)) > len(limits) // 2
    assert limits == [trial.user_attrs["limit"] for trial in front(12)[0].trials]
    for running in drawer.ready:
        assert running.params <= running.trial.user_attrs["limit"]
    over = [trial for trial in study.trials if outcomes.outcome_of(trial) == "over_budget"]
    assert over
    assert all(trial.user_attrs["params"] > trial.user_attrs["limit"] for trial in over)


def test_a_warm_starts_candidate_keeps_the_whole_budget_along_a_front() -> None:
    study = optuna.create_study(direction="maximize")
    values = {"block": "basic", **{f"stage{i}.channels": 60 for i in range(3)}, "lr": 0.1, "momentum": 0.5}
    for _ in range(3):
        study.enqueue_trial({**values, "lr": 0.1 + 0.01 * len(study.trials)}, user_attrs={"origin": "preset:one"})
    drawer = draw_only(study, make_sampler(StrategyConfig(name="random"), 0), SPACE, ChannelBudget(200), 0, least_params=10)
    for _ in range(3):
        draw_next(drawer)
    assert [running.params for running in drawer.ready] == [180] * 3


def test_where_all_would_be_too_many_the_best_and_the_newest_are_told() -> None:
    study = optuna.create_study(direction="maximize")
    for number in range(40):
        finished(study, [0.01 * (number if number < 20 else 0)], "trained", params=1)
    told = _most_telling(all_with_values(study), 10)
    assert [trial.number for trial in told] == [15, 16, 17, 18, 19, 35, 36, 37, 38, 39]
    assert _most_telling(all_with_values(study), None) == all_with_values(study)
