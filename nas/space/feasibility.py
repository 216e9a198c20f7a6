"""Whether anything in a space fits its budget, whether scaled widths (`fit: params`) can fill it, and which ranges to blame where
they cannot. What is scaled is counted in closed form: whether it is over another limit is not looked at here."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from optuna.distributions import CategoricalDistribution, IntDistribution

from nas.budget import COMPUTED, Budget, Cost, count_macs, count_params, quick_macs, quick_params, uncounted_products
from nas.budget.closed_form import closed_form_params, params_at_widths
from nas.config import WIDEST, ArchConfig, Candidate, ImageShape, amount
from nas.errors import BudgetError, ConfigError
from nas.models.resnet import check_size
from nas.models.user_code import check_block, check_width
from nas.space.space import Slot, Space, UniformDraw
from nas.space.widths import FILLED, is_filled

Count = Callable[[ArchConfig, ImageShape], float]
LARGER = 2.0  # times the size that a space is meant for: from there on a search says what its images cost
COUNTED_DRAWS = 200
WIDTHS_TRIED = 64  # of a range of channels
FILLED_DRAWS = 100  # uniform ones that are looked at before a search
COUNTS: dict[str, Count] = {"params": count_params, **COMPUTED, "macs": count_macs}
"""By the limit that each is held against; multiply-adds stand for the latency where it may not be measured."""
QUICK_COUNTS: dict[str, Count] = {**COUNTS, "params": quick_params, "macs": quick_macs}
"""In closed form, where there is one."""


def smallest_network(space: Space, shape: ImageShape, count: Count = count_params) -> ArchConfig:
    """Low ends everywhere, and of each choice the cheapest while the others stay: a network that no draw undercuts by much."""
    values = space.first_values
    for slot in space.slots:
        if slot.path[0] == "arch" and isinstance(slot.domain, CategoricalDistribution):
            costs = {choice: count(space.candidate(values | {slot.name: choice}).arch, shape) for choice in slot.domain.choices}
            values[slot.name] = min(costs, key=lambda choice: costs[choice])
    return space.candidate(values).arch


def costly_ranges(space: Space, shape: ImageShape, count: Count = count_params) -> list[str]:
    """The three ranges whose far end adds most to the count of the smallest network."""
    values = space.first_values
    base = count(space.candidate(values).arch, shape)
    gains = {
        slot.name: max(count(space.candidate(values | {slot.name: v}).arch, shape) for v in slot.ends()) - base
        for slot in space.slots
        if slot.drawn and slot.path[0] == "arch"
    }
    return [name for name in sorted(gains, key=lambda name: -gains[name])[:3] if gains[name] > 0]


def nothing_fits(space: Space, budget: Budget, why: str, limit: str, begun: bool = False) -> BudgetError:
    """`limit`: the field of `BudgetConfig` that is exceeded. `begun`: the study has begun, so its space and budget are fixed."""
    blame = costly_ranges(space, budget.shape, COUNTS.get(limit, count_macs))
    lower = f"lower the ranges of {', '.join(blame)}" if blame else "shrink the fixed values of arch.stage"
    field = "budget.latency.max_ms" if limit == "latency" else f"budget.{limit}"
    higher = "raise the budget with --max-params" if limit == "params" else f"raise {field}"
    return BudgetError(why, hint=f"{lower} in the space, or {higher}" + (", in a new study: --study NAME" if begun else ""))


def check_blocks(space: Space) -> None:
    """Tries the blocks of users' own files at the narrowest and the next other width of the space, and builds them at all others,
    or at so many of a long range. Raises ConfigError, which says what such a block does wrong."""
    widths = sorted({width for slot in space.slots if slot.name.endswith(".channels") for width in _widths(slot) if width})
    for name in space.blocks:
        arch = space.candidate(space.first_values | {"block": name}).arch
        check_block(arch, (widths[0], widths[min(1, len(widths) - 1)]))
        for width in widths:
            check_width(arch, arch.stages[0].model_copy(update={"channels": width}))


def uncounted_sentences(space: Space, shape: ImageShape) -> tuple[str, ...]:
    """One for each block of a user's own whose multiply-adds are not all counted."""
    return tuple(
        f"the MACs of {', '.join(ops)} in block {name} are not counted, because there is no rule for them"
        for name in space.blocks
        if (ops := uncounted_products(space.candidate(space.first_values | {"block": name}).arch, shape))
    )


