"""`nas search`: finds or creates the study, checks that its meaning has not changed, and runs the coordinator."""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.budget import Budget
from nas.data.datasets import load_dataset
from nas.data.images import Dataset
from nas.data.splits import imbalance
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
    finalists_of,
    plan_round,
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
    workers: str  # how many, and where
    precision: str
    pruner: FairPruner
    skipped_images: int
    groups: int  # that the split keeps together; 0 without groups
    warnings: list[str]

    trained: int = 0  # before this run
    finalists: Round | None = None  # expected after the search; None for none
    finalists_given: bool = False  # whether their number was given, and is certain
    finalist_seconds: float | None = None  # reserved for them, if the time is limited
    finalist_flop: float | None = None  # reserved for them, if the compute is limited
    warm_start: list[Fitted] = field(default_factory=list)
    """What became of the warm start's candidates; empty without any, or if the study had begun before."""


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
        paths, settings = prepared.plan.paths, prepared.plan.settings
        with own_study(paths, request.storage, note=display.note, stop_requested=prepared.stop_requested) as storage:
            if paths.settings.is_file():
                read_settings(paths).require_same(settings, paths.name)
            else:
                prepared.persist(lambda: _write_what_it_means(paths, prepared.space, settings))
            remember_study(paths)
            return _search(prepared, storage)


def _write_what_it_means(paths: StudyPaths, space: Space, settings: StudySettings) -> None:
    """Writes the settings last: they mark the study as begun."""
    write_whole(paths.space, space.text.encode())
    for source in space.blocks.values():
        write_whole(paths.blocks / source.file, source.text.encode())
    write_whole(paths.settings, settings.to_json().encode())


@dataclass(frozen=True)
class _Prepared:
    """All that a search needs, checked before the study is touched."""

    request: SearchSpec
    display: SearchDisplay
    stop: Stop  # requested by Ctrl-C
    stop_requested: Callable[[], bool]  # by Ctrl-C, or by the deadline
    plan: SearchPlan  # as far as it follows from the request and the data
    space: Space
    budget: Budget
    executor: Executor
    token: str
    persist: Callable[[Callable[[], None]], None]
    """Performs a write to the study's folder, and tries again if the disk is full."""
    deadline: float | None  # a time of `time.monotonic`, for the search and the finalists
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
    plan = SearchPlan(
        paths=paths,
        settings=settings,
        goal=request.trials,
        workers=workers,
        precision=precision,
        pruner=make_pruner(asked.strategies.pruner, space.epochs),
        skipped_images=dataset.skipped,
        groups=0 if parts.validation is None else len(dataset.groups),
        warnings=[
            *filter(None, [dataset.others]),
            *dataset.copies(parts.train, parts.validation),
            *space.warnings(),
            *settings.uncounted,
            *cost_warnings(space, budget, asked.space.images),
            *imbalance_warnings(dataset, space),
        ],
    )
    return _Prepared(
        request=request,
        display=display,
        stop=stop,
        stop_requested=stop_requested,
        plan=plan,
        space=space,
        budget=budget,
        executor=executor,
        token=token,
        persist=persist,
        deadline=deadline,
        least_params=least_params(space, budget) if asked.strategies.objective == "front" else None,
    )


