"""One retraining, worked out before it begins: which network, by which recipe, how long, on which images, under which name."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace

import filelock
import torch

from nas.config import Candidate, check_epochs
from nas.data.datasets import UNMIRRORED, Dataset
from nas.data.loader import TrainBatches, mix_seed
from nas.data.material import Chosen, Material
from nas.data.stream import place
from nas.errors import ConfigError, StudyError
from nas.models import build_model
from nas.paths import StudyPaths, TrialPaths
from nas.presets import PREFIX
from nas.recipes import AUTO, LONG_FROM, SEARCHED, Recipe, load_recipe
from nas.search.settings import StudySettings
from nas.subjects import Subject, find_subject
from nas.train.device import Precision
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
class RetrainRequest:
    paths: StudyPaths
    which: str = "best"
    """`best`, a trial's number, or `preset:NAME`."""
    epochs: int | None = None
    recipe: str = SEARCHED
    """A name, or a file's path."""
    seconds: float | None = None
    """In place of epochs: as many as take so long, with the evaluation at the end."""
    seed: int = 0
    include_test_labels: bool = False
    train_subset: int | None = None
    """Train on so many of the images only, stratified: for trying things out."""
    hold_out: float = 0.0
    """Share of the training images that judges instead of training."""
    data_folder: str | None = None
    """Where the data lies now, if it has moved since the search."""
    device: str = "auto"
    gpus: int | None = None
    """That train it together, each a part of every batch; on the CPU processes."""
    compiled: bool | None = None
    """By torch.compile; None compiles on CUDA, where one process trains."""

    def of(self, which: str, seed: int) -> "RetrainRequest":
        return replace(self, which=which, seed=seed)

    def on(self, device: str) -> "RetrainRequest":
        return replace(self, device=device)

    @property
    def material(self) -> Material:
        return Material(self.include_test_labels, self.train_subset, self.hold_out)


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
    material: Material
    identity: str
    """Of its checkpoint."""


def make_order(
    request: RetrainRequest,
    settings: StudySettings,
    dataset: Dataset,
    chosen: Chosen,
    device: torch.device,
    precision: Precision,
    note: Callable[[str], None],
) -> Order:
    """Raises NasError."""
    if request.epochs is not None:
        check_epochs(request.epochs)
        if request.seconds is not None:
            raise ConfigError(
                f"--epochs {request.epochs} and --time both say how long it trains", hint="leave one out: --time finds the epochs"
            )
    subject = unmirrored(find_subject(request.paths, request.which), settings.data.dataset)
    if request.seconds is None:
        name, recipe, epochs = by_epochs(request, subject)
        run = TrialPaths(request.paths.retrained / run_name(subject, name, f"{epochs}-epochs", request))
    else:
        named = request.recipe if request.recipe == AUTO else load_recipe(request.recipe, 1)[0]
        run = TrialPaths(request.paths.retrained / run_name(subject, named, f"{request.seconds:g}s", request))
        name, recipe, epochs = _begun(run, request) or _by_time(request, subject, dataset, chosen, device, precision, note)
    candidate = recipe.fit(subject.candidate, epochs)
    if run.candidate.is_file():
        _require_same(run, candidate)
    mixed = mix_seed(settings.seed, int(candidate.digest, 16), request.seed)
    return Order(
        run=run,
        subject=subject,
        recipe=name,
        candidate=candidate,
        tta=tta_by(recipe, candidate),
        seed=request.seed,
        mixed_seed=mixed,
        material=request.material,
        identity=f"{candidate.digest} seed {mixed} images {chosen.train_images}",
    )


def unmirrored(subject: Subject, dataset: str) -> Subject:
    """A preset, whose recipe is for photographs, without flips where a mirrored image is another one, such as of a digit."""
    if not subject.title.startswith(PREFIX) or dataset not in UNMIRRORED:
        return subject
    train = subject.candidate.train
    augment = train.augment.model_copy(update={"flip": "none", "vertical_flip": 0.0})
    candidate = subject.candidate.model_copy(update={"train": train.model_copy(update={"augment": augment})})
    return replace(subject, candidate=candidate)


def by_epochs(request: RetrainRequest, subject: Subject) -> tuple[str, Recipe, int]:
    """The recipe with its name, and how many epochs, where no time is given."""
    if request.epochs is not None:
        return *load_recipe(request.recipe, request.epochs), request.epochs
    name, recipe = load_recipe(request.recipe, subject.default_epochs)
    own = None if request.recipe == AUTO else recipe.epochs
    return name, recipe, own or subject.default_epochs


