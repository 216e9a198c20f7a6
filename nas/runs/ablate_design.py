"""An ablation as data: its base, its factors with their levels, and the resulting variants, each checked and counted before
anything is trained.

Without a grid a variant is the base with one level of one factor. In a grid every level of each factor is combined with every
level of the others.
"""

import hashlib
import itertools
import re
from collections.abc import Callable, Sequence

from nas.config import Candidate, Frozen
from nas.errors import ConfigError, NasError, StudyError
from nas.runs.ablate_fields import Field, changed, find_field, value_text
from nas.study.settings import Environment

VARY, SET = "--vary", "--set"
_TOGETHER = re.compile(r"(?<![0-9.][eE])\+")  # not the sign of an exponent, as in 1e+3; after `none` it separates
LONGEST_NAME = 100  # of a folder: the name of a file may have 255 bytes
BASE = "base"
UNUSED = "leave it out, or use --set for the field that enables it; nas show shows the fields of the base"


class Factor(Frozen):
    """What is varied: one field, or several together."""

    fields: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]  # One text for each field

    @property
    def name(self) -> str:
        return "+".join(self.fields)

    @property
    def found(self) -> tuple[Field, ...]:
        return tuple(find_field(name, VARY) for name in self.fields)

    def level_of(self, candidate: Candidate) -> tuple[str, ...]:
        return tuple(value_text(candidate, field) for field in self.found)


class Variant(Frozen):
    name: str  # Of its runs' folders
    levels: dict[str, str]  # By factor, what differs from the base; empty for the base
    candidate: Candidate
    params: int
    macs: int | None
    over: str | None  # By how much it is over the study's budget; None if it fits
    same_as: str | None = None  # An earlier variant with the same network, whose runs are also this one's

    @property
    def title(self) -> str:
        return ", ".join(f"{factor} {level}" for factor, level in self.levels.items()) or BASE


class Definition(Frozen):
    """Fixed for the life of an ablation, except that levels and seeds may be added."""

    subject: str
    recipe: str
    fixed: dict[str, str]  # Values of `--set`
    factors: tuple[Factor, ...]
    grid: bool
    seeds: tuple[int, ...]
    hold_out: float
    train_subset: int | None
    variants: tuple[Variant, ...]  # The base first
    environment: Environment  # Of its first start

    @property
    def base(self) -> Variant:
        return self.variants[0]

    def reference(self, factor: Factor) -> str:
        """The level with which a factor's other levels are compared: the base's, or the first one in a grid without it."""
        own = factor.level_of(self.base.candidate)
        return "+".join(own if own in factor.levels or not self.grid else factor.levels[0])

    def arranged(self, factors: Sequence[Factor]) -> tuple[Factor, ...]:
        """The same factors in the order of this definition; new factors and levels come last. The order decides the names of the
        runs, and which of two variants with the same network is trained."""
        asked = {frozenset(factor.fields): factor for factor in factors}
        own = {frozenset(factor.fields): factor for factor in self.factors}
        there = [_arranged(asked.pop(fields), factor) for fields, factor in own.items() if fields in asked]
        return (*there, *asked.values())

    def differences(self, new: "Definition") -> list[str]:
        """One sentence for each setting that `new` changes. Levels and seeds may be added, and, except in a grid, factors."""
        found = [
            f"{name}: {before} → {after}"
            for name, before, after in (
                ("network", self.subject, new.subject),
                ("recipe", self.recipe, new.recipe),
                ("epochs", self.base.candidate.train.epochs, new.base.candidate.train.epochs),
                ("set", _listed(self.fixed), _listed(new.fixed)),
                ("design", _design(self), _design(new)),
                ("hold-out", f"{self.hold_out:g}", f"{new.hold_out:g}"),
                ("train-subset", self.train_subset or "all", new.train_subset or "all"),
            )
            if before != after
        ]
        if not found and self.base.candidate.digest != new.base.candidate.digest:
            found.append("base: the network or its recipe has changed, because of another file or version")
        theirs = {factor.name: factor for factor in new.factors}
        for factor in self.factors:
            if factor.name not in theirs:
                found.append(f"{factor.name}: no longer varied")
            elif not set(factor.levels) <= set(theirs[factor.name].levels):
                found.append(f"{factor.name}: {_levels(factor)} → {_levels(theirs[factor.name])}")
        if self.grid and (added := theirs.keys() - {factor.name for factor in self.factors}):
            found.append(f"new in the grid, which was begun without: {', '.join(sorted(added))}")
        if not set(self.seeds) <= set(new.seeds):
            found.append(f"seeds: {', '.join(map(str, self.seeds))} → {', '.join(map(str, new.seeds))}")
        return found

    def grown(self, new: "Definition", name: str) -> "Definition":
        """`new`, if it only adds to this definition. Raises StudyError with every other difference."""
        if found := self.differences(new):
            listed = "\n".join(f"  {difference}" for difference in found)
            raise StudyError(
                f"ablation {name!r} was started with other settings, so its runs would not be comparable:\n{listed}",
                hint="use the same settings (you may add values and seeds), or another name with --name NAME",
            )
        return new.model_copy(update={"environment": self.environment})


