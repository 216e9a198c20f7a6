"""The coordinator: asks Optuna for candidates, checks them against the budget, hands them to workers, reports and prunes.

It is the only process that talks to Optuna. A candidate for each worker is drawn ahead, while the workers train. The order
of every draw follows from the order of messages alone, so that with one worker the same seed gives the same study.
"""

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Protocol

import optuna
from optuna.trial import TrialState

from nas.budget import Budget
from nas.config import Candidate
from nas.data.loader import mix_seed
from nas.errors import NasError, StudyError
from nas.paths import StudyPaths
from nas.search import outcomes
from nas.search.executors import Executor
from nas.search.feasibility import nothing_fits
from nas.search.messages import Died, Ended, Epoch, Failed, FromWorker, Ready, Suspend, Train, Unfit, Verdict
from nas.space import Space
from nas.train.loop import EpochMetrics

MAX_OVER_BUDGET_IN_A_ROW = 1000
MAX_DUPLICATES_IN_A_ROW = 200
MAX_FAILURES_IN_A_ROW = 5
MAX_DEATHS_OF_A_TRIAL = 3


@dataclass
class Running:
    """A trial that has been drawn, fits, and is being trained or waits for a worker."""

    trial: optuna.Trial
    candidate: Candidate
    params: int
    deaths: int = 0
    last: EpochMetrics | None = None

    @property
    def number(self) -> int:
        return self.trial.number


@dataclass
class Progress:
    """The search at a glance, for whoever displays it."""

    goal: int
    epochs: int
    counts: Counter[str] = field(default_factory=Counter)
    running: dict[int, Running] = field(default_factory=dict)
    """By worker."""
    best: outcomes.TrialRow | None = None
    trained_here: int = 0
    """In this run of the command."""
    worker_device: str | None = None

    @property
    def trained(self) -> int:
        return outcomes.count_trained(self.counts)


class Display(Protocol):
    def update(self, progress: Progress) -> None:
        """Something changed: an epoch, a draw, an outcome."""

    def ended(self, row: outcomes.TrialRow, progress: Progress) -> None:
        """A trial that trained, or failed, has ended."""

    def note(self, text: str) -> None:
        """Something worth a line."""


