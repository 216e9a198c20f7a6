"""One retraining: how long it is, what it is called, and what it does where memory or disk run out."""

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nas.runs.plan
import nas.train.rank
from nas.config import Candidate
from nas.errors import ConfigError, StudyError
from nas.paths import StudyPaths
from nas.runs.load import load_network
from nas.runs.retrain import Retrained, retrain
from nas.specs import RetrainSpec
from nas.train.checkpoint import EpochMetrics
from nas.train.loop import fit
from nas.train.pace import Pace


@pytest.fixture
def request_of(study: StudyPaths) -> RetrainSpec:
    return RetrainSpec(study, train_subset=128, device="cpu")


def train(request: RetrainSpec, notes: list[str] | None = None, suspend: bool = False) -> Retrained:
    said = [] if notes is None else notes
    return retrain(request, lambda plan: None, lambda metrics: None, lambda: suspend, note=said.append)


def at_pace(monkeypatch: pytest.MonkeyPatch, pace: Pace) -> None:
    monkeypatch.setattr(nas.runs.plan, "measure_pace", lambda *_: pace)


# ------------------------------------------------------------------------------------------------------------ its length


def test_time_is_filled_with_epochs_beside_what_is_evaluated(request_of: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    # 8 steps of 16 images; 359 test images as they are and shifted, and once without averaging: 3 passes.
    at_pace(monkeypatch, Pace(start=2.0, step=0.5, image=0.001, checkpoint=0.25))
    notes: list[str] = []
    batch = Candidate.from_json((request_of.paths.trial(0).candidate).read_text()).train.batch_size
    epoch = (128 // batch) * 0.5 + 0.25
    seconds = 2.0 + 3 * 359 * 0.001 + 3.9 * epoch
    done = train(replace(request_of, seconds=seconds, which="0"), notes)
    assert done.card is not None
    assert done.card.candidate.train.epochs == 3
    assert notes == [f"trial 0: 3 epochs by recipe 'searched' take about {seconds:g} s here, by some timed steps"]
    assert done.run.folder.name == f"trial-0000-{seconds:g}s-seed-0-subset-128"


def test_training_of_so_much_time_goes_on_as_it_began(request_of: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    at_pace(monkeypatch, Pace(start=0.0, step=0.5, image=0.0, checkpoint=0.0))
    asked = replace(request_of, seconds=9.0, recipe="auto")
    assert train(asked, suspend=True).card is None
    at_pace(monkeypatch, Pace(start=0.0, step=0.001, image=0.0, checkpoint=0.0))
    done = train(asked)
    assert done.card is not None
    assert done.card.candidate.train.epochs == 18, "by the first measurement: a step an epoch, of batches of 128"
    assert done.card.recipe == "fast"
    assert done.run.folder.name.startswith("trial-0")
    assert "-auto-9s-seed-0" in done.run.folder.name


def test_auto_takes_the_long_recipe_where_there_is_time(request_of: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    at_pace(monkeypatch, Pace(start=0.0, step=0.001, image=0.0, checkpoint=0.0))
    done = train(replace(request_of, seconds=0.085, recipe="auto"))
    assert done.card is not None
    assert (done.card.recipe, done.card.candidate.train.epochs) == ("long", 85)


def test_too_little_time_says_what_an_epoch_takes(request_of: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    at_pace(monkeypatch, Pace(start=3.0, step=60.0, image=0.0, checkpoint=0.0))
    with pytest.raises(ConfigError) as refused:
        train(replace(request_of, seconds=10.0, recipe="fast"))
    assert refused.value.message == (
        "--time 10s is too short: an epoch of this network takes about 60.0 s here, and what comes before and after the training "
        "3.0 s"
    )
    assert refused.value.hint == "--time 603s has room for ten epochs; --train-subset N makes them shorter"


def test_recipe_says_how_long_unless_told_otherwise(request_of: RetrainSpec, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("{epochs: 1, train: {label_smoothing: 0.2}}")
    one = train(replace(request_of, recipe=str(mine)))
    assert one.card is not None
    assert (one.card.candidate.train.epochs, one.card.candidate.train.label_smoothing) == (1, 0.2)
    assert one.card.recipe == "mine"
    two = train(replace(request_of, recipe=str(mine), epochs=2))
    assert two.card is not None
    assert two.card.candidate.train.epochs == 2


def test_another_recipe_of_the_same_name_is_not_taken_for_the_first(request_of: RetrainSpec, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("{epochs: 1, train: {label_smoothing: 0.2}}")
    train(replace(request_of, recipe=str(mine)))
    mine.write_text("{epochs: 1, train: {label_smoothing: 0.3}}")
    with pytest.raises(StudyError, match="was begun by another recipe of that name"):
        train(replace(request_of, recipe=str(mine)))


# ------------------------------------------------------------------------------------------------- what may be in its way


def test_memory_that_runs_out_halves_the_micro_batches(request_of: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[int] = []

    def scarce(*args: Any, **keywords: Any) -> Any:
        parts.append(keywords["micro_batches"])
        if parts[-1] < 2:
            raise MemoryError
        return fit(*args, **keywords)

    monkeypatch.setattr(nas.train.rank, "fit", scarce)
    notes: list[str] = []
    done = train(replace(request_of, epochs=1), notes)
    assert parts == [1, 2]
    assert done.card is not None
    batch = done.card.candidate.train.batch_size
    assert notes == [f"the memory of the host ran out; again, in micro-batches of {batch // 2} images"]
    load_network(done.run)


def test_memory_that_never_suffices_is_said(request_of: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def impossible(*args: Any, **keywords: Any) -> Any:
        raise MemoryError("too much")

    monkeypatch.setattr(nas.train.rank, "fit", impossible)
    with pytest.raises(StudyError, match=r"the memory of the host does not suffice for trial .*, even in the smallest"):
        train(replace(request_of, epochs=1))


def test_full_disk_is_waited_for(request_of: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    full = iter([True, True])

    def sometimes(path: Path, content: Any) -> None:
        if path.name == "checkpoint.pt" and next(full, False):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        path.write_bytes(content)

    monkeypatch.setattr("nas.train.checkpoint.write_whole", sometimes)
    monkeypatch.setattr("nas.study.retry.FIRST_PAUSE", 0.01)
    notes: list[str] = []
    assert train(replace(request_of, epochs=1), notes).card is not None
    assert notes[0].startswith("the run's folder has no room on its disk")
    assert notes[-1] == "the run's folder is there again; the training goes on"


def test_checkpoint_that_is_lost_before_the_end_is_said(request_of: RetrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(*args: Any, **keywords: Any) -> Any:
        result = fit(*args, **keywords)
        keywords["paths"].checkpoint.unlink()
        return result

    monkeypatch.setattr(nas.train.rank, "fit", forgetful)
    with pytest.raises(StudyError, match="which held the trained network, is gone"):
        train(replace(request_of, epochs=1))


def test_run_that_another_process_trains_is_left_to_it(request_of: RetrainSpec) -> None:
    told: list[str] = []

    def meanwhile(metrics: EpochMetrics) -> None:
        with pytest.raises(StudyError) as refused:
            train(replace(request_of, epochs=1))
        told.append(refused.value.message)

    done = retrain(replace(request_of, epochs=1), lambda plan: None, meanwhile)
    assert told == [f"run {done.run.folder.name!r} is being trained by another nas retrain"]
    assert done.card is not None
