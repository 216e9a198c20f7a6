"""`nas search`: finds or founds the study, makes sure that it means the same as before, and runs the coordinator."""

import os
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState
from pydantic import ValidationError

from nas.budget import Budget
from nas.config import DataConfig, check_epochs, first_problem, parse_count
from nas.data.datasets import Dataset, Split, load_dataset, require_known, split
from nas.errors import ConfigError
from nas.interrupts import Stop, suspended_by_signals
from nas.paths import StudyPaths, remember_study, study_paths
from nas.search.address import study_address
from nas.search.coordinator import Coordinator
from nas.search.drawing import Drawer
from nas.search.executors import Executor
from nas.search.executors.local import LocalExecutor
from nas.search.feasibility import check_feasible
from nas.search.messages import WorkerPlan
from nas.search.ownership import own_study
from nas.search.patience import Patience
from nas.search.placement import Placement, plan_workers, ray_cluster
from nas.search.progress import Display, Progress
from nas.search.pruners import PRUNERS, asha_rungs
from nas.search.samplers import SAMPLERS, STARTUP_TRIALS
from nas.search.settings import Environment, Overrides, StudySettings, read_settings, read_study_space
from nas.search.storage import owned_study
from nas.search.warm_start import Fitted, enqueue, find_starts, fit_starts
from nas.space import Space
from nas.space_file import load_space
from nas.train.checkpoint import write_whole
from nas.train.device import pick_device, pick_precision

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
    gpus: int | None = None
    """All that are visible; 0 is the CPU."""
    workers_per_gpu: int | None = None
    workers: int | None = None
    """On the CPU."""
    ray: str | None = None
    """Address of the cluster where the workers run, instead of on this machine."""
    gpus_per_worker: float | None = None
    cpus_per_worker: float | None = None
    storage: str | None = None
    """URL of a PostgreSQL database; else SQLite in the study's folder, or what the study began with."""
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
    workers: str
    """How many, and where."""
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
    with ExitStack() as closing:
        return _run_prepared(request, display, _prepare(request, display, closing))


def _run_prepared(request: SearchRequest, display: SearchDisplay, prepared: "_Prepared") -> SearchResult:
    paths, stop = prepared.paths, Stop()

    def stop_requested() -> bool:
        return stop.requested or (prepared.deadline is not None and time.monotonic() > prepared.deadline)

    with own_study(paths, request.storage, note=display.note, stop_requested=stop_requested) as storage:
        if paths.settings.is_file():
            read_settings(paths).require_same(prepared.settings, paths.name)
        else:
            write_whole(paths.space, prepared.space.text.encode())
            write_whole(paths.settings, prepared.settings.to_json().encode())
        remember_study(paths)
        return _search(request, display, prepared, storage, stop)


@dataclass(frozen=True)
class _Prepared:
    """All that a search needs, checked before the study is touched."""

    paths: StudyPaths
    settings: StudySettings
    space: Space
    budget: Budget
    dataset: Dataset
    parts: Split
    executor: Executor
    token: str
    workers: str
    precision: str
    deadline: float | None


def _prepare(request: SearchRequest, display: SearchDisplay, closing: ExitStack) -> _Prepared:
    """`closing` ends the workers, whatever comes of the search."""
    deadline = None if request.timeout is None else time.monotonic() + request.timeout
    paths = study_paths(request.study or default_name(request))
    study_address(paths, request.storage)
    stored = read_settings(paths) if paths.settings.is_file() else None
    overrides = resolve_overrides(request, stored)
    space = resolve_space(request, paths, stored, overrides)
    data = resolve_data(request, stored)
    token = uuid.uuid4().hex
    executor, workers, precision = _make_executor(request, WorkerPlan(data, "cpu", 1, paths.folder.absolute(), token), display)
    closing.callback(executor.close, force=True)
    executor.prepare()  # workers import while this process reads the data, opens the study and draws
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
    if request.warm_start is not None and stored is None:
        find_starts(request.warm_start, settings)  # so that a mistake there founds no study
    parts = split(dataset, data)
    return _Prepared(paths, settings, space, budget, dataset, parts, executor, token, workers, precision, deadline)


