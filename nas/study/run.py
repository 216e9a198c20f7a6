"""`nas search`: finds or creates the study, checks that its meaning has not changed, and runs the coordinator."""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.budget import Budget
from nas.data.datasets import load_dataset
from nas.data.images import Dataset
from nas.data.splits import Split, imbalance, validation_images
from nas.device import pick_device, pick_precision
from nas.files import write_whole
from nas.interrupts import Stop, StopOf, suspended_by_signals
from nas.jobs.crew import Crew
from nas.jobs.executor import Executor
from nas.jobs.local import LocalExecutor
from nas.jobs.messages import WorkerPlan
from nas.jobs.placement import plan_workers, ray_cluster, say_left_out
from nas.jobs.runner import Runner
from nas.paths import StudyPaths, remember_study
from nas.space.feasibility import cost_warnings
from nas.space.space import Space
from nas.specs import SearchSpec
from nas.study.drawing import SearchSource
from nas.study.finalists import (
    SHARE,
    Finalist,
    FinalistSource,
    Round,
    begun_round,
    choose,
    create_sibling_study,
    enqueue_trainings,
    expected_round,
    finalists_of,
    require_same_epochs,
    reserved_flop,
)
from nas.study.outcomes import count_outcomes
from nas.study.ownership import own_study
from nas.study.pruners import FairPruner
from nas.study.request import least_params, resolve
from nas.study.retry import Retry
from nas.study.settings import StudySettings, read_settings
from nas.study.source import Display, Progress, TrialSource
from nas.study.storage import owned_study
from nas.study.strategies import describe, make_pruner, make_sampler
from nas.study.warm_start import Fitted, enqueue, find_starts, fit_starts
from nas.study.workers import choose_workers, workers_of


@dataclass(frozen=True)
class SearchPlan:
    """The plan, printed before the search begins."""

    paths: StudyPaths
    settings: StudySettings
    goal: int
    trained: int  # before this run
    train_images: int
    validation_images: int
    workers: str  # how many, and where
    precision: str
    pruner: FairPruner
    finalists: Round | None  # expected after the search; None for none
    finalists_given: bool  # whether their number was given, and is certain
    finalist_seconds: float | None  # reserved for them, if the time is limited
    finalist_flop: float | None  # reserved for them, if the compute is limited
    skipped_images: int
    groups: int  # that the split keeps together; 0 without groups
    warm_start: list[Fitted]
    """What became of the warm start's candidates; empty without any, or if the study had begun before."""
    warnings: list[str]


@dataclass(frozen=True)
class SearchResult:
    plan: SearchPlan
    progress: Progress
    finalists: list[Finalist]  # best first; empty where there are none
    interrupted: bool
    """Whether Ctrl-C or the deadline ended it before the finalists, or a search without them, had ended; the same command
    resumes."""
    exhausted: bool


class SearchDisplay(Display):
    def decoding(self, items: Iterable, what: str, count: int, /) -> Iterable:
        return items

    def begin(self, plan: SearchPlan) -> None:
        """The plan, before the search begins."""

    def begin_finalists(self, chosen: Round, there: int, /) -> None:
        """`there`: trainings of finalists that ended before."""

    def until(self, deadline: float | None, /) -> None:
        """The next part begins now and ends by `deadline`, a time of `time.monotonic`."""


def run_search(request: SearchSpec, display: SearchDisplay) -> SearchResult:
    """Trains networks until the study holds `request.trials` of them. Raises NasError."""
    stop = Stop()
    with ExitStack() as closing:
        prepared = _prepare(request, display, closing, stop)
        paths = prepared.paths
        with own_study(paths, request.storage, note=display.note, stop_requested=prepared.stop_requested) as storage:
            if paths.settings.is_file():
                read_settings(paths).require_same(prepared.settings, paths.name)
            else:
                prepared.persist(lambda: _write_what_it_means(prepared))
            remember_study(paths)
            return _search(prepared, storage)


def _write_what_it_means(prepared: "_Prepared") -> None:
    """Writes the settings last: they mark the study as begun."""
    paths, space = prepared.paths, prepared.space
    write_whole(paths.space, space.text.encode())
    for source in space.blocks.values():
        write_whole(paths.blocks / source.file, source.text.encode())
    write_whole(paths.settings, prepared.settings.to_json().encode())


