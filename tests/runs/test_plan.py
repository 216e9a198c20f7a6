"""How long a run is, and what it is called, before it begins."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import nas.runs.plan
from nas.budget import count_macs
from nas.config import Candidate
from nas.errors import ConfigError, StudyError
from nas.paths import StudyPaths
from nas.runs.plan import RunPlan
from nas.runs.retrain import retrain_several
from nas.specs import RetrainSpec, SeveralSpec
from nas.study.settings import read_settings
from nas.train.pace import Pace
from tests.runs.told import Told, train_one, trained


@pytest.fixture
def spec(study: StudyPaths) -> RetrainSpec:
    return RetrainSpec(study, train_subset=128, device="cpu")


def at_pace(monkeypatch: pytest.MonkeyPatch, pace: Pace) -> None:
    monkeypatch.setattr(nas.runs.plan, "measure_pace", lambda *_: pace)


def planned(spec: RetrainSpec, told: Told | None = None) -> RunPlan:
    """And begun, but not trained."""
    told = told or Told()
    told.stop_after = 0
    train_one(spec, told)
    return told.planned[0][0]


def test_time_is_filled_with_epochs_beside_what_is_evaluated(spec: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    # 8 steps of 16 images; 359 test images as they are and shifted, and once without averaging: 3 passes.
    at_pace(monkeypatch, Pace(start=2.0, step=0.5, image=0.001, checkpoint=0.25))
    batch = Candidate.from_json((spec.paths.trial(0).candidate).read_text()).train.batch_size
    epoch = (128 // batch) * 0.5 + 0.25
    seconds = 2.0 + 3 * 359 * 0.001 + 3.9 * epoch
    told = Told()
    plan = planned(replace(spec, seconds=seconds, which="0"), told)
    assert plan.train.epochs == 3
    assert told.notes == [f"trial 0: 3 epochs by recipe 'searched' take about {seconds:g} s here, estimated from timed steps"]
    assert plan.name == f"trial-0000-{seconds:g}s-seed-0-subset-128"


@pytest.mark.usefixtures("all_cores")
@pytest.mark.parametrize(
    ("threads", "long", "tried", "epochs"), [(None, True, {1, 2}, 8), (None, False, {1, 2}, 2), (2, True, {2}, 2)]
)
def test_time_is_that_of_the_threads_that_the_training_will_use(
    spec: RetrainSpec, monkeypatch: pytest.MonkeyPatch, threads: int | None, long: bool, tried: set[int], epochs: int
) -> None:
    """On a machine where two threads take four times as long as one. A short training keeps them."""
    monkeypatch.setattr(nas.runs.plan, "is_timed", lambda *_: long)
    seen = set[int]()

    def measure(*_: object) -> Pace:
        seen.add(torch.get_num_threads())
        return Pace(start=0.0, step=0.01 if torch.get_num_threads() == 1 else 0.04, image=0.0, checkpoint=0.0)

    monkeypatch.setattr(nas.runs.plan, "measure_pace", measure)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        batch = Candidate.from_json((spec.paths.trial(0).candidate).read_text()).train.batch_size
        seconds = 8.1 * (128 // batch) * 0.01
        plan = planned(replace(spec, seconds=seconds, which="0", threads=threads))
    finally:
        torch.set_num_threads(before)
    assert seen == tried
    assert plan.train.epochs == epochs


def test_training_of_so_much_time_resumes_as_it_began(spec: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    at_pace(monkeypatch, Pace(start=0.0, step=0.5 / 21, image=0.0, checkpoint=0.0))
    asked = replace(spec, seconds=9.0, recipe="auto")
    planned(asked)
    at_pace(monkeypatch, Pace(start=0.0, step=0.001, image=0.0, checkpoint=0.0))
    run, card = trained(asked)
    assert card.candidate.train.epochs == 18, "by the first measurement: 21 steps an epoch, of batches of 6"
    assert card.recipe == "fast"
    assert run.folder.name.startswith("trial-0")
    assert "-auto-9s-seed-0" in run.folder.name


def test_auto_takes_the_long_recipe_where_there_is_time(spec: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    at_pace(monkeypatch, Pace(start=0.0, step=0.001, image=0.0, checkpoint=0.0))
    plan = planned(replace(spec, seconds=1.8, recipe="auto"))  # 85 epochs of 21 steps by `fast`, which makes batches of 6
    assert (plan.recipe, plan.train.epochs) == ("long", 1800)


def test_auto_resumes_with_its_recipe_on_whichever_side_of_its_limit_the_epochs_are(
    spec: RetrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch by `fast` takes 1 s, so that there is time for 85; one by `long` takes 1.2 s, and there is time for 70."""
    paces = [Pace(start=0.0, step=0.0, image=0.0, checkpoint=seconds) for seconds in (1.2, 1.0)]
    monkeypatch.setattr(nas.runs.plan, "measure_pace", lambda *_: paces.pop())
    for _ in range(2):
        plan = planned(replace(spec, seconds=85.0, recipe="auto"))
        assert (plan.recipe, plan.train.epochs) == ("long", 70)
    assert not paces