def _arranged(factor: Factor, begun: Factor) -> Factor:
    values = [dict(zip(factor.fields, level, strict=True)) for level in factor.levels]
    levels = [tuple(value[field] for field in begun.fields) for value in values]
    ordered = [level for level in begun.levels if level in levels] + [level for level in levels if level not in begun.levels]
    return Factor(fields=begun.fields, levels=tuple(ordered))


def _design(definition: Definition) -> str:
    return "a grid" if definition.grid else "one factor at a time"


def _levels(factor: Factor) -> str:
    return ", ".join(map("+".join, factor.levels))


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items())) or "nothing"


def fixed_base(candidate: Candidate, texts: Sequence[str]) -> tuple[Candidate, dict[str, str]]:
    """The candidate with the values of `--set`, and these values by name. Raises ConfigError."""
    values: dict[Field, str] = {}
    for text in texts:
        name, value = _halves(text, SET, "adam_lr=0.002")
        field = find_field(name, SET)
        if field.name == "epochs":
            raise ConfigError(f"{SET} epochs={value}: use the option --epochs", hint=f"--epochs {value}")
        if any(field.overlaps(other) for other in values):
            raise ConfigError(f"{SET} {field.name} is given twice", hint="one value for each field")
        candidate = changed(candidate, {field: value}, SET)
        values[field] = value_text(candidate, field)
    return candidate, {field.name: value for field, value in values.items()}


def parse_factors(base: Candidate, texts: Sequence[str], grid: bool) -> tuple[Factor, ...]:
    """Raises ConfigError for an unknown field, a value that its field refuses, and factors that vary nothing or the same
    field."""
    if not texts:
        raise ConfigError(f"nothing is varied; use {VARY}", hint=f"{VARY} optimiser=sgd,adam {VARY} activation=relu,gelu")
    factors: list[Factor] = []
    for text in texts:
        factor = _parse_factor(base, text)
        for other in factors:
            _require_apart(factor, other, grid)
        factors.append(factor)
    return tuple(factors)