@dataclass(frozen=True)
class _Prepared:
    """All that a search needs, checked before the study is touched."""

    request: SearchSpec
    display: SearchDisplay
    stop: Stop  # requested by Ctrl-C
    stop_requested: Callable[[], bool]  # by Ctrl-C, or by the deadline
    paths: StudyPaths
    settings: StudySettings
    space: Space
    budget: Budget
    dataset: Dataset
    parts: Split
    executor: Executor
    token: str
    persist: Callable[[Callable[[], None]], None]
    """Performs a write to the study's folder, and tries again if the disk is full."""
    workers: str
    precision: str
    deadline: float | None  # a time of `time.monotonic`, for the search and the finalists
    pruner: FairPruner
    warnings: list[str]
    least_params: int | None  # the smallest limit of a trial; None if all trials have the study's


def _prepare(request: SearchSpec, display: SearchDisplay, closing: ExitStack, stop: Stop) -> _Prepared:
    """`closing` ends the workers, however the search ends."""
    deadline = None if request.timeout is None else time.monotonic() + request.timeout

    def stop_requested() -> bool:
        return stop.requested or (deadline is not None and time.monotonic() > deadline)

    asked = resolve(request)
    paths, token = asked.paths, uuid.uuid4().hex
    worker_plan = WorkerPlan(asked.data, "cpu", 1, paths.folder.absolute(), token)
    executor, workers, precision = _make_executor(request, worker_plan, asked.stored, display)
    closing.callback(executor.close, force=True)
    if asked.space.budget.latency is None:  # else they would disturb the first measurement
        executor.prepare()  # workers import while this process reads the data, opens the study and draws
    dataset = load_dataset(asked.data, display.decoding)
    persist = Retry(paths.name, display.note, stop_requested, "the study's folder").write
    space, budget, settings, parts = asked.on(dataset, lambda file, content: persist(lambda: write_whole(file, content)))
    executor.tell(data=settings.data)
    if request.warm_start is not None and asked.stored is None:
        find_starts(request.warm_start, settings)  # reports mistakes before a study is created
    if asked.stored is None and isinstance(executor, LocalExecutor):
        chosen = choose_workers(request, len(parts.train), space, budget, executor, display.note)
        if chosen is not None:
            plans = plan_workers(request.placement, replace(worker_plan, data=settings.data), chosen.workers)
            executor.replan(plans)
            workers = f"{workers_text(plans)}; {chosen.reason}"
            settings = settings.model_copy(update={"workers": chosen.workers})
    return _Prepared(
        request=request,
        display=display,
        stop=stop,
        stop_requested=stop_requested,
        paths=paths,
        settings=settings,
        space=space,
        budget=budget,
        dataset=dataset,
        parts=parts,
        executor=executor,
        token=token,
        persist=persist,
        workers=workers,
        precision=precision,
        deadline=deadline,
        pruner=make_pruner(asked.strategies.pruner, space.epochs),
        warnings=[
            *filter(None, [dataset.others]),
            *dataset.copies(parts.train, parts.validation),
            *space.warnings(),
            *settings.uncounted,
            *cost_warnings(space, budget, asked.space.images),
            *imbalance_warnings(dataset, space),
        ],
        least_params=least_params(space, budget) if asked.strategies.objective == "front" else None,
    )


def imbalance_warnings(dataset: Dataset, space: Space) -> list[str]:
    """A warning about unbalanced classes, with the options that the search does not use."""
    found = imbalance(dataset)
    if found is None:
        return []
    balance = next((slot for slot in space.slots if slot.name == "class_balance"), None)
    advice = [] if space.study.metric != "accuracy" else ["--metric macro_f1 or balanced_accuracy weights them equally"]
    if balance is None or balance.ends() == ["none"]:
        advice.append("--class-balance loss or sampling trains them equally")
    return [found + "".join(f"; {one}" for one in advice)]


