"""Workers that must not, or cannot, write where the study lies: another coordinator leads it, or it is on another machine."""

import json
import random
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import pytest

from nas.jobs.messages import Began, Ended, Epoch, FromWorker, Ready, Saved, Suspend, ToWorker
from tests.jobs.working import GO_ON, TOKEN, Workplace, always, assert_same, kinds, said


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, as on another machine."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def usurp(workplace: Workplace) -> None:
    workplace.lead("somebody else")


def abandon(workplace: Workplace) -> None:
    workplace.paths.token.unlink()


@pytest.mark.parametrize("depose", [usurp, abandon])
@pytest.mark.parametrize("at", ["Began", "Epoch", "step 3", "step 7", "evaluation"])
def test_deposed_it_writes_nothing_more_and_ends(workplace: Workplace, depose: Callable[[Workplace], None], at: str) -> None:
    """Whatever its successor has made of the files by then."""
    theirs: dict[str, bytes] = {}

    def take_over() -> None:
        depose(workplace)
        workplace.trial().folder.mkdir(parents=True, exist_ok=True)
        workplace.trial().checkpoint.write_bytes(b"of a worker of the other coordinator")
        workplace.trial().metrics.write_text("its curve\n")
        theirs.update(workplace.files())

    def answer(message: FromWorker) -> Iterable[ToWorker]:
        if type(message).__name__ == at and not theirs:
            take_over()
        return always(message)

    def on_poll(polled: int) -> Iterable[ToWorker]:
        # Four steps, then an evaluation.
        if polled == {"step 3": 3, "step 7": 5 + 3, "evaluation": 5}.get(at):
            take_over()
        return []

    heard = workplace.work([workplace.order()], answer, on_poll=on_poll)
    after_an_epoch = ["Epoch"] if at in ("Epoch", "step 7") else []
    assert kinds(heard) == ["Ready", "Began", *after_an_epoch], "and of what it could not write nobody hears"
    assert theirs
    assert workplace.files() == theirs


def test_deposed_and_suspended_it_writes_no_checkpoint_either(workplace: Workplace) -> None:
    def on_poll(polled: int) -> Iterable[ToWorker]:
        if polled == 3:
            usurp(workplace)
            return [Suspend()]
        return []

    heard = workplace.work([workplace.order()], on_poll=on_poll)
    assert kinds(heard) == ["Ready", "Began"]
    assert sorted(workplace.files()) == ["trials/0000/metrics.jsonl"], "that of its beginning"


def test_deposed_between_trainings_it_begins_no_other(workplace: Workplace) -> None:
    def answer(message: FromWorker) -> Iterable[ToWorker]:
        if isinstance(message, Ended):
            usurp(workplace)
            return [workplace.order(1)]
        return always(message)

    workplace.work([workplace.order(0)], answer)
    assert not workplace.trial(1).folder.exists()


def test_one_that_does_not_see_the_study_sends_its_checkpoints(tmp_path: Path, temporary: Path) -> None:
    seen, unseen = Workplace.led(tmp_path / "seen"), Workplace.led(tmp_path / "unseen")
    seen.work([seen.order()])
    abandon(unseen)
    heard = unseen.work([unseen.order()])
    assert kinds(heard) == ["Ready", "Began", "Saved", "Epoch", "Saved", "Epoch", "Ended"]
    assert [ready.sees_study for ready in said(Ready, heard)] == [False]
    assert heard[-1] == Ended("finished")
    assert not unseen.files()
    assert not unseen.paths.trials.exists()
    assert not list(temporary.iterdir()), "it tidied up"
    keep(unseen, heard)
    assert_same(seen.trial(), unseen.trial())


