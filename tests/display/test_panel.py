"""The panel of a running search at every width, and what little, plain and full displays say."""

import io
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
from rich.console import Console, Group
from rich.text import Text

from nas.config import Candidate
from nas.display.panel import panel, seconds_left, sparkline
from nas.display.terminal import Panel, TerminalDisplay
from nas.display.trainings import Trainings
from nas.jobs.job import Job, Running
from nas.paths import TrialPaths
from nas.study.source import Drawn, Progress
from nas.study.trials import TrialRecord
from nas.train.checkpoint import EpochMetrics
from nas.train.loop import EpochProgress

CANDIDATE = Candidate.model_validate({"arch": {"stages": [{"blocks": 2, "channels": 64}, {"blocks": 1, "channels": 128}]}})


def epoch(number: int, accuracy: float) -> EpochMetrics:
    return EpochMetrics(number, 1.5, 0.5, None, None, 1.0, accuracy, 0.1, 2.0, 12_345.6)


def within(phase: Literal["training", "validating"], done: int) -> EpochProgress:
    return EpochProgress(1, phase, done, 50, 987.6)


def running(number: int, *accuracies: float, memory: int | None = None, progress: EpochProgress | None = None) -> Running:
    job = Job(str(number), f"trial {number}", Path(), CANDIDATE.arch, CANDIDATE.train, seed=0, identity="")
    return Running(job, curve=[epoch(n, accuracy) for n, accuracy in enumerate(accuracies, 1)], progress=progress, memory=memory)


def trial(number: int) -> Drawn:
    return Drawn(cast(Any, SimpleNamespace(number=number, user_attrs={})), CANDIDATE, 4_480_000, 100_000_000)


def progress(**changes: Any) -> Progress:
    known: dict[str, Any] = {
        "counts": Counter(trained=5, pruned_early=7, over_budget=9),
        "running": {0: running(20, 0.31, 0.4256), 1: running(21, progress=within("training", 21))},
        "drawn": {str(number): trial(number) for number in range(100)},
        "best": TrialRecord(12, "trained", 0.7438, 18, 260_290, None, "basic 1-2-1 × 56-64-48 k3-3-3 relu", 1),
        "history": [0.6, 0.6, 0.7, 0.7438],
        "trained_here": 6,
        "devices": {0: "NVIDIA H100, bf16", 1: "NVIDIA H100, bf16"},
    }
    return Progress(goal=100, **{"epochs": 18, "metric": "accuracy", **known, **changes})


def drawn(shown: Progress, width: int, left: float | None = 720.0) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(panel(shown, width, left))
    return cast(io.StringIO, console.file).getvalue().splitlines()


def test_panel_fits_any_terminal() -> None:
    for width in (30, 40, 60, 80, 100, 120, 160, 240):
        lines = drawn(progress(), width)
        assert len(lines) == 5, "counts, best, the table's head and two workers"
        assert max(map(len, lines)) <= width


def test_panel_at_a_glance() -> None:
    lines = drawn(progress(), 160)
    assert lines[0].rstrip() == "trained 12/100 (5 completed, 7 pruned early) · 9 over budget · about 12 min left"
    assert lines[1].rstrip() == "best  74.38%  trial 12  260k  ▁▁▆█  basic 1-2-1 × 56-64-48 k3-3-3 relu"
    assert lines[2].split() == ["worker", "trial", "params", "epoch", "now", "accuracy", "images/s", "network"]
    assert lines[3].split()[:10] == ["NVIDIA", "H100", "20", "4.48M", "3/18", "█░░░░░░░", "training", "42.56%", "12,346", "basic"]
    assert lines[4].split()[2:9] == ["21", "4.48M", "1/18", "░░░░░░░░", "training", "42%", "988"], "the first epoch is no blank"


@pytest.mark.parametrize(
    ("one", "epochs", "shown"),
    [
        (running(20), 2, "1/2 ░░░░░░░░  starting"),
        (running(20, progress=within("training", 25)), 2, "1/2 ██░░░░░░  training 50%  988"),
        (running(20, progress=within("validating", 30)), 2, "1/2 ████░░░░  validating 60%  988"),
        (running(20, 0.3, progress=within("validating", 0)), 2, "2/2 ████████  validating 0%  30.00%  988"),
        (running(20, 0.3, 0.4), 2, "2/2 ████████  training  40.00%  12,346"),
        (replace(running(20, 0.3), waiting=True), 2, "2/2 ████░░░░  waiting  30.00%  12,346"),
    ],
)
def test_what_a_worker_does_within_an_epoch(one: Running, epochs: int, shown: str) -> None:
    assert " ".join(shown.split()) in " ".join(drawn(progress(epochs=epochs, running={0: one}), 160)[3].split())