def imbalance_warnings(dataset: Dataset, space: Space) -> list[str]:
    """A warning about unbalanced classes, with the options that the search does not use."""
    found = imbalance(dataset)
    if found is None:
        return []
    balance = space.by_name.get("class_balance")
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
    request, display, space, stop, plan = prepared.request, prepared.display, prepared.space, prepared.stop, prepared.plan
    paths, settings = plan.paths, plan.settings
    sampler = make_sampler(settings.study.sampler, settings.seed)
    study = owned_study(storage, paths, sampler, plan.pruner)
    _bind(prepared, study)
    fitted = [] if _has_begun(study) else _begin(prepared, study)
    require_same_epochs(study, request.finalist_epochs)
    each = plan.pruner.expected_epochs(request.trials) or space.epochs  # if the search trains all its trials
    expected = plan_round(request.trials * each, space.epochs, *request.final_round, begun_round(study))
    kept_seconds = SHARE * (request.timeout or 0.0) if expected else 0.0
    kept_flop = reserved_flop(request.flop, expected, request.finalists, space.epochs, settings.study, space.budget.macs)
    search_deadline = None if prepared.deadline is None else prepared.deadline - kept_seconds
    prepared.persist(lambda: write_whole(paths.token, prepared.token.encode()))
    crew = Crew(prepared.executor, display.note)

    def carry_out(source: TrialSource, stop: Stop, deadline: float | None) -> bool:
        """Whether it was suspended."""
        source.adopt(crew.size)
        runner = Runner(source, crew, note=display.note, stop=stop, deadline=deadline, persist=prepared.persist)
        runner.run()
        return runner.suspended

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
        "seed": settings.seed,
        "display": display,
        "persist": prepared.persist,
        "metric": settings.study.metric,
        "images": settings.train_images,
        "config": settings.study,
    }
    search, own_stop = make_source(kept_flop), StopOf(stop)
    plan = replace(
        plan,
        trained=search.progress.trained,
        finalists=expected,
        finalists_given=bool(request.finalists),
        finalist_seconds=kept_seconds or None,
        finalist_flop=kept_flop or None,
        warm_start=fitted,
    )
    display.begin(plan)
    display.until(search_deadline)
    interrupted = True
    try:
        with suspended_by_signals(stop.request):
            suspended = carry_out(search, own_stop, search_deadline)
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
                suspended = carry_out(search, stop, prepared.deadline)
            interrupted = suspended and search.progress.trained < search.progress.goal
            if chosen is not None and not prepared.stop_requested():
                asked, trials = chosen
                finals = create_sibling_study(study, asked)
                goal = enqueue_trainings(finals, trials, asked)
                source = FinalistSource(finals, paths, asked, goal=goal, space=space, **shared)
                display.begin_finalists(asked, source.progress.trained)
                display.until(prepared.deadline)
                interrupted = carry_out(source, stop, prepared.deadline)
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
    paths, now, known = prepared.plan.paths, prepared.plan.settings, study.user_attrs.get("identity")
    settings = read_settings(paths)
    identity = known or settings.identity or now.identity
    images = {name: getattr(now, name) for name in ("train_images", "validation_images", "data_order")}
    bound = settings.model_copy(update={"identity": identity, **images})
    if bound != settings:
        settings = bound
        prepared.persist(lambda: write_whole(paths.settings, settings.to_json().encode()))
    if known != identity:
        study.set_user_attr("identity", identity)


def _begin(prepared: _Prepared, study: optuna.Study) -> list[Fitted]:
    """Records the settings in the study, and enqueues the warm start; returns what became of its candidates."""
    plan, settings, warm_start = prepared.plan, prepared.plan.settings, prepared.request.warm_start
    study.set_user_attr("sampler", describe(settings.study.sampler))
    study.set_user_attr("pruner", f"{describe(settings.study.pruner)}: {plan.pruner.describe()}")
    study.set_user_attr("settings", settings.model_dump(mode="json"))
    starts = [] if warm_start is None else find_starts(warm_start, settings)
    fitted = fit_starts(starts, prepared.space, prepared.budget)
    enqueue(study, prepared.space, fitted, plan.paths, settings.seed)
    study.set_user_attr("begun", True)
    return fitted


def _has_left(study: optuna.Study, asked: Round, trials: list[FrozenTrial]) -> bool:
    """Whether any training of these finalists is unfinished."""
    ended = {finalist.number: len(finalist.accuracies) for finalist in finalists_of(study)}
    return any(ended.get(trial.number, 0) < asked.seeds for trial in trials)


def _has_begun(study: optuna.Study) -> bool:
    """Whether everything that a search begins with is recorded; older studies, which did not record it, have trials of their
    own."""
    own = (t for t in study.get_trials(deepcopy=False) if not t.user_attrs.get("imported"))
    return "begun" in study.user_attrs or any(trial.state != TrialState.WAITING for trial in own)
