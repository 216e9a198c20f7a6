"""A search space: which values each field of a candidate may take, and how a candidate is drawn from an Optuna trial.

A space is a list of slots, one for each field that its file names: a fixed value, or one of Optuna's distributions. Every slot is
suggested in every trial, at ranges that never depend on another draw, so that the samplers see one rectangular space; what a
draw does not use (the fourth stage of a network of three) is ignored when the network is built.

With `fit: params` the drawn widths are ratios: `nas.space.widths` scales them until the network fills the budget, or the
share of it that the slot `fill` says.
"""

import hashlib
import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import Any, Protocol

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import ValidationError

from nas.budget.closed_form import closed_form_params
from nas.config import (
    CHANNEL_BLOCK,
    ArchConfig,
    BlockSource,
    BudgetConfig,
    Candidate,
    Frozen,
    ImageShape,
    Probability,
    StudyConfig,
    TrainConfig,
    first_problem,
)
from nas.errors import ConfigError
from nas.space.widths import filled, is_filled

FILL = "fill"  # the slot of the share of the budget that widths are scaled to
SCALES_TRIED = 100  # in search of the ratios that given widths were scaled from


class Suggests(Protocol):
    """The part of `optuna.Trial` that a draw needs."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class Slot:
    """One field of a candidate and the values it may take."""

    name: str  # the parameter's name in the study: `block`, `stem.kernel`, `stage0.channels`, `lr`
    path: tuple[str | int, ...]  # where it goes: ("arch", "stage", 0, "channels")
    domain: Any  # a distribution, or the fixed value

    @property
    def drawn(self) -> bool:
        return isinstance(self.domain, BaseDistribution)

    def value(self, trial: Suggests) -> Any:
        match self.domain:
            case IntDistribution(low=low, high=high, step=step, log=log):
                return trial.suggest_int(self.name, low, high, step=step, log=log)
            case FloatDistribution(low=low, high=high, step=step, log=log):
                return trial.suggest_float(self.name, low, high, step=step, log=log)
            case CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(self.name, choices)
            case fixed:
                return fixed

    def ends(self) -> list[Any]:
        """Every choice, or both ends of a range, or the fixed value."""
        match self.domain:
            case CategoricalDistribution(choices=choices):
                return list(choices)
            case IntDistribution(low=low, high=high) | FloatDistribution(low=low, high=high):
                return [low, high]
            case fixed:
                return [fixed]

    @property
    def step(self) -> int:
        """Of a width: the range's own; 1 of a logarithmic one; of choices or a fixed value 8, where all are multiples of it."""
        if isinstance(self.domain, IntDistribution):
            return self.domain.step
        return 1 if any(end % 8 for end in self.ends()) else 8

    @property
    def wastes_time(self) -> bool:
        """Of a width: whether it may lie between two blocks of channels."""
        step = self.domain.step if isinstance(self.domain, IntDistribution) and self.domain.low < self.domain.high else 0
        return any(width % CHANNEL_BLOCK for width in (*self.ends(), step) if width)

    def holds(self, value: Any) -> bool:
        """Whether `value` may be drawn here."""
        match self.domain:
            case CategoricalDistribution(choices=choices):
                return value in choices
            case IntDistribution(low=low, high=high, step=step):
                return isinstance(value, int | float) and low <= value <= high and (value - low) % step == 0
            case FloatDistribution(low=low, high=high, step=step):
                if not isinstance(value, int | float) or not low <= value <= high:
                    return False
                steps = (value - low) / step if step else 0.0
                return abs(steps - round(steps)) < 1e-8
            case fixed:
                return bool(fixed == value)

    def nearest(self, value: Any) -> Any:
        """What may be drawn here and comes closest to `value`; of words, the same or the first choice."""
        if self.holds(value):
            return value
        match self.domain:
            case CategoricalDistribution(choices=choices):
                numbers = [c for c in choices if isinstance(c, int | float) and not isinstance(c, bool)]
                if len(numbers) == len(choices) and isinstance(value, int | float):
                    return min(numbers, key=lambda c: abs(c - value))
                return choices[0]
            case IntDistribution(low=low, high=high, step=step) | FloatDistribution(low=low, high=high, step=step):
                inside = min(max(value, low), high)
                return min(high, low + round((inside - low) / step) * step) if step else inside  # 3 × 0.1 exceeds 0.3
            case fixed:
                return fixed

    def describe(self) -> str:
        match self.domain:
            case CategoricalDistribution(choices=choices):
                return "one of " + ", ".join(json.dumps(c) for c in choices)
            case IntDistribution() | FloatDistribution() as d:
                kind = "int" if isinstance(d, IntDistribution) else "float"
                step = f" step {d.step}" if d.step not in (None, 1) else ""
                return f"{kind} {d.low} to {d.high}{' log' if d.log else ''}{step}"
            case fixed:
                return json.dumps(fixed)