def test_memory_is_shown_where_there_is_a_gpu() -> None:
    shown = progress(running={0: running(20, 0.3, memory=3 * 2**30)})
    assert "memory" in drawn(shown, 160)[2]
    assert "3.0 GiB" in drawn(shown, 160)[3]
    assert "memory" not in drawn(shown, 100)[2]


def test_columns_keep_their_places_while_an_epoch_goes_on() -> None:
    said = (None, within("training", 3), within("validating", 0), within("validating", 50))
    heads = {drawn(progress(running={0: running(20, 0.3, progress=one)}), 80)[2] for one in said}
    assert len(heads) == 1


def test_narrow_terminal_keeps_what_matters() -> None:
    lines = drawn(progress(), 60)
    assert lines[0].rstrip() == "trained 12/100 · 9 over budget · about 12 min left"
    assert lines[2].split() == ["trial", "epoch", "now", "accuracy", "network"]
    assert lines[3].split()[:4] == ["20", "3/18", "training", "42.56%"]
    lines = drawn(progress(), 36)
    assert lines[0].rstrip() == "trained 12/100 · about 12 min left"
    assert lines[2].split() == ["trial", "epoch", "accuracy", "network"]
    assert lines[3].startswith("   20  3/18     42.56%  basic 2-1"), "only the network is cut"
    assert lines[3].rstrip().endswith("…")
    assert drawn(progress(), 30)[2].split() == ["trial", "epoch", "accuracy"]


@pytest.mark.parametrize(("devices", "words"), [({}, "starting the workers and loading the data"), ({0: "cpu"}, "drawing")])
def test_before_anything_trains(devices: dict[int, str], words: str) -> None:
    shown = Progress(goal=10, epochs=3, metric="accuracy", devices=devices)
    assert drawn(shown, 80, None) == ["trained 0/10", words]


@pytest.mark.parametrize(
    ("values", "width", "expected"),
    [
        ([], 10, ""),
        ([0.5], 10, "█"),
        ([0.5, 0.5], 10, "██"),
        ([0.0, 0.5, 1.0], 10, "▁▅█"),
        ([0.9, 0.0, 1.0], 2, "▁█"),
        ([0.1, 0.2], 0, ""),
    ],
)
def test_sparkline(values: list[float], width: int, expected: str) -> None:
    assert sparkline(values, width) == expected


def test_time_left_goes_by_what_a_training_cost_pruned_ones_among_them() -> None:
    shown = progress(trained_here=4)
    assert seconds_left(shown, elapsed=400.0, until_deadline=None) == 88 * 100.0
    assert seconds_left(shown, elapsed=400.0, until_deadline=60.0) == 60.0, "the time that is given is an end, too"
    assert seconds_left(shown, elapsed=400.0, until_deadline=-5.0) == 0.0
    by_compute = replace(shown, flop_here=8e12, flop_left=2e12)
    assert seconds_left(by_compute, elapsed=400.0, until_deadline=None) == 100.0, "so is the compute"
    none_yet = progress(trained_here=0)
    assert seconds_left(none_yet, 400.0, None) is None
    assert seconds_left(none_yet, 400.0, 30.0) == 30.0


def display(quiet: bool = False, terminal: bool = False) -> TerminalDisplay:
    return TerminalDisplay(Console(file=io.StringIO(), width=80, force_terminal=terminal), quiet=quiet)


def said(shown: TerminalDisplay) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", cast(io.StringIO, shown.console.file).getvalue())


ROW = TrialRecord(12, "trained", 0.7438, 18, 260_290, None, "basic", 1)


def test_without_a_terminal_each_trial_has_its_line() -> None:
    shown = display()
    with shown:
        shown.until(None)
        shown.ended(ROW, progress())
        shown.ended(replace(ROW, finalist=3, seed=0), progress())
    line, final = said(shown).splitlines()
    assert line.startswith("trial   12  completed     74.38%  after  18 epochs   260k  basic  [12/100 · about ")
    assert line.endswith(" left]  ← best so far")
    assert "best" not in final, "no single training of a finalist is"


