"""Whether a network fits a budget, by how much, and what the rest of the budget would buy: of ours by closed form, of any other
what can be measured of it.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nas.budget import COMPUTED, Budget
from nas.budget.closed_form import closed_form_macs, closed_form_params
from nas.config import CHANNEL_BLOCK, LIMIT_NAMES, MOST_BLOCKS, WIDEST, ArchConfig, BudgetConfig, ImageShape, amount
from nas.errors import ConfigError, NasError
from nas.foreign import foreign_name
from nas.foreign.inspection import inspect_network
from nas.foreign.measure import ForeignFacts, Repeat
from nas.paths import PRESET, existing_study, shipped_names
from nas.report.network import measured
from nas.runs.select import find_subject, preset_subject
from nas.space.space_file import CIFAR10
from nas.space.widths import filled
from nas.specs import CheckSpec
from nas.study.settings import read_settings

STEP = 8  # of widths that are all multiples of it; else single channels


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
    return Affordable([_stage_room(arch, i, budget, step) for i in range(len(arch.stages))], _together(arch, budget, step))


@dataclass(frozen=True)
class _Limits:
    shape: ImageShape
    limits: BudgetConfig

    def counts(self, arch: ArchConfig) -> tuple[int, int]:
        """Parameters and multiply-adds."""
        return closed_form_params(arch, self.shape), closed_form_macs(arch, self.shape)

    def counted(self, arch: ArchConfig) -> bool:
        """Whether it keeps those that cost nothing to find out."""
        most = self.limits.params, self.limits.macs
        return all(limit is None or count <= limit for count, limit in zip(self.counts(arch), most, strict=True))

    def largest(self, networks: list[ArchConfig]) -> ArchConfig | None:
        """The last that keeps all limits, of networks that grow. Equal widths need no projection, so that a count may also fall;
        what is computed hardly does."""
        fitting = [arch for arch in networks if self.counted(arch)]
        for name, most in self.limits.limited().items():
            if count := COMPUTED.get(name):
                fitting = fitting[: bisect_right(fitting, most, key=lambda arch, count=count: count(arch, self.shape))]  # type: ignore[misc]
        return fitting[-1] if fitting else None


def _stage_room(arch: ArchConfig, index: int, budget: _Limits, step: int) -> StageRoom:
    def with_stage(**changed: int) -> ArchConfig:
        stage = arch.stages[index].model_copy(update=changed)
        return arch.model_copy(update={"stages": (*arch.stages[:index], stage, *arch.stages[index + 1 :])})

    stage = arch.stages[index]
    deepest = budget.largest([with_stage(blocks=n) for n in range(1, MOST_BLOCKS + 1)])
    widest = budget.largest([with_stage(channels=n) for n in range(step, WIDEST + 1, step)])
    (params, macs), (more_params, more_macs) = budget.counts(arch), budget.counts(with_stage(blocks=stage.blocks + 1))
    return StageRoom(
        blocks=stage.blocks,
        most_blocks=None if deepest is None else deepest.stages[index].blocks,
        channels=stage.channels,
        most_channels=None if widest is None else widest.stages[index].channels,
        block_params=more_params - params,
        block_macs=more_macs - macs,
    )


def _together(arch: ArchConfig, budget: _Limits, step: int) -> Scaled | None:
    """Looks for the largest number of parameters at which the other limits are kept; they grow with the widths, too."""

    def at(target: int) -> ArchConfig | None:
        return budget.largest([filled(arch, budget.shape, target, [step] * len(arch.stages))])

    params, _ = budget.counts(arch)
    most = budget.limits.params or 64 * params
    best = at(most)
    if best is None:
        best = at(bisect_left(range(most), True, lo=1, key=lambda target: at(target) is None) - 1)
    if budget.counted(arch) and (best is None or budget.counts(best)[0] < params):
        best = budget.largest([arch])
    return None if best is None else Scaled(tuple(stage.channels for stage in best.stages), *budget.counts(best))


# ---------------------------------------------------------------------------------------------------- the check

DEFAULT_BUDGET = BudgetConfig(params=5_000_000)  # where neither a study nor the command line says one
NAMED = 3  # of a list of names in a sentence; the rest is counted


@dataclass(frozen=True)
class Held:
    """A limit against what the network has."""

    limit: float
    value: float | None  # None where it could not be found out

    @property
    def kept(self) -> bool:
        return self.value is not None and self.value <= self.limit

    @property
    def left(self) -> float | None:
        """Below 0 where the network is over."""
        return None if self.value is None else self.limit - self.value

    def sentence(self, name: str) -> str:
        """`4,697,162 parameters (4.70 M), 302,838 (6%) below the budget of 5,000,000`"""
        if self.value is None or self.left is None:
            return f"{LIMIT_NAMES[name]} unknown, where the budget is {self.limit:,}"
        gap = f"{abs(self.left):,.3f} ms" if name == "latency" else f"{abs(self.left):,}"
        where = "below" if self.kept else "over"
        has = amount(name, self.value) + millions(self.value)
        return f"{has}, {gap} ({abs(self.left) / self.limit:.0%}) {where} the budget of {self.limit:,}"


@dataclass(frozen=True)
class Checked:
    network: str  # as it was asked for; of `best` the trial
    study: str | None
    images: ImageShape
    facts: ForeignFacts
    limits: dict[str, Held]
    unchecked: dict[str, str]  # limits of the study that were not looked at, and why
    allow_uncounted: bool  # whether a limit of multiply-adds is kept whatever is in no count
    free_widths: dict[int, int]  # of its stages, to which they could grow without taking longer
    affordable: Affordable | None  # of networks whose counts have a closed form: ours, but for blocks of a user's own

    @property
    def repeats(self) -> list[Repeat]:
        """Of the others."""
        return list(self.facts.repeats) if self.affordable is None else []

    @property
    def notes(self) -> list[str]:
        notes = notes_on(self.facts, self.images)
        if self.free_widths:
            free = ", ".join(f"{width} → {wider}" for width, wider in self.free_widths.items())
            notes.append(
                f"On this CPU onnxruntime computes {CHANNEL_BLOCK} channels at once, so "
                f"the larger width takes no longer than the smaller: {free}."
            )
        return notes

    @property
    def counts_all(self) -> bool:
        """Whether what is limited is counted whole."""
        return self.allow_uncounted or "macs" not in self.limits or not self.facts.macs_uncounted

    @property
    def fits(self) -> bool:
        return self.counts_all and all(held.kept for held in self.limits.values())

    @property
    def width_factor(self) -> float | None:
        """By which all widths could be multiplied, were every count to grow by their square: what convolutions do between hidden
        layers, but neither the first nor the last layer, nor one of groups. None where that cannot be said."""
        ratios = [held.limit / held.value for name, held in self.limits.items() if held.value and name in ("params", "macs")]
        return math.sqrt(min(ratios)) if ratios else None

    def copies(self, block: Repeat) -> int | None:
        """How many more of a block the budget has room for; below 0 how many too many there are, None where leaving all of them
        out would not do."""
        costs = {"params": block.params, "macs": block.macs}
        known = [(held.left, costs.get(name)) for name, held in self.limits.items()]
        least = min((math.floor(left / cost) for left, cost in known if left is not None and cost), default=0)
        return None if least < -block.count else least


def check(
    request: CheckSpec, printed: Callable[[str], None] = lambda text: None, note: Callable[[str], None] = lambda text: None
) -> Checked:
    """Raises NasError. `printed` hears what a user's file printed, `note` what could not be timed."""
    which, foreign = request.network, foreign_name(request.network)
    in_study = which == "best" or which.isdecimal()
    if foreign is None and not in_study and not which.startswith(PRESET):
        raise _no_network(which)
    paths = existing_study(request.study) if in_study or request.study is not None else None
    settings = None if paths is None else read_settings(paths)
    changed = {"channels": request.channels, "size": request.size, "classes": request.classes}
    shape = (settings.shape if settings else CIFAR10).model_dump() | {k: v for k, v in changed.items() if v is not None}
    images = ImageShape.model_validate(shape)
    limits = _limits(request, settings.budget if settings else None)
    arch: ArchConfig | None = None  # of a network of ours
    if foreign is not None:
        title, facts = which, inspect_network(foreign, images, request.timeout, printed)
    else:
        subject = preset_subject(which) if paths is None else find_subject(paths, which)
        title, arch = subject.title, subject.candidate.arch
        facts = measured(arch, images)
    held = {name: Held(limit, getattr(facts, name)) for name, limit in limits.counted().limited().items()}
    if limits.latency is not None and arch is not None and all(one.kept for one in held.values()):
        ms = latency_of(arch, images, limits, paths.latencies if paths else None, note)
        held["latency"] = Held(limits.latency.max_ms, ms)
    why = "only networks of nas are timed" if arch is None else "networks over budget are not timed"
    counted = arch if arch is not None and arch.block_source is None else None  # in closed form
    return Checked(
        network=title,
        study=paths.name if paths else None,
        images=images,
        facts=facts,
        limits=held,
        unchecked={name: why for name in limits.limited() if name not in held},
        free_widths={
            width: -(-width // CHANNEL_BLOCK) * CHANNEL_BLOCK
            for width in (stage.channels for stage in (arch.stages if arch is not None else ()))
            if width % CHANNEL_BLOCK and limits.latency is not None and limits.latency.computes_in_blocks
        },
        allow_uncounted=limits.uncounted == "allow",
        affordable=None if counted is None else affordable(counted, images, limits),
    )


def _limits(request: CheckSpec, of_study: BudgetConfig | None) -> BudgetConfig:
    asked = {"params": request.max_params, "macs": request.max_macs}
    changed = {name: value for name, value in asked.items() if value is not None}
    if of_study is not None:
        return of_study.model_copy(update=changed)
    return BudgetConfig.model_validate(changed) if changed else DEFAULT_BUDGET


def _no_network(which: str) -> ConfigError:
    preset = which in shipped_names("preset")
    meant = f"{PRESET}{which}" if preset else f"torchvision:{which}" if which.isidentifier() else "torchvision:resnet18"
    return ConfigError(
        f"{which!r} is not a network. Choices: best, a trial number, preset:NAME, FILE.py:CLASS, torchvision:NAME, timm:NAME.",
        hint=f"nas check {meant}",
    )


def latency_of(
    arch: ArchConfig, shape: ImageShape, limits: BudgetConfig, file: Path | None, note: Callable[[str], None]
) -> float | None:
    """Milliseconds, as the search measured them into `file`, else now; None where this machine cannot, of which `note` hears."""
    # A command that reads leaves the study's file as it is.
    budget = Budget(limits, shape, file, write=lambda file, content: None)
    try:
        ms = budget.latency(arch)
    except NasError as error:
        note(f"Not timed: {error.message}")
        return None
    return ms if math.isfinite(ms) else None


# ------------------------------------------------------------------------------------------------------------ in words


def millions(value: float) -> str:
    """` (11.18 M)`, to four digits; nothing below a million."""
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f" ({value / size:.{max(0, 3 - math.floor(math.log10(value / size)))}f} {unit})".replace(". ", " ")
    return ""


def notes_on(facts: ForeignFacts, shape: ImageShape) -> list[str]:
    """What one should know of the counts, a sentence each."""
    notes = []
    if facts.output != (shape.classes,):
        gives = "no tensor" if facts.output is None else f"{facts.output}"
        notes.append(
            f"For one image it returns {gives}, but must return ({shape.classes},) for {shape.classes} classes: nas cannot train "
            "it."
        )
    if facts.unregistered:
        notes.append(
            f"It uses {facts.unregistered:,} parameters that are not registered, perhaps of layers in a plain list: they are "
            "not counted, and no optimiser would train them. Use nn.ModuleList, which registers them."
        )
    if facts.shared:
        names = _named([" = ".join(names) for names in facts.shared])
        notes.append(f"Parameters that have several names count once: {names}.")
    if facts.unused:
        held = _named([f"{name or 'the network itself'} ({params:,})" for name, params in facts.unused.items()])
        notes.append(f"{sum(facts.unused.values()):,} parameters are not used for predictions, but count: {held}.")
    if facts.lazy:
        notes.append(f"Lazy parameters took their shape from an image of this size: {_named(list(facts.lazy))}.")
    if facts.frozen:
        notes.append(f"{facts.frozen:,} of the parameters are frozen, but count.")
    if facts.buffers:
        notes.append(
            f"{facts.buffers:,} values are buffers, such as BatchNorm's statistics: kept with the network, but no parameters."
        )
    if facts.macs_uncounted:
        names = _named([f"{name} ({times} times)" for name, times in facts.macs_uncounted.items()])
        notes.append(f"The MACs of {names} are not counted, because there is no rule for them.")
    if facts.macs_unknown:
        notes.append(f"Its MACs cannot be counted, since torch.jit cannot trace it: {facts.macs_unknown}.")
    return notes


def _named(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
