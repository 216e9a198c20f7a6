"""Whether a network fits a budget, by how much, and what the rest of the budget would buy: of ours by closed form, of any other
what can be measured of it.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nas.budget import Budget, Layer, Part, calls_of, macs_of, peak_memory
from nas.budget.closed_form import closed_form_macs, closed_form_params
from nas.config import LIMIT_NAMES, MOST_BLOCKS, WIDEST, ArchConfig, BudgetConfig, ImageShape, StageConfig, amount
from nas.errors import ConfigError, NasError
from nas.foreign import ForeignFacts, Repeat, foreign_name, inspect_network
from nas.foreign.measure import repeats_of
from nas.models import build_model
from nas.paths import PRESET, existing_study, shipped_names
from nas.report.network import NetworkReport, report_network
from nas.runs.select import Subject, find_subject, preset_subject
from nas.space.space_file import CIFAR10
from nas.space.widths import filled
from nas.specs import CheckSpec
from nas.study.settings import read_settings

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
    built: str  # its architecture in one line, or the call that built it
    study: str | None
    images: ImageShape
    params: int
    macs: int | None
    memory: int | None
    megabytes: float
    limits: dict[str, Held]
    unchecked: dict[str, str]  # limits of the study that were not looked at, and why
    notes: list[str]  # what one should know of the counts, a sentence each
    parts: list[Part]
    layers: list[Layer]
    affordable: Affordable | None  # of networks whose counts have a closed form: ours, but for blocks of a user's own
    repeats: list[Repeat]  # of the others

    @property
    def fits(self) -> bool:
        return all(held.kept for held in self.limits.values())

    @property
    def width_factor(self) -> float | None:
        """By which all widths could be multiplied, were every count to grow by their square: what convolutions do between hidden
        layers, but neither the first nor the last layer, nor one of groups. None where that cannot be said."""
        ratios = [held.limit / held.value for name, held in self.limits.items() if held.value and name in ("params", "macs")]
        return math.sqrt(min(ratios)) if ratios else None

    def copies(self, block: Repeat) -> int | None:
        """How many more of a block the budget has room for; below 0 how many too many there are, None where leaving all of them
        out would not do."""
        counts = []
        for name, cost in (("params", block.params), ("macs", block.macs)):
            left = self.limits[name].left if name in self.limits else None
            if left is not None and cost:
                counts.append(math.floor(left / cost))
        least = int(min(counts, default=0))
        return None if least < -block.count else least


def _nobody(text: str) -> None:
    pass


def check(request: CheckSpec, printed: Callable[[str], None] = _nobody, note: Callable[[str], None] = _nobody) -> Checked:
    """Raises NasError. `printed` hears what a user's file printed, `note` what could not be timed."""
    foreign = foreign_name(request.network)
    which = request.network
    ours = which == "best" or which.isdecimal() or which.startswith(PRESET)
    if foreign is None and not ours:
        raise _no_network(which)
    in_study = foreign is None and not which.startswith(PRESET)
    paths = existing_study(request.study) if in_study or request.study is not None else None
    settings = None if paths is None else read_settings(paths)
    changed = {"channels": request.channels, "size": request.size, "classes": request.classes}
    shape = settings.shape if settings else CIFAR10
    shape = ImageShape.model_validate(shape.model_dump() | {name: value for name, value in changed.items() if value is not None})
    limits = _limits(request, settings.budget if settings else None)
    study = paths.name if paths else None
    if foreign is not None:
        facts = inspect_network(foreign, shape, request.timeout, printed)
        return _checked_foreign(which, study, shape, limits, facts)
    if paths is None or settings is None:
        subject, budget = preset_subject(which), Budget(limits, shape)
    else:
        subject = find_subject(paths, which)
        # A command that reads leaves the study's file as it is.
        budget = Budget(limits, shape, paths.latencies, write=lambda file, content: None)
    return _checked_ours(subject, study, budget, note)


def _limits(request: CheckSpec, of_study: BudgetConfig | None) -> BudgetConfig:
    changed = {"params": request.max_params, "macs": request.max_macs}
    changed = {name: value for name, value in changed.items() if value is not None}
    if of_study is None:
        return BudgetConfig.model_validate(changed) if changed else DEFAULT_BUDGET
    return of_study.model_copy(update=changed)


def _no_network(which: str) -> ConfigError:
    preset = which in shipped_names("preset")
    meant = f"{PRESET}{which}" if preset else f"torchvision:{which}" if which.isidentifier() else "torchvision:resnet18"
    return ConfigError(
        f"{which!r} is no network. Choices: best, a trial's number, preset:NAME, FILE.py:CLASS, torchvision:NAME.",
        hint=f"nas check {meant}",
    )


