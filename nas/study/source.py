"""The trials of a study as jobs: reports their epochs to Optuna, prunes them, and records how they end.

`settle` tells Optuna what was recorded, but never during a draw: with one worker the same seed gives the same study, whatever the
timing. Subclasses know where trials come from.
"""

import logging
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.config import Candidate, MetricName
from nas.data.loader import mix_seed
from nas.errors import StudyError
from nas.files import write_whole
from nas.jobs.job import Job, JobResult, JobSource, Running
from nas.paths import StudyPaths
from nas.study import outcomes
from nas.study.optuna_private import live_trial, overwrite_value, stored_trial
from nas.study.trials import TrialRecord, flop_of
from nas.train.checkpoint import EpochMetrics
from nas.train.loop import carry_out

_log = logging.getLogger(__name__)
MAX_FAILURES_IN_A_ROW = 5
KEPT_CHECKPOINTS = 3  # of the best networks that trained to their end


@dataclass
class Drawn:
    """A trial that has been drawn and fits the budget, until it has ended."""

    trial: optuna.Trial
    candidate: Candidate
    params: int
    macs: int
    micro_batches: int = 1
    known: dict[int, float] = field(default_factory=dict)  # values in the study, by epoch
    judged: int = 0  # last epoch that was judged before, without pruning
    decided: bool = False  # whether its outcome is recorded

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def run_name(self) -> tuple[int, int | None, int | None]:
        """Trial number; for a finalist's training also the search's trial, and the seed."""
        attributes = self.trial.user_attrs
        return self.number, attributes.get("finalist"), attributes.get("seed")


@dataclass
class Progress:
    """The state of the search, for displays."""

    goal: int
    epochs: int
    metric: MetricName  # of all values
    counts: Counter[str] = field(default_factory=Counter)  # by outcome
    running: Mapping[int, Running] = field(default_factory=dict)  # by worker
    devices: Mapping[int, str] = field(default_factory=dict)  # device and precision of each ready worker
    drawn: dict[str, Drawn] = field(default_factory=dict)  # each trial that was handed out, by the key of its job
    best: TrialRecord | None = None
    history: list[float] = field(default_factory=list)
    """The best value so far after each trained network, from the first completed one on."""
    trained_here: int = 0  # in this run of the command
    flop_here: float = 0.0  # operations of the trainings of this run
    flop_left: float | None = None  # of the given compute

    @property
    def trained(self) -> int:
        return outcomes.count_trained(self.counts)


class Display:
    """What a search reports; this class shows nothing."""

    def update(self, progress: Progress) -> None:
        """Something changed: an epoch, a draw, an outcome."""

    def epoch(self, drawn: Drawn, metrics: EpochMetrics) -> None:
        """A trial has ended an epoch. A resumed trial repeats the epochs of its checkpoint."""

    def ended(self, row: TrialRecord, progress: Progress) -> None:
        """A trial that trained, or failed, has ended."""

    def note(self, text: str) -> None:
        """A line of text for the user."""