def test_all_seeds_of_a_network_take_the_same_epochs(spec: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    paces = [Pace(start=0.0, step=0.0, image=0.0, checkpoint=seconds) for seconds in (4.0, 3.0, 2.0, 1.0)]
    monkeypatch.setattr(nas.runs.plan, "measure_pace", lambda *_: paces.pop())
    several = SeveralSpec(replace(spec, seconds=12.0), ("0", "1"), (0, 1))
    for seeds in ((0, 1), (2, 1, 0)):
        told = Told(stop_after=0)
        retrain_several(replace(several, seeds=seeds), told.on_plan, told, told.stop)
        assert [(plan.subject.title, plan.train.epochs) for plan in told.planned[0]] == [("trial 0", 12), ("trial 1", 6)] * len(
            seeds
        )


def test_too_little_time_says_what_an_epoch_takes(spec: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    at_pace(monkeypatch, Pace(start=3.0, step=60.0 / 21, image=0.0, checkpoint=0.0))
    with pytest.raises(ConfigError) as refused:
        train_one(replace(spec, seconds=10.0, recipe="fast"))
    assert refused.value.message == (
        "--time 10s is too short: an epoch of this network takes about 60.0 s here, and the work before and after the training "
        "3.0 s"
    )
    assert refused.value.hint == "--time 603s is enough for ten epochs; --train-subset N makes them shorter"
    with pytest.raises(ConfigError, match="--epochs 2 and --time contradict each other"):
        train_one(replace(spec, epochs=2, seconds=60.0))


def test_recipe_says_how_long_unless_told_otherwise(spec: RetrainSpec, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("{epochs: 1, train: {label_smoothing: 0.2}}")
    plan = planned(replace(spec, recipe=str(mine)))
    assert (plan.recipe, plan.train.epochs, plan.train.label_smoothing) == ("mine", 1, 0.2)
    assert planned(replace(spec, recipe=str(mine), epochs=2)).train.epochs == 2
    mine.write_text("{epochs: 1, train: {label_smoothing: 0.3}}")
    with pytest.raises(StudyError, match="was started with another recipe file of the same name"):
        planned(replace(spec, recipe=str(mine)))


def test_compute_is_filled_exactly(spec: RetrainSpec, tmp_path: Path) -> None:
    plan = planned(spec)
    card = count_macs(plan.candidate.arch, read_settings(spec.paths).shape)
    epoch = 6 * card * 128
    for passes, epochs, images in ((3.4, 3, 145), (3.9, 4, 125), (1.0, 1, 128)):
        plan = planned(replace(spec, flop=passes * epoch))
        assert (plan.train.epochs, plan.train.epoch_images) == (epochs, images)
        assert plan.train.flop(card, 128) == pytest.approx(passes * epoch, rel=0.01)
        assert f"-{passes * epoch / 1e15:g}PFLOP-seed-" in plan.name
    recipe = tmp_path / "half.yaml"
    recipe.write_text("{train: {hardest: 0.5, augment: {mix: none}}}")
    plan = planned(replace(spec, flop=3.4 * epoch, recipe=str(recipe)))
    assert (plan.train.epochs, plan.train.epoch_images) == (7, 62), "epochs of 64 images, 435.2 images in all"
    with pytest.raises(ConfigError, match=r"is less than one epoch of this network, .* × 64 images"):
        train_one(replace(spec, flop=0.4 * epoch, recipe=str(recipe)))
    with pytest.raises(ConfigError, match=r"is less than one epoch of this network, .* × 128 images"):
        train_one(replace(spec, flop=0.9 * epoch))
    for other in ({"epochs": 2}, {"seconds": 60.0}):
        with pytest.raises(ConfigError, match="contradict each other"):
            train_one(replace(spec, flop=3.9 * epoch, **other))