def _halves(text: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not (name and equals and value):
        raise ConfigError(f"{option} takes a field and its value, but got {text!r}", hint=f"for example {option} {example}")
    return name, value


def _parse_factor(base: Candidate, text: str) -> Factor:
    name, values = _halves(text, VARY, "optimiser=sgd,adam")
    fields = [find_field(part.strip(), VARY) for part in name.split("+")]
    for one, other in itertools.combinations(fields, 2):
        if one.overlaps(other):
            raise ConfigError(f"{VARY} {name}: {one.name} is given twice", hint="give each field once")
    levels: list[tuple[str, ...]] = []
    for value in values.split(","):
        parts = [part.strip() for part in (_TOGETHER.split(value) if len(fields) > 1 else [value])]
        if not all(parts):
            raise ConfigError(f"{VARY} {text}: a value is missing", hint=f"for example {VARY} optimiser=sgd,adam")
        if len(parts) != len(fields):
            example = "blocks+channels=2-2-2+64-128-256,3-3-3+48-96-192"
            raise ConfigError(
                f"{VARY} {name}: {value!r} has {len(parts)} value{'s' * (len(parts) > 1)} for {len(fields)} "
                f"field{'s' * (len(fields) > 1)}",
                hint=f"use + between fields that change together, and a comma between values: {VARY} {example}",
            )
        made = changed(base, dict(zip(fields, parts, strict=True)), VARY)
        level = tuple(value_text(made, field) for field in fields)
        if level in levels:
            raise ConfigError(f"{VARY} {name}: {'+'.join(level)} is given twice", hint="give each value once")
        levels.append(level)
    factor = Factor(fields=tuple(field.name for field in fields), levels=tuple(levels))
    if levels == [own := factor.level_of(base)]:
        raise ConfigError(
            f"{VARY} {factor.name}={'+'.join(own)} varies nothing, because the base has this value",
            hint="add values to compare with",
        )
    return factor


def _require_apart(factor: Factor, other: Factor, grid: bool) -> None:
    if set(factor.fields) == set(other.fields):
        together = ",".join(map("+".join, dict.fromkeys([*other.levels, *factor.levels])))
        raise ConfigError(
            f"{VARY} {factor.name} is given twice", hint=f"give all its values together: {VARY} {factor.name}={together}"
        )
    for one, two in itertools.product(factor.found, other.found):
        if grid and one.overlaps(two):
            raise ConfigError(
                f"{VARY} {factor.name} and {VARY} {other.name} both set {one.name}, which a grid would set twice",
                hint="leave --grid out, or vary them in one factor, joined by +",
            )


Cost = tuple[int, int | None, str | None]  # parameters, multiply-adds, by how much over budget


def make_variants(
    base: Candidate,
    factors: Sequence[Factor],
    grid: bool,
    at_epochs: Callable[[int], Candidate],
    cost: Callable[[Candidate], Cost],
) -> tuple[Variant, ...]:
    """The base first. `at_epochs` returns the base for a number of epochs, because a recipe may depend on it.

    Raises ConfigError if `cost` does, if a network cannot be built, and if a level changes nothing; without a grid also if two
    variants are the same network. In a grid a variant that equals an earlier one shares its runs (`same_as`).
    """
    if grid:
        _require_each_matters(base, factors, at_epochs)
    variants: list[Variant] = []
    first: dict[str, Variant] = {}
    for levels in [{}, *(_cells(base, factors) if grid else _one_at_a_time(base, factors))]:
        title = ", ".join(f"{factor.name}={'+'.join(level)}" for factor, level in levels.items())
        candidate = _candidate(base, levels, at_epochs)
        twin = first.get(candidate.digest)
        if twin is not None and not grid:
            raise _twins(title, twin)
        try:
            params, macs, over = cost(candidate)
        except NasError as error:
            raise ConfigError(f"{VARY} {title}: {error.message}" if levels else error.message, hint=error.hint) from None
        variant = Variant(
            name=_slug(levels) if levels else BASE,
            levels={factor.name: "+".join(level) for factor, level in levels.items()},
            candidate=candidate,
            params=params,
            macs=macs,
            over=over,
            same_as=None if twin is None else twin.name,
        )
        first.setdefault(candidate.digest, variant)
        variants.append(variant)
    return tuple(variants)


Levels = dict[Factor, tuple[str, ...]]


def _one_at_a_time(base: Candidate, factors: Sequence[Factor]) -> list[Levels]:
    return [{factor: level} for factor in factors for level in factor.levels if level != factor.level_of(base)]


def _cells(base: Candidate, factors: Sequence[Factor]) -> list[Levels]:
    """All combinations except the base itself."""
    cells = []
    for levels in itertools.product(*(factor.levels for factor in factors)):
        apart = {f: level for f, level in zip(factors, levels, strict=True) if level != f.level_of(base)}
        if apart:
            cells.append(apart)
    return cells


def _candidate(base: Candidate, levels: Levels, at_epochs: Callable[[int], Candidate]) -> Candidate:
    values = {field: text for factor, level in levels.items() for field, text in zip(factor.found, level, strict=True)}
    for field, text in values.items():
        if field.name == "epochs":
            base = at_epochs(int(text))
    return changed(base, values, VARY) if values else base


def _twins(title: str, twin: Variant) -> ConfigError:
    if twin.levels:
        return ConfigError(f"{VARY} {title} trains the same network as {twin.title}", hint="leave one of them out")
    return ConfigError(f"{VARY} {title} trains the same network as the base, which does not use this field", hint=UNUSED)


def _require_each_matters(base: Candidate, factors: Sequence[Factor], at_epochs: Callable[[int], Candidate]) -> None:
    """Raises ConfigError if a level of a grid changes none of the networks."""
    cells = _cells(base, factors)
    for factor in factors:
        for level in factor.levels:
            with_it = [cell for cell in cells if cell.get(factor) == level]
            without = [{other: own for other, own in cell.items() if other != factor} for cell in with_it]
            if with_it and all(
                _candidate(base, one, at_epochs).digest == _candidate(base, other, at_epochs).digest
                for one, other in zip(with_it, without, strict=True)
            ):
                raise ConfigError(
                    f"{VARY} {factor.name}={'+'.join(level)} has no effect, because the networks do not use this field",
                    hint=UNUSED,
                )


def _slug(levels: Levels) -> str:
    pairs = [f"{name}-{text}" for f, level in levels.items() for name, text in zip(f.fields, level, strict=True)]
    return short_name("-".join(pairs))


def short_name(name: str) -> str:
    """Shortened, if necessary, to the length of a folder's name."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
