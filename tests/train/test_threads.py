"""The number of CPU threads that a training chooses by timing its own steps, on a clock of the test's own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nas.train import threads
from nas.train.evaluate import Stopped
from nas.train.threads import ThreadChoice

STEPS = 1000.0  # left, in most tests

QUIET = {4: 1.0, 2: 1.7, 1: 3.0}
BUSY = {4: 30.0, 2: 10.0, 1: 3.0}
BUSY_A_LITTLE = {4: 3.0, 2: 2.0, 1: 3.2}


def go_on() -> bool:
    """Nobody suspends the training."""
    return False


class Machine:
    """`step` takes so many seconds, by the number of threads."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds, self.now, self.taken = seconds, 0.0, list[int]()

    def step(self) -> None:
        self.taken.append(torch.get_num_threads())
        self.now += self.seconds[torch.get_num_threads()]

    def clock(self) -> float:
        return self.now


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    before = torch.get_num_threads()
    made = Machine(QUIET)
    monkeypatch.setattr(threads, "time", SimpleNamespace(monotonic=made.clock, perf_counter=made.clock))
    torch.set_num_threads(4)
    yield made
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "number", "said"),
    [
        (QUIET, 4, []),
        (
            BUSY,
            1,
            ["1 CPU thread from here on, 10.0 times as fast as with 4, perhaps because other programs use the cores"],
        ),
        (
            BUSY_A_LITTLE,
            2,
            ["2 CPU threads from here on, 1.5 times as fast as with 4, perhaps because other programs use the cores"],
        ),
        ({4: 1.0, 2: 0.9, 1: 0.88}, 4, []),  # not by the margin
    ],
)
def test_the_fastest_number_is_set_and_a_change_is_said(
    machine: Machine, seconds: dict[int, float], number: int, said: list[str]
) -> None:
    machine.seconds, notes = seconds, list[str]()
    choice = ThreadChoice(4, notes.append)
    choice.choose(machine.step, STEPS, go_on)
    assert torch.get_num_threads() == choice.number == number
    assert notes == [f"trains with {text}. --threads N keeps the number fixed" for text in said]


def test_when_the_cores_are_free_again_it_takes_them_all(machine: Machine) -> None:
    machine.seconds, notes = BUSY, list[str]()
    choice = ThreadChoice(4, notes.append)
    choice.choose(machine.step, STEPS, go_on)
    machine.seconds = QUIET
    choice.choose(machine.step, STEPS, go_on)
    assert torch.get_num_threads() == 4
    assert notes[1].startswith("trains with 4 CPU threads from here on, 3.0 times as fast as with 1, more of the cores are free")


def test_a_hopeless_number_is_timed_once(machine: Machine) -> None:
    machine.seconds = {4: 30.0, 2: 4.0, 1: 3.0}
    ThreadChoice(4, [].append).choose(machine.step, STEPS, go_on)
    assert machine.taken.count(4) == 3, "twice to see whether timing pays, and once more: a single step may be slow by chance"
    assert machine.taken.count(2) == machine.taken.count(1) == 4


def test_a_single_slow_step_decides_nothing(machine: Machine) -> None:
    def step() -> None:
        machine.step()
        machine.now += 6.0 if len(machine.taken) == 3 else 0.0

    choice = ThreadChoice(4, [].append)
    choice.choose(step, STEPS, go_on)
    assert choice.number == torch.get_num_threads() == 4


def test_a_short_training_keeps_its_threads_and_is_not_timed_again(machine: Machine) -> None:
    machine.seconds = {4: 0.5, 1: 0.1}
    choice = ThreadChoice(4, [].append)
    choice.choose(machine.step, 119, go_on)
    assert machine.taken == [4, 4]
    machine.now += 1e6
    assert not choice.is_due


def test_timing_stays_a_small_part_also_of_few_long_steps(machine: Machine) -> None:
    machine.seconds = {4: 60.0, 2: 6.0, 1: 6.0}
    choice = ThreadChoice(4, [].append)
    choice.choose(machine.step, 599, go_on)
    assert machine.taken == [4, 4], "three numbers of threads take four steps each, of which 599 are less than 50 times as many"


def test_it_may_be_suspended_between_two_steps_and_keeps_its_threads(machine: Machine) -> None:
    machine.seconds = BUSY

    def suspend() -> bool:
        return len(machine.taken) == 6

    with pytest.raises(Stopped):
        ThreadChoice(4, [].append).choose(machine.step, STEPS, suspend)
    assert len(machine.taken) == 6
    assert torch.get_num_threads() == 4


def test_it_measures_again_once_the_last_measurement_is_a_fiftieth_of_the_time(machine: Machine) -> None:
    choice = ThreadChoice(4, [].append)
    assert choice.is_due
    choice.choose(machine.step, STEPS, go_on)
    took = machine.now
    machine.now = 50 * took
    assert not choice.is_due
    machine.now = 51 * took + 1e-6
    assert choice.is_due


def test_there_is_nothing_to_choose_from_one_thread() -> None:
    assert not ThreadChoice(1, [].append).is_due


def test_timing_leaves_no_trace_in_the_training(
    training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: Callable[[Any, Any], None]
) -> None:
    training = training.changed({"dropout": 0.2, "stochastic_depth": 0.1}, augment={"flip": "alternating", "mix": "cutmix"})
    threads_there = torch.get_num_threads()
    choice, timed = ThreadChoice(threads_there, [].append), list[float]()

    def choose(step: Callable[[], object], left: float, should_stop: Callable[[], bool]) -> None:
        timed.append(left)
        step()
        step()

    monkeypatch.setattr(ThreadChoice, "is_due", True)
    monkeypatch.setattr(choice, "choose", choose)
    chosen, plain = training(tmp_path / "chosen", threads=choice), training(tmp_path / "plain")
    same(plain, chosen)
    steps = [epochs * 6 * 32 / 32 for epochs in (4, 3, 2, 1)]
    assert timed == pytest.approx(steps), "before each epoch, with the steps that are left"


def test_a_resumed_epoch_goes_on_with_the_threads_that_it_had(
    training: Any, tmp_path: Path, after_asking: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, chosen = torch.get_num_threads(), list[int]()

    class Scripted(ThreadChoice):
        is_due = True

        def choose(self, step: Callable[[], object], left: float, should_stop: Callable[[], bool]) -> None:
            chosen.append(1)
            self.set(1)

    try:
        torch.set_num_threads(2)
        training(tmp_path, threads=Scripted(2, [].append), should_suspend=after_asking(3))
        assert chosen == [1]
        torch.set_num_threads(2)
        seen: list[int] = []

        def look() -> bool:
            seen.append(torch.get_num_threads())
            return len(seen) > 2

        training(tmp_path, threads=Scripted(2, [].append), should_suspend=look)
        assert seen == [1, 1, 1]
        assert chosen == [1], "within an epoch nothing is chosen"
    finally:
        torch.set_num_threads(before)
