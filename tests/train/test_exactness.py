"""Wherever a training is suspended or dies, and however often, it ends bit by bit as if nothing had happened."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.train import loop
from nas.train.checkpoint import EpochMetrics

EPOCHS = 2


class Crash(BaseException):
    """The process dies here."""


@pytest.fixture(params=[1, 2], ids=["whole batches", "micro-batches"])
def micro_batches(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def short(training: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two epochs, each evaluation in several batches."""
    monkeypatch.setattr(loop, "EVALUATION_BATCH", 40)
    return training.changed(epochs=EPOCHS)


def epochs_on_disk(folder: Path) -> list[int]:
    """In metrics.jsonl. Every line there must be whole."""
    file = folder / "metrics.jsonl"
    return [json.loads(line)["epoch"] for line in file.read_text().splitlines()] if file.exists() else []


def check_curve_on_disk(folder: Path) -> None:
    """Each epoch stands there once, in order, however the training was cut off."""
    found = epochs_on_disk(folder)
    assert found == list(range(1, len(found) + 1))


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_suspended_at_any_single_moment_it_ends_the_same(
    short: Any,
    tmp_path: Path,
    same: Callable[[Any, Any], None],
    after_asking: Callable[[int], Any],
    micro_batches: int,
    step: int,
) -> None:
    """In turn of all there are: every step, and every batch of both evaluations. In micro-batches every other."""
    asked: list[int] = []
    how = {"micro_batches": micro_batches, "raw_weights": True}
    whole = short(tmp_path / "whole", should_suspend=lambda: bool(asked.append(1)), **how)
    evaluations = 2 * -(-100 // (40 // micro_batches))
    assert len(asked) == EPOCHS * (6 + evaluations)
    for moment in range(0, len(asked), micro_batches * step):
        folder = tmp_path / str(moment)
        cut = short(folder, should_suspend=after_asking(moment), **how)
        assert cut.result.status == "suspended"
        assert epochs_on_disk(folder) == list(range(1, moment // (6 + evaluations) + 1))
        same(whole, short(folder, **how))
        assert epochs_on_disk(folder) == [1, 2]


@pytest.mark.parametrize("when", ["before", "within", "after"])
def test_a_crash_around_any_write_changes_nothing(
    short: Any,
    tmp_path: Path,
    same: Callable[[Any, Any], None],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    micro_batches: int,
) -> None:
    """The empty curve of the beginning, and after each epoch the checkpoint and the curve."""
    writes = []

    def count(action: Callable[[], None]) -> None:
        writes.append(action)
        action()

    whole = short(tmp_path / "whole", write=count, micro_batches=micro_batches)
    assert len(writes) == 1 + 2 * EPOCHS
    for fatal in range(len(writes)):
        folder = tmp_path / f"{when} {fatal}"
        heard: list[EpochMetrics] = []

        def hear(metrics: EpochMetrics, heard: list[EpochMetrics] = heard) -> bool:
            heard.append(metrics)
            return True

        with monkeypatch.context() as patched:
            crashing = crash_at(fatal, when, patched)
            with pytest.raises(Crash):
                short(folder, write=crashing, on_epoch=hear, micro_batches=micro_batches)
        check_curve_on_disk(folder)
        assert len(heard) <= len(epochs_on_disk(folder)), "nobody hears of an epoch that could be lost"
        again = short(folder, micro_batches=micro_batches)
        same(whole, again)
        assert epochs_on_disk(folder) == [1, 2]
        assert not list(folder.glob("*.tmp"))
        for before, now in zip(heard, again.heard, strict=False):
            assert before == now, "what was heard once is said again, seconds and all"


def crash_at(fatal: int, when: str, patched: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """A `write` that dies at one of the writes."""
    done = 0

    def die(*_: Any) -> None:
        raise Crash

    def write(action: Callable[[], None]) -> None:
        nonlocal done
        done += 1
        if done - 1 != fatal:
            return action()
        if when == "before":
            raise Crash
        if when == "within":
            patched.setattr(os, "replace", die)
        action()
        raise Crash

    return write


VARIANTS: dict[str, dict[str, Any]] = {
    "as usual": {},
    "sam, adamw": {"sam_rho": 0.05, "optimiser": "adamw", "lr": 0.01},
    "no average": {"ema_epochs": 0.0},
    "mixed": {"augment": {"flip": "alternating", "mix": "mixup_or_cutmix", "cutout": 3}},
}
FATES = ("suspended", "dies within an epoch", "dies around a write")


@pytest.mark.parametrize("variant", VARIANTS)
def test_cut_off_again_and_again_at_random_it_ends_the_same(
    short: Any,
    tmp_path: Path,
    same: Callable[[Any, Any], None],
    monkeypatch: pytest.MonkeyPatch,
    after_asking: Callable[[int], Any],
    variant: str,
    micro_batches: int,
) -> None:
    """Suspended, dead within an epoch, or dead around a write."""
    varied = short.changed(epochs=3, **VARIANTS[variant])
    whole, folder = varied(tmp_path / "whole", micro_batches=micro_batches), tmp_path / "cut"
    rng = random.Random(f"{variant} {micro_batches}")
    happened = []
    for _ in range(40):
        fate = rng.choice([fate for fate in FATES if fate not in happened[-2:]])
        happened.append(fate)
        suspend = after_asking(rng.randint(0, 15))

        def die_within(suspend: Callable[[], bool] = suspend) -> bool:
            if suspend():
                raise Crash
            return False

        with monkeypatch.context() as patched:
            faults: dict[str, Any] = {
                "suspended": {"should_suspend": suspend},
                "dies within an epoch": {"should_suspend": die_within},
                "dies around a write": {"write": crash_at(rng.randint(0, 4), rng.choice(["before", "within", "after"]), patched)},
            }[fate]
            try:
                run = varied(folder, micro_batches=micro_batches, **faults)
            except Crash:
                run = None
        check_curve_on_disk(folder)
        if run is not None and run.result.status == "finished":
            break
        assert run is None or run.result.status == "suspended"
    assert set(happened) == set(FATES)
    same(whole, varied(folder, micro_batches=micro_batches))
    assert epochs_on_disk(folder) == [1, 2, 3]


def test_a_suspension_that_cannot_be_written_leaves_the_epoch_before(
    short: Any, tmp_path: Path, same: Callable[[Any, Any], None], after_asking: Callable[[int], Any]
) -> None:
    """`write` gives up: what is on disk stays, and whoever listens has heard of no more than that."""
    whole = short(tmp_path / "whole")
    for allowed in range(1 + 2 * EPOCHS):
        left = allowed

        def write(action: Callable[[], None]) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise loop.Stopped
            action()

        folder = tmp_path / str(allowed)
        cut = short(folder, write=write)
        assert cut.result.status == "suspended"
        assert len(cut.heard) == max(0, allowed - 1) // 2
        check_curve_on_disk(folder)
        same(whole, short(folder))


def test_whoever_begins_is_told_what_was_found(short: Any, tmp_path: Path, after_asking: Callable[[int], Any]) -> None:
    told: list[tuple[int, str]] = []

    def on_begin(epochs_done: int, found: str) -> None:
        told.append((epochs_done, found))

    checkpoint = tmp_path / "checkpoint.pt"
    short(tmp_path, on_begin=on_begin, should_suspend=after_asking(3))
    short(tmp_path, on_begin=on_begin, should_suspend=after_asking(14))
    short(tmp_path, on_begin=on_begin)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    short(tmp_path, on_begin=on_begin)
    other = short.changed()
    other.identity = "another"
    other(tmp_path, on_begin=on_begin)
    assert told == [(0, "none"), (0, "whole"), (1, "whole"), (0, "damaged"), (0, "mismatched")]