def test_trial_is_one_line_in_a_terminal() -> None:
    long = replace(ROW, architecture="basic 1-2-1 × 56-64-48 k3-3-3 relu stem/2")
    shown = display(terminal=True)
    with shown:
        shown.ended(long, progress())
        shown.ended(replace(long, number=7), progress())
    first, second = said(shown).splitlines()
    assert first.startswith("trial   12  completed     74.38%  after  18 epochs   260k  basic")
    assert first.endswith("…  ← best so far")
    assert second.endswith("…")
    assert len(first) == len(second) == 80


def test_panel_that_a_narrower_terminal_has_wrapped_is_taken_away_whole() -> None:
    """Ten lines of 60 characters are twenty rows of a terminal of 40: the cursor goes up by nineteen."""
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    stream = cast(io.StringIO, console.file)
    shown = Panel(console, lambda: Group(*(Text("x" * min(60, console.width)) for _ in range(10))))
    shown.start()
    shown.refresh()
    for width, expected in ((80, 9), (40, 19), (40, 9), (80, 9)):
        console.width = width
        stream.truncate(0)
        shown.refresh()
        assert stream.getvalue().count("\x1b[1A") == expected, width
    shown.stop()


def test_quiet_says_what_somebody_should_know_and_nothing_else() -> None:
    shown = display(quiet=True)
    with shown:
        shown.ended(ROW, progress())
        shown.say("all is well")
        shown.training(1, 10, "loss 2.3")
        assert list(shown.decoding([1, 2], "decoding", 2)) == [1, 2]
        shown.note("a worker died")
    assert said(shown) == "a worker died\n"


def test_one_training_is_a_line_now_and_then_or_a_bar() -> None:
    plain = display()
    with plain:
        for number in range(1, 101):
            plain.training(number, 100, "in the middle", share=0.5)
            plain.training(number, 100, f"loss {number}")
    assert said(plain).splitlines() == ["epoch    1/100  loss 1", "epoch  100/100  loss 100"]
    bar = display(terminal=True)
    with bar:
        bar.training(3, 10, "loss 2.3")
        bar.training(4, 10, "loss 2.1", share=0.42)
    assert "4/10 42%" in said(bar)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, as the first of one number."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_in_half_a_minute_however_long_an_epoch_takes(clock: list[float]) -> None:
    shown = display()
    with shown:
        shown.until(None)
        for second in range(100):
            clock[0] = 1000.0 + second
            shown.update(progress())
            if second == 40:
                shown.ended(ROW, progress())
        many = {worker: running(20 + worker) for worker in range(6)}
        clock[0] = 1200.0
        shown.update(progress(running=many))
        clock[0] = 1300.0
        shown.update(progress(running={}))
    lines = said(shown).splitlines()
    assert [line.split()[0] for line in lines] == ["trial"] * 4 + ["drawing"]
    assert lines[0].startswith(
        "trial 20: epoch 3/18, training; trial 21: epoch 1/18, training 42%, 988 images/s  [12/100 · about "
    )
    assert lines[1].startswith("trial   12  completed"), "after which it is silent for half a minute again"
    assert "trial 23: epoch 1/18, starting; 2 more  [12/100" in lines[3]


def test_what_takes_long_is_a_line_now_and_then_and_what_does_not_is_none(clock: list[float]) -> None:
    shown = display()
    with shown:
        for seconds in (0.1, 1.0, 1.0):
            for _ in shown.decoding(range(50), "judging, batches", 50):
                clock[0] += seconds
    assert said(shown).splitlines() == [f"judging, batches: {done} of 50" for done in (5, 35, 15, 45)]


def test_time_left_of_trainings_counts_what_is_judged_at_their_end(clock: list[float], tmp_path: Path) -> None:
    run, train = TrialPaths(tmp_path / "run"), CANDIDATE.train.model_copy(update={"epochs": 4})
    shown, plan = display(), cast(Any, SimpleNamespace(name="run", run=run, train=train))
    with shown:
        trainings = Trainings(shown)
        trainings.begin([plan], passes=30_000)
        trainings.on_progress(plan, within("training", 0))
        clock[0] += 100.0
        trainings.on_progress(plan, within("training", 25))
        clock[0] += 100.0
        trainings.on_epoch(plan, replace(epoch(1, 0.5), images_per_second=100.0))
    # 700 s for the 3.5 epochs that are left, and 30,000 passes, each a third of a step by 987.6 images/s.
    assert said(shown).splitlines() == [
        "epoch    1/4  50%  988 images/s  12 min left",
        "epoch    1/4  loss 1.5000  training accuracy 50.00%  100 images/s  12 min left",
    ]
