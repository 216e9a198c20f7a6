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
from statistics import fmean

import torch

TIMED_IMAGES = 256  # at most, of the batch that is timed
ROUNDS = 3  # in which each number of threads has its turn, since other programs do not use the cores evenly
LEAST_SECONDS = 60.0  # shortest remaining training for which steps are timed
MOST_SHARE = 0.02  # of the time of a training, for timing its steps
MARGIN = 0.15  # by which another number of threads must be faster
HOPELESS = 3.0  # times as slow as the fastest: not timed again in the next round


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

    def choose(self, step: Callable[[], object], left: float) -> None:
        """Sets the fastest number of threads.

        Args:
            step: trains on some images, and leaves no trace.
            left: how many such steps the training still takes.
        """
        began = time.monotonic()
        step()
        if _seconds_of(step) * left < LEAST_SECONDS:
            self._next = math.inf
            return
        first = self.number
        counts = list(dict.fromkeys([first, self.most, max(1, self.most // 2), 1]))
        taken: dict[int, list[float]] = {count: [] for count in counts}
        for _ in range(ROUNDS):
            for count in counts:
                torch.set_num_threads(count)
                if not taken[count]:
                    step()  # starts the threads
                taken[count].append(_seconds_of(step))
            fastest = min(fmean(taken[count]) for count in counts)
            counts = [count for count in counts if fmean(taken[count]) <= HOPELESS * fastest]
        best = min(counts, key=lambda count: fmean(taken[count]))
        ratio = fmean(taken[first]) / fmean(taken[best])
        if ratio > 1 + MARGIN:
            why = "other programs use the cores too" if best < first else "more of the cores are free"
            self.note(
                f"trains with {best} CPU thread{'s' * (best > 1)} from here on, {ratio:.1f} times as fast as with {first}: "
                f"{why}. --threads N keeps the number fixed"
            )
        self.set(best if ratio > 1 + MARGIN else first)
        self._next = time.monotonic() + (time.monotonic() - began) / MOST_SHARE


def _seconds_of(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