def keep(workplace: Workplace, heard: Iterable[FromWorker]) -> bytes | None:
    """Does with the checkpoints what the runner does. Returns the last one."""
    last = None
    for message in said(Saved, heard):
        last, trial = message.checkpoint, workplace.trial()
        trial.folder.mkdir(parents=True, exist_ok=True)
        trial.checkpoint.write_bytes(last)
    lines = [json.dumps(asdict(message.metrics)) + "\n" for message in said(Epoch, heard)]
    if lines:
        workplace.trial().metrics.write_text("".join(lines))
    return last


def test_another_study_in_its_place_is_as_if_it_were_not_seen(workplace: Workplace, temporary: Path) -> None:
    usurp(workplace)
    assert kinds(workplace.work([workplace.order()]))[2] == "Saved"
    assert not workplace.files()
    abandon(workplace)
    heard = workplace.work([workplace.order(checkpoint=b"half of it")])  # damaged on its way
    assert heard[1] == Began(0, "damaged")
    assert kinds(heard)[2:] == ["Saved", "Epoch", "Saved", "Epoch", "Ended"]
    assert kinds(workplace.work([workplace.order()], lambda message: [])) == ["Ready", "Began", "Saved", "Epoch"]
    assert not list(temporary.iterdir()), "without a coordinator it tidies up, too"


def test_a_checkpoint_precedes_the_epoch_and_the_end_that_it_belongs_to(workplace: Workplace, temporary: Path) -> None:
    abandon(workplace)
    heard = workplace.work([workplace.order()], on_poll=lambda polled: [Suspend()] if polled == 8 else [])
    assert kinds(heard) == ["Ready", "Began", "Saved", "Epoch", "Saved", "Ended"]
    first, second = said(Saved, heard)
    assert heard[-1] == Ended("suspended")
    again = workplace.work([workplace.order(checkpoint=first.checkpoint)])
    assert kinds(again) == ["Ready", "Began", "Epoch", "Saved", "Epoch", "Ended"], "nothing is sent that was sent before"
    assert again[1] == Began(1, "whole")
    assert said(Epoch, again)[0] == said(Epoch, heard)[0]
    assert first.checkpoint != second.checkpoint


@pytest.mark.parametrize("seed", range(3))
def test_from_worker_to_worker_it_ends_bit_by_bit_the_same(tmp_path: Path, temporary: Path, seed: int) -> None:
    """Cut off at random, carried on now by a worker that sees the study, now by one that does not."""
    whole, passed_on = Workplace.led(tmp_path / "whole"), Workplace.led(tmp_path / "passed on")
    whole.work([whole.order(epochs=3)])
    rng = random.Random(seed)
    checkpoint: bytes | None = None
    blind_ones = runs = 0
    ended = None
    while ended != Ended("finished"):
        runs += 1
        assert runs < 100, "it does not get on"
        blind = rng.random() < 0.5
        passed_on.lead("somebody else" if blind else TOKEN)
        blind_ones += blind
        cut = rng.randint(1, 9)
        order = passed_on.order(epochs=3, checkpoint=checkpoint if blind else None)
        heard = passed_on.work([order], on_poll=lambda polled, cut=cut: [Suspend()] if polled == cut else [])
        keep(passed_on, heard)
        if passed_on.trial().checkpoint.exists():
            checkpoint = passed_on.trial().checkpoint.read_bytes()
        ended = heard[-1]
        assert isinstance(ended, Ended)
    assert 0 < blind_ones < runs
    assert_same(whole.trial(), passed_on.trial())


def test_one_that_loses_sight_of_the_study_while_it_trains_counts_as_deposed(workplace: Workplace) -> None:
    """Its coordinator hears that it died, and begins another, which sees for itself."""

    def answer(message: FromWorker) -> Iterable[ToWorker]:
        if isinstance(message, Epoch):
            workplace.paths.folder.rename(workplace.paths.folder.with_name("moved"))
            return [GO_ON]
        return []

    assert kinds(workplace.work([workplace.order()], answer)) == ["Ready", "Began", "Epoch"]
    assert not workplace.paths.folder.exists()
