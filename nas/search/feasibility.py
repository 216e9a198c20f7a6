"""Whether anything in a space fits its budget, and which ranges to blame where nothing does."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optuna.distributions import CategoricalDistribution

from nas.budget import LIMIT_NAMES, Budget, count_macs, count_params
from nas.config import ArchConfig, ImageShape
from nas.errors import BudgetError, ConfigError
from nas.models.resnet import feature_sizes
from nas.space import Space, UniformDraw

Count = Callable[[ArchConfig, ImageShape], int]
COUNTS: dict[str, Count] = {"params": count_params, "macs": count_macs}
"""By the limit that each is held against."""


def _first_values(space: Space) -> dict[str, Any]:
    return {slot.name: slot.ends()[0] for slot in space.slots}


def smallest_network(space: Space, shape: ImageShape, count: Count = count_params) -> ArchConfig:
    """Low ends everywhere, and of each choice the cheapest while the others stay: a network that no draw undercuts by much."""
    values = _first_values(space)
    for slot in space.slots:
        if slot.path[0] == "arch" and isinstance(slot.domain, CategoricalDistribution):
            costs = {choice: count(space.candidate(values | {slot.name: choice}).arch, shape) for choice in slot.domain.choices}
            values[slot.name] = min(costs, key=lambda choice: costs[choice])
    return space.candidate(values).arch


def costly_ranges(space: Space, shape: ImageShape, count: Count = count_params) -> list[str]:
    """The three ranges whose far end adds most to the count of the smallest network."""
    values = _first_values(space)
    base = count(space.candidate(values).arch, shape)
    gains = {
        slot.name: max(count(space.candidate(values | {slot.name: v}).arch, shape) for v in slot.ends()) - base
        for slot in space.slots
        if slot.drawn and slot.path[0] == "arch"
    }
    return [name for name in sorted(gains, key=lambda name: -gains[name])[:3] if gains[name] > 0]


def nothing_fits(space: Space, budget: Budget, why: str, limit: str = "params") -> BudgetError:
    """`limit` is the one that is broken, a field of `BudgetConfig`."""
    blame = costly_ranges(space, budget.shape, COUNTS[limit])
    lower = f"lower the ranges of {', '.join(blame)}" if blame else "shrink the fixed values of arch.stage"
    higher = "raise the budget with --max-params" if limit == "params" else "raise budget.macs, there too"
    return BudgetError(why, hint=f"{lower} in the space, or {higher}")


def check_feasible(space: Space, budget: Budget) -> None:
    """Raises BudgetError where even the smallest network is over budget, ConfigError where the deepest one, at its strongest
    reduction, shrinks the images to nothing."""
    values = _first_values(space)
    for slot in space.slots:
        if slot.name in ("stages", "stem.stride"):
            values[slot.name] = max(slot.ends())
    try:
        feature_sizes(space.candidate(values).arch, budget.shape.size)
    except ConfigError as error:
        raise ConfigError(f"space {space.name}: {error.message}", hint=error.hint) from None
    # The network of fewest parameters need not be that of fewest multiply-adds: a stem that halves costs none.
    for limit, count in COUNTS.items():
        most = getattr(budget.limits, limit)
        if most is None:
            continue
        least = count(smallest_network(space, budget.shape, count), budget.shape)
        if least > most:
            raise nothing_fits(
                space,
                budget,
                f"nothing in space {space.name} fits: its smallest network has {least:,} {LIMIT_NAMES[limit]}, "
                f"the budget is {most:,}",
                limit,
            )


@dataclass(frozen=True)
class Fit:
    """How much of a space fits its budget."""

    draws: int
    fits: float
    """Share of uniform draws."""
    by_block: dict[str, float]
    draws_by_block: dict[str, int]


def measure_fit(space: Space, budget: Budget, draws: int, seed: int) -> Fit:
    """Draws uniformly in each range's own scale and counts every network by fvcore."""
    trial = UniformDraw(seed)
    total, fits = Counter[str](), Counter[str]()
    for _ in range(draws):
        arch = space.draw(trial).arch
        total[arch.block] += 1
        fits[arch.block] += budget.check(arch).fits
    share = {block: fits[block] / total[block] for block in sorted(total)}
    return Fit(draws, sum(fits.values()) / draws, share, dict(total))
