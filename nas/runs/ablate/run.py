"""`nas ablate` as a whole: works out the variants, trains over the workers what is not trained yet, judges it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nas.budget import Budget
from nas.config import ADAMS, Candidate
from nas.data.cache import Progress as DecodingProgress
from nas.data.cache import silent
from nas.data.loader import mix_seed
from nas.errors import ConfigError, StudyError
from nas.files import write_whole
from nas.interrupts import Stop
from nas.jobs.placement import devices_of
from nas.paths import study_paths
from nas.runs.ablate.design import Cost, Definition, Factor, Variant, fixed_base, make_variants, parse_factors, short_name
from nas.runs.ablate.results import (
    Ablation,
    definition_file,
    find_ablations,
    has_ended,
    read_ablation,
    read_definition,
    run_paths,
)
from nas.runs.context import TrainingContext, locked, open_context
from nas.runs.finish import finish, mark_diverged
from nas.runs.plan import Order, asked_subject, by_epochs, tta_by
from nas.runs.queue import Heard, Queue
from nas.runs.retrain import begin
from nas.runs.select import Subject
from nas.space.recipes import SEARCHED, Recipe
from nas.specs import HOLD_OUT, AblateSpec
from nas.study.settings import Environment, StudySettings, read_settings


@dataclass(frozen=True)
class AblationPlan:
    """What will be done, shown before it begins."""

    folder: Path
    definition: Definition
    pending: tuple[Order, ...]
    there: int
    """Runs that have ended before."""
    train_images: int
    held_out: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    folder: Path
    ablation: Ablation
    failures: dict[str, str]
    """By run; what has diverged is a result and none of them."""
    suspended: int
    """Runs that go on with the same command."""


@dataclass(frozen=True)
class _Base:
    """The network that is varied, and what it is for another number of epochs."""

    subject: Subject
    recipe_name: str
    recipe: Recipe
    candidate: Candidate
    fixed: dict[str, str]

    def at_epochs(self, epochs: int, fixed: Sequence[str]) -> Candidate:
        return fixed_base(self.recipe.fit(self.subject.candidate, epochs), fixed)[0]


def run_ablation(
    request: AblateSpec,
    on_plan: Callable[[AblationPlan], None],
    on_epoch: Heard,
    stop: Stop,
    decoding: DecodingProgress = silent,
    note: Callable[[str], None] = lambda text: None,
) -> Done:
    """Goes on where it stopped before. Raises NasError."""
    _require_name(request.name)
    settings = read_settings(request.base.paths)
    base = _find_base(request, settings)
    folder, definition = _define(request, settings, base)  # a mistake there is said before any image is read
    devices = devices_of(request.placement)
    ctx = open_context(replace(request.base, device=devices[0], compiled=False), decoding)
    with locked([folder], "ablation", "nas ablate", "wait for it; or another one beside it, with --name NAME"):
        write_whole(definition_file(folder), definition.to_json().encode())
        orders = _orders(request, folder, definition, base, ctx)
        pending = [order for order in orders if not has_ended(order.run)]
        failures: dict[str, str] = {}
        suspended: list[Order] = []
        if pending:
            on_plan(_plan(folder, definition, pending, len(orders) - len(pending), ctx))
            failures, suspended = _train(request, ctx, pending, on_epoch, stop, note)
        return Done(folder, read_ablation(folder), failures, len(suspended))


def _find_base(request: AblateSpec, settings: StudySettings) -> _Base:
    """For the epochs that were asked for, or the recipe's own, or those of the search."""
    subject = asked_subject(request.base, settings)
    name, recipe, epochs = by_epochs(request.base, subject.candidate.train.epochs)
    candidate, fixed = fixed_base(recipe.fit(subject.candidate, epochs), request.fixed)
    return _Base(subject, name, recipe, candidate, fixed)


def _define(request: AblateSpec, settings: StudySettings, base: _Base) -> tuple[Path, Definition]:
    """With the ablation's folder. One that has begun goes on, in whatever order it is asked for."""
    if not request.base.hold_out:
        raise ConfigError(
            "an ablation is judged by images that are set aside, and --hold-out 0 sets none aside",
            hint=f"--hold-out {HOLD_OUT:g}",
        )
    budget = Budget(settings.budget.counted(), settings.shape)

    def cost(candidate: Candidate) -> Cost:
        found = budget.check(candidate.arch)
        return found.params, found.macs, found.sentence(budget.limits) or None

    factors = parse_factors(base.candidate, request.factors, request.grid)
    folder, begun = _find_begun(request, base, factors)
    if begun is not None:
        factors = begun.arranged(factors)
    definition = Definition(
        subject=base.subject.title,
        recipe=base.recipe_name,
        fixed=base.fixed,
        factors=factors,
        grid=request.grid,
        seeds=request.seeds,
        hold_out=request.base.hold_out,
        train_subset=request.base.train_subset,
        variants=make_variants(base.candidate, factors, request.grid, lambda epochs: base.at_epochs(epochs, request.fixed), cost),
        environment=Environment.now(),
    )
    return folder, definition if begun is None else begun.grown(definition, folder.name)