class Reported(Frozen):
    """What the report behind a preset says of its network."""

    accuracy: Probability  # as the report states it
    measured_on: str  # images that it was measured on, for example `test`
    params: int  # as the report states them


@dataclass(frozen=True)
class Space:
    name: str
    text: str  # the file's text, kept with each study
    budget: BudgetConfig
    slots: tuple[Slot, ...]
    images: ImageShape
    """Those that the budget is meant for, and widths are scaled for; a search counts for its own, see `for_images`."""
    reported: Reported | None = None  # of a preset
    study: StudyConfig = field(default_factory=StudyConfig)  # how it is searched unless the command line says otherwise
    blocks: Mapping[str, BlockSource] = field(default_factory=dict)  # those of users' own files that `arch.block` may name

    @cached_property
    def by_name(self) -> dict[str, Slot]:
        return {slot.name: slot for slot in self.slots}

    @property
    def first_values(self) -> dict[str, Any]:
        """For each slot its low end, its first choice, or its fixed value."""
        return {slot.name: slot.ends()[0] for slot in self.slots}

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Of every slot that is drawn, in the order of the slots."""
        return {slot.name: slot.domain for slot in self.slots if slot.drawn}

    def draw(self, trial: Suggests) -> Candidate:
        """Suggests every slot, then builds the candidate. On a trial that already has some values, those are used again."""
        return self.candidate({slot.name: slot.value(trial) for slot in self.slots})

    def uniform_draws(self, count: int, seed: int) -> Iterator[Candidate]:
        """So many candidates, each drawn uniformly in the scale of its ranges, over budget or not."""
        draw = UniformDraw(seed)
        return (self.draw(draw) for _ in range(count))

    def candidate(self, values: Mapping[str, Any]) -> Candidate:
        """The candidate that a value for every slot means."""
        tree: dict[str, Any] = {"arch": {"stage": {}}, "train": {}}
        for slot in self.slots:
            if slot.name == FILL:
                continue
            place: dict[Any, Any] = tree
            for part in slot.path[:-1]:
                place = place.setdefault(part, {})
            place[slot.path[-1]] = values[slot.name]
        arch = tree["arch"]
        per_stage = arch.pop("stage")
        if (source := self.blocks.get(arch.get("block"))) is not None:
            arch["block_source"] = source
        arch["stages"] = tuple(per_stage[i] for i in range(arch["stages"]))
        candidate = Candidate.model_validate(tree)
        if not self.fills:
            return candidate
        steps = [self.by_name[f"stage{i}.channels"].step for i in range(len(candidate.arch.stages))]
        return candidate.model_copy(update={"arch": filled(candidate.arch, self.images, self.target(values), steps)})

    @property
    def fills(self) -> bool:
        """Whether widths are scaled to fill the budget."""
        return FILL in self.by_name

    def target(self, values: Mapping[str, Any]) -> int:
        """Parameters that the widths of a draw are scaled to, of a space that `fills`."""
        assert self.budget.params is not None
        return round(values[FILL] * self.budget.params)

    def for_images(self, images: ImageShape) -> "Space":
        """The same space, whose widths are scaled for such images."""
        return replace(self, images=images)

    def unscaled(self) -> "Space":
        """The same space, in which widths are what was drawn."""
        return replace(self, slots=tuple(slot for slot in self.slots if slot.name != FILL))

    def values_nearest_to(self, candidate: Candidate) -> dict[str, Any]:
        """For each slot the candidate's own value, or the nearest one that may be drawn; none for stages that it lacks.

        Where widths are scaled, the ratios that are scaled to the candidate's own widths, if any are.
        """
        tree = candidate.model_dump()
        stages = tree["arch"].pop("stages")
        tree["arch"] |= {"stages": len(stages), "stage": dict(enumerate(stages))}
        values = {}
        for slot in self.slots:
            place: Any = tree
            for part in slot.path:
                place = place.get(part) if isinstance(place, dict) else None
            if slot.name == "stem.channels" and not slot.holds(place):
                place = candidate.arch.stem_channels(self.images.channels)  # None: the first stage's
            if slot.name == "adam_lr" and place is None:
                place = candidate.train.lr  # None: the same as any other optimiser's
            if slot.name == FILL:
                place = closed_form_params(candidate.arch, self.images) / self.target({FILL: 1})
            if place is not None or slot.path[:2] != ("arch", "stage"):
                values[slot.name] = slot.nearest(place)
        return self._scaled_to(candidate.arch, values) if self.fills else values

    def _scaled_to(self, arch: ArchConfig, values: dict[str, Any]) -> dict[str, Any]:
        """`values` with the widths that are scaled to those of `arch`; as they are, where none is found."""
        if not is_filled(closed_form_params(arch, self.images), self.target(values)):
            return values
        widths = {f"stage{i}.channels": stage.channels for i, stage in enumerate(arch.stages)}
        if arch.stem.channels is not None:
            widths["stem.channels"] = arch.stem.channels
        slots = {name: self.by_name[name] for name in widths if name in self.by_name}
        factors = [end / widths[name] for name, slot in slots.items() for end in slot.ends() if end is not None]
        low, high = min(factors), max(factors)
        filler = self.first_values | values
        tried = []
        for factor in (1.0, *(low * (high / low) ** (i / SCALES_TRIED) for i in range(SCALES_TRIED + 1))):
            ratios = {name: slot.nearest(round(factor * widths[name])) for name, slot in slots.items()}
            if ratios not in tried:
                tried.append(ratios)
                if self.candidate(filler | ratios).arch.canonical() == arch.canonical():
                    return values | ratios
        return values

    def describe(self) -> dict[str, str]:
        """Each slot's values in words, what two spaces are compared by."""
        words = {slot.name: slot.describe() for slot in self.slots}
        if self.fills:
            words |= {name: f"{words[name]}, scaled" for name in words if name.endswith(".channels")}
            words[FILL] += " of the budget's parameters"
        return words | {f"blocks.{name}": str(source) for name, source in self.blocks.items()}

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits, equal for spaces that mean the same; the budget is not part of it."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def epochs(self) -> int:
        return int(self.by_name["epochs"].domain)

    @property
    def warmup(self) -> float:
        """The share of a training in which the rate rises: of drawn ones the range's middle, 0 where no schedule has one."""
        slots, default = self.by_name, TrainConfig.model_fields
        schedules = slots["schedule"].ends() if "schedule" in slots else [default["schedule"].default]
        if not {"onecycle", "warmup_cosine"}.intersection(schedules):
            return 0.0
        if "warmup" not in slots:
            return float(default["warmup"].default)
        ends = slots["warmup"].ends()
        return float(math.prod(ends) ** (1 / len(ends)) if getattr(slots["warmup"].domain, "log", False) else fmean(ends))

    def warnings(self) -> list[str]:
        """What is allowed and yet probably not meant: of the values that are fixed, and of widths under a limit of latency."""
        found = self.candidate(self.first_values).train.warnings()
        odd = [slot.name for slot in self.slots if slot.name.endswith(".channels") and slot.wastes_time]
        if odd and self.budget.latency is not None and self.budget.latency.computes_in_blocks:
            found.append(
                f"onnxruntime computes channels in blocks of {CHANNEL_BLOCK} on x86-64: 65 to 80 take the same time, and 63 took "
                f"1.6 times as long as 64. Multiples of {CHANNEL_BLOCK} (low, high and step) waste no time. Change the ranges of "
                f"{', '.join(odd)}"
            )
        return found

    def with_epochs(self, epochs: int) -> "Space":
        """The same space with another fixed number of epochs."""
        return self.with_fixed("epochs", ("train", "epochs"), epochs)

    def with_fixed(self, name: str, path: tuple[str | int, ...], value: Any) -> "Space":
        """The same space, in which the slot of this name has one value, also where it was drawn, or not there."""
        return replace(self, slots=tuple((self.by_name | {name: Slot(name, path, value)}).values()))

    def check_combinations(self, source: str, hint: str | None = None) -> None:
        """Some values are refused only beside others: a multistep schedule without a milestone within the run, say. Raises
        ConfigError.

        Each value is tried where all others are smallest, which finds every pair of ranges that cross.
        """
        lowest = {}
        for slot in self.slots:  # the least of numbers, the first of anything else
            ends = slot.ends()
            lowest[slot.name] = min(ends) if all(isinstance(end, int | float) for end in ends) else ends[0]
        for slot in self.slots:
            for value in slot.ends():
                try:
                    self.candidate(lowest | {slot.name: value})
                except ValidationError as error:
                    raise ConfigError(f"{source}: {first_problem(error)}", hint=hint) from None


class UniformDraw:
    """Uniform draws in each range's own scale, for measuring a space; stands where a trial would."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if log:  # as Optuna does: uniform in the logarithm of [low − ½, high + ½]
            value = math.exp(self._random.uniform(math.log(low - 0.5), math.log(high + 0.5)))
            return min(max(round(value), low), high)
        return self._random.randrange(low, high + 1, step)

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        if log:
            return math.exp(self._random.uniform(math.log(low), math.log(high)))
        if step is not None:
            return min(high, low + step * self._random.randint(0, round((high - low) / step)))
        return self._random.uniform(low, high)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._random.choice(choices)
