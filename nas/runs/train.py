"""Trains the runs of a command in workers, and finishes the trained ones. `nas retrain`, `nas ablate` and `nas baseline` differ
in their plans and in how they finish a run; the runner handles what happens in between."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from nas.device import release_memory
from nas.errors import NasError
from nas.files import write_whole
from nas.interrupts import Stop
from nas.jobs.crew import Crew
from nas.jobs.job import FixedJobs, Job, JobResult
from nas.jobs.local import LocalExecutor
from nas.jobs.messages import WorkerPlan
from nas.jobs.placement import DeviceGroup, Placement, plan_workers, say_left_out
from nas.jobs.runner import Runner
from nas.paths import StudyPaths
from nas.runs.context import TrainingContext, chooses_threads
from nas.runs.finish import divergence, mark_diverged
from nas.runs.plan import Plan
from nas.study.retry import Retry
from nas.study.settings import read_settings
from nas.train.checkpoint import EpochMetrics
from nas.train.loop import EpochProgress

P = TypeVar("P", bound=Plan)


class TrainingDisplay:
    """What a training command reports; this class shows nothing."""

    def decoding(self, items: Iterable, what: str, count: int) -> Iterable:
        """Yields `items`, of which there are `count`."""
        return items

    def on_epoch(self, plan: Plan, metrics: EpochMetrics) -> None:
        """A run has ended an epoch."""

    def on_progress(self, plan: Plan, progress: EpochProgress) -> None:
        """How far a run is in an epoch."""

    def on_printed(self, name: str, text: str) -> None:
        """What a known network's code printed."""

    def note(self, text: str) -> None:
        """A line of text for the user."""


@dataclass
class Outcome:
    """How the runs ended; each run is counted once."""

    diverged: dict[str, str] = field(default_factory=dict)  # By run, what happened. It is not trained again
    failures: dict[str, str] = field(default_factory=dict)  # By run, the reason. The same command tries again
    suspended: int = 0  # Runs that resume with the same command


@contextmanager
def prepared_workers(paths: StudyPaths, where: DeviceGroup | Placement, plans: Sequence[Plan]) -> Iterator[LocalExecutor]:
    """Workers that import torch while the command reads its images; `train_all` sends them their runs. One worker for a group of
    devices that train a network together, else as many as requested, but at most one for each run that has not ended. Raises
    NasError."""
    most = sum(not plan.has_ended for plan in plans)
    worker = WorkerPlan(read_settings(paths).data, "cpu", 1, paths.folder.absolute(), token="")
    if isinstance(where, DeviceGroup):
        device = where.device.type if where.processes > 1 else str(where.device)
        workers = [replace(worker, device=device, threads=where.threads, processes=where.processes)]
        threads = where.wanted_threads
    else:
        workers = plan_workers(where, worker)[:most]
        threads = where.threads
    executor = LocalExecutor([replace(one, times_threads=chooses_threads(threads, one.device, one.processes)) for one in workers])
    try:
        if most:
            executor.prepare()
        yield executor
    finally:
        executor.close(force=True)  # those that `train_all` did not close


def train_all(
    plans: Sequence[P],
    ctx: TrainingContext,
    executor: LocalExecutor,
    finish: Callable[[P], object],
    on_plan: Callable[[Sequence[P], Sequence[P], TrainingContext], None],
    display: TrainingDisplay,
    stop: Stop,
    keep_diverged: bool = False,
) -> Outcome:
    """Trains the runs that have not ended, until all are finished, or until a stop is requested and every worker has written its
    checkpoint. Raises NasError if no worker is left.

    Args:
        on_plan: receives all runs, those that have not ended, and the context. Not called if all have ended.
        keep_diverged: a diverged run is a result, and is not trained again.
    """
    pending, outcome, trained = [plan for plan in plans if not plan.has_ended], Outcome(), set[str]()
    by_name, note = {plan.name: plan for plan in pending}, display.note
    if not pending:
        return outcome
    for plan in pending:
        plan.begin(ctx)
    on_plan(plans, pending, ctx)
    say_left_out(ctx.spec.device, ctx.spec.gpus, note)

    def on_end(job: Job, result: JobResult) -> None:
        plan = by_name[job.key]
        if result.status == "finished":
            trained.add(plan.name)
        elif result.status == "failed":
            outcome.failures[plan.name] = result.reason
        elif result.status == "diverged":
            reason = outcome.diverged[plan.name] = divergence(plan.run, plan.train)
            note(f"{plan.name}: its {reason}")
            if keep_diverged:
                mark_diverged(plan.run, f"its {reason}")

    source = FixedJobs(
        [plan.job(ctx) for plan in pending],
        lambda job, metrics: display.on_epoch(by_name[job.key], metrics),
        on_end,
        lambda job, progress: display.on_progress(by_name[job.key], progress),
    )
    name = ctx.spec.paths.name
    persist = Retry(name, note, lambda: stop.requested, "the run's folder", doing="training", again="the same command")
    token_file = pending[0].run.folder.absolute() / "queue.token"
    token = uuid.uuid4().hex
    write_whole(token_file, token.encode())
    executor.tell(data=ctx.data, selection=ctx.spec.selection, token=token, token_file=token_file)
    Runner(source, Crew(executor, note), note=note, stop=stop, persist=persist.write).run()
    executor.close()
    token_file.unlink(missing_ok=True)
    outcome.suspended = len(pending) - len(trained) - len(outcome.failures) - len(outcome.diverged)
    for plan in (plan for plan in pending if plan.name in trained):  # in the requested order
        if len(pending) > 1:
            note(f"judging {plan.name}")
        try:
            finish(plan)
        except NasError as error:
            outcome.failures[plan.name] = error.message
            note(f"{plan.name} failed: {error.message}")
        finally:
            release_memory(ctx.device)
    return outcome