def _checked_ours(subject: Subject, study: str | None, budget: Budget, note: Callable[[str], None]) -> Checked:
    arch, shape, limits = subject.candidate.arch, budget.shape, budget.limits
    found = report_network(arch, shape)
    with torch.device("meta"):
        model = build_model(arch, shape)
    repeats, uncounted = ([], {}) if arch.block_source is None else _counted_blocks(arch, shape)
    held = _compare(limits, found)
    if limits.latency is not None and all(one.kept for one in held.values()):
        held["latency"] = Held(limits.latency.max_ms, latency_of(budget, arch, note))
    return Checked(
        network=subject.title,
        built=found.architecture,
        study=study,
        images=shape,
        params=found.params,
        macs=found.macs,
        memory=found.memory,
        megabytes=found.megabytes,
        limits=held,
        unchecked={name: "nothing is timed that is over budget" for name in limits.limited() if name not in held},
        notes=_counting_notes(
            sum(weight.numel() for weight in model.parameters() if not weight.requires_grad),
            sum(buffer.numel() for buffer in model.buffers()),
            uncounted,
        ),
        parts=found.parts,
        layers=found.layers,
        affordable=affordable(arch, shape, limits) if arch.block_source is None else None,
        repeats=repeats,
    )


def _compare(limits: BudgetConfig, found: NetworkReport | ForeignFacts) -> dict[str, Held]:
    """With what can be counted."""
    return {name: Held(limit, getattr(found, name)) for name, limit in limits.counted().limited().items()}


def _counted_blocks(arch: ArchConfig, shape: ImageShape) -> tuple[list[Repeat], dict[str, int]]:
    """What has no closed form: blocks of a user's own that could be repeated, and multiplications that are in no count."""
    model = build_model(arch, shape).eval()
    image = torch.zeros(1, shape.channels, shape.size, shape.size)
    calls, _ = calls_of(model, image)
    counted = macs_of(model, image)
    return repeats_of(model, calls, counted.by_module), counted.uncounted


def latency_of(budget: Budget, arch: ArchConfig, note: Callable[[str], None]) -> float | None:
    """Milliseconds, as the search measured them, or else now; None where this machine cannot, of which `note` hears."""
    try:
        ms = budget.latency(arch)
    except NasError as error:
        note(f"Not timed: {error.message}")
        return None
    return ms if math.isfinite(ms) else None


def _checked_foreign(name: str, study: str | None, shape: ImageShape, limits: BudgetConfig, facts: ForeignFacts) -> Checked:
    return Checked(
        network=name,
        built=facts.built,
        study=study,
        images=shape,
        params=facts.params,
        macs=facts.macs,
        memory=facts.memory,
        megabytes=round(facts.bytes / 1e6, 3),
        limits=_compare(limits, facts),
        unchecked={"latency": "only networks of nas are timed"} if limits.latency is not None else {},
        notes=_foreign_notes(facts, shape),
        parts=list(facts.parts),
        layers=list(facts.layers),
        affordable=None,
        repeats=list(facts.repeats),
    )


# ------------------------------------------------------------------------------------------------------------ in words


def millions(value: float) -> str:
    """` (11.18 M)`, to four digits; nothing below a million."""
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f" ({value / size:.{max(0, 3 - math.floor(math.log10(value / size)))}f} {unit})".replace(". ", " ")
    return ""


def _counting_notes(frozen: int, buffers: int, uncounted: dict[str, int]) -> list[str]:
    notes = []
    if frozen:
        notes.append(f"{frozen:,} of the parameters are frozen, and count all the same.")
    if buffers:
        notes.append(f"{buffers:,} values are buffers, such as BatchNorm's statistics: kept with the network, but no parameters.")
    if uncounted:
        names = _named([f"{name} ({times} times)" for name, times in uncounted.items()])
        notes.append(f"There is no rule for the multiply-adds of {names}: they are missing in the count.")
    return notes


def _foreign_notes(facts: ForeignFacts, shape: ImageShape) -> list[str]:
    notes = []
    if facts.output != (shape.classes,):
        gives = "no tensor" if facts.output is None else f"{facts.output} for an image"
        notes.append(f"It returns {gives}, where {shape.classes} classes need ({shape.classes},): nas could not train it so.")
    if facts.unregistered:
        notes.append(
            f"It uses {facts.unregistered:,} parameters that it does not know, of layers in a plain list perhaps: they are in no "
            "count, and no optimiser would train them. nn.ModuleList makes them known."
        )
    if facts.shared:
        names = _named([" = ".join(names) for names in facts.shared])
        notes.append(f"Parameters that have several names count once: {names}.")
    if facts.unused:
        held = _named([f"{name or 'the network itself'} ({params:,})" for name, params in facts.unused.items()])
        notes.append(
            f"{sum(facts.unused.values()):,} parameters are read by nothing when it predicts, and count all the same: {held}."
        )
    if facts.lazy:
        notes.append(f"Lazy parameters took their shape from an image of this size: {_named(list(facts.lazy))}.")
    notes += _counting_notes(facts.frozen, facts.buffers, facts.macs_uncounted)
    if facts.macs_unknown:
        notes.append(f"Its multiply-adds cannot be counted, since torch.jit cannot trace it: {facts.macs_unknown}.")
    return notes


def _named(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
