"""`nas ablate`: trains a network and variants of it with the same seeds, and measures on held-out images how they differ: means
over the seeds, and differences between runs with the same seed.

studies/<study>/ablations/<name>/
    ablation.json            a `Definition`
    runs/<variant>-seed-0/   the files of a retrained network (`nas.runs.card`), or `diverged.txt` with the reason
    table.md, .tex, .csv     one line for each variant
    runs.csv                 one line for each run
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean

from nas.budget import Budget
from nas.config import ADAMS, Candidate, MetricName
from nas.data.loader import mix_seed
from nas.device import with_its_threads
from nas.errors import ConfigError, StudyError
from nas.files import write_whole
from nas.interrupts import Stop
from nas.paths import StudyPaths, TrialPaths, study_paths
from nas.runs.ablate_design import Cost, Definition, Factor, Variant, fixed_base, make_variants, parse_factors, short_name
from nas.runs.card import BySeed, ModelCard, read_card
from nas.runs.context import TrainingContext, locked, open_context
from nas.runs.finish import finish
from nas.runs.plan import ByRecipe, RunPlan, asked_subject, by_epochs, tta_by
from nas.runs.select import folders_with
from nas.runs.statistics import Spread, paired
from nas.runs.train import TrainingDisplay, prepared_workers, train_all
from nas.space.recipes import SEARCHED
from nas.specs import HOLD_OUT, AblateSpec
from nas.study.settings import Environment, StudySettings, read_settings


@dataclass(frozen=True)
class Done:
    folder: Path
    ablation: "Ablation"
    failures: dict[str, str]  # By run. A diverged run is a result, not a failure
    suspended: int  # Runs that resume with the same command


@dataclass(frozen=True)
class _Base(ByRecipe):
    """The network that is varied."""

    texts: tuple[str, ...]  # Of `--set`

    @cached_property
    def _fixed(self) -> tuple[Candidate, dict[str, str]]:
        return fixed_base(self.recipe.fit(self.subject.candidate, self.epochs), self.texts)

    @property
    def candidate(self) -> Candidate:
        return self._fixed[0]

    @property
    def fixed(self) -> dict[str, str]:
        return self._fixed[1]


@with_its_threads
def run_ablation(
    spec: AblateSpec,
    on_plan: Callable[[str, Definition, Sequence[RunPlan], Sequence[RunPlan], TrainingContext], None],
    display: TrainingDisplay,
    stop: Stop,
) -> Done:
    """Resumes an earlier run of the command. Raises NasError.

    Args:
        on_plan: receives the ablation's name and definition, all runs, those that have not ended, and the context.
    """
    _require_name(spec.name)
    settings = read_settings(spec.paths)
    base = _find_base(spec, settings)
    folder, definition = _define(spec, settings, base)  # reports mistakes before any image is read
    plans = _make_plans(folder, definition, base, settings)
    where = spec.base.placement(spec.workers)
    with prepared_workers(spec.paths, where, plans) as executor:
        ctx = open_context(spec.base, where, display.decoding)
        with locked([folder], "ablation", "nas ablate", "wait for it, or start another ablation with --name NAME"):
            write_whole(definition_file(folder), definition.to_json().encode())
            judge = partial(finish, ctx=ctx, note=display.note, opens_test=False, in_ledger=False)
            announce = partial(on_plan, folder.name, definition)
            outcome = train_all(plans, ctx, executor, judge, announce, display, stop, keep_diverged=True)
            return Done(folder, read_ablation(folder), outcome.failures, outcome.suspended)


def _find_base(spec: AblateSpec, settings: StudySettings) -> _Base:
    """The base network, for the requested epochs, else the recipe's, else the search's."""
    subject = asked_subject(spec.base, settings)
    chosen = by_epochs(spec.base, subject, subject.candidate.train.epochs)
    return _Base(subject, chosen.recipe_name, chosen.recipe, chosen.epochs, spec.fixed)


def _define(spec: AblateSpec, settings: StudySettings, base: _Base) -> tuple[Path, Definition]:
    """The ablation's folder and definition. An ablation that has begun is resumed, in whatever order its factors are given."""
    if not spec.base.hold_out:
        raise ConfigError(
            "an ablation needs held-out images, but --hold-out 0 holds out none",
            hint=f"--hold-out {HOLD_OUT:g}",
        )
    budget = Budget(settings.budget.counted(), settings.shape)

    def cost(candidate: Candidate) -> Cost:
        found = budget.check(candidate.arch)
        return found.params, found.macs, found.sentence(budget.limits) or None

    factors = parse_factors(base.candidate, spec.factors, spec.grid)
    folder, begun = _find_begun(spec, base, factors)
    if begun is not None:
        factors = begun.arranged(factors)
    definition = Definition(
        subject=base.subject.title,
        recipe=base.recipe_name,
        fixed=base.fixed,
        factors=factors,
        grid=spec.grid,
        seeds=spec.seeds,
        hold_out=spec.base.hold_out,
        train_subset=spec.base.train_subset,
        variants=make_variants(base.candidate, factors, spec.grid, lambda epochs: replace(base, epochs=epochs).candidate, cost),
        environment=Environment.now(),
    )
    return folder, definition if begun is None else begun.grown(definition, folder.name)


