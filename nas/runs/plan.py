"""One retraining, worked out before it begins: which network, by which recipe, how long, on which images, under which name."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from nas.config import Candidate, check_epochs
from nas.data.datasets import UNMIRRORED
from nas.data.loader import TrainBatches, mix_seed
from nas.data.splits import DataSelection
from nas.errors import ConfigError, StudyError
from nas.models import build_model
from nas.paths import PRESET, TrialPaths
from nas.runs.context import TrainingContext
from nas.runs.select import Subject, find_subject
from nas.space.recipes import AUTO, LONG_FROM, SEARCHED, Recipe, load_recipe
from nas.specs import RetrainSpec
from nas.study.settings import StudySettings
from nas.train.evaluate import TTA, fitting_tta
from nas.train.pace import measure_pace

MEASURED_SHARE = 0.01
"""Of the time that is given, at most, goes into timing some steps; and …"""
MEASURED_SECONDS = (2.0, 20.0)
"""… at least and at most so many seconds of it."""
MEASURED_IMAGES = 500
PASSES = {"none": 1, "flip": 2, "flip_shift": 6}
"""Forward passes of an image under each test-time augmentation."""
assert PASSES.keys() == TTA.keys()


@dataclass(frozen=True)
class Order:
    run: TrialPaths
    subject: Subject
    recipe: str
    """By name, `auto` resolved."""
    candidate: Candidate
    """By that recipe, with the epochs of this training."""
    tta: str
    seed: int
    """As asked for."""
    mixed_seed: int
    """What all that is drawn follows from."""
    selection: DataSelection
    train_images: int

    @property
    def name(self) -> str:
        """Of its run."""
        return self.run.folder.name

    @property
    def identity(self) -> str:
        """Of its checkpoint."""
        return f"{self.candidate.digest} seed {self.mixed_seed} images {self.train_images}"


def make_order(request: RetrainSpec, ctx: TrainingContext, note: Callable[[str], None]) -> Order:
    """Raises NasError."""
    if request.epochs is not None and request.seconds is not None:
        raise ConfigError(
            f"--epochs {request.epochs} and --time both say how long it trains", hint="leave one out: --time finds the epochs"
        )
    subject = asked_subject(request, ctx.settings)
    if request.seconds is None:
        name, recipe, epochs = by_epochs(request, subject.default_epochs)
        run = TrialPaths(request.paths.retrained / _run_name(subject, name, f"{epochs}-epochs", request))
    else:
        named = request.recipe if request.recipe == AUTO else load_recipe(request.recipe, 1)[0]
        run = TrialPaths(request.paths.retrained / _run_name(subject, named, f"{request.seconds:g}s", request))
        name, recipe, epochs = _begun(run, request) or _by_time(request, request.seconds, subject, ctx, note)
    candidate = recipe.fit(subject.candidate, epochs)
    if run.candidate.is_file():
        _require_same(run, candidate)
    return Order(
        run=run,
        subject=subject,
        recipe=name,
        candidate=candidate,
        tta=tta_by(recipe, candidate),
        seed=request.seed,
        mixed_seed=mix_seed(ctx.settings.seed, int(candidate.digest, 16), request.seed),
        selection=request.selection,
        train_images=ctx.chosen.train_images,
    )


def asked_subject(request: RetrainSpec, settings: StudySettings) -> Subject:
    """The network that is asked for; a preset, whose recipe is for photographs, without flips where a mirrored image is another
    one, such as of a digit. Raises NasError with the choices."""
    subject = find_subject(request.paths, request.which)
    if not subject.title.startswith(PRESET) or settings.data.dataset not in UNMIRRORED:
        return subject
    train = subject.candidate.train
    augment = train.augment.model_copy(update={"flip": "none", "vertical_flip": 0.0})
    candidate = subject.candidate.model_copy(update={"train": train.model_copy(update={"augment": augment})})
    return replace(subject, candidate=candidate)


def by_epochs(request: RetrainSpec, default: int) -> tuple[str, Recipe, int]:
    """The recipe with its name, and how many epochs, where no time is given: those asked for, the recipe's, or the default."""
    if request.epochs is not None:
        check_epochs(request.epochs)
        return *load_recipe(request.recipe, request.epochs), request.epochs
    name, recipe = load_recipe(request.recipe, default)
    own = None if request.recipe == AUTO else recipe.epochs
    return name, recipe, own or default