def _make_executor(
    request: SearchSpec, plan: WorkerPlan, stored: StudySettings | None, display: SearchDisplay
) -> tuple[Executor, str, str]:
    """Also returns its workers and their precision in words."""
    cluster = ray_cluster(request.ray, request.gpus_per_worker, request.cpus_per_worker, request.placement)
    if cluster is not None:
        from nas.jobs.ray.executor import RayExecutor

        gpus, cpus = cluster.gpus_per_worker, cluster.cpus_per_worker
        plan = replace(plan, device="cuda" if gpus else "cpu", threads=max(1, int(cpus)))
        executor = RayExecutor(plan, cluster.address, gpus, cpus, most=request.trials, note=display.note)
        cores = f"{cpus:g} core{'s' * (cpus > 1)}"
        each = f"{gpus:g} GPU and {cores} each" if gpus else f"{cores} each"
        return executor, f"as many as the Ray cluster {cluster.address!r} has room for, {each}", "what each node's hardware has"
    plans = plan_workers(request.placement, plan, workers_of(stored))
    say_left_out(request.device, request.gpus, display.note)
    precision = pick_precision(pick_device(plans[0].device))
    return LocalExecutor(plans), workers_text(plans), f"{precision.name} ({precision.reason})"


def workers_text(plans: list[WorkerPlan]) -> str:
    text = ", ".join(f"{number} on {name}" for name, number in Counter(p.device for p in plans).items())
    if plans[0].device == "cpu":
        text += f", {plans[0].threads} thread{'s' * (plans[0].threads != 1)} each"
    return text


def _search(prepared: _Prepared, storage: optuna.storages.BaseStorage) -> SearchResult:
    request, display, paths, space, stop = prepared.request, prepared.display, prepared.paths, prepared.space, prepared.stop
    sampler = make_sampler(prepared.settings.study.sampler, prepared.settings.seed)
    study = owned_study(storage, paths, sampler, prepared.pruner)
    _bind(prepared, study)
    fitted = [] if _has_begun(study) else _begin(prepared, study)
    require_same_epochs(study, request.finalist_epochs)
    expected = expected_round(begun_round(study), *request.final_round, request.trials, space.epochs, prepared.pruner)
    kept_seconds = SHARE * (request.timeout or 0.0) if expected else 0.0
    kept_flop = reserved_flop(request.flop, expected, request.finalists, space.epochs, prepared.settings.study, space.budget.macs)
    search_deadline = None if prepared.deadline is None else prepared.deadline - kept_seconds
    prepared.persist(lambda: write_whole(paths.token, prepared.token.encode()))
    crew = Crew(prepared.executor, display.note)

    def carry_out(source: TrialSource, stop: Stop, deadline: float | None) -> Runner:
        source.adopt(crew.size)
        runner = Runner(source, crew, note=display.note, stop=stop, deadline=deadline, persist=prepared.persist)
        runner.run()
        return runner

    def make_source(reserved: float = 0.0) -> SearchSource:
        """`reserved`: of the given compute, for finalists."""
        return SearchSource(
            study,
            paths,
            sampler,
            space,
            prepared.budget,
            least_params=prepared.least_params,
            goal=request.trials,
            most_flop=None if request.flop is None else request.flop - reserved,
            **shared,
        )

    shared: dict[str, Any] = {
        "seed": prepared.settings.seed,
        "display": display,
        "persist": prepared.persist,
        "metric": prepared.settings.study.metric,
        "images": prepared.settings.train_images,
        "config": prepared.settings.study,
    }
    search, own_stop = make_source(kept_flop), StopOf(stop)
    plan = _plan(prepared, search.progress, fitted, expected, kept_seconds, kept_flop)
    display.begin(plan)
    display.until(search_deadline)
    interrupted = True
    try:
        with suspended_by_signals(stop.request):
            suspended = carry_out(search, own_stop, search_deadline).suspended
            if search.is_spent:
                share = "the limit of --compute" if not kept_flop else "its share of --compute"
                display.note(f"the search has trained for {search.spent / 1e15:.3g} PFLOP, {share}")
            chosen = choose(study, space.epochs, *request.final_round)
            limited = own_stop.requested or (kept_flop > 0 and search.is_spent)
            if chosen is None and limited and not prepared.stop_requested():
                kept = "compute" if search.is_spent else "time"
                display.note(f"too few networks were trained to choose finalists; the search continues for the remaining {kept}")
                display.until(prepared.deadline)
                search = make_source()
                suspended = carry_out(search, stop, prepared.deadline).suspended
            interrupted = suspended and search.progress.trained < search.progress.goal
            if chosen is not None and not prepared.stop_requested():
                asked, trials = chosen
                finals = create_sibling_study(study, asked)
                goal = enqueue_trainings(finals, trials, asked)
                source = FinalistSource(finals, paths, asked, goal=goal, space=space, **shared)
                display.begin_finalists(asked, source.progress.trained)
                display.until(prepared.deadline)
                interrupted = carry_out(source, stop, prepared.deadline).suspended
            elif chosen is not None:
                interrupted = interrupted or _has_left(study, *chosen)
            prepared.executor.close()
    except KeyboardInterrupt:
        display.note("stopped at once: each training will resume from its last checkpoint")
        interrupted = True
    finally:
        prepared.executor.close(force=True)
    search.progress.counts = count_outcomes(study.get_trials(deepcopy=False))  # also of unfinished trials
    return SearchResult(plan, search.progress, finalists_of(study), interrupted, search.exhausted is not None)