def _find_begun(spec: AblateSpec, base: _Base, factors: Sequence[Factor]) -> tuple[Path, Definition | None]:
    """The ablation's folder, and its definition if it has begun: the ablation with the given name, else the one with its default
    name, even if its factors were given in another order."""
    ablations = spec.base.paths.ablations
    folder = ablations / (spec.name or default_name(spec, base, factors, base.fixed))
    begun = read_definition(folder)
    if begun is not None or spec.name is not None:
        return folder, begun
    asked = {frozenset(factor.fields) for factor in factors}
    for other in find_ablations(spec.base.paths):
        theirs = read_definition(other)
        if theirs is None or theirs.fixed != base.fixed or {frozenset(factor.fields) for factor in theirs.factors} != asked:
            continue
        if other.name == default_name(spec, base, theirs.factors, theirs.fixed):
            return other, theirs
    return folder, None


def default_name(spec: AblateSpec, base: _Base, factors: Sequence[Factor], fixed: Mapping[str, str]) -> str:
    """`trial-0007-optimiser-activation-18-epochs`: without levels and seeds, because these may be added."""
    parts = [base.subject.slug, *(factor.name for factor in factors)]
    parts += ["grid"] * spec.grid
    parts += [f"{name}-{value}" for name, value in fixed.items()]
    parts += [base.recipe_name] * (base.recipe_name != SEARCHED)
    parts.append(f"{base.candidate.train.epochs}-epochs")
    own = spec.base.hold_out == HOLD_OUT
    selection = replace(spec.base.selection, hold_out=0.0) if own else spec.base.selection
    return short_name("-".join(parts) + selection.suffix)


def _require_name(name: str | None) -> None:
    """Raises ConfigError for a name that cannot name a folder."""
    try:
        if name is not None:
            study_paths(name)
    except StudyError:
        raise ConfigError(
            f"--name must be a folder name without separators or a leading dot, but is {name!r}", hint="--name depths"
        ) from None


def _make_plans(folder: Path, definition: Definition, base: _Base, settings: StudySettings) -> list[RunPlan]:
    """All variants with the first seed, then all with the second. With the same seed all variants draw the same random
    numbers."""
    plans = []
    digest = int(definition.base.candidate.digest, 16)
    for seed in definition.seeds:
        mixed = mix_seed(settings.seed, digest, seed)
        for variant in definition.variants:
            if variant.same_as is None:
                title = f"{base.subject.title}, {variant.title}" if variant.levels else base.subject.title
                accuracy = None if variant.levels else base.subject.accuracy
                plans.append(
                    RunPlan(
                        run=run_paths(folder, variant.name, seed),
                        subject=replace(base.subject, title=title, candidate=variant.candidate, accuracy=accuracy),
                        recipe=definition.recipe,
                        candidate=variant.candidate,
                        tta=tta_by(base.recipe, variant.candidate),
                        seed=seed,
                        mixed_seed=mixed,
                    )
                )
    return plans


def warnings_of(definition: Definition) -> list[str]:
    """One sentence for each setting that is allowed but probably a mistake."""
    base = definition.base.candidate.train
    found = dict.fromkeys(text for variant in definition.variants for text in variant.candidate.train.warnings())
    for variant in definition.variants:
        train = variant.candidate.train
        if (train.optimiser in ADAMS) != (base.optimiser in ADAMS) and train.peak_lr == base.peak_lr:
            own = "adam_lr=0.002"
            if base.optimiser in ADAMS:  # Adam uses lr itself if there is no adam_lr
                own = f"adam_lr={base.peak_lr:g} --set lr=0.1"
            found[
                f"{variant.title} trains with the base's peak learning rate, {train.peak_lr:g}, but another optimiser needs "
                f"a very different one; set it with --set {own}"
            ] = None
    return list(found)


@dataclass(frozen=True, kw_only=True)
class Row(BySeed[ModelCard]):
    """A variant with its runs."""

    variant: Variant
    difference: Spread | None  # To the base's held-out score; None for the base, and without a common seed
    shifted_difference: Spread | None  # The same for the images under a simulated shift


