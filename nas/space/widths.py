"""Scales the widths of a network until its parameters fill a target; its depths and the ratios of its widths stay.

All widths are multiplied by one factor, rounded down to their steps, and then widened step by step, always the stage furthest
behind its ratio among those that the target still has room for. Where whole steps miss, halves of them serve, quarters, single
channels, and at last an exchange of a few, so that most widths stay multiples of their step. No width leaves 1 to 4096: where the
factor would, it stops there and the others make up for it. A stem of its own width keeps its ratio to the first stage.
"""

import math
from collections.abc import Callable, Sequence

from nas.budget.closed_form import params_at_widths
from nas.config import WIDEST, ArchConfig, ImageShape

FILLED = 0.98  # of the target, from here on up to all of it
MOST_GIVEN = 4  # channels that one stage may lose to the others in the last of all adjustments

Count = Callable[[Sequence[int]], int]  # parameters at so many channels a stage


def is_filled(params: int, target: int) -> bool:
    return FILLED * target <= params <= target


def filled(arch: ArchConfig, shape: ImageShape, target: int, steps: Sequence[int]) -> ArchConfig:
    """The same shape of network with 98 % to 100 % of `target` parameters on images of `shape`; itself, where it has them.

    Where no widths come so near, those that come nearest from below; where even single channels are too many, single channels.
    `steps` are the widths' own, one a stage.
    """
    drawn = [stage.channels for stage in arch.stages]

    def count(widths: Sequence[int]) -> int:
        return params_at_widths(arch, shape, widths, _stem(arch, widths[0]) or widths[0])

    if is_filled(count(drawn), target):
        return arch
    widths = _filling(drawn, count, target, steps)
    stages = tuple(stage.model_copy(update={"channels": channels}) for stage, channels in zip(arch.stages, widths, strict=True))
    stem = arch.stem.model_copy(update={"channels": _stem(arch, widths[0])})
    return arch.model_copy(update={"stages": stages, "stem": stem})


def _stem(arch: ArchConfig, first: int) -> int | None:
    """Its channels beside a first stage of so many; None where they are the same."""
    own = arch.stem.channels
    return own and min(max(1, round(own * first / arch.stages[0].channels)), WIDEST)


def _filling(drawn: Sequence[int], count: Count, target: int, steps: Sequence[int]) -> list[int]:
    ideal = _scaled(drawn, count, target)
    steps = [_largest_part(step, width) for step, width in zip(steps, ideal, strict=True)]
    widths = [width - width % step for width, step in zip(ideal, steps, strict=True)]
    if count(widths) > target:  # two widths that were equal no longer are, and their shortcut needs a projection
        widths = ideal
    while True:
        widths = _widened(widths, drawn, count, target, steps)
        if is_filled(count(widths), target):
            return widths
        if max(steps) == 1:
            return _exchanged(widths, drawn, count, target)
        steps = [max(1, step // 2) for step in steps]


def _scaled(drawn: Sequence[int], count: Count, target: int) -> list[int]:
    """At the largest factor that the target allows, to within a channel."""

    def at(factor: float) -> list[int]:
        return [min(max(1, int(width * factor)), WIDEST) for width in drawn]

    low, high = 1 / max(drawn), WIDEST / min(drawn)
    if count(at(high)) <= target:
        return at(high)
    while high / low > 1 + 1 / (4 * WIDEST):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if count(at(middle)) <= target else (low, middle)
    return at(low)


def _largest_part(step: int, width: int) -> int:
    """The step, or so many times a half of it that it is no wider than `width`."""
    while step > width:
        step //= 2
    return step


def _widened(
    widths: Sequence[int], drawn: Sequence[int], count: Count, target: int, steps: Sequence[int], but: int | None = None
) -> list[int]:
    """One stage by one step at a time, all stages `but` that one, until the target is filled or has no room for another step."""
    widths = list(widths)
    stages = [stage for stage in range(len(widths)) if stage != but]
    while not is_filled(count(widths), target):
        for stage in sorted(stages, key=lambda i: widths[i] / drawn[i]):
            wider = [*widths]
            wider[stage] += steps[stage]
            if wider[stage] <= WIDEST and count(wider) <= target:
                widths = wider
                break
        else:
            break
    return widths


def _exchanged(widths: Sequence[int], drawn: Sequence[int], count: Count, target: int) -> list[int]:
    """A few channels of one stage for channels of the others: those that fill the target, else those that come nearest."""
    best = list(widths)
    for given in range(1, MOST_GIVEN + 1):
        for stage, width in enumerate(widths):
            if width <= given:
                continue
            narrower = [*widths]
            narrower[stage] -= given
            found = _widened(narrower, drawn, count, target, [1] * len(widths), but=stage)
            if count(best) < count(found) <= target:
                best = found
            if is_filled(count(best), target):
                return best
    return best