class TrialSource(JobSource):
    def __init__(
        self,
        study: optuna.Study,
        paths: StudyPaths,
        *,
        goal: int,
        epochs: int,
        seed: int,
        display: Display,
        persist: Callable[[Callable[[], None]], None] = carry_out,
        metric: MetricName = "accuracy",
        images: int | None = None,
        most_flop: float | None = None,
    ) -> None:
        """
        Args:
            goal: trained networks, over all runs of the study.
            epochs: of each training.
            persist: carries out a write to a file, and tries again while a disk is full.
            metric: of the validation images, reported to the study after each epoch.
            images: of an epoch.
            most_flop: no training begins once the study's trainings take so many operations.
        """
        self.images, self.most_flop = images, most_flop
        self.study, self.paths, self.seed, self.display, self.persist = study, paths, seed, display, persist
        trials = study.get_trials(deepcopy=False)
        counts = outcomes.count_outcomes(trial for trial in trials if trial.state.is_finished())  # `adopt` counts the others
        self.progress = Progress(goal, epochs, metric, counts)
        self.ready: deque[Drawn] = deque()  # drawn ahead, waiting for a worker
        self.exhausted: str | None = None  # why nothing more is drawn
        self.cut_off = False
        """Whether the suspension came during a draw: nothing may be told before the next run has repeated that draw."""
        self._decided: deque[tuple[optuna.Trial, outcomes.Outcome]] = deque()  # recorded, and not told yet
        self.spent = sum(flop_of(trial, images) or 0.0 for trial in trials)
        """Operations of the study's trainings."""
        self._add_flop(0.0)
        self._failures_in_a_row = 0
        self._kept: list[int] = []  # numbers of the trials that keep their checkpoints, best first
        self._note_best(trials)

    # -------------------------------------------------------------------------------------------- where trials come from

    @abstractmethod
    def begin_draw(self) -> None:
        """The next calls of `work` add one trial to `ready`, or set `exhausted`; until then the source is `busy`."""

    @abstractmethod
    def adopt_undecided(self, frozen: FrozenTrial) -> None:
        """Puts a trial that an earlier run had begun into `ready`."""

    def settle_twins(self, ended: FrozenTrial) -> None:
        """Ends the duplicates that waited for this trial."""
        return

    def forget(self, drawn: Drawn) -> None:
        """A failed trial is no result."""
        return

    # -------------------------------------------------------------------------------------------------- what is trained

    def attach(self, running: Mapping[int, Running], devices: Mapping[int, str]) -> None:
        self.progress.running, self.progress.devices = running, devices

    def adopt(self, workers: int) -> None:
        """Takes over from an earlier run: carries out its recorded decisions, and queues its unfinished trials again."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            outcome = frozen.user_attrs.get("outcome")
            if outcome is None or outcome == "duplicate":
                self.adopt_undecided(frozen)
            elif outcome == "over_budget":
                outcomes.finish(self.study, live_trial(self.study, frozen))
                self.progress.counts[outcome] += 1
            else:
                # If it was decided during a draw, it is told after that draw.
                self._decided.append((live_trial(self.study, frozen), outcome))
        self.look_ahead(workers)
        self._tidy_checkpoints()
        if not self.wanted:
            self.settle()

    @property
    def is_spent(self) -> bool:
        """Whether the ended and the running trainings take all the compute."""
        return self._takes_all(self.progress.drawn.values())

    def _takes_all(self, pending: Iterable[Drawn]) -> bool:
        if self.most_flop is None:
            return False
        ahead = (self._epoch_flop(drawn) * (self.progress.epochs - len(drawn.known)) for drawn in pending)
        return self.spent + sum(ahead) >= self.most_flop

    def _add_flop(self, flop: float) -> None:
        self.spent += flop
        self.progress.flop_here += flop
        self.progress.flop_left = None if self.most_flop is None else self.most_flop - self.spent

    def _epoch_flop(self, drawn: Drawn) -> float:
        return drawn.candidate.train.epoch_flop(drawn.macs, self.images or 0)

    @property
    def wanted(self) -> int:
        """How many more trainings may begin, by the goal and the compute."""
        if self.is_spent:
            return 0
        pending = sum(outcome in outcomes.COUNTED for _, outcome in self._decided)
        return max(0, self.progress.goal - self.progress.trained - len(self.progress.drawn) - pending)

    @property
    def done(self) -> bool:
        return not self._decided and (self.wanted == 0 or (self.exhausted is not None and not self.ready))

    def look_ahead(self, workers: int) -> None:
        full = self.exhausted or self._takes_all((*self.progress.drawn.values(), *self.ready))
        missing = 0 if full else self.wanted - len(self.ready)
        if not self.busy and missing > 0 and len(self.ready) < workers:
            self.begin_draw()

    def next(self) -> Job | None:
        if not self.ready or not self.wanted:
            return None
        drawn = self.ready.popleft()
        trial, candidate = self.paths.trial(drawn.number), drawn.candidate
        self.persist(lambda: write_whole(trial.candidate, candidate.to_json().encode()))
        seed = mix_seed(self.seed, drawn.number)
        job = Job(
            key=str(drawn.number),
            title=f"trial {drawn.number}",
            folder=trial.folder.absolute(),
            network=candidate.arch,
            train=candidate.train,
            seed=seed,
            identity=f"{candidate.digest} seed {seed}",
            micro_batches=drawn.micro_batches,
        )
        self.progress.drawn[job.key] = drawn
        return job

    def show(self) -> None:
        self.display.update(self.progress)

    def on_suspend(self) -> None:
        self.cut_off = self.busy
        self.busy = False

    # ------------------------------------------------------------------------------------------ what becomes of a trial

    def on_begin(self, running: Running, epochs_done: int) -> None:
        drawn = self.progress.drawn[running.job.key]
        # The training continued after every epoch except the last, so these were judged, by the study's values or by those of the
        # checkpoint.
        drawn.judged = max(epochs_done, *drawn.known, 1) - 1
        running.reached = max(running.reached, *drawn.known, 0)

    def on_epoch(self, running: Running, metrics: EpochMetrics) -> bool:
        drawn = self.progress.drawn[running.job.key]
        self.display.epoch(drawn, metrics)
        value = metrics.validation(self.progress.metric)
        assert value is not None
        if drawn.known.get(metrics.epoch) != value:  # if they differ, the checkpoint's curve is right
            overwrite_value(drawn.trial, value, metrics.epoch)
            if metrics.epoch not in drawn.known:
                self._add_flop(self._epoch_flop(drawn))
            drawn.known[metrics.epoch] = value
        if metrics.epoch == self.progress.epochs or metrics.epoch <= drawn.judged:
            return True
        prune = self.study.pruner.prune(self.study, stored_trial(drawn.trial))
        if prune:
            self._decide(drawn, "pruned_early")
        return not prune

    def on_micro_batches(self, running: Running) -> None:
        drawn = self.progress.drawn[running.job.key]
        drawn.micro_batches = running.job.micro_batches
        drawn.trial.set_user_attr("micro_batches", drawn.micro_batches)

    def on_end(self, running: Running, result: JobResult) -> None:
        drawn = self.progress.drawn.pop(running.job.key)
        match result.status:
            case "finished":
                self._decide(drawn, "trained")
            case "diverged":
                self._decide(drawn, "diverged")
            case "failed" if not drawn.decided:
                self._fail(drawn, running, result.reason)

    def _fail(self, drawn: Drawn, running: Running, reason: str) -> None:
        self.forget(drawn)
        drawn.trial.set_user_attr("reason", reason)
        self._decide(drawn, "failed")
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            self.error = StudyError(
                f"{MAX_FAILURES_IN_A_ROW} trials in a row failed, the last with: {reason}",
                hint=f"read {running.job.paths.error}; the same command continues with the next trial",
            )

    def _decide(self, drawn: Drawn, outcome: outcomes.Outcome) -> None:
        """Records the outcome before it is acted on; `settle` does the rest."""
        outcomes.decide(drawn.trial, outcome)
        drawn.decided = True
        _log.info("trial %d: %s", drawn.number, outcome)
        self._decided.append((drawn.trial, outcome))
        if outcome == "failed":
            self._failures_in_a_row += 1
        else:
            self._failures_in_a_row = 0
            self.progress.trained_here += 1

    def settle(self) -> None:
        """Tells Optuna the recorded outcomes."""
        while self._decided and not self.busy and not self.cut_off:
            trial, outcome = self._decided[0]
            outcomes.finish(self.study, trial)
            self._decided.popleft()
            self.progress.counts[outcome] += 1
            trials = self.study.get_trials(deepcopy=False)
            self._note_best(trials)
            self.display.ended(TrialRecord.of(trials[trial.number], self.images), self.progress)
            self.settle_twins(trials[trial.number])
            self._drop_checkpoint(trial.number)

    # ------------------------------------------------------------------------------------- the best, and its checkpoints

    def _note_best(self, trials: list[FrozenTrial]) -> None:
        best = outcomes.best_trials(trials, KEPT_CHECKPOINTS)
        before, self._kept = self._kept, [trial.number for trial in best]
        for number in before:
            self._drop_checkpoint(number)
        self.progress.best = TrialRecord.of(best[0], self.images) if best else None
        self.progress.history = outcomes.best_so_far(trials)

    def _drop_checkpoint(self, number: int) -> None:
        """Deletes the checkpoint of an ended trial, unless it is one of the best."""
        if number not in self._kept:
            self.paths.trial(number).checkpoint.unlink(missing_ok=True)

    def _tidy_checkpoints(self) -> None:
        """Deletes checkpoints that a crash left behind, except those of unfinished trials."""
        needed = {drawn.number for drawn in self.ready}.union(self._kept)
        for file in self.paths.trials.glob("*/checkpoint.pt*"):
            name = file.parent.name
            if name.isdecimal() and (file.suffix == ".tmp" or int(name) not in needed):
                file.unlink(missing_ok=True)
