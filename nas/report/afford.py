"""What a budget would still buy of a network, or what would make the network fit: each stage deeper or wider, the others as they
are, and all stages wider together. By the closed form; where memory is limited, by that too.
"""

from bisect import bisect_right
from dataclasses import dataclass

from nas.budget import peak_memory
from nas.budget.closed_form import closed_form_macs, closed_form_params
from nas.config import MOST_BLOCKS, WIDEST, ArchConfig, BudgetConfig, ImageShape, StageConfig
from nas.space.widths import filled

STEP = 8  # of widths that are all multiples of it; else single channels
HALVINGS = 24  # of the target of parameters, where another limit decides how wide all stages can be


@dataclass(frozen=True)
class StageRoom:
    """One stage's, with everything else as it is."""

    blocks: int
    most_blocks: int | None  # with which the network fits, from 1 on; None where no number of blocks does
    channels: int
    most_channels: int | None  # likewise, in steps of the network's widths
    block_params: int  # what one more block costs
    block_macs: int


@dataclass(frozen=True)
class Scaled:
    """All stages wider or narrower together, in their ratio."""

    channels: tuple[int, ...]
    params: int
    macs: int


@dataclass(frozen=True)
class Affordable:
    stages: list[StageRoom]
    together: Scaled | None  # the widest; None where not even the narrowest fits


def affordable(arch: ArchConfig, shape: ImageShape, limits: BudgetConfig) -> Affordable:
    """Latency is left out: it would have to be measured of every network on the way."""
    budget = _Limits(shape, limits)
    step = STEP if all(stage.channels % STEP == 0 for stage in arch.stages) else 1
    return Affordable(
        [_stage_room(arch, i, budget, step) for i in range(len(arch.stages))],
        _together(arch, budget, step),
    )


@dataclass(frozen=True)
class _Limits:
    shape: ImageShape
    limits: BudgetConfig

    def counted(self, arch: ArchConfig) -> bool:
        """Whether it keeps those that cost nothing to find out."""
        params, macs = self.limits.params, self.limits.macs
        return (params is None or closed_form_params(arch, self.shape) <= params) and (
            macs is None or closed_form_macs(arch, self.shape) <= macs
        )

    def largest(self, networks: list[ArchConfig]) -> ArchConfig | None:
        """The last that keeps all limits, of networks that grow. Equal widths need no projection, so that a count may also fall;
        memory does not."""
        fitting = [arch for arch in networks if self.counted(arch)]
        if self.limits.memory is not None:
            fitting = fitting[: bisect_right(fitting, self.limits.memory, key=lambda arch: peak_memory(arch, self.shape))]
        return fitting[-1] if fitting else None


def _with_stage(arch: ArchConfig, index: int, **changed: int) -> ArchConfig:
    stages = [*arch.stages]
    stages[index] = stages[index].model_copy(update=changed)
    return arch.model_copy(update={"stages": tuple(stages)})


def _stage_room(arch: ArchConfig, index: int, budget: _Limits, step: int) -> StageRoom:
    stage: StageConfig = arch.stages[index]
    deepest = budget.largest([_with_stage(arch, index, blocks=n) for n in range(1, MOST_BLOCKS + 1)])
    widest = budget.largest([_with_stage(arch, index, channels=n) for n in range(step, WIDEST + 1, step)])
    deeper = _with_stage(arch, index, blocks=stage.blocks + 1)
    return StageRoom(
        blocks=stage.blocks,
        most_blocks=None if deepest is None else deepest.stages[index].blocks,
        channels=stage.channels,
        most_channels=None if widest is None else widest.stages[index].channels,
        block_params=closed_form_params(deeper, budget.shape) - closed_form_params(arch, budget.shape),
        block_macs=closed_form_macs(deeper, budget.shape) - closed_form_macs(arch, budget.shape),
    )


def _together(arch: ArchConfig, budget: _Limits, step: int) -> Scaled | None:
    """By halving the interval of parameters to fill, since the other limits grow with the widths."""
    steps = [step] * len(arch.stages)

    def at(target: int) -> ArchConfig | None:
        wider = filled(arch, budget.shape, target, steps)
        return budget.largest([wider])

    low, high = 1, budget.limits.params or 64 * closed_form_params(arch, budget.shape)
    best = at(high)
    if best is None:
        for _ in range(HALVINGS):
            middle = (low + high) // 2
            if found := at(middle):
                best, low = found, middle
            else:
                high = middle
            if high - low <= low // 200:
                break
    if budget.counted(arch) and (best is None or closed_form_params(best, budget.shape) < closed_form_params(arch, budget.shape)):
        best = budget.largest([arch])
    if best is None:
        return None
    channels = tuple(stage.channels for stage in best.stages)
    return Scaled(channels, closed_form_params(best, budget.shape), closed_form_macs(best, budget.shape))