def _find_begun(request: AblateSpec, base: _Base, factors: Sequence[Factor]) -> tuple[Path, Definition | None]:
    """The ablation's folder and what was begun there: the one that is named, else one by its default name, which may have been
    asked for in another order."""
    ablations = request.base.paths.ablations
    folder = ablations / (request.name or default_name(request, base, factors, base.fixed))
    begun = read_definition(folder)
    if begun is not None or request.name is not None:
        return folder, begun
    asked = {frozenset(factor.fields) for factor in factors}
    for other in find_ablations(request.base.paths):
        theirs = read_definition(other)
        if theirs is None or theirs.fixed != base.fixed or {frozenset(factor.fields) for factor in theirs.factors} != asked:
            continue
        if other.name == default_name(request, base, theirs.factors, theirs.fixed):
            return other, theirs
    return folder, None


def default_name(request: AblateSpec, base: _Base, factors: Sequence[Factor], fixed: Mapping[str, str]) -> str:
    """`trial-0007-optimiser-activation-18-epochs`: levels and seeds, which may be added, are not in it."""
    parts = [base.subject.slug, *(factor.name for factor in factors)]
    parts += ["grid"] * request.grid
    parts += [f"{name}-{value}" for name, value in fixed.items()]
    parts += [base.recipe_name] * (base.recipe_name != SEARCHED)
    parts.append(f"{base.candidate.train.epochs}-epochs")
    own = request.base.hold_out == HOLD_OUT
    selection = replace(request.base.selection, hold_out=0.0) if own else request.base.selection
    return short_name("-".join(parts) + selection.suffix)


def _require_name(name: str | None) -> None:
    """Raises ConfigError for one that is no folder's."""
    try:
        if name is not None:
            study_paths(name)
    except StudyError:
        raise ConfigError(
            f"--name is the name of a folder, without separators or a leading dot, but is {name!r}", hint="--name depths"
        ) from None


def _orders(request: AblateSpec, folder: Path, definition: Definition, base: _Base, ctx: TrainingContext) -> list[Order]:
    """All variants by the first seed before any by the second. A seed draws the same in all of them."""
    orders = []
    digest = int(definition.base.candidate.digest, 16)
    for seed in definition.seeds:
        mixed = mix_seed(ctx.settings.seed, digest, seed)
        for variant in definition.variants:
            if variant.same_as is None:
                orders.append(
                    Order(
                        run=run_paths(folder, variant.name, seed),
                        subject=_subject(base.subject, variant),
                        recipe=definition.recipe,
                        candidate=variant.candidate,
                        tta=tta_by(base.recipe, variant.candidate),
                        seed=seed,
                        mixed_seed=mixed,
                        selection=request.base.selection,
                        train_images=ctx.chosen.train_images,
                    )
                )
    return orders


def _subject(subject: Subject, variant: Variant) -> Subject:
    title = f"{subject.title}, {variant.title}" if variant.levels else subject.title
    return replace(subject, title=title, candidate=variant.candidate, accuracy=None if variant.levels else subject.accuracy)


def _plan(folder: Path, definition: Definition, pending: Sequence[Order], there: int, ctx: TrainingContext) -> AblationPlan:
    for order in pending:
        begin(order, ctx)
    return AblationPlan(
        folder=folder,
        definition=definition,
        pending=tuple(pending),
        there=there,
        train_images=ctx.chosen.train_images,
        held_out=ctx.held_out,
        warnings=tuple(warnings_of(definition)),
    )


def warnings_of(definition: Definition) -> list[str]:
    """What is allowed and yet probably not meant, a sentence each."""
    base = definition.base.candidate.train
    found = dict.fromkeys(text for variant in definition.variants for text in variant.candidate.train.warnings())
    for variant in definition.variants:
        train = variant.candidate.train
        if (train.optimiser in ADAMS) != (base.optimiser in ADAMS) and train.peak_lr == base.peak_lr:
            own = "adam_lr=0.002"
            if base.optimiser in ADAMS:  # which takes lr itself where it has no adam_lr
                own = f"adam_lr={base.peak_lr:g} --set lr=0.1"
            found[
                f"{variant.title} trains at the base's peak learning rate, {train.peak_lr:g}, though rates differ by orders "
                f"between optimisers; with --set {own} it has its own"
            ] = None
    return list(found)


def _train(
    request: AblateSpec,
    ctx: TrainingContext,
    pending: Sequence[Order],
    on_epoch: Heard,
    stop: Stop,
    note: Callable[[str], None],
) -> tuple[dict[str, str], list[Order]]:
    """Returns what failed, and what is suspended."""
    queue = Queue(pending, ctx, request.placement, on_epoch, stop, note)
    trained = queue.run()
    for order in queue.diverged:
        mark_diverged(order.run, queue.failures.pop(order.name))
    for order in trained:
        note(f"judging {order.name}")
        finish(order, ctx, note, opens_test=False, in_ledger=False)
    return queue.failures, queue.suspended
