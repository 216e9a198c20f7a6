"""Plans a run before it begins: its network, recipe, length, images and name."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from nas.budget import count_macs
from nas.config import ArchConfig, Candidate, TrainConfig, check_epochs, flop_word
from nas.data.datasets import UNMIRRORED
from nas.data.loader import TrainBatches, mix_seed
from nas.data.splits import DataSelection
from nas.device import cpu_threads
from nas.errors import ConfigError, StudyError
from nas.files import write_whole
from nas.jobs.job import Job
from nas.models import build_model
from nas.paths import PRESET, TrialPaths
from nas.runs.context import TrainingContext, chooses_threads
from nas.runs.select import Subject, find_subject
from nas.space.recipes import AUTO, LONG_FROM, SEARCHED, Recipe, load_recipe
from nas.specs import RetrainSpec
from nas.study.settings import StudySettings
from nas.train.evaluate import TTA, fitting_tta
from nas.train.pace import Pace, measure_pace
from nas.train.threads import MARGIN, TIMED_IMAGES, is_timed

if TYPE_CHECKING:
    from nas.foreign.known import KnownNetwork

MEASURED_SHARE = 0.01  # largest share of the given time that is spent on timing steps, for each number of threads
MEASURED_SECONDS = (2.0, 20.0)  # shortest and longest time spent on it, likewise
MEASURED_IMAGES = 500
PASSES = {"none": 1, "flip": 2, "flip_shift": 6}  # forward passes of an image under each test-time augmentation
assert PASSES.keys() == TTA.keys()


def judging_passes(images: int, tta: str) -> int:
    """Number of forward passes to evaluate a network on so many images: as they are, and, with test-time augmentation, clean and
    shifted."""
    return images * (1 + 2 * PASSES[tta])


@dataclass(frozen=True)
class Plan(ABC):
    """A run to be trained."""

    run: TrialPaths
    tta: str
    seed: int  # As requested
    mixed_seed: int  # Seed of all its random numbers

    @property
    def name(self) -> str:
        return self.run.folder.name

    @property
    def has_ended(self) -> bool:
        return any(file.is_file() for file in (self.run.card, self.run.baseline, self.run.diverged))

    @property
    @abstractmethod
    def train(self) -> TrainConfig: ...

    @abstractmethod
    def begin(self, ctx: TrainingContext) -> None:
        """Writes the file that says what this run trains. Raises NasError."""

    @abstractmethod
    def job(self, ctx: TrainingContext) -> Job: ...

    def _job(self, network: "ArchConfig | KnownNetwork", digest: str, ctx: TrainingContext, **more: Any) -> Job:
        """`digest`: of the network and its recipe."""
        return Job(
            key=self.name,
            title=self.name,
            folder=self.run.folder.absolute(),
            network=network,
            train=self.train,
            seed=self.mixed_seed,
            identity=f"{digest} seed {self.mixed_seed} images {ctx.selected.train_images}",
            **more,
        )


@dataclass(frozen=True)
class RunPlan(Plan):
    """A run of a network of nas."""

    subject: Subject
    recipe: str  # Its name, with `auto` resolved
    candidate: Candidate  # With this recipe and the epochs of this training

    @property
    def train(self) -> TrainConfig:
        return self.candidate.train

    def begin(self, ctx: TrainingContext) -> None:
        ctx.devices.require_share(self.train.batch_of(ctx.selected.train_images), self.train.hardest)
        write_whole(self.run.candidate, self.candidate.to_json().encode())

    def job(self, ctx: TrainingContext) -> Job:
        parts = self.subject.micro_batches
        return self._job(self.candidate.arch, self.candidate.digest, ctx, micro_batches=parts, compiled=ctx.compiled)


@dataclass(frozen=True)
class ByRecipe:
    """A network and the recipe that trains it for so many epochs. With `compute` (operations, MACs) the images of an epoch follow
    from the operations of the training."""

    subject: Subject
    recipe_name: str
    recipe: Recipe
    epochs: int
    compute: tuple[float, int] | None = field(default=None, kw_only=True)

    @cached_property
    def candidate(self) -> Candidate:
        fitted = self.recipe.fit(self.subject.candidate, self.epochs)
        return fitted if self.compute is None else fitted.for_compute(*self.compute)


def plan_run(spec: RetrainSpec, settings: StudySettings) -> RunPlan:
    """The plan for a number of epochs; needs no image. Raises NasError."""
    subject = asked_subject(spec, settings)
    chosen = by_epochs(spec, subject, subject.default_epochs)
    return _plan(spec, settings, chosen, chosen.recipe_name, f"{chosen.epochs}-epochs")


def plan_timed_runs(
    specs: Sequence[RetrainSpec], seconds: float, ctx: TrainingContext, note: Callable[[str], None]
) -> list[RunPlan]:
    """The plans for as many epochs as fit into the time, the same for all seeds of a network; a run that has begun keeps its
    epochs. The specs differ in the network and the seed. Raises NasError."""
    first = specs[0]
    if first.flop is not None:
        raise ConfigError("--compute and --time contradict each other", hint="leave one out")
    if first.epochs is not None:
        raise ConfigError(
            f"--epochs {first.epochs} and --time contradict each other", hint="leave one out; --time sets the number of epochs"
        )
    named = first.recipe if first.recipe == AUTO else load_recipe(first.recipe, 1)[0]
    length = f"{seconds:g}s"
    subjects = {spec.which: asked_subject(spec, ctx.settings) for spec in specs}
    begun: dict[RetrainSpec, ByRecipe] = {}
    for spec in specs:
        if (candidate := _read_begun(_run_of(spec, subjects[spec.which], named, length))) is not None:
            begun[spec] = _as_begun(spec, subjects[spec.which], candidate)
    by_network = {spec.which: chosen for spec, chosen in reversed(begun.items())}
    for which, subject in subjects.items():
        if which not in by_network:
            by_network[which] = _by_time(first, seconds, subject, ctx, note)
    return [_plan(spec, ctx.settings, begun.get(spec, by_network[spec.which]), named, length) for spec in specs]


def _as_begun(spec: RetrainSpec, subject: Subject, begun: Candidate) -> ByRecipe:
    """With the recipe of the run's start, which `auto` chose by an estimate that may have been on the other side of its limit."""
    epochs = begun.train.epochs
    choices = [ByRecipe(subject, *load_recipe(spec.recipe, assumed), epochs) for assumed in (1, LONG_FROM)]
    return next((chosen for chosen in choices if chosen.candidate.digest == begun.digest), choices[0])


