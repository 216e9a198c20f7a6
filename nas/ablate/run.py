"""`nas ablate` as a whole: works out the variants, trains over the workers what is not trained yet, judges it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import filelock

from nas.ablate.design import Cost, Definition, Variant, fixed_base, make_variants, parse_factors, short_name
from nas.ablate.results import (
    Ablation,
    definition_file,
    diverged_file,
    has_ended,
    mark_diverged,
    read_ablation,
    read_definition,
    run_paths,
)
from nas.budget import Budget
from nas.config import Candidate, check_epochs
from nas.data.cache import Progress as DecodingProgress
from nas.data.cache import silent
from nas.data.loader import mix_seed
from nas.errors import ConfigError, StudyError
from nas.files import write_whole
from nas.interrupts import Stop
from nas.paths import study_paths
from nas.recipes import AUTO, SEARCHED, Recipe, load_recipe
from nas.retrain import HOLD_OUT, Order, RetrainRequest
from nas.retrain.order import tta_by, unmirrored
from nas.retrain.queue import Heard, Queue, make_executor, name_of
from nas.retrain.run import Workshop, begin, finish, open_workshop
from nas.search.placement import Placement, devices_of
from nas.search.settings import Environment, StudySettings, read_settings
from nas.subjects import Subject, find_subject


@dataclass(frozen=True)
class AblationRequest:
    base: RetrainRequest
    """Which network, by which recipe, how long, on which images; its seed is not asked."""
    factors: tuple[str, ...]
    """As typed: `optimiser=sgd,adam`."""
    placement: Placement
    seeds: tuple[int, ...] = (0, 1, 2)
    fixed: tuple[str, ...] = ()
    """As typed: `adam_lr=0.002`."""
    grid: bool = False
    name: str | None = None
    """Of the ablation; None makes one of the network, the factors and what else differs from the defaults."""


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
    request: AblationRequest,
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
    definition = _define(request, settings, base)  # a mistake there is said before any image is read
    name = request.name or default_name(request, base.subject, definition)
    folder = request.base.paths.ablations / name
    begun = read_definition(folder)
    if begun is not None:
        definition = begun.grown(definition, name)
    devices = devices_of(request.placement)
    shop = open_workshop(request.base.on(devices[0]), decoding)
    with _held(folder):
        write_whole(definition_file(folder), definition.to_json().encode())
        orders = _orders(request, folder, definition, base, shop)
        pending = [order for order in orders if not has_ended(order.run)]
        failures: dict[str, str] = {}
        suspended: list[Order] = []
        if pending:
            on_plan(_plan(folder, definition, pending, len(orders) - len(pending), shop))
            failures, suspended = _train(request, shop, pending, on_epoch, stop, note)
        return Done(folder, read_ablation(folder), failures, len(suspended))


def _find_base(request: AblationRequest, settings: StudySettings) -> _Base:
    """For the epochs that were asked for, or the recipe's own, or those of the search."""
    asked = request.base
    subject = unmirrored(find_subject(asked.paths, asked.which), settings.data.dataset)
    if asked.epochs is not None:
        check_epochs(asked.epochs)
    own = subject.candidate.train.epochs
    name, recipe = load_recipe(asked.recipe, asked.epochs or own)
    epochs = asked.epochs or (None if asked.recipe == AUTO else recipe.epochs) or own
    candidate, fixed = fixed_base(recipe.fit(subject.candidate, epochs), request.fixed)
    return _Base(subject, name, recipe, candidate, fixed)