class Coordinator:
    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        budget: Budget,
        executor: Executor,
        paths: StudyPaths,
        *,
        goal: int,
        seed: int,
        display: Display,
        deadline: float | None = None,
    ) -> None:
        """`goal` counts trained networks over all runs of the study; `deadline` is a time of `time.monotonic`."""
        self.study, self.space, self.budget, self.executor, self.paths = study, space, budget, executor, paths
        self.seed, self.display, self.deadline = seed, display, deadline
        trials = study.get_trials(deepcopy=False)
        self.progress = Progress(goal, space.epochs, outcomes.count_outcomes(trials))
        for unfinished in ("running", "waiting"):
            del self.progress.counts[unfinished]
        self._note_best(trials)
        self.first_of_digest: dict[str, int] = {}
        """Number of the first trial of each digest that fits and has not failed."""
        for trial in trials:
            if outcomes.outcome_of(trial) in outcomes.COUNTED:
                self.first_of_digest.setdefault(trial.user_attrs["digest"], trial.number)
        self.ready: deque[Running] = deque()
        """Drawn ahead, waiting for a worker."""
        self.idle: set[int] = set()
        self.twins: dict[int, list[optuna.Trial]] = {}
        """Duplicates that wait for the end of the trial of that number."""
        self.failures_in_a_row = 0
        self.exhausted = False
        self.stop_requested = False
        """The main loop acts on it."""
        self.suspending = False

    # ------------------------------------------------------------------------------------------------ the main loop

    def run(self) -> None:
        """Until the goal is reached, the space exhausted, or `stop_requested` set.

        Raises NasError where the search cannot go on.
        """
        self.adopt()
        self.executor.start()
        try:
            while True:
                if self.deadline is not None and time.monotonic() > self.deadline and not self.stop_requested:
                    self.display.note("the time is up")
                    self.stop_requested = True
                if not self.stop_requested:
                    self.hand_out()
                elif not self.suspending:
                    self.suspend()
                self.display.update(self.progress)
                if not self.progress.running and (self.suspending or self.wanted == 0 or (self.exhausted and not self.ready)):
                    return
                for worker, message in self.executor.receive(timeout=0.5):
                    self.handle(worker, message)
        finally:
            self.executor.close()

    def request_stop(self) -> None:
        """May be called from a signal handler."""
        self.stop_requested = True

    def suspend(self) -> None:
        """Every training writes a checkpoint where it is; `run` returns when all have."""
        self.suspending = True
        for worker in self.progress.running:
            self.executor.send(worker, Suspend())

    @property
    def wanted(self) -> int:
        """How many more trainings the goal asks to begin."""
        return max(0, self.progress.goal - self.progress.trained - len(self.progress.running))

    @property
    def missing(self) -> int:
        """How many candidates still have to be drawn for them."""
        return 0 if self.exhausted else max(0, self.wanted - len(self.ready))

    def hand_out(self) -> None:
        """A candidate to each idle worker; then draws ahead until one waits for each worker."""
        for worker in sorted(self.idle):
            if not self.ready and self.missing:
                self.draw()
            if not self.ready or not self.wanted:
                break
            self.submit(worker, self.ready.popleft())
        while self.missing and len(self.ready) < len(self.executor.workers) and not self.stop_requested:
            self.draw()

    def submit(self, worker: int, running: Running) -> None:
        self.idle.discard(worker)
        self.progress.running[worker] = running
        folder = self.paths.trial(running.number)
        folder.folder.mkdir(parents=True, exist_ok=True)
        folder.candidate.write_text(running.candidate.to_json())
        seed = mix_seed(self.seed, running.number)
        self.executor.send(worker, Train(running.number, running.candidate, folder.folder.absolute(), seed))

    # ------------------------------------------------------------------------------------------------------ drawing

    def adopt(self) -> None:
        """Takes over what an earlier run left: carries out decisions it had recorded, and queues the rest again."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            trial = optuna.Trial(self.study, frozen._trial_id)
            outcome = frozen.user_attrs.get("outcome", "duplicate")
            if outcome != "duplicate":
                outcomes.finish(self.study, trial)
                self.progress.counts[outcome] += 1
                if outcome in outcomes.COUNTED:
                    self.first_of_digest.setdefault(frozen.user_attrs["digest"], frozen.number)
                self.paths.trial(frozen.number).checkpoint.unlink(missing_ok=True)
            elif self.judge(trial) == "fits" and frozen.intermediate_values:
                self.display.note(f"trial {frozen.number} goes on after epoch {max(frozen.intermediate_values)}")
        self._note_best(self.study.get_trials(deepcopy=False))

    def draw(self) -> None:
        """Draws until a candidate fits, the space turns out to be exhausted, or `stop_requested` is set."""
        in_a_row = Counter[str]()
        while True:
            verdict = self.judge(self.study.ask())
            if verdict == "fits":
                return
            in_a_row[verdict] += 1
            self.display.update(self.progress)
            if self.stop_requested:
                return
            if in_a_row["over_budget"] >= MAX_OVER_BUDGET_IN_A_ROW:
                raise nothing_fits(
                    self.space,
                    self.budget,
                    f"{MAX_OVER_BUDGET_IN_A_ROW} draws in a row were over budget; the search stops",
                )
            if in_a_row["duplicate"] >= MAX_DUPLICATES_IN_A_ROW:
                self.display.note(f"{MAX_DUPLICATES_IN_A_ROW} draws in a row repeated earlier ones: the space is exhausted")
                self.exhausted = True
                return

    def judge(self, trial: optuna.Trial) -> str:
        """Draws a trial's candidate and decides what becomes of it: `fits` (it is queued), `over_budget` or `duplicate`."""
        candidate = self.space.draw(trial)
        cost = self.budget.check(candidate.arch)
        outcomes.describe(trial, candidate, cost)
        if not cost.fits:
            outcomes.record(self.study, trial, "over_budget", cost.excess)
            self.progress.counts["over_budget"] += 1
            return "over_budget"
        first = self.first_of_digest.setdefault(candidate.digest, trial.number)
        if first == trial.number:
            self.ready.append(Running(trial, candidate, cost.params))
            return "fits"
        twin = self.study.get_trials(deepcopy=False)[first]
        if twin.state.is_finished():
            outcomes.record_duplicate(self.study, trial, twin)
            self.progress.counts["duplicate"] += 1
        else:
            self.twins.setdefault(first, []).append(trial)
        return "duplicate"

    # ----------------------------------------------------------------------------------------- what workers report

    def handle(self, worker: int, message: FromWorker) -> None:
        match message:
            case Ready(device=device, precision=precision):
                self.progress.worker_device = f"{device}, {precision}"
                self.idle.add(worker)
            case Epoch(number=number, metrics=metrics):
                self.on_epoch(worker, number, metrics)
            case Ended(number=number, status=status):
                running = self.release(worker, number)
                if status == "suspended":
                    self.display.note(f"trial {number} is suspended, its checkpoint written")
                elif status == "diverged":
                    self.conclude(running, "diverged")
                elif status == "finished":
                    self.conclude(running, "trained")
                else:
                    assert status == "stopped", status
                    self.after(running)  # told when it was pruned
            case Failed(number=number, reason=reason, traceback=traceback):
                running = self.release(worker, number)
                self.fail(running, reason, traceback)
            case Unfit(message=text, hint=hint):
                raise NasError(text, hint=hint)
            case Died(exitcode=exitcode):
                self.on_death(worker, exitcode)

    def on_epoch(self, worker: int, number: int, metrics: EpochMetrics) -> None:
        running = self.progress.running[worker]
        assert running.number == number, (running.number, number)
        running.last = metrics
        known = outcomes.stored(self.study, running.trial).intermediate_values
        value = metrics.ema_val_accuracy
        assert value is not None
        if metrics.epoch not in known:
            running.trial.report(value, metrics.epoch)
        # An epoch that an earlier run reported was judged then, unless it was the last one it reported.
        judged_before = metrics.epoch < max(known, default=0)
        last = metrics.epoch == self.progress.epochs
        prune = not last and not judged_before and running.trial.should_prune()
        if prune:
            self.conclude(running, "pruned_early", then_clean=False)  # told before it is acted on
        self.executor.send(worker, Verdict(go_on=not prune))

    def on_death(self, worker: int, exitcode: int | None) -> None:
        running = self.progress.running.pop(worker, None)
        if running is None and worker not in self.idle and not self.stop_requested:
            raise StudyError(
                f"worker {worker} died with exit code {exitcode} before it trained anything",
                hint="nas doctor shows what this machine has; nothing of the study is lost",
            )
        self.idle.discard(worker)
        if running is None:
            self.display.note(f"worker {worker} died with exit code {exitcode} while it had nothing to train")
        elif outcomes.stored(self.study, running.trial).state.is_finished():
            self.after(running)
        elif running.deaths + 1 >= MAX_DEATHS_OF_A_TRIAL:
            self.fail(running, f"its worker died {MAX_DEATHS_OF_A_TRIAL} times, last with exit code {exitcode}", "")
        else:
            running.deaths += 1
            self.display.note(
                f"worker {worker} died with exit code {exitcode}; trial {running.number} goes on from its checkpoint"
            )
            self.ready.appendleft(running)
        if not self.suspending:
            self.executor.restart(worker)

    def release(self, worker: int, number: int) -> Running:
        running = self.progress.running.pop(worker)
        assert running.number == number, (running.number, number)
        self.idle.add(worker)
        return running

    def fail(self, running: Running, reason: str, traceback: str) -> None:
        folder = self.paths.trial(running.number)
        folder.error.write_text(f"{reason}\n\n{traceback}")
        self.first_of_digest.pop(running.candidate.digest, None)
        running.trial.set_user_attr("reason", reason)
        self.display.note(f"trial {running.number} failed: {reason} (traceback in {folder.error})")
        self.conclude(running, "failed")
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise StudyError(
                f"{MAX_FAILURES_IN_A_ROW} trials in a row failed, the last with: {reason}",
                hint=f"read {folder.error}; the same command goes on with the next trial",
            )

    def conclude(self, running: Running, outcome: outcomes.Outcome, then_clean: bool = True) -> None:
        outcomes.record(self.study, running.trial, outcome)
        self.progress.counts[outcome] += 1
        if outcome != "failed":
            self.failures_in_a_row = 0
            self.progress.trained_here += 1
        trials = self.study.get_trials(deepcopy=False)
        self._note_best(trials)
        self.display.ended(outcomes.TrialRow.of(trials[running.number]), self.progress)
        for twin in self.twins.pop(running.number, []):
            outcomes.record_duplicate(self.study, twin, trials[running.number])
            self.progress.counts["duplicate"] += 1
        if then_clean:
            self.after(running)

    def after(self, running: Running) -> None:
        """Checkpoints serve to go on; a trial that has ended keeps its curve and its candidate."""
        self.paths.trial(running.number).checkpoint.unlink(missing_ok=True)

    def _note_best(self, trials: list[optuna.trial.FrozenTrial]) -> None:
        best = outcomes.best_trial(trials)
        self.progress.best = None if best is None else outcomes.TrialRow.of(best)
