"""Baselines, worked out before they begin: which networks, like which network of the study, by which seeds, under which names."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.config import Candidate, Frozen, TrainConfig
from nas.data.loader import mix_seed
from nas.data.splits import DataSelection
from nas.errors import ConfigError, NasError, StudyError
from nas.foreign.known import KnownNetwork, measure, named
from nas.paths import StudyPaths, TrialPaths
from nas.runs.plan import asked_subject, by_epochs, tta_by
from nas.runs.select import Subject
from nas.space.recipes import SEARCHED, Recipe
from nas.specs import BaselineSpec
from nas.study.settings import StudySettings


class Definition(Frozen):
    """What a baseline is, fixed from its start."""

    network: KnownNetwork
    like: str
    """`trial 7`, or `preset:resnet-2322`: whose recipe it is, and whose seeds' order of the images and draws."""
    recipe: str
    """By name, `auto` resolved."""
    train: TrainConfig
    tta: str
    seed: int
    hold_out: float
    train_subset: int | None


@dataclass(frozen=True)
class BaselineOrder:
    run: TrialPaths
    definition: Definition
    mixed_seed: int
    """What all that is drawn follows from: the one of the retraining that it is like."""

    def identity(self, train_images: int) -> str:
        """Of its checkpoint."""
        recipe = hashlib.sha256(self.definition.train.canonical().to_json().encode()).hexdigest()[:16]
        return f"{self.definition.network.digest} {recipe} seed {self.mixed_seed} images {train_images}"


@dataclass(frozen=True)
class Alike:
    """What the networks are trained like."""

    subject: Subject
    recipe_name: str
    recipe: Recipe
    candidate: Candidate
    """That network's, by that recipe, for so many epochs."""

    @property
    def left_out(self) -> str | None:
        """What of the recipe is part of our networks alone."""
        rate = self.candidate.arch.stochastic_depth
        if self.recipe.stochastic_depth is None or not rate:
            return None
        return (
            f"recipe {self.recipe_name!r} also gives the networks of nas stochastic depth, {rate:g} here: a part of the network, "
            "of which others have what their own code says"
        )


def find_alike(request: BaselineSpec, settings: StudySettings) -> Alike:
    """Raises NasError."""
    try:
        subject = asked_subject(request.retraining, settings)
    except StudyError as error:
        if request.like != "best":
            raise
        raise StudyError(
            error.message, hint="--like preset:resnet-2222-slim trains by that preset's recipe; nas presets shows the names"
        ) from None
    name, recipe, epochs = by_epochs(request.retraining, subject.default_epochs)
    return Alike(subject, name, recipe, recipe.fit(subject.candidate, epochs))


# ------------------------------------------------------------------------------------------------------------ networks


def find_networks(
    request: BaselineSpec,
    alike: Alike,
    settings: StudySettings,
    has_ended: Callable[[TrialPaths], bool],
    printed: Callable[[str, str], None],
) -> list[KnownNetwork]:
    """Each measured, but for those whose every training has ended and whose code is the same as then. Raises ConfigError with
    what is wrong with any of them."""
    texts = list(dict.fromkeys(request.networks))
    if not texts:
        raise ConfigError("no network is named", hint="nas baseline torchvision:resnet18")
    known = {network.name: network for network in _begun_networks(request.paths)}
    networks, wrong = [], []
    for text in texts:
        try:
            named(text)
            network = known.get(text)
            if network is None or not all(has_ended(order.run) for order in make_orders(request, alike, settings, [network])):
                network = measure(text, settings.shape, settings.budget, request.timeout, printed)
        except NasError as error:
            wrong.append(error)
        else:
            networks.append(network)
    if len(wrong) > 1:
        listed = "\n".join(f"  {error.message}" + (f"\n    ({error.hint})" if error.hint else "") for error in wrong)
        raise ConfigError(f"{len(wrong)} of {len(texts)} networks cannot be trained, and none was:\n{listed}")
    if wrong:
        raise wrong[0]
    return list({network.slug: network for network in reversed(networks)}.values())[::-1]  # one may be named in several ways


def _begun_networks(paths: StudyPaths) -> list[KnownNetwork]:
    """Whose code is the same as when they were begun."""
    networks = [read_begun(run).network for run in _begun_runs(paths)]
    return [network for network in networks if _is_there(network) and network.is_unchanged]


def _is_there(network: KnownNetwork) -> bool:
    try:
        named(network.name)
    except ConfigError:  # its file is gone, or this is another folder
        return False
    return True


def others_of_that_name(paths: StudyPaths, network: KnownNetwork) -> list[TrialPaths]:
    """Trainings of the same name whose code was another one."""
    found = []
    for run in _begun_runs(paths):
        other = read_begun(run).network
        if other.name == network.name and (other.files, other.text) != (network.files, network.text):
            found.append(run)
    return found


# -------------------------------------------------------------------------------------------------------------- orders


def begun_file(run: TrialPaths) -> Path:
    return run.folder / "begun.json"


def read_begun(run: TrialPaths) -> Definition:
    file = begun_file(run)
    return Definition.from_json(file.read_bytes(), source=str(file))


def _begun_runs(paths: StudyPaths) -> list[TrialPaths]:
    return [TrialPaths(file.parent) for file in sorted(paths.baselines.glob("*/begun.json"))]


def make_orders(
    request: BaselineSpec, alike: Alike, settings: StudySettings, networks: Sequence[KnownNetwork]
) -> list[BaselineOrder]:
    """All networks by the first seed before any by the second. Raises StudyError where one was begun by another recipe."""
    digest, orders = int(alike.candidate.digest, 16), []
    for seed in request.seeds:
        for network in networks:
            definition = Definition(
                network=network,
                like=alike.subject.title,
                recipe=alike.recipe_name,
                train=alike.candidate.train,
                tta=tta_by(alike.recipe, alike.candidate),
                seed=seed,
                hold_out=request.hold_out,
                train_subset=request.train_subset,
            )
            run = TrialPaths(request.paths.baselines / _run_name(alike, definition, request.selection))
            _require_same(run, definition)
            orders.append(BaselineOrder(run, definition, mix_seed(settings.seed, digest, seed)))
    return orders


def _run_name(alike: Alike, definition: Definition, selection: DataSelection) -> str:
    by = "" if alike.recipe_name == SEARCHED else f"-{alike.recipe_name}"
    length = f"{definition.train.epochs}-epochs"
    return f"{definition.network.slug}-like-{alike.subject.slug}{by}-{length}-seed-{definition.seed}{selection.suffix}"


def _require_same(run: TrialPaths, definition: Definition) -> None:
    if not begun_file(run).is_file():
        return
    begun = read_begun(run)
    if begun.train.canonical() != definition.train.canonical() or begun.tta != definition.tta:
        raise StudyError(
            f"{run.folder} was begun by another recipe of that name, or by an older version of it",
            hint="give the recipe's file another name, or remove that folder",
        )