def _by_time(
    request: RetrainRequest,
    subject: Subject,
    dataset: Dataset,
    chosen: Chosen,
    device: torch.device,
    precision: Precision,
    note: Callable[[str], None],
) -> tuple[str, Recipe, int]:
    assert request.seconds is not None
    name, recipe = load_recipe(request.recipe, 1)
    epochs = epochs_within(request.seconds, recipe.fit(subject.candidate, 1), recipe, dataset, chosen, device, precision)
    if request.recipe == AUTO and epochs >= LONG_FROM:
        name, recipe = load_recipe(request.recipe, epochs)
        epochs = epochs_within(request.seconds, recipe.fit(subject.candidate, epochs), recipe, dataset, chosen, device, precision)
    note(f"{subject.title}: {epochs} epochs by recipe {name!r} take about {request.seconds:g} s here, by some timed steps")
    return name, recipe, epochs


def epochs_within(
    seconds: float,
    candidate: Candidate,
    recipe: Recipe,
    dataset: Dataset,
    chosen: Chosen,
    device: torch.device,
    precision: Precision,
) -> int:
    """How many epochs take at most so long, with the start and what is evaluated at the end. Raises ConfigError for less than
    one."""
    data = place(chosen.images, dataset.mean, dataset.std, device, chosen.train)
    judged = place(chosen.images, dataset.mean, dataset.std, device, chosen.train_indices[:MEASURED_IMAGES])
    train = candidate.train
    batches = TrainBatches.by_recipe(data, train, 0, len(dataset.classes))
    torch.manual_seed(0)
    pace = measure_pace(
        build_model(candidate.arch, dataset.shape),
        batches,
        judged,
        train,
        precision,
        min(max(MEASURED_SECONDS[0], MEASURED_SHARE * seconds), MEASURED_SECONDS[1]),
    )
    epoch = pace.epoch(len(batches), 0)
    unseen = len(dataset.test) if dataset.test is not None else 0
    unseen += 0 if chosen.hold_out is None else len(chosen.hold_out)
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


def _begun(run: TrialPaths, request: RetrainRequest) -> tuple[str, Recipe, int] | None:
    """What a run of so much time was begun with, which goes on."""
    if not run.candidate.is_file():
        return None
    begun = Candidate.from_json(run.candidate.read_text(), source=str(run.candidate))
    return *load_recipe(request.recipe, begun.train.epochs), begun.train.epochs


def _require_same(run: TrialPaths, candidate: Candidate) -> None:
    begun = Candidate.from_json(run.candidate.read_text(), source=str(run.candidate))
    if begun.digest != candidate.digest:
        raise StudyError(
            f"{run.folder} was begun by another recipe of that name, or by an older version of it",
            hint="give the recipe's file another name, or remove that folder",
        )


def held(orders: Iterable[Order]) -> AbstractContextManager[None]:
    return held_runs([order.run for order in orders])


@contextmanager
def held_runs(runs: Iterable[TrialPaths], command: str = "nas retrain", seed: str = "--seed N") -> Iterator[None]:
    """Their folders belong to this process meanwhile. Raises StudyError where another one trains such a run, or a folder cannot
    be written. `seed`: the option by which `command` takes another one."""
    with ExitStack() as locks:
        for run in runs:
            folder = run.folder
            try:
                folder.mkdir(parents=True, exist_ok=True)
                locks.enter_context(filelock.FileLock(folder / "run.lock", timeout=0))
            except filelock.Timeout:
                raise StudyError(
                    f"{folder.name} is being trained by another {command}",
                    hint=f"wait for it, or train another network: {seed}, --epochs N, --recipe NAME",
                ) from None
            except OSError as error:
                raise StudyError(
                    f"the run's folder {folder.absolute()} cannot be written: {error.strerror}",
                    hint="make room, or work in another folder: NAS_STUDIES=FOLDER",
                ) from None
        yield


def run_name(subject: Subject, recipe: str, length: str, request: RetrainRequest) -> str:
    by = "" if recipe == SEARCHED else f"-{recipe}"
    return f"{subject.slug}{by}-{length}-seed-{request.seed}{request.material.suffix}"