def _make_executor(request: SearchRequest, plan: WorkerPlan, display: SearchDisplay) -> tuple[Executor, str, str]:
    """With its workers and their precision in words."""
    placement = Placement(request.device, request.gpus, request.workers_per_gpu, request.workers)
    cluster = ray_cluster(request.ray, request.gpus_per_worker, request.cpus_per_worker, placement)
    if cluster is not None:
        from nas.search.executors.ray import RayExecutor

        gpus, cpus = cluster.gpus_per_worker, cluster.cpus_per_worker
        plan = replace(plan, device="cuda" if gpus else "cpu", threads=max(1, int(cpus)))
        executor = RayExecutor(plan, cluster.address, gpus, cpus, most=request.trials, note=display.note)
        cores = f"{cpus:g} core{'s' * (cpus > 1)}"
        each = f"{gpus:g} GPU and {cores} each" if gpus else f"{cores} each"
        return executor, f"as many as the Ray cluster {cluster.address!r} has room for, {each}", "what each node's hardware has"
    plans = plan_workers(placement, plan)
    text = ", ".join(f"{number} on {name}" for name, number in Counter(p.device for p in plans).items())
    if plans[0].device == "cpu":
        text += f", {plans[0].threads} thread{'s' * (plans[0].threads != 1)} each"
    precision = pick_precision(pick_device(plans[0].device))
    return LocalExecutor(plans), text, f"{precision.name} ({precision.reason})"


def _search(
    request: SearchRequest,
    display: SearchDisplay,
    prepared: _Prepared,
    storage: optuna.storages.BaseStorage,
    stop: Stop,
) -> SearchResult:
    paths, settings, space = prepared.paths, prepared.settings, prepared.space
    rungs = asha_rungs(space.epochs)
    sampler = SAMPLERS["tpe"]()
    study = owned_study(storage, paths, sampler, PRUNERS["asha"](space.epochs))
    fitted = []
    if not _has_begun(study):
        study.set_user_attr("sampler", f"tpe, {STARTUP_TRIALS} start-up trials, multivariate, constant liar")
        study.set_user_attr("pruner", f"asha, rungs after epochs {rungs}")
        study.set_user_attr("settings", settings.model_dump(mode="json"))
        starts = [] if request.warm_start is None else find_starts(request.warm_start, settings)
        fitted = fit_starts(starts, space, prepared.budget)
        enqueue(study, space, fitted, paths)
        study.set_user_attr("begun", True)
    write_whole(paths.token, prepared.token.encode())
    coordinator = Coordinator(
        study,
        Drawer(study, sampler, space, prepared.budget, settings.seed),
        prepared.executor,
        paths,
        goal=request.trials,
        display=display,
        stop=stop,
        deadline=prepared.deadline,
        persist=Patience(paths.name, display.note, lambda: stop.requested, "the study's folder").write,
    )
    progress = coordinator.progress
    parts, validation = prepared.parts, prepared.dataset.validation
    plan = SearchPlan(
        paths=paths,
        settings=settings,
        goal=request.trials,
        trained=progress.trained,
        train_images=len(parts.train),
        validation_images=len(validation or ()) if parts.validation is None else len(parts.validation),
        workers=prepared.workers,
        precision=prepared.precision,
        rungs=rungs,
        skipped_images=prepared.dataset.skipped,
        warm_start=fitted,
        warnings=space.warnings(),
    )
    display.begin(plan)
    try:
        with suspended_by_signals(stop.request):
            coordinator.run()
        interrupted = coordinator.suspending is not None and progress.trained < progress.goal
    except KeyboardInterrupt:
        display.note("ended at once: each training goes on from its last checkpoint")
        interrupted = True
    return SearchResult(plan, progress, interrupted, coordinator.drawer.exhausted is not None)


def _has_begun(study: optuna.Study) -> bool:
    """Whether all that a search begins with is there; studies from before that was recorded have trials of their own."""
    own = (t for t in study.get_trials(deepcopy=False) if not t.user_attrs.get("imported"))
    return "begun" in study.user_attrs or any(trial.state != TrialState.WAITING for trial in own)


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