def _by_time(
    request: RetrainSpec, seconds: float, subject: Subject, ctx: TrainingContext, note: Callable[[str], None]
) -> tuple[str, Recipe, int]:
    name, recipe = load_recipe(request.recipe, 1)
    epochs = _epochs_within(seconds, recipe.fit(subject.candidate, 1), recipe, ctx)
    if request.recipe == AUTO and epochs >= LONG_FROM:
        name, recipe = load_recipe(request.recipe, epochs)
        epochs = _epochs_within(seconds, recipe.fit(subject.candidate, epochs), recipe, ctx)
    note(f"{subject.title}: {epochs} epochs by recipe {name!r} take about {seconds:g} s here, by some timed steps")
    return name, recipe, epochs


def _epochs_within(seconds: float, candidate: Candidate, recipe: Recipe, ctx: TrainingContext) -> int:
    """How many epochs take at most so long, with the start and what is evaluated at the end. Raises ConfigError for less than
    one."""
    dataset, chosen, train = ctx.dataset, ctx.chosen, candidate.train
    batches = TrainBatches.by_recipe(ctx.place(chosen.images, chosen.train), train, 0, len(dataset.classes))
    torch.manual_seed(0)
    pace = measure_pace(
        build_model(candidate.arch, dataset.shape),
        batches,
        ctx.place(chosen.images, chosen.train_indices[:MEASURED_IMAGES]),
        train,
        ctx.precision,
        min(max(MEASURED_SECONDS[0], MEASURED_SHARE * seconds), MEASURED_SECONDS[1]),
    )
    epoch = pace.epoch(len(batches), 0)
    unseen = ctx.test_images + ctx.held_out
    at_the_end = pace.start + pace.image * unseen * (1 + 2 * PASSES[tta_by(recipe, candidate)])
    epochs = int((seconds - at_the_end) / epoch)
    if epochs < 1:
        raise ConfigError(
            f"--time {seconds:g}s is too short: an epoch of this network takes about {epoch:.1f} s here, and what comes before "
            f"and after the training {at_the_end:.1f} s",
            hint=f"--time {at_the_end + 10 * epoch:.0f}s has room for ten epochs; --train-subset N makes them shorter",
        )
    return epochs


def tta_by(recipe: Recipe, candidate: Candidate) -> str:
    """A network that has seen no mirrored images says nothing of them."""
    fitting = fitting_tta(candidate.train.augment)
    return fitting if recipe.tta is None or fitting == "none" else recipe.tta


def _begun(run: TrialPaths, request: RetrainSpec) -> tuple[str, Recipe, int] | None:
    """What a run of so much time was begun with, which goes on."""
    if not run.candidate.is_file():
        return None
    begun = Candidate.from_json(run.candidate.read_bytes(), source=str(run.candidate))
    return *load_recipe(request.recipe, begun.train.epochs), begun.train.epochs


def _require_same(run: TrialPaths, candidate: Candidate) -> None:
    begun = Candidate.from_json(run.candidate.read_bytes(), source=str(run.candidate))
    if begun.digest != candidate.digest:
        raise StudyError(
            f"{run.folder} was begun by another recipe of that name, or by an older version of it",
            hint="give the recipe's file another name, or remove that folder",
        )


def _run_name(subject: Subject, recipe: str, length: str, request: RetrainSpec) -> str:
    by = "" if recipe == SEARCHED else f"-{recipe}"
    return f"{subject.slug}{by}-{length}-seed-{request.seed}{request.selection.suffix}"
