"""Beginning a search with known candidates: what fits is enqueued or taken over, what does not is named with its reason."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from nas.budget import Budget
from nas.config import BudgetConfig, Candidate, DataConfig, ImageShape
from nas.errors import NasError
from nas.paths import StudyPaths, study_paths
from nas.space.space import Space
from nas.space.space_file import load_preset, read_space
from nas.study import outcomes
from nas.study.settings import Environment, Overrides, StudySettings
from nas.study.storage import open_study
from nas.study.warm_start import Start, enqueue, find_starts, fit_start, fit_starts
from tests.conftest import unpooled

SHAPE = ImageShape(channels=1, size=8, classes=10)
TEXT = """
version: 1
budget: {params: 50k}
arch:
  stages: {type: int, low: 2, high: 3}
  stage:
    blocks: {type: int, low: 1, high: 2}
    channels: {type: int, low: 8, high: 32}
train:
  epochs: 4
  lr: {type: float, low: 0.01, high: 0.1, log: true}
"""


@pytest.fixture
def space() -> Space:
    return read_space(TEXT, source="space.yaml", name="small")


def candidate(channels: tuple[int, ...] = (8, 16), **train: object) -> Candidate:
    stages = [{"blocks": 1, "channels": c} for c in channels]
    return Candidate.model_validate({"arch": {"stages": stages}, "train": {"epochs": 4, "lr": 0.05, **train}})


def settings(space: Space, fingerprint: str = "same") -> StudySettings:
    return StudySettings(
        space=space.name,
        overrides=Overrides(),
        parameters=space.describe(),
        budget=space.budget,
        data=DataConfig(dataset="digits"),
        data_fingerprint=fingerprint,
        shape=SHAPE,
        seed=0,
        environment=Environment.now(),
    )


def test_a_candidate_inside_the_space_is_the_first_to_be_drawn(space: Space, tmp_path: Path) -> None:
    known = candidate()
    fitted = fit_start(Start("study:x trial 1", known), space, Budget(space.budget, SHAPE))
    assert fitted.reasons == []
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    enqueue(study, space, [fitted], StudyPaths(tmp_path), seed=0)
    trial = study.ask()
    assert space.draw(trial).digest == known.digest
    assert trial.user_attrs["origin"] == "study:x trial 1"
    assert space.draw(study.ask()).digest != known.digest


def test_a_recipe_outside_the_space_is_brought_to_the_nearest_inside_and_named(space: Space) -> None:
    fitted = fit_start(Start("x", candidate(lr=0.5, epochs=60)), space, Budget(space.budget, SHAPE))
    assert fitted.values["lr"] == 0.1
    assert fitted.reasons == ["lr 0.5 → 0.1"]  # the epochs are the study's own affair


def test_an_architecture_outside_the_space_does_not_fit_and_the_range_is_named(space: Space) -> None:
    fitted = fit_start(Start("x", candidate((8, 64))), space, Budget(space.budget, SHAPE))
    assert fitted.values is None
    assert fitted.reasons == ["stages.1.channels 64: the space has int 8 to 32"]


def test_what_the_space_does_not_vary_must_be_equal(space: Space) -> None:
    preset = load_preset("light-resnet18").candidate
    reasons = fit_start(Start("x", preset), space, Budget(space.budget, SHAPE)).reasons
    assert any(reason.startswith("block preact") for reason in reasons)
    assert any(reason.startswith("se_reduction 32") for reason in reasons)


def test_a_network_over_the_budget_does_not_fit_and_its_count_is_named(space: Space) -> None:
    fitted = fit_start(Start("x", candidate((32, 32))), space, Budget(BudgetConfig(params=1000), SHAPE))
    assert fitted.values is None
    assert "over the budget of 1,000" in fitted.reasons[0]


@pytest.fixture
def before(space: Space, request: pytest.FixtureRequest) -> StudyPaths:
    """One trial that ended, one that was pruned, one over budget; each for the parameter's compute, if there is one, as if its
    network had 100,000 MACs."""
    paths, flop = study_paths("before"), getattr(request, "param", None)
    paths.folder.mkdir(parents=True)
    paths.settings.write_text(settings(space).to_json())
    study = open_study(paths, optuna.samplers.RandomSampler(seed=1))
    budget = Budget(space.budget, SHAPE)
    ends: tuple[outcomes.Outcome, ...] = ("trained", "pruned_early", "over_budget")
    for number, outcome in enumerate(ends):
        trial = study.ask()
        drawn = space.draw(trial)
        drawn = drawn if flop is None else drawn.for_compute(flop, 100_000)
        paths.trial(number).folder.mkdir(parents=True)
        paths.trial(number).candidate.write_text(drawn.to_json())
        outcomes.describe(trial, drawn, budget.check(drawn.arch))
        trial.report(0.5 + number / 10, 1)
        outcomes.record(study, trial, outcome, {"params": 1.0} if outcome == "over_budget" else None)
    return paths


@pytest.mark.usefixtures("before")
def test_results_of_equal_trainings_are_taken_over_and_not_trained_again(space: Space, tmp_path: Path) -> None:
    starts = find_starts("study:before", settings(space))
    assert [start.origin for start in starts] == ["study:before trial 1", "study:before trial 0"]  # best first
    wider = replace(space, budget=BudgetConfig(params=100_000))
    fitted = [fit_start(start, wider, Budget(wider.budget, SHAPE)) for start in starts]
    paths = StudyPaths(tmp_path / "after")
    paths.folder.mkdir()
    study = open_study(paths)
    enqueue(study, wider, fitted[:1], paths, seed=0)  # and here it was cut off
    enqueue(study, wider, fitted, paths, seed=0)
    trials = study.get_trials()
    assert [trial.state.name for trial in trials] == ["PRUNED", "COMPLETE"]
    counts = outcomes.count_outcomes(trials)
    assert counts["imported"] == 2
    assert outcomes.count_trained(counts) == 0
    (best,) = outcomes.best_trials(trials, 1)
    assert best.value == 0.5
    assert paths.trial(best.number).candidate.is_file()


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("before", [1e10], indirect=True)
def test_results_of_trials_of_a_fixed_compute_are_taken_over(space: Space) -> None:
    starts = find_starts("study:before", settings(space))
    fitted = [fit_start(start, space, Budget(space.budget, SHAPE)) for start in starts]
    assert [one.reasons for one in fitted] == [[], []]
    assert [one.is_result for one in fitted] == [True, True]


@pytest.mark.usefixtures("before")
def test_with_other_data_they_are_starting_points_only(space: Space) -> None:
    (start,) = find_starts("study:before", settings(space, fingerprint="other"))
    assert start.result is None
    assert start.origin == "study:before trial 0"  # a pruned one would be no starting point


def test_one_network_of_ones_own_is_named_by_its_trial_or_its_file(space: Space, before: StudyPaths, tmp_path: Path) -> None:
    (trial,) = find_starts("before/1", settings(space))  # a pruned one, too: it was asked for
    assert trial.origin == "before/1"
    assert trial.result.number == 1
    (best,) = find_starts("before/best", settings(space, fingerprint="other"))
    assert best.result is None
    file = before.trial(0).candidate
    (tmp_path / "model.json").write_text(f'{{"candidate": {file.read_text()}, "params": 1}}')
    for start in (best, *find_starts(str(file), settings(space)), *find_starts(str(tmp_path / "model.json"), settings(space))):
        assert start.candidate == Candidate.from_file(file)
        assert fit_starts([start], space, Budget(space.budget, SHAPE))[0].values is not None


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("before/2", "'2' is not a trained trial of study 'before'. Choices: best, 0, 1."),
        ("before/best", "'best' is not a trained trial of study 'before'."),
        ("nowhere/1", "there is no study 'nowhere' under"),
        ("optuna:sqlite:///nowhere.db/old", "the Optuna database nowhere.db of --warm-start does not exist"),
        ("optuna:old", "--warm-start optuna:URL/NAME needs the URL of a database, not ''"),
        ("optuna:sqlite:///before/study.json/old", "sqlite:///before/study.json cannot be read as a storage of Optuna: "),
        ("optuna:sqlite:///before/study.db/old", "sqlite:///before/study.db has no study 'old'. Choices: before."),
        ("optuna:sqlite:///two.db/two", "the study 'two' has 2 objectives, so it has no single best trial"),
        ("nowhere/candidate.json", "there is no file nowhere/candidate.json"),
        ("before/study.json", "before/study.json: "),
        (
            "presets:all",
            "--warm-start takes presets, preset:NAME, study:NAME, optuna:URL/NAME, STUDY/TRIAL or a file candidate.json, "
            "not 'presets:",
        ),
    ],
)
def test_a_start_that_is_not_there_is_refused(
    space: Space, before: StudyPaths, monkeypatch: pytest.MonkeyPatch, what: str, message: str
) -> None:
    monkeypatch.chdir(before.folder.parent)
    optuna.create_study(storage=unpooled(Path("two.db")), study_name="two", directions=["maximize", "minimize"])
    if what.endswith("best"):
        monkeypatch.setattr("nas.study.warm_start.best_of", lambda study: (None, None))
    with pytest.raises(NasError) as refused:
        find_starts(what, settings(space))
    assert refused.value.message.startswith(message)


@pytest.mark.usefixtures("before")
def test_trials_whose_recipe_has_to_change_are_not_all_trained_again(space: Space, tmp_path: Path) -> None:
    other = read_space(TEXT.replace("low: 0.01, high: 0.1, log: true", "low: 0.5, high: 0.9"), source="x", name="small")
    starts = find_starts("study:before", settings(space))
    study = optuna.create_study(direction="maximize")
    fitted = fit_starts(starts, other, Budget(other.budget, SHAPE))
    assert [one.values is None for one in fitted] == [True, False]
    assert fitted[0].reasons[0].startswith("pruned early")
    enqueue(study, other, fitted, StudyPaths(tmp_path), seed=0)
    (only,) = study.get_trials()
    assert only.user_attrs["origin"] == "study:before trial 0"  # the one that ran to its end


def test_trials_of_plain_optuna_begin_a_study_where_names_and_ranges_agree(space: Space, tmp_path: Path) -> None:
    small = {"stages": 2, "stage0.blocks": 1, "stage0.channels": 8, "stage1.blocks": 1, "stage1.channels": 16}
    losses = [
        (0.3, small | {"lr": 0.05, "momentum": 0.8}),
        (0.1, small),
        (0.2, small | {"stage0.channels": 512}),
        (0.4, {"stages": 2, "channels": 8}),
        (0.5, small | {"stages": 3, "stage2.blocks": 2, "stage2.channels": 32, "stage1.channels": 32}),
        (0.6, small | {"stages": 3}),
    ]
    old = optuna.create_study(storage=unpooled(Path("old.db")), study_name="old", direction="minimize")
    old.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    for loss, params in losses:
        distributions = {n: optuna.distributions.FloatDistribution(v, v) for n, v in params.items() if isinstance(v, float)}
        distributions |= {n: optuna.distributions.IntDistribution(v, v) for n, v in params.items() if isinstance(v, int)}
        old.add_trial(optuna.trial.create_trial(value=loss, params=params, distributions=distributions))
    before = Path("old.db").read_bytes()
    starts = find_starts("optuna:sqlite:///old.db/old", settings(space))
    assert [start.origin for start in starts] == [f"optuna:old trial {number}" for number in (2, 3, 1, 4, 5, 6)]  # best first
    tight = space.budget.model_copy(update={"params": 30_000})
    fitted = fit_starts(starts, space, Budget(tight, SHAPE))
    assert [one.values is not None for one in fitted] == [True, False, True, False, False, False]
    assert fitted[0].reasons == ["lr: drawn"]
    assert fitted[1].reasons == ["stage0.channels 512: the space has int 8 to 32"]
    assert fitted[2].reasons == ["momentum 0.8: no parameter of the space"]
    assert fitted[3].reasons[0].startswith("the trial has no parameter stage0.blocks, stage1.blocks, ")
    assert fitted[4].reasons == ["51,778 parameters: over the budget of 30,000"]
    assert fitted[5].reasons == ["the trial has no parameter stage2.blocks, stage2.channels"]
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    enqueue(study, space, fitted, StudyPaths(tmp_path), seed=0)
    first, second = space.draw(study.ask()), space.draw(study.ask())
    assert [stage.channels for stage in first.arch.stages] == [8, 16]
    assert 0.01 <= first.train.lr <= 0.1
    assert second.train.lr == 0.05
    assert Path("old.db").read_bytes() == before
