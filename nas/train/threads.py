"""How many CPU threads train a network, chosen by timing its own steps.

The threads of one network wait for each other after every layer. If another program uses one of the cores, all of them wait for
the thread on that core, and a training with two threads can take ten times as long as one with a single thread
(`scripts/bench/README.md`, "One step while other programs run"). On a quiet machine all threads are faster.

Sums that other threads add up differ in their last bits. The number is therefore part of a checkpoint, and changes only between
two epochs.
"""

import math
import time
from collections.abc import Callable
from statistics import median

import torch

from nas.device import cpu_threads
from nas.train.evaluate import Stopped

TIMED_IMAGES = 256  # at most, of the batch that is timed
ROUNDS = 3  # in which each number of threads has its turn, since other programs do not use the cores evenly
LEAST_SECONDS = 60.0  # shortest remaining training for which steps are timed
MOST_SHARE = 0.02  # of the time of a training, for timing its steps
MARGIN = 0.15  # by which another number of threads must be faster
HOPELESS = 3.0  # times as slow as the fastest in two rounds: not timed again


class ThreadChoice:
    """The number of threads of a training on the CPU, between 1 and `most`.

    Args:
        most: threads, which is what a training begins with.
        note: receives a line of text for the user whenever the number changes.
    """

    def __init__(self, most: int, note: Callable[[str], None]) -> None:
        self.most, self.note, self.number = most, note, most
        self._next = 0.0  # time of the next measurement, by `time.monotonic`

    def set(self, number: int) -> None:
        self.number = min(number, self.most)
        torch.set_num_threads(self.number)

    @property
    def is_due(self) -> bool:
        """Whether it is time to measure again: the last measurement has become a small part of the time since."""
        return self.most > 1 and time.monotonic() >= self._next

    def choose(self, step: Callable[[], object], left: float, should_stop: Callable[[], bool]) -> None:
        """Sets the fastest number of threads.

        Args:
            step: trains on some images, and leaves no trace.
            left: how many such steps the training still takes.
            should_stop: asked before each step. True ends the measurement: the number stays, and Stopped is raised.
        """
        first, began = self.number, time.monotonic()
        with cpu_threads(first):
            best, ratio = self._fastest(step, left, should_stop)
        if ratio > 1 + MARGIN:
            why = "perhaps because other programs use the cores" if best < first else "more of the cores are free"
            self.note(
                f"trains with {best} CPU thread{'s' * (best > 1)} from here on, {ratio:.1f} times as fast as with {first}, "
                f"{why}. --threads N keeps the number fixed"
            )
            self.set(best)
        self._next = max(self._next, time.monotonic() + (time.monotonic() - began) / MOST_SHARE)

    def _fastest(self, step: Callable[[], object], left: float, should_stop: Callable[[], bool]) -> tuple[int, float]:
        """The fastest number of threads, and how many times as fast as the present one it is."""

        def timed() -> float:
            if should_stop():
                raise Stopped
            started = time.perf_counter()
            step()
            return time.perf_counter() - started

        timed()
        usual = timed()
        if not is_timed(left, usual, self.most):
            self._next = math.inf
            return self.number, 1.0
        counts = _counts(self.number, self.most)
        taken: dict[int, list[float]] = {count: [] for count in counts} | {self.number: [usual]}
        for _ in range(ROUNDS):
            for count in counts:
                torch.set_num_threads(count)
                if not taken[count]:
                    timed()  # starts the threads
                taken[count].append(timed())
            fastest = min(median(taken[count]) for count in counts)
            counts = [count for count in counts if len(taken[count]) < 2 or median(taken[count]) <= HOPELESS * fastest]
        best = min(counts, key=lambda count: median(taken[count]))
        return best, median(taken[self.number]) / median(taken[best])


def is_timed(steps: float, seconds: float, most: int) -> bool:
    """Whether a training with so many steps left, of so many seconds each, is long enough to choose its number of threads, at
    most `most`."""
    timed = (ROUNDS + 1) * len(_counts(most, most))
    return steps * seconds >= LEAST_SECONDS and steps >= timed / MOST_SHARE


def _counts(present: int, most: int) -> list[int]:
    return list(dict.fromkeys([present, most, max(1, most // 2), 1]))