def plan_compute(spec: RetrainSpec, flop: float, ctx: TrainingContext) -> RunPlan:
    """The plan for a number of operations, with about as many epochs as passes over the images. Raises NasError."""
    if spec.epochs is not None:
        raise ConfigError(f"--epochs {spec.epochs} and --compute contradict each other", hint="leave one out")
    subject, images = asked_subject(spec, ctx.settings), ctx.selected.train_images
    macs = count_macs(subject.candidate.arch, ctx.dataset.shape)
    name, recipe = load_recipe(spec.recipe, 1)
    train = recipe.fit(subject.candidate, 1).train
    if spec.recipe == AUTO and flop / train.flop(macs, images) >= LONG_FROM:
        name, recipe = load_recipe(spec.recipe, LONG_FROM)
        train = recipe.fit(subject.candidate, 1).train
    epoch = train.flop(macs, images)
    if flop < epoch:
        raise ConfigError(
            f"--compute {flop_word(flop)} is less than one epoch of this network, {epoch / 1e15:.3g} PFLOP: 6 × "
            f"{macs:,} MACs × {train.images_of(images):,} images",
            hint=f"--compute {flop_word(10 * epoch)} is enough for ten epochs; --train-subset N makes them shorter",
        )
    chosen = ByRecipe(subject, name, recipe, round(flop / epoch), compute=(flop, macs))
    return _plan(spec, ctx.settings, chosen, name, f"{flop / 1e15:g}PFLOP")


def _plan(spec: RetrainSpec, settings: StudySettings, chosen: ByRecipe, named: str, length: str) -> RunPlan:
    """`named`: the recipe in the run's name. Raises StudyError if the run was begun with another recipe."""
    candidate = chosen.candidate
    run = _run_of(spec, chosen.subject, named, length)
    begun = _read_begun(run)
    if begun is not None and begun.digest != candidate.digest:
        raise another_recipe(run)
    return RunPlan(
        run=run,
        subject=chosen.subject,
        recipe=chosen.recipe_name,
        candidate=candidate,
        tta=tta_by(chosen.recipe, candidate),
        seed=spec.seed,
        mixed_seed=mix_seed(settings.seed, int(candidate.digest, 16), spec.seed),
    )


def _read_begun(run: TrialPaths) -> Candidate | None:
    return Candidate.from_file(run.candidate) if run.candidate.is_file() else None


def another_recipe(run: TrialPaths) -> StudyError:
    return StudyError(
        f"{run.folder} was started with another recipe file of the same name, or with an older version of it",
        hint="give the recipe's file another name, or remove that folder",
    )