def require_counted(budget: Budget, uncounted: Sequence[str]) -> None:
    """Raises BudgetError where a limit of multiply-adds is held against counts that lack some, unless the space allows it."""
    if uncounted and budget.limits.macs is not None and budget.limits.uncounted == "refuse":
        raise BudgetError(
            f"the budget limits MACs, but {'; '.join(uncounted)}",
            hint="to search without counting them, write budget: {uncounted: allow} in the space; params and memory limit the "
            "networks, too",
        )


def _widths(slot: Slot) -> list[int]:
    if not isinstance(slot.domain, IntDistribution):
        return slot.ends()
    every = range(slot.domain.low, slot.domain.high + 1, slot.domain.step)
    return [*every[:: -(-len(every) // WIDTHS_TRIED)], *every[1:2], every[-1]]


def check_feasible(space: Space, budget: Budget) -> None:
    """Raises BudgetError where even the smallest network is over budget, ConfigError where the deepest one, at its strongest
    reduction, shrinks the images to nothing."""
    values = space.first_values
    for slot in space.slots:
        if slot.name in ("stages", "stem.stride"):
            values[slot.name] = max(slot.ends())
        if slot.name == "stem.pool" and "max" in slot.ends():
            values[slot.name] = "max"
    try:
        check_size(space.candidate(values).arch, budget.shape.size)
    except ConfigError as error:
        raise ConfigError(f"space {space.name}: {error.message}", hint=error.hint) from None
    if space.fills:  # no network of it is small, and only draws tell what fits the other limits
        return
    for limit, most in budget.limits.limited().items():
        least = least_cost(space, budget, limit)
        if least > most:
            has = f"has {amount(limit, least)}, the budget is {most:,}"
            if limit == "latency":
                took = "is too large to run" if math.isinf(least) else f"takes {amount(limit, least)}"
                has = f"{took}, the budget is {budget.limits.latency}"
            raise nothing_fits(space, budget, f"nothing in space {space.name} fits: its smallest network {has}", limit)


def least_cost(space: Space, budget: Budget, limit: str) -> float:
    """Of the network that has least of what `limit` limits. That of fewest parameters need not be that of fewest multiply-adds: a
    stem that halves costs none."""
    if limit != "latency":
        return COUNTS[limit](smallest_network(space, budget.shape, COUNTS[limit]), budget.shape)
    least = budget.latency(smallest_network(space, budget.shape, count_macs))
    if budget.limits.latency is not None and least > budget.limits.latency.max_ms:
        # More multiply-adds in fewer, larger layers may take less time: every choice is timed before all are refused.
        fastest = smallest_network(space, budget.shape, lambda arch, shape: budget.latency(arch))
        least = min(least, budget.latency(fastest))
    return least


@dataclass(frozen=True)
class Fit:
    """How much of a space fits its budget."""

    draws: int
    fits: float  # share of uniform draws
    by_block: dict[str, float]
    draws_by_block: dict[str, int]


def measure_fit(space: Space, budget: Budget, draws: int, seed: int) -> Fit:
    """Draws uniformly in each range's own scale and counts every network, in closed form where there is one; to time hundreds
    would take too long, so that a limit of latency is left out."""
    limits = budget.limits.counted().limited()
    total, fits = Counter[str](), Counter[str]()
    for candidate in space.uniform_draws(draws, seed):
        arch = candidate.arch
        total[arch.block] += 1
        fits[arch.block] += all(QUICK_COUNTS[limit](arch, budget.shape) <= most for limit, most in limits.items())
    share = {block: fits[block] / total[block] for block in sorted(total)}
    return Fit(draws, sum(fits.values()) / draws, share, dict(total))


def measure_cost(space: Space, budget: Budget, draws: int, seed: int) -> dict[str, int]:
    """Multiply-adds of an image: below which a tenth, half and nine tenths of those uniform draws lie that keep
    the budget of parameters. Empty where none does."""
    shape, most = budget.shape, budget.limits.params
    drawn = (candidate.arch for candidate in space.uniform_draws(draws, seed))
    found = sorted(quick_macs(a, shape) for a in drawn if most is None or quick_params(a, shape) <= most)
    return {f"{share}%": found[len(found) * share // 100] for share in (10, 50, 90)} if found else {}


def cost_warnings(space: Space, budget: Budget, meant: ImageShape) -> list[str]:
    """What images much larger than those that a space is `meant` for cost, where nothing limits that."""
    shape = budget.shape
    if shape.size < LARGER * meant.size or budget.limits.macs is not None or budget.limits.latency is not None:
        return []
    here, there = (measure_cost(space, Budget(space.budget, images), COUNTED_DRAWS, seed=0) for images in (shape, meant))
    middle, before = here.get("50%"), there.get("50%")
    if middle is None or before is None:
        return []
    closer = "resnet-224" if shape.size >= 96 else "resnet"  # by the sizes that they are meant for
    advice = "a budget with macs" if closer == space.name else f"--space {closer}, or a budget with macs"
    return [
        f"space {space.name} is meant for images of {meant.size}×{meant.size}, and no budget limits the MACs of larger ones: on "
        f"{shape.size}×{shape.size} half of its networks need more than {middle / 1e9:.2g} billion MACs per image, "
        f"{middle / before:.0f} times as many; try {advice}"
    ]


def fitting_draws(
    space: Space, budget: Budget, most_draws: int, seed: int, broken: Counter[str] | None = None
) -> Iterator[tuple[Candidate, Cost]]:
    """Of so many uniform draws those that fit. `broken` counts the limits that the others exceed."""
    for candidate in space.uniform_draws(most_draws, seed):
        cost = budget.check(candidate.arch)
        if cost.fits:
            yield candidate, cost
        elif broken is not None:
            broken.update(cost.broken)


def time_draws(space: Space, budget: Budget, count: int, most_draws: int, seed: int) -> list[float]:
    """Milliseconds, ascending, of the first `count` uniform draws that keep all limits but that of the latency; fewer where
    `most_draws` have fewer."""
    fitting = fitting_draws(space, Budget(budget.limits.counted(), budget.shape), most_draws, seed)
    return sorted(budget.latency(candidate.arch) for candidate, _ in islice(fitting, count))


@dataclass(frozen=True)
class Fill:
    """How near the networks of a space come to their targets."""

    draws: int
    filled: float  # share of uniform draws with 98 % to 100 % of their target
    over: float  # share above their target

    def sentence(self) -> str:
        return (
            f"Widths are scaled to fill the budget: {self.filled:.1%} of the draws reach {FILLED:.0%} to 100% of their target, "
            f"{self.over:.1%} exceed it."
        )


def measure_fill(space: Space, draws: int, seed: int) -> Fill:
    """Of a space that fills, for its own images."""
    drawn = [(params, target) for params, target, _ in _targets(space, draws, seed)]
    return Fill(
        draws,
        filled=sum(is_filled(params, target) for params, target in drawn) / draws,
        over=sum(params > target for params, target in drawn) / draws,
    )


def _targets(space: Space, draws: int, seed: int) -> Iterator[tuple[int, int, ArchConfig]]:
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
    drawn = list(_targets(space, FILLED_DRAWS, seed=0))
    if any(is_filled(params, target) for params, target, _ in drawn):
        return
    params, target, arch = min(drawn, key=lambda one: abs(one[0] / one[1] - 1))
    blame = costly_ranges(space.unscaled(), shape, lambda arch, shape: params_at_widths(arch, shape, [1] * len(arch.stages), 1))
    lower = f"lower the ranges of {', '.join(blame)}" if blame else "shrink the fixed values of arch"
    hint = f"{lower} in the space, or raise the budget with --max-params"
    if params > target:
        why = "even with one channel for each stage"
    elif all(stage.channels == WIDEST for stage in arch.stages):
        why = f"even with {WIDEST:,} channels for each stage, the maximum"
        hint = "raise arch.stage.blocks or arch.stage.kernel in the space, or lower the budget with --max-params"
    else:
        why = "and with one more channel it exceeds it"
    raise BudgetError(
        f"space {space.name} cannot fill its budget: none of {FILLED_DRAWS} uniform draws reaches {FILLED:.0%} to 100% of its "
        f"target; the nearest has {params:,} parameters for a target of {target:,}, {why}",
        hint=hint,
    )
