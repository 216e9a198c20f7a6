"""Learning-rate schedules: pure functions of progress in [0, 1] to a factor of the peak rate. To add one: a function
`(progress, warmup) -> factor`, an entry in SCHEDULES, its name in `nas.config.ScheduleName`."""

import math
from collections.abc import Callable

# OneCycle starts at peak / 25 and ends at that / 10,000: torch's defaults, after arXiv 1708.07120.
ONECYCLE_START = 1 / 25
ONECYCLE_END = ONECYCLE_START / 1e4


def _cosine_between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def cosine(progress: float, warmup: float) -> float:
    """From 1 to 0 along half a cosine (arXiv 1608.03983, without restarts); has no warm-up."""
    return _cosine_between(1.0, 0.0, progress)


def warmup_cosine(progress: float, warmup: float) -> float:
    """Linear from 0 to 1 during the warm-up, then a cosine to 0."""
    if progress < warmup:
        return progress / warmup
    return _cosine_between(1.0, 0.0, (progress - warmup) / (1 - warmup))


def onecycle(progress: float, warmup: float) -> float:
    """Two half cosines: up from 1/25 during the warm-up, then down to almost 0."""
    if progress < warmup:
        return _cosine_between(ONECYCLE_START, 1.0, progress / warmup)
    return _cosine_between(1.0, ONECYCLE_END, (progress - warmup) / (1 - warmup))


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "cosine": cosine,
    "onecycle": onecycle,
    "warmup_cosine": warmup_cosine,
}


def learning_rate(step: int, total_steps: int, name: str, peak: float, warmup: float) -> float:
    """The rate of `step` (from 0). Progress is taken at the step's middle, so that neither the first nor the last step is
    wasted on a rate of 0."""
    return peak * SCHEDULES[name]((step + 0.5) / total_steps, warmup)
