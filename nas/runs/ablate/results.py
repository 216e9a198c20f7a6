"""What an ablation has found so far, from its files: means over the seeds, and differences of pairs that have the seed in common.

studies/<study>/ablations/<name>/
    ablation.json            a `Definition`
    runs/<variant>-seed-0/   as a retrained network's, see `nas.runs.card`; in place of it `diverged.txt`, with the reason
    table.md, .tex, .csv     a line a variant
    runs.csv                 a line a run
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from nas.config import MetricName
from nas.errors import StudyError
from nas.paths import StudyPaths, TrialPaths
from nas.runs.ablate.design import Definition, Factor, Variant
from nas.runs.card import HeldOut, ModelCard, read_card
from nas.runs.statistics import Spread, paired, spread


@dataclass(frozen=True)
class Row:
    """A variant with its runs."""

    variant: Variant
    cards: dict[int, ModelCard]
    """By seed, of runs that have ended and were judged."""
    diverged: tuple[int, ...]
    """Seeds."""
    difference: Spread | None
    """To the base, in its score on the held-out images; None of the base, and where no seed is common."""
    shifted_difference: Spread | None
    """So, of the same images under a simulated shift."""

    @property
    def score(self) -> Spread | None:
        """By what the study judges networks by."""
        return spread([held_out.clean for held_out in self._held_out])

    @property
    def shifted(self) -> Spread | None:
        return spread([held_out.shifted for held_out in self._held_out])

    @property
    def seconds(self) -> float | None:
        """Of one training, in the mean."""
        return fmean(card.seconds for card in self.cards.values()) if self.cards else None

    @property
    def _held_out(self) -> list[HeldOut]:
        return [held_out_of(self.cards[seed]) for seed in sorted(self.cards)]


@dataclass(frozen=True)
class Effect:
    """In a grid: what a level changes in the mean over the levels of all other factors."""

    factor: str
    level: str
    reference: str
    """The level that it is compared with."""
    difference: Spread
    """A value a seed, of seeds for which every network of both levels was trained."""


@dataclass(frozen=True)
class Ablation:
    name: str
    definition: Definition
    rows: tuple[Row, ...]
    """The base first, then in the order of the definition."""

    @property
    def expected(self) -> int:
        """Runs, once all are there."""
        return len(self.definition.seeds) * sum(row.variant.same_as is None for row in self.rows)

    @property
    def ended(self) -> int:
        return sum(len(row.cards) + len(row.diverged) for row in self.rows if row.variant.same_as is None)

    @property
    def judged_images(self) -> int | None:
        return next((held_out_of(card).images for row in self.rows for card in row.cards.values()), None)

    @property
    def metric(self) -> MetricName:
        """What every score is of."""
        return next((card.metric for row in self.rows for card in row.cards.values()), "accuracy")

    @cached_property
    def effects(self) -> list[Effect]:
        """Of a grid; of one factor at a time none, since there the rows say it."""
        if not self.definition.grid:
            return []
        return [effect for factor in self.definition.factors for effect in _effects(self, factor)]


def held_out_of(card: ModelCard) -> HeldOut:
    assert card.held_out is not None, "every run of an ablation is judged by images that were set aside"
    return card.held_out


def _scores(cards: Mapping[int, ModelCard]) -> dict[int, float]:
    return {seed: held_out_of(card).clean for seed, card in cards.items()}


def _shifted(cards: Mapping[int, ModelCard]) -> dict[int, float]:
    return {seed: held_out_of(card).shifted for seed, card in cards.items()}


def make_rows(
    definition: Definition, cards: Mapping[str, dict[int, ModelCard]], diverged: Mapping[str, Sequence[int]]
) -> tuple[Row, ...]:
    """From what is there of each variant's runs, by its name."""
    base = cards.get(definition.base.name, {})
    rows = []
    for variant in definition.variants:
        trained = variant.same_as or variant.name
        own = cards.get(trained, {})
        is_base = variant is definition.base
        rows.append(
            Row(
                variant=variant,
                cards=own,
                diverged=tuple(diverged.get(trained, ())),
                difference=None if is_base else paired(_scores(own), _scores(base)),
                shifted_difference=None if is_base else paired(_shifted(own), _shifted(base)),
            )
        )
    return tuple(rows)


def _effects(ablation: Ablation, factor: Factor) -> list[Effect]:
    reference = ablation.definition.reference(factor)
    means = {"+".join(level): _level_means(ablation, factor, "+".join(level)) for level in factor.levels}
    return [
        Effect(factor.name, level, reference, difference)
        for level in means
        if level != reference and (difference := paired(means[level], means[reference])) is not None
    ]


def _level_means(ablation: Ablation, factor: Factor, level: str) -> dict[int, float]:
    """By seed, over all networks of the grid that have this level; of seeds for which none of them is missing."""
    definition = ablation.definition
    own = {one.name: "+".join(one.level_of(definition.base.candidate)) for one in definition.factors}
    with_it = []
    for row in ablation.rows:
        levels = {name: row.variant.levels.get(name, own[name]) for name in own}
        in_grid = all(levels[one.name] in map("+".join, one.levels) for one in definition.factors)
        if in_grid and levels[factor.name] == level:
            with_it.append(_scores(row.cards))
    seeds = set.intersection(*(set(row) for row in with_it))
    return {seed: fmean(row[seed] for row in with_it) for seed in seeds}


# --------------------------------------------------------------------------------------------------------------- files


def definition_file(folder: Path) -> Path:
    return folder / "ablation.json"


def run_paths(folder: Path, variant: str, seed: int) -> TrialPaths:
    return TrialPaths(folder / "runs" / f"{variant}-seed-{seed}")


def has_ended(run: TrialPaths) -> bool:
    return run.card.is_file() or run.diverged.is_file()


def read_definition(folder: Path) -> Definition | None:
    """None where nothing has begun there. Raises ConfigError where the file is damaged."""
    file = definition_file(folder)
    return Definition.from_json(file.read_bytes(), source=str(file)) if file.is_file() else None


def read_ablation(folder: Path) -> Ablation:
    """Raises NasError where the folder holds none, or a file of it is damaged or of another network."""
    definition = read_definition(folder)
    if definition is None:
        raise StudyError(f"{folder} holds no ablation", hint="nas ablate makes one")
    cards: dict[str, dict[int, ModelCard]] = {}
    diverged: dict[str, list[int]] = {}
    for variant in definition.variants:
        if variant.same_as is None:
            for seed in definition.seeds:
                run = run_paths(folder, variant.name, seed)
                if run.card.is_file():
                    cards.setdefault(variant.name, {})[seed] = _checked(run, variant)
                elif run.diverged.is_file():
                    diverged.setdefault(variant.name, []).append(seed)
    return Ablation(folder.name, definition, make_rows(definition, cards, diverged))


def _checked(run: TrialPaths, variant: Variant) -> ModelCard:
    card = read_card(run)
    if card.candidate.digest != variant.candidate.digest or card.held_out is None:
        raise StudyError(f"{run.folder} holds another network than its ablation says", hint="remove that folder")
    return card


def find_ablations(paths: StudyPaths) -> list[Path]:
    """Folders, the oldest first."""
    files = sorted(paths.ablations.glob("*/ablation.json"), key=lambda file: file.stat().st_mtime)
    return [file.parent for file in files]
