"""Learning-rate schedules: pure functions of progress in [0, 1] to a factor of the peak rate. To add one: a function
`(progress, config) -> factor`, an entry in SCHEDULES, its name in `nas.config.ScheduleName`."""

import math
from collections.abc import Callable

from nas.config import TrainConfig

# OneCycle starts at peak / 25 and ends at that / 10,000: torch's defaults, after arXiv 1708.07120.
ONECYCLE_START = 1 / 25
ONECYCLE_END = ONECYCLE_START / 1e4


def _cosine_between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def cosine(progress: float, config: TrainConfig) -> float:
    """From 1 to 0 along half a cosine (arXiv 1608.03983, without restarts)."""
    return _cosine_between(1.0, 0.0, progress)


def warmup_cosine(progress: float, config: TrainConfig) -> float:
    """Linear from 0 to 1 during the warm-up, then a cosine to 0."""
    if progress < config.warmup:
        return progress / config.warmup
    return _cosine_between(1.0, 0.0, (progress - config.warmup) / (1 - config.warmup))


def onecycle(progress: float, config: TrainConfig) -> float:
    """Two half cosines: up from 1/25 during the warm-up, then down to almost 0."""
    if progress < config.warmup:
        return _cosine_between(ONECYCLE_START, 1.0, progress / config.warmup)
    return _cosine_between(1.0, ONECYCLE_END, (progress - config.warmup) / (1 - config.warmup))


def multistep(progress: float, config: TrainConfig) -> float:
    """Times gamma after each milestone."""
    # A milestone that is a whole epoch must not be missed by the rounding of its share.
    return config.gamma ** sum(progress >= milestone - 1e-9 for milestone in config.milestones)


def constant(progress: float, config: TrainConfig) -> float:
    return 1.0


SCHEDULES: dict[str, Callable[[float, TrainConfig], float]] = {
    "cosine": cosine,
    "onecycle": onecycle,
    "warmup_cosine": warmup_cosine,
    "multistep": multistep,
    "constant": constant,
}


def learning_rate(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """The rate of `step` (from 0) of the whole run.

    Progress is taken at the step's middle, so that neither the first nor the last step is wasted on a rate of 0; with
    `rate_per_epoch` it is that of the epoch's begin, as in scripts that step their scheduler after each epoch, and during a
    linear warm-up that of its end.
    """
    if config.rate_per_epoch:
        epoch = step // steps_per_epoch
        progress = epoch / config.epochs
        if config.schedule == "warmup_cosine" and progress < config.warmup:
            progress = min((epoch + 1) / config.epochs, config.warmup)  # or the first epoch would train at a rate of 0
    else:
        progress = (step + 0.5) / (steps_per_epoch * config.epochs)
    return config.peak_lr * SCHEDULES[config.schedule](progress, config)
