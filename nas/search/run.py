"""`nas search`: finds or founds the study, makes sure that it means the same as before, and runs the coordinator."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from pydantic import ValidationError

from nas.budget import Budget
from nas.config import DataConfig, check_epochs, first_problem, parse_count
from nas.data.datasets import Dataset, Split, load_dataset, require_known, split
from nas.data.loader import mix_seed
from nas.errors import ConfigError
from nas.interrupts import suspended_by_signals
from nas.paths import StudyPaths, remember_study, study_paths
from nas.search.coordinator import Coordinator, Display, Progress
from nas.search.executors import Executor
from nas.search.executors.local import LocalExecutor
from nas.search.feasibility import check_feasible
from nas.search.messages import WorkerPlan
from nas.search.pruners import PRUNERS, asha_rungs
from nas.search.samplers import SAMPLERS, STARTUP_TRIALS
from nas.search.settings import Environment, Overrides, StudySettings, read_settings, read_study_space
from nas.search.storage import open_study, sole_coordinator
from nas.search.warm_start import Fitted, Start, enqueue, find_starts, fit_starts
from nas.space import Space
from nas.space_file import load_space
from nas.train.device import pick_device, pick_precision, usable_cores

DEFAULT_TRIALS = 100


@dataclass(frozen=True)
class SearchRequest:
    """What the user asked for; None takes what the study began with, or the default of a new one."""

    study: str | None = None
    space: str | None = None
    dataset: str | None = None
    data_folder: str | None = None
    image_size: int | None = None
    skip_bad_images: bool = False
    train_subset: int | None = None
    seed: int | None = None
    epochs: int | None = None
    max_params: str | None = None
    trials: int = DEFAULT_TRIALS
    timeout: float | None = None
    """Seconds."""
    device: str = "auto"
    warm_start: str | None = None
    """Of a new study: `presets`, `preset:NAME` or `study:NAME`."""


@dataclass(frozen=True)
class SearchPlan:
    """What will be done, printed before it begins."""

    paths: StudyPaths
    settings: StudySettings
    goal: int
    trained: int
    """Before this run."""
    train_images: int
    validation_images: int
    device: str
    precision: str
    rungs: list[int]
    skipped_images: int
    warm_start: list[Fitted]
    """What became of the candidates to begin with; empty where there are none, or the study had begun before."""
    warnings: list[str]


@dataclass(frozen=True)
class SearchResult:
    plan: SearchPlan
    progress: Progress
    interrupted: bool
    """By Ctrl-C or the deadline; the same command goes on."""
    exhausted: bool


class SearchDisplay(Display, Protocol):
    def decoding(self, items: Iterable, what: str, count: int, /) -> Iterable: ...

    def begin(self, plan: SearchPlan) -> None: ...


def run_search(request: SearchRequest, display: SearchDisplay) -> SearchResult:
    """Trains networks until the study holds `request.trials` of them. Raises NasError."""
    if request.trials < 1:
        raise ConfigError(f"--trials counts networks to train and must be at least 1, but is {request.trials}")
    if request.epochs is not None:
        check_epochs(request.epochs)
    if request.timeout is not None and request.timeout <= 0:
        raise ConfigError(f"--timeout must be above 0 seconds, but is {request.timeout:g}")
    prepared = _prepare(request, display)
    paths = prepared.paths
    with sole_coordinator(paths):
        if paths.settings.is_file():
            read_settings(paths).require_same(prepared.settings, paths.name)
        else:
            paths.space.write_text(prepared.space.text)
            paths.settings.write_text(prepared.settings.to_json())
        remember_study(paths)
        return _search(request, display, prepared)


@dataclass(frozen=True)
class _Prepared:
    """All that a search needs, checked before the study is touched."""

    paths: StudyPaths
    settings: StudySettings
    space: Space
    budget: Budget
    dataset: Dataset
    parts: Split
    starts: list[Start]
    device: str


def _prepare(request: SearchRequest, display: SearchDisplay) -> _Prepared:
    device = str(pick_device(request.device))
    paths = study_paths(request.study or default_name(request))
    stored = read_settings(paths) if paths.settings.is_file() else None
    overrides = resolve_overrides(request, stored)
    space = resolve_space(request, paths, stored, overrides)
    data = resolve_data(request, stored)
    dataset = load_dataset(data, display.decoding)
    budget = Budget(space.budget, dataset.shape)
    check_feasible(space, budget)
    settings = StudySettings(
        space=space.name,
        overrides=overrides,
        parameters=space.describe(),
        budget=space.budget,
        data=data,
        data_fingerprint=dataset.fingerprint,
        shape=dataset.shape,
        seed=_first(request.seed, stored and stored.seed, 0),
        environment=Environment.now(),
    )
    starts = []
    if request.warm_start is not None and stored is None:
        starts = find_starts(request.warm_start, settings)
    return _Prepared(paths, settings, space, budget, dataset, split(dataset, data), starts, device)


def _search(request: SearchRequest, display: SearchDisplay, prepared: _Prepared) -> SearchResult:
    paths, settings, space = prepared.paths, prepared.settings, prepared.space
    rungs = asha_rungs(space.epochs)
    done_before = len(open_study(paths).get_trials(deepcopy=False))
    # The sampler's state is not stored; a seed of its own for every run keeps it from repeating its first draws.
    sampler_seed = mix_seed(settings.seed, done_before) % 2**32
    study = open_study(paths, SAMPLERS["tpe"](sampler_seed), PRUNERS["asha"](space.epochs))
    fitted = []
    if not done_before:
        study.set_user_attr("sampler", f"tpe, {STARTUP_TRIALS} start-up trials, multivariate, constant liar")
        study.set_user_attr("pruner", f"asha, rungs after epochs {rungs}")
        study.set_user_attr("settings", settings.model_dump(mode="json"))
        fitted = fit_starts(prepared.starts, space, prepared.budget)
        enqueue(study, space, fitted, paths)
    threads = min(torch.get_num_threads(), usable_cores())
    executor: Executor = LocalExecutor([WorkerPlan(settings.data, prepared.device, threads)])
    coordinator = Coordinator(
        study,
        space,
        prepared.budget,
        executor,
        paths,
        goal=request.trials,
        seed=settings.seed,
        display=display,
        deadline=None if request.timeout is None else time.monotonic() + request.timeout,
    )
    progress = coordinator.progress
    precision = pick_precision(pick_device(prepared.device))
    parts, validation = prepared.parts, prepared.dataset.validation
    plan = SearchPlan(
        paths=paths,
        settings=settings,
        goal=request.trials,
        trained=progress.trained,
        train_images=len(parts.train),
        validation_images=len(validation or ()) if parts.validation is None else len(parts.validation),
        device=prepared.device,
        precision=f"{precision.name} ({precision.reason})",
        rungs=rungs,
        skipped_images=prepared.dataset.skipped,
        warm_start=fitted,
        warnings=space.warnings(),
    )
    display.begin(plan)
    if progress.trained < request.trials:
        with suspended_by_signals(coordinator.request_stop):
            coordinator.run()
    interrupted = coordinator.suspending and progress.trained < progress.goal
    return SearchResult(plan, progress, interrupted, coordinator.exhausted)


def default_name(request: SearchRequest) -> str:
    """`resnet-cifar10`: the space and the data set."""
    space = load_space(request.space or "resnet").name
    dataset = request.dataset or "cifar10"
    require_known(dataset)
    return f"{space}-{dataset}"


def resolve_overrides(request: SearchRequest, stored: StudySettings | None) -> Overrides:
    before = stored.overrides if stored else Overrides()
    max_params = None if request.max_params is None else parse_count(request.max_params)
    return Overrides(epochs=_first(request.epochs, before.epochs), max_params=_first(max_params, before.max_params))


def resolve_space(request: SearchRequest, paths: StudyPaths, stored: StudySettings | None, overrides: Overrides) -> Space:
    """The space that was asked for, else the study's own, else the default."""
    if request.space is None and stored is not None:
        return overrides.applied_to(read_study_space(paths, stored))
    return overrides.applied_to(load_space(request.space or "resnet"))


def resolve_data(request: SearchRequest, stored: StudySettings | None) -> DataConfig:
    before = stored.data if stored else None
    folder = request.data_folder or (before and before.folder)
    values = {
        "dataset": _first(request.dataset, before and before.dataset, "cifar10"),
        "folder": os.path.abspath(folder) if folder else None,
        "image_size": _first(request.image_size, before and before.image_size),
        "skip_bad_images": request.skip_bad_images or bool(before and before.skip_bad_images),
        "subset": _first(request.train_subset, before and before.subset),
        "seed": _first(request.seed, before and before.seed, 0),
    }
    try:
        return DataConfig.model_validate(values)
    except ValidationError as error:
        option = first_problem(error).replace("image_size", "--image-size").replace("subset", "--train-subset")
        raise ConfigError(option) from None


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