def run_name(slug: str, recipe: str, length: str, seed: int, selection: DataSelection) -> str:
    by = "" if recipe == SEARCHED else f"-{recipe}"
    return f"{slug}{by}-{length}-seed-{seed}{selection.suffix}"


def _run_of(spec: RetrainSpec, subject: Subject, recipe: str, length: str) -> TrialPaths:
    return TrialPaths(spec.paths.retrained / run_name(subject.slug, recipe, length, spec.seed, spec.selection))


def asked_subject(spec: RetrainSpec, settings: StudySettings) -> Subject:
    """The requested network. The recipe of a preset is for photographs: it loses its flips for a data set in which mirrored
    images have another meaning, such as digits. Raises NasError with the choices."""
    subject = find_subject(spec.paths, spec.which)
    if not subject.title.startswith(PRESET) or settings.data.dataset not in UNMIRRORED:
        return subject
    train = subject.candidate.train
    augment = train.augment.model_copy(update={"flip": "none", "vertical_flip": 0.0})
    candidate = subject.candidate.model_copy(update={"train": train.model_copy(update={"augment": augment})})
    return replace(subject, candidate=candidate)


def by_epochs(spec: RetrainSpec, subject: Subject, default: int) -> ByRecipe:
    """Without a given time: for the requested epochs, else the recipe's, else the default."""
    if spec.epochs is not None:
        check_epochs(spec.epochs)
    name, recipe = load_recipe(spec.recipe, spec.epochs or default)
    own = None if spec.recipe == AUTO else recipe.epochs
    return ByRecipe(subject, name, recipe, spec.epochs or own or default)


def tta_by(recipe: Recipe, candidate: Candidate) -> str:
    """The recipe's test-time augmentation, or none for a network that was not trained with flips."""
    fitting = fitting_tta(candidate.train.augment)
    return fitting if recipe.tta is None or fitting == "none" else recipe.tta


def _by_time(spec: RetrainSpec, seconds: float, subject: Subject, ctx: TrainingContext, note: Callable[[str], None]) -> ByRecipe:
    name, recipe = load_recipe(spec.recipe, 1)
    epochs = _epochs_within(spec, seconds, recipe.fit(subject.candidate, 1), recipe, ctx)
    if spec.recipe == AUTO and epochs >= LONG_FROM:
        name, recipe = load_recipe(spec.recipe, epochs)
        epochs = _epochs_within(spec, seconds, recipe.fit(subject.candidate, epochs), recipe, ctx)
    note(f"{subject.title}: {epochs} epochs by recipe {name!r} take about {seconds:g} s here, estimated from timed steps")
    return ByRecipe(subject, name, recipe, epochs)


def _epochs_within(spec: RetrainSpec, seconds: float, candidate: Candidate, recipe: Recipe, ctx: TrainingContext) -> int:
    """How many epochs take at most so long, with the start and the evaluation at the end. Raises ConfigError for less than
    one."""
    dataset, selected, train = ctx.dataset, ctx.selected, candidate.train
    batches = TrainBatches(ctx.place(selected.images, selected.train), train, 0, len(dataset.classes))
    few = ctx.place(selected.images, selected.train_indices[:MEASURED_IMAGES])
    most = min(max(MEASURED_SECONDS[0], MEASURED_SHARE * seconds), MEASURED_SECONDS[1])

    def measure(threads: int) -> Pace:
        torch.manual_seed(0)
        with cpu_threads(threads):
            return measure_pace(build_model(candidate.arch, dataset.shape), batches, few, train, ctx.precision, most)

    threads = torch.get_num_threads()
    pace = usual = measure(threads)
    if threads > 1 and not ctx.compiled and chooses_threads(spec.threads, ctx.device.type, ctx.devices.processes):
        # While other programs use the cores, one thread may be faster, and then the training chooses it, too, if it is long.
        one, parts = measure(1), max(1.0, batches.batch_size / TIMED_IMAGES)
        if usual.step > (1 + MARGIN) * one.step and is_timed(seconds / one.step * parts, usual.step / parts, threads):
            pace = one
    epoch = pace.epoch(len(batches), 0)
    at_the_end = pace.start + pace.image * judging_passes(ctx.test_images + ctx.held_out, tta_by(recipe, candidate))
    epochs = int((seconds - at_the_end) / epoch)
    if epochs < 1:
        raise ConfigError(
            f"--time {seconds:g}s is too short: an epoch of this network takes about {epoch:.1f} s here, and the work before "
            f"and after the training {at_the_end:.1f} s",
            hint=f"--time {at_the_end + 10 * epoch:.0f}s is enough for ten epochs; --train-subset N makes them shorter",
        )
    return epochs
