"""Whether a space whose widths are scaled (`fit: params`) can fill its budget, and which ranges to blame where it cannot.

Everything is counted in closed form: that no draw is over another limit, such as multiply-adds, is not looked at here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from nas.budget.closed_form import closed_form_params, params_at_widths
from nas.config import WIDEST, ArchConfig, ImageShape
from nas.errors import BudgetError
from nas.space.feasibility import costly_ranges
from nas.space.space import Space, UniformDraw
from nas.space.widths import FILLED, is_filled

DRAWS = 100
"""Uniform ones that are looked at before a search."""


@dataclass(frozen=True)
class Fill:
    """How near the networks of a space come to their targets."""

    draws: int
    filled: float
    """Share of uniform draws with 98 % to 100 % of their target."""
    over: float
    """Share above their target."""

    def sentence(self) -> str:
        return (
            f"Widths are scaled to fill the budget: {self.filled:.1%} of the draws have {FILLED:.0%} to 100% of the parameters "
            f"that they are scaled to, {self.over:.1%} have more."
        )


def measure_fill(space: Space, draws: int, seed: int) -> Fill:
    """Of a space that fills, for its own images."""
    drawn = [(params, target) for params, target, _ in _draws(space, draws, seed)]
    return Fill(
        draws,
        filled=sum(is_filled(params, target) for params, target in drawn) / draws,
        over=sum(params > target for params, target in drawn) / draws,
    )


def _draws(space: Space, draws: int, seed: int) -> Iterator[tuple[int, int, ArchConfig]]:
    """Parameters, how many were wanted, and the network."""
    trial = UniformDraw(seed)
    for _ in range(draws):
        values = {slot.name: slot.value(trial) for slot in space.slots}
        arch = space.candidate(values).arch
        yield closed_form_params(arch, space.images), space.target(values), arch


def check_can_fill(space: Space, shape: ImageShape) -> None:
    """Raises BudgetError where widths are scaled and no network of the space comes within 2 % below the budget, on images of
    `shape`."""
    if not space.fills:
        return
    space = space.for_images(shape)
    drawn = list(_draws(space, DRAWS, seed=0))
    if any(is_filled(params, target) for params, target, _ in drawn):
        return
    params, target, arch = min(drawn, key=lambda one: abs(one[0] / one[1] - 1))
    blame = costly_ranges(space.unscaled(), shape, _params_at_one_channel)
    lower = f"lower the ranges of {', '.join(blame)}" if blame else "shrink the fixed values of arch"
    hint = f"{lower} in the space, or raise the budget with --max-params"
    if params > target:
        why = "even with a single channel a stage"
    elif all(stage.channels == WIDEST for stage in arch.stages):
        why = f"even with {WIDEST:,} channels a stage, the most there may be"
        hint = "raise arch.stage.blocks or arch.stage.kernel in the space, or lower the budget with --max-params"
    else:
        why = "and one channel more is too many"
    raise BudgetError(
        f"space {space.name} cannot fill its budget: of {DRAWS} uniform draws none has {FILLED:.0%} to 100% of the parameters "
        f"that it is scaled to; the nearest has {params:,} for {target:,}, {why}",
        hint=hint,
    )


def _params_at_one_channel(arch: ArchConfig, shape: ImageShape) -> int:
    """Parameters where every stage has a single channel."""
    return params_at_widths(arch, shape, [1] * len(arch.stages), 1)