@dataclass(frozen=True)
class Effect:
    """In a grid: how much a level changes the mean over the levels of all other factors."""

    factor: str
    level: str
    reference: str  # The level that it is compared with
    difference: Spread  # One value for each seed with which every network of both levels was trained


@dataclass(frozen=True)
class Ablation:
    name: str
    definition: Definition
    rows: tuple[Row, ...]  # The base first, then in the order of the definition

    @property
    def expected(self) -> int:
        """Number of runs of the complete ablation."""
        return len(self.definition.seeds) * sum(row.variant.same_as is None for row in self.rows)

    @property
    def ended(self) -> int:
        return sum(len(row.cards) + len(row.diverged) for row in self.rows if row.variant.same_as is None)

    @property
    def judged_images(self) -> int | None:
        return next((card.held_out.images for row in self.rows for card in row.cards.values() if card.held_out), None)

    @property
    def metric(self) -> MetricName:
        """The metric of all scores."""
        return next((card.metric for row in self.rows for card in row.cards.values()), "accuracy")

    @cached_property
    def effects(self) -> list[Effect]:
        """Empty without a grid, because the rows show each effect."""
        found = []
        for factor in self.definition.factors if self.definition.grid else ():
            reference = self.definition.reference(factor)
            means = {level: _level_means(self, factor, level) for level in map("+".join, factor.levels)}
            for level in means:  # in the order of the definition
                if level != reference and (difference := paired(means[level], means[reference])) is not None:
                    found.append(Effect(factor.name, level, reference, difference))
        return found


def make_rows(definition: Definition, trained: Mapping[str, BySeed[ModelCard]]) -> tuple[Row, ...]:
    """`trained`: by the variant's name."""
    base, rows = trained[definition.base.name], []
    for variant in definition.variants:
        own, is_base = trained[variant.same_as or variant.name], variant is definition.base
        rows.append(
            Row(
                variant=variant,
                cards=own.cards,
                diverged=own.diverged,
                difference=None if is_base else paired(own.scores("clean"), base.scores("clean")),
                shifted_difference=None if is_base else paired(own.scores("shifted"), base.scores("shifted")),
            )
        )
    return tuple(rows)


def _level_means(ablation: Ablation, factor: Factor, level: str) -> dict[int, float]:
    """By seed, the mean over all networks of the grid with this level; only seeds with which all of them were trained."""
    definition = ablation.definition
    own = {one.name: "+".join(one.level_of(definition.base.candidate)) for one in definition.factors}
    with_it = []
    for row in ablation.rows:
        levels = {name: row.variant.levels.get(name, own[name]) for name in own}
        in_grid = all(levels[one.name] in map("+".join, one.levels) for one in definition.factors)
        if in_grid and levels[factor.name] == level:
            with_it.append(row.scores("clean"))
    seeds = set.intersection(*(set(row) for row in with_it))
    return {seed: fmean(row[seed] for row in with_it) for seed in seeds}


def definition_file(folder: Path) -> Path:
    return folder / "ablation.json"


def run_paths(folder: Path, variant: str, seed: int) -> TrialPaths:
    return TrialPaths(folder / "runs" / f"{variant}-seed-{seed}")


def read_definition(folder: Path) -> Definition | None:
    """None if nothing has begun there. Raises ConfigError if the file is damaged."""
    file = definition_file(folder)
    return Definition.from_file(file) if file.is_file() else None


def read_ablation(folder: Path) -> Ablation:
    """Raises NasError if the folder holds no ablation, or if a file is damaged or belongs to another network."""
    definition = read_definition(folder)
    if definition is None:
        raise StudyError(f"{folder} has no ablation", hint="nas ablate creates one")
    trained = {}
    for variant in definition.variants:
        if variant.same_as is None:
            runs = {seed: run_paths(folder, variant.name, seed) for seed in definition.seeds}
            trained[variant.name] = BySeed(
                cards={seed: _checked(run, variant) for seed, run in runs.items() if run.card.is_file()},
                diverged=tuple(seed for seed, run in runs.items() if run.diverged.is_file() and not run.card.is_file()),
            )
    return Ablation(folder.name, definition, make_rows(definition, trained))


def _checked(run: TrialPaths, variant: Variant) -> ModelCard:
    card = read_card(run)
    if card.candidate.digest != variant.candidate.digest or card.held_out is None:
        raise StudyError(f"{run.folder} has another network than its ablation records", hint="remove that folder")
    return card


def find_ablations(paths: StudyPaths) -> list[Path]:
    """Folders, the oldest first."""
    return folders_with(paths.ablations, "ablation.json")