def _define(request: AblationRequest, settings: StudySettings, base: _Base) -> Definition:
    if not request.base.hold_out:
        raise ConfigError("an ablation is judged by images that are set aside, and --hold-out 0 sets none aside", hint=_HELD_OUT)
    budget = Budget(settings.budget.counted(), settings.shape)

    def cost(candidate: Candidate) -> Cost:
        found = budget.check(candidate.arch)
        return found.params, found.macs, found.sentence(budget.limits) or None

    factors = parse_factors(base.candidate, request.factors, request.grid)
    return Definition(
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


_HELD_OUT = f"--hold-out {HOLD_OUT:g}"


def default_name(request: AblationRequest, subject: Subject, definition: Definition) -> str:
    """`trial-0007-optimiser-activation-18-epochs`: levels and seeds, which may be added, are not in it."""
    parts = [subject.slug, *(factor.name for factor in definition.factors)]
    parts += ["grid"] * request.grid
    parts += [f"{name}-{value}" for name, value in definition.fixed.items()]
    parts += [definition.recipe] * (definition.recipe != SEARCHED)
    parts.append(f"{definition.base.candidate.train.epochs}-epochs")
    own = request.base.hold_out == HOLD_OUT
    material = replace(request.base.material, hold_out=0.0) if own else request.base.material
    return short_name("-".join(parts) + material.suffix)


def _require_name(name: str | None) -> None:
    """Raises ConfigError for one that is no folder's."""
    try:
        if name is not None:
            study_paths(name)
    except StudyError:
        raise ConfigError(
            f"--name is the name of a folder, without separators or a leading dot, but is {name!r}", hint="--name depths"
        ) from None


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Raises StudyError where another process trains there, or it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "ablation.lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise StudyError(
            f"ablation {folder.name!r} is being trained by another nas ablate",
            hint="wait for it; or another one beside it, with --name NAME",
        ) from None
    except OSError as error:
        raise StudyError(
            f"the ablation's folder {folder.absolute()} cannot be written: {error.strerror}",
            hint="make room, or work in another folder: NAS_STUDIES=FOLDER",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _orders(request: AblationRequest, folder: Path, definition: Definition, base: _Base, shop: Workshop) -> list[Order]:
    """All variants by the first seed before any by the second. A seed draws the same in all of them."""
    orders = []
    digest = int(definition.base.candidate.digest, 16)
    for seed in definition.seeds:
        mixed = mix_seed(shop.settings.seed, digest, seed)
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
                        material=request.base.material,
                        identity=f"{variant.candidate.digest} seed {mixed} images {shop.chosen.train_images}",
                    )
                )
    return orders


def _subject(subject: Subject, variant: Variant) -> Subject:
    title = f"{subject.title}, {variant.title}" if variant.levels else subject.title
    return replace(subject, title=title, candidate=variant.candidate, accuracy=None if variant.levels else subject.accuracy)


def _plan(folder: Path, definition: Definition, pending: Sequence[Order], there: int, shop: Workshop) -> AblationPlan:
    for order in pending:
        begin(order, shop)
    held_out = shop.chosen.hold_out
    return AblationPlan(
        folder,
        definition,
        tuple(pending),
        there,
        shop.chosen.train_images,
        0 if held_out is None else len(held_out),
        tuple(warnings_of(definition)),
    )


def warnings_of(definition: Definition) -> list[str]:
    """What is allowed and yet probably not meant, a sentence each."""
    base = definition.base.candidate.train
    found = dict.fromkeys(text for variant in definition.variants for text in variant.candidate.train.warnings())
    for variant in definition.variants:
        train = variant.candidate.train
        if (train.optimiser == "sgd") != (base.optimiser == "sgd") and train.peak_lr == base.peak_lr:
            own = "adam_lr=0.002"
            if base.optimiser != "sgd":  # which takes lr itself where it has no adam_lr
                own = f"adam_lr={base.peak_lr:g} --set lr=0.1"
            found[
                f"{variant.title} trains at the base's peak learning rate, {train.peak_lr:g}, though rates differ by orders "
                f"between optimisers; with --set {own} it has its own"
            ] = None
    return list(found)


def _train(
    request: AblationRequest,
    shop: Workshop,
    pending: Sequence[Order],
    on_epoch: Heard,
    stop: Stop,
    note: Callable[[str], None],
) -> tuple[dict[str, str], list[Order]]:
    """Returns what failed, and what is suspended."""
    queue = Queue(make_executor(shop, request.placement, pending), bool(request.base.compiled), on_epoch, note, stop)
    queue.run(pending)
    for order in queue.diverged:
        mark_diverged(order.run, queue.failures.pop(name_of(order)))
    for order in pending:
        if name_of(order) not in queue.failures and order not in queue.suspended and not diverged_file(order.run).is_file():
            note(f"judging {name_of(order)}")
            finish(order, shop, note, opens_test=False, in_ledger=False)
    return queue.failures, queue.suspended
