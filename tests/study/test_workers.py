"""How many workers a study on the CPU begins with, and that it keeps them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nas.budget import Budget
from nas.config import ImageShape
from nas.jobs import placement
from nas.jobs.messages import Timed, TimeSteps
from nas.paths import study_paths
from nas.space.space_file import load_space
from nas.specs import SearchSpec
from nas.study import workers as module
from nas.study.run import run_search
from nas.study.settings import read_settings
from nas.study.workers import Choice, choose_workers, fastest, middle_network
from tests.conftest import QuietDisplay

MANY = 10_000_000  # images
SPACE = load_space("digits")
SHAPE = ImageShape(channels=1, size=8, classes=10)


@dataclass
class Timing:
    """Stands for the executor: so fast are so many workers together."""

    threads: int
    speed: Callable[[int], float] = lambda workers: 100.0 * workers
    peak: int | None = 1000
    asked: list[tuple[int, int]] = field(default_factory=list)  # workers, and threads of each

    @property
    def plans(self) -> list[Any]:
        return [SimpleNamespace(device="cpu", threads=self.threads)]

    def time_steps(self, order: TimeSteps, workers: int) -> list[Timed]:
        if order.seconds:
            self.asked.append((workers, order.threads))
        return [Timed(self.speed(workers) / workers, self.peak)] * workers


def choose(timing: Any, images: int = MANY, **request: Any) -> Choice | None:
    notes: list[str] = []
    return choose_workers(SearchSpec(**request), images, SPACE, Budget(SPACE.budget, SHAPE), timing, notes.append)


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: None)


@pytest.mark.parametrize(
    ("speeds", "workers"),
    [
        ({1: 100.0}, 1),
        ({1: 100.0, 2: 90.0}, 1),
        ({1: 100.0, 2: 105.0}, 1),
        ({1: 100.0, 2: 120.0}, 2),
        ({1: 100.0, 2: 108.0, 4: 112.0}, 2),
        ({1: 100.0, 2: 101.0, 4: 150.0}, 4),
    ],
)
def test_the_fewest_that_are_as_fast_as_the_fastest(speeds: dict[int, float], workers: int) -> None:
    assert fastest(speeds) == workers


def test_numbers_are_timed_in_turns_with_their_share_of_the_threads() -> None:
    timing = Timing(threads=6, speed={1: 100.0, 2: 130.0, 4: 131.0}.__getitem__)
    assert choose(timing) == Choice(2, "measured: 2 are 1.30 times as fast as 1, 4 are 1.31 times as fast as 1")
    assert timing.asked == [(1, 6), (2, 3), (4, 1)] * module.ROUNDS


@pytest.mark.parametrize(
    ("request_", "images", "threads"),
    [
        ({"workers": 2}, MANY, 2),
        ({"threads": 2}, MANY, 2),
        ({}, MANY, 1),
        ({"trials": 1}, MANY, 2),
        ({"timeout": 299.0}, MANY, 2),
        ({"trials": 12}, 1617, 2),  # quickstart
        ({"trials": 12, "seed": 0}, 1617, 2),
    ],
)
def test_what_is_decided_or_too_short_is_not_timed(request_: dict[str, Any], images: int, threads: int) -> None:
    timing = Timing(threads)
    assert choose(timing, images, **request_) is None
    assert not timing.asked


def test_a_seed_means_one_worker() -> None:
    timing = Timing(threads=2)
    assert choose(timing, seed=0) == Choice(1, "one because of --seed, so the search can be repeated exactly")
    assert not timing.asked


def test_workers_have_to_fit_into_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: 4_000)
    timing = Timing(threads=8, peak=1000)
    assert choose(timing) == Choice(2, "measured: 2 are 2.00 times as fast as 1")
    assert choose(replace(timing, peak=1001)) == Choice(1, "too little memory for 2")
    assert choose(replace(timing, peak=None)) != Choice(1, "too little memory for 2")


def test_a_worker_that_dies_of_it_leaves_one() -> None:
    def dies(workers: int) -> float:
        raise EOFError

    assert choose(Timing(threads=2, speed=dies)) == Choice(1, "a test with two workers failed")


def test_the_middle_network_fits_and_its_batch_is_small_if_it_is_large() -> None:
    small = middle_network(SPACE, Budget(SPACE.budget, SHAPE))
    resnet = load_space("resnet")
    large_shape = ImageShape(channels=3, size=64, classes=10)
    large = middle_network(resnet, Budget(resnet.budget, large_shape))
    assert small is not None
    assert large is not None
    assert small.train.batch_size >= 32
    assert module.LEAST_BATCH <= large.train.batch_size < 64


@pytest.mark.parametrize(("pick", "kept"), [(max, "2 on cpu, 1 thread each"), (min, "1 on cpu, 2 threads each")])
def test_a_study_keeps_its_workers(monkeypatch: pytest.MonkeyPatch, pick: Callable[[dict[int, float]], int], kept: str) -> None:
    """Real workers, of which two are timed and one or both kept, whichever is faster; the search that goes on times nothing."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(placement, "usable_cores", lambda: 2)
    monkeypatch.setattr(module, "LEAST_IMAGES", 0)
    monkeypatch.setattr(module, "SECONDS", 0.0)
    monkeypatch.setattr(module, "ROUND_SECONDS", 0.05)
    monkeypatch.setattr(module, "fastest", pick)
    request = SearchSpec(study="mine", space="digits", dataset="digits", train_subset=200, trials=2, epochs=1, device="cpu")
    first = run_search(replace(request, finalists=0), display := QuietDisplay())
    assert first.plan.workers.startswith(f"{kept}; measured: 2 are ")
    assert any("timing which number of workers is fastest" in note for note in display.notes)
    assert read_settings(study_paths("mine")).workers == int(kept[0])

    monkeypatch.setattr(module, "_time", None)
    again = run_search(SearchSpec(study="mine", trials=3, finalists=0, device="cpu"), QuietDisplay())
    assert again.plan.workers == kept
    assert again.progress.trained == 3
    other = run_search(SearchSpec(study="mine", trials=3, workers=2, finalists=0, device="cpu"), QuietDisplay())
    assert other.plan.workers == "2 on cpu, 1 thread each"