def _bind(prepared: _Prepared, study: optuna.Study) -> None:
    """Writes their common identity into the folder and the database, if one of them lacks it."""
    paths, known = prepared.paths, study.user_attrs.get("identity")
    settings = read_settings(paths)
    identity = known or settings.identity or prepared.settings.identity
    images = {name: getattr(prepared.settings, name) for name in ("train_images", "validation_images", "data_order")}
    bound = settings.model_copy(update={"identity": identity, **images})
    if bound != settings:
        settings = bound
        prepared.persist(lambda: write_whole(paths.settings, settings.to_json().encode()))
    if known != identity:
        study.set_user_attr("identity", identity)


def _begin(prepared: _Prepared, study: optuna.Study) -> list[Fitted]:
    """Records the settings in the study, and enqueues the warm start; returns what became of its candidates."""
    settings, warm_start = prepared.settings, prepared.request.warm_start
    study.set_user_attr("sampler", describe(settings.study.sampler))
    study.set_user_attr("pruner", f"{describe(settings.study.pruner)}: {prepared.pruner.describe()}")
    study.set_user_attr("settings", settings.model_dump(mode="json"))
    starts = [] if warm_start is None else find_starts(warm_start, settings)
    fitted = fit_starts(starts, prepared.space, prepared.budget)
    enqueue(study, prepared.space, fitted, prepared.paths, settings.seed)
    study.set_user_attr("begun", True)
    return fitted


def _plan(
    prepared: _Prepared, progress: Progress, fitted: list[Fitted], expected: Round | None, kept_seconds: float, kept_flop: float
) -> SearchPlan:
    return SearchPlan(
        paths=prepared.paths,
        settings=prepared.settings,
        goal=progress.goal,
        trained=progress.trained,
        train_images=len(prepared.parts.train),
        validation_images=validation_images(prepared.dataset, prepared.parts),
        workers=prepared.workers,
        precision=prepared.precision,
        pruner=prepared.pruner,
        finalists=expected,
        finalists_given=bool(prepared.request.finalists),
        finalist_seconds=kept_seconds or None,
        finalist_flop=kept_flop or None,
        skipped_images=prepared.dataset.skipped,
        groups=0 if prepared.parts.validation is None else len(prepared.dataset.groups),
        warm_start=fitted,
        warnings=prepared.warnings,
    )


def _has_left(study: optuna.Study, asked: Round, trials: list[FrozenTrial]) -> bool:
    """Whether any training of these finalists is unfinished."""
    ended = {finalist.number: len(finalist.accuracies) for finalist in finalists_of(study)}
    return any(ended.get(trial.number, 0) < asked.seeds for trial in trials)


def _has_begun(study: optuna.Study) -> bool:
    """Whether everything that a search begins with is recorded; older studies, which did not record it, have trials of their
    own."""
    own = (t for t in study.get_trials(deepcopy=False) if not t.user_attrs.get("imported"))
    return "begun" in study.user_attrs or any(trial.state != TrialState.WAITING for trial in own)
