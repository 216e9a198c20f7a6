"""The coordinator: hands candidates to workers, reports their epochs, prunes, records how trainings end, and mends faults.

It is the only process that talks to Optuna. Candidates are drawn ahead while the workers train, one draw between two looks at
what they say. What the sampler may learn is kept back until a draw that has begun is done: with one worker the same seed gives
the same study, whatever the timing.
"""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.config import MetricName
from nas.data.loader import mix_seed
from nas.errors import NasError, StudyError
from nas.files import write_whole
from nas.interrupts import Stop
from nas.jobs.crew import Crew
from nas.jobs.messages import (
    Alive,
    Began,
    Broken,
    Died,
    Ended,
    Epoch,
    Failed,
    FromWorker,
    OutOfMemory,
    Paused,
    Ready,
    Saved,
    Suspend,
    Train,
    Unfit,
    Verdict,
    Waiting,
)
from nas.paths import StudyPaths
from nas.study import outcomes
from nas.study.drawing import Drawer
from nas.study.finalists import FinalistDrawer
from nas.study.kept import KeptCheckpoints
from nas.study.optuna_private import live_trial
from nas.study.progress import Display, Progress, Running
from nas.study.trials import TrialRecord
from nas.train.checkpoint import EpochMetrics, write_curve
from nas.train.device import more_parts

MAX_FAILURES_IN_A_ROW = 5
MAX_DEATHS_OF_A_TRIAL = 3
SUSPEND_SECONDS = 30.0
"""Within which a worker has to write its checkpoint; it looks up after every step."""


class Coordinator:
    def __init__(
        self,
        study: optuna.Study,
        drawer: Drawer | FinalistDrawer,
        crew: Crew,
        paths: StudyPaths,
        *,
        goal: int,
        display: Display,
        stop: Stop,
        deadline: float | None = None,
        persist: Callable[[Callable[[], None]], None] = lambda action: action(),
        metric: MetricName = "accuracy",
    ) -> None:
        """
        Args:
            crew: the workers, who may work for others before and after; whoever hired them ends them.
            goal: trained networks, over all runs of the study.
            stop: may be requested by a signal handler; the main loop acts on it.
            deadline: a time of `time.monotonic`.
            persist: carries out a write to a file, and tries again when a disk is full.
            metric: of the validation images, what is reported to the study after each epoch.
        """
        self.study, self.drawer, self.paths = study, drawer, paths
        self.crew, self.executor = crew, crew.executor
        self.display, self.stop, self.deadline, self.persist = display, stop, deadline, persist
        trials = study.get_trials(deepcopy=False)
        counts = outcomes.count_outcomes(trial for trial in trials if trial.state.is_finished())  # `adopt` sees to the others
        self.progress = Progress(goal, drawer.epochs, counts, devices=self.crew.devices, metric=metric)
        self.checkpoints = KeptCheckpoints(paths)
        self._note_best(trials)
        self.decided: deque[tuple[optuna.Trial, outcomes.Outcome]] = deque()
        """Recorded, and not told yet."""
        self.failures_in_a_row = 0
        self.error: NasError | None = None
        """Why the search cannot go on."""
        self.suspending: float | None = None
        """Since when."""
        self.cut_off = False
        """Whether a draw was under way then, before which nothing may be told; the next run draws again, and then tells."""

    # ------------------------------------------------------------------------------------------------ the main loop

    def run(self) -> None:
        """Until the goal is reached, the space exhausted, or a stop requested.

        Raises NasError where the search cannot go on.
        """
        self.adopt()
        if not self.wanted:
            self.settle()
            return
        self.crew.start()
        try:
            self._run()
        except NasError:
            self.put_down()
            raise
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        while True:
            if self.deadline is not None and time.monotonic() > self.deadline and not self.stop.requested:
                self.display.note("the time is up")
                self.stop.requested = True
            if self.stop.requested:
                self.suspend()
            if not self.drawer.drawing and not self.cut_off:
                self.settle()
            if not self.stop.requested and not self.drawer.wants_quiet:
                self.hand_out()
            self.display.update(self.progress)
            if self.done:
                return
            hushing = self.drawer.wants_quiet and not self.crew.hush()
            for worker, message in self.crew.receive(timeout=0 if self.drawer.drawing and not hushing else 0.5):
                self.handle(worker, message)
            if self.crew.lost is not None:
                self.stop_because(self.crew.lost)
            if self.drawer.drawing and not hushing and not self.stop.requested:
                self.draw()
                if not self.drawer.wants_quiet:
                    self.crew.wake()

    @property
    def done(self) -> bool:
        if self.progress.running or (self.decided and not self.cut_off):
            return False
        return self.stop.requested or self.wanted == 0 or (self.drawer.exhausted is not None and not self.drawer.ready)

    def suspend(self) -> None:
        """Every training writes a checkpoint where it is; who does not within a time is ended, and goes on from its last one."""
        if self.suspending is None:
            self.suspending = time.monotonic()
            self.cut_off = self.drawer.drawing
            self.drawer.drawing = self.crew.replacing = False
            self.crew.wake()
            for worker in self.progress.running:
                self.executor.send(worker, Suspend())
        elif time.monotonic() - self.suspending > SUSPEND_SECONDS:
            for worker, running in self.progress.running.items():
                self.display.note(
                    f"worker {worker} wrote no checkpoint within {SUSPEND_SECONDS:.0f} s and is ended; "
                    f"trial {running.number} will go on from the last one"
                )
                self.executor.kill(worker)
            self.suspending = float("inf")  # once is enough

    def put_down(self) -> None:
        """As `suspend`, where the study itself cannot be written any more."""
        deadline = time.monotonic() + SUSPEND_SECONDS
        left = set(self.progress.running)
        for worker in left:
            self.executor.send(worker, Suspend())
            self.executor.send(worker, Verdict(go_on=True))  # one of them waits for it; the others ignore it
        while left and time.monotonic() < deadline:
            for worker, message in self.executor.receive(timeout=0.5):
                match message:
                    case Epoch():  # judged at the next start
                        self.executor.send(worker, Verdict(go_on=True))
                    case Saved(number=number, checkpoint=checkpoint):
                        with suppress(OSError):
                            write_whole(self.paths.trial(number).checkpoint, checkpoint)
                    case Ended() | Failed() | OutOfMemory() | Died():
                        left.discard(worker)

    def stop_because(self, error: NasError) -> None:
        """The other trainings are suspended before it is raised."""
        self.error = self.error or error
        self.stop.requested = True

    @property
    def wanted(self) -> int:
        """How many more trainings the goal asks to begin."""
        pending = sum(outcome in outcomes.COUNTED for _, outcome in self.decided)
        return max(0, self.progress.goal - self.progress.trained - len(self.progress.running) - pending)

    @property
    def missing(self) -> int:
        """How many candidates still have to be drawn for them."""
        return 0 if self.drawer.exhausted else max(0, self.wanted - len(self.drawer.ready))

    def hand_out(self) -> None:
        """A candidate to each idle worker; then the next draw begins, unless one waits for each worker."""
        for worker in sorted(self.crew.idle):
            if not self.drawer.ready or not self.wanted:
                break
            self.submit(worker, self.drawer.ready.popleft())
        self.draw_ahead()

    def draw_ahead(self) -> None:
        if not self.drawer.drawing and self.missing and len(self.drawer.ready) < self.crew.size:
            self.drawer.begin()

    def draw(self) -> None:
        try:
            self.drawer.step()
        except NasError as error:
            self.drawer.drawing = False
            self.stop_because(error)
        if self.drawer.exhausted and not self.drawer.drawing:
            self.display.note(self.drawer.exhausted)
        self._take_counts()

    def _take_counts(self) -> None:
        self.progress.counts.update(self.drawer.counts)
        self.drawer.counts.clear()

    def submit(self, worker: int, running: Running) -> None:
        self.progress.running[worker] = running
        trial = self.paths.trial(running.number)
        self.persist(lambda: write_whole(trial.candidate, running.candidate.to_json().encode()))
        checkpoint = trial.checkpoint.read_bytes() if worker in self.crew.blind and trial.checkpoint.exists() else None
        seed = mix_seed(self.drawer.seed, running.number)
        folder = trial.folder.absolute()
        self.crew.occupy(worker, Train(running.number, running.candidate, folder, seed, running.micro_batches, checkpoint))

    # ------------------------------------------------------------------------------------------------------ adoption

    def adopt(self) -> None:
        """Takes over what an earlier run left: carries out decisions it had recorded, and queues the rest again."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            outcome = frozen.user_attrs.get("outcome")
            if outcome is None or outcome == "duplicate":
                self.drawer.adopt(frozen)
            elif outcome == "over_budget":
                outcomes.finish(self.study, live_trial(self.study, frozen))
                self.progress.counts[outcome] += 1
            else:
                # Told once the draw is done that had begun before it was decided, if one had.
                self.decided.append((live_trial(self.study, frozen), outcome))
        self._take_counts()
        self.draw_ahead()
        self.checkpoints.tidy({running.number for running in self.drawer.ready})

    # ----------------------------------------------------------------------------------------- what workers report

    def handle(self, worker: int, message: FromWorker) -> None:
        self.crew.hear(worker, message)
        match message:
            case Began():
                self.on_begin(worker, message)
            case Saved(number=number, checkpoint=checkpoint):
                self.persist(lambda: write_whole(self.paths.trial(number).checkpoint, checkpoint))
            case Epoch(metrics=metrics, memory=memory):
                self.progress.running[worker].memory = memory
                self.on_epoch(worker, metrics)
            case Waiting(number=number, reason=reason):
                running = self.progress.running[worker]
                if not running.troubled:
                    self.display.note(f"trial {number} pauses and tries again every few seconds: {reason}")
                running.troubled = True
            case Ended(status=status):
                self.on_end(self.release(worker), status)
            case OutOfMemory(where=where, reason=reason):
                self.on_out_of_memory(self.release(worker), where, reason)
            case Failed(reason=reason, traceback=traceback):
                self.fail(self.release(worker), reason, traceback)
            case Died():
                self.on_death(worker, message)
            case Broken(number=number, reason=reason):
                self.display.note(f"the device of worker {worker} fails in trial {number}: {reason}")
            case Ready() | Unfit() | Alive() | Paused():
                pass  # the crew's business

    def on_begin(self, worker: int, message: Began) -> None:
        running = self.progress.running[worker]
        running.curve.clear()
        # It has trained on after every epoch but the last, so that those were judged; if not by the study's values, then by those
        # that the checkpoint holds.
        running.judged = max(message.epochs_done, *running.known, 1) - 1
        if message.found in ("damaged", "mismatched"):
            what = "damaged" if message.found == "damaged" else "of another training or version"
            self.display.note(f"trial {running.number} starts again: its checkpoint is {what}")
        elif message.found == "none" and running.known:
            self.display.note(f"trial {running.number} starts again: it has no checkpoint any more")
        elif message.found == "whole":
            done = message.epochs_done
            self.display.note(f"trial {running.number} goes on " + (f"after epoch {done}" if done else "within its first epoch"))

    def on_epoch(self, worker: int, metrics: EpochMetrics) -> None:
        running = self.progress.running[worker]
        if running.troubled:
            self.display.note(f"trial {running.number} goes on")
            running.troubled = False
        running.curve.append(metrics)
        self.display.epoch(running)
        if worker in self.crew.blind:
            self.persist(lambda: write_curve(self.paths.trial(running.number).metrics, running.curve))
        value = metrics.validation(self.progress.metric)
        assert value is not None
        if metrics.epoch not in running.known:
            running.deaths = 0  # it gets on
        if running.known.get(metrics.epoch) != value:  # where they differ, the checkpoint's curve is the truth
            outcomes.report(self.study, running.trial, value, metrics.epoch)
            running.known[metrics.epoch] = value
        last = metrics.epoch == self.progress.epochs
        prune = not last and metrics.epoch > running.judged and self.would_prune(running)
        if prune:
            self.decide(running, "pruned_early")  # recorded before it is acted on
        self.crew.occupy(worker, Verdict(go_on=not prune))

    def would_prune(self, running: Running) -> bool:
        return self.study.pruner.prune(self.study, outcomes.stored(self.study, running.trial))

    def on_end(self, running: Running, status: str) -> None:
        if status == "suspended":
            self.display.note(f"trial {running.number} is suspended")
        elif status == "diverged":
            self.decide(running, "diverged")
        elif status == "finished":
            self.decide(running, "trained")
        else:
            assert status == "stopped", status
            assert running.decided

    def release(self, worker: int) -> Running:
        self.crew.release(worker)
        return self.progress.running.pop(worker)

    # -------------------------------------------------------------------------------------------------------- faults

    def on_death(self, worker: int, death: Died) -> None:
        running = self.progress.running.pop(worker, None)
        if running is None:
            self.display.note(f"worker {worker} died ({death.reason}) while it had nothing to train")
        elif running.decided:
            pass
        elif self.suspending is not None:
            self.display.note(f"worker {worker} died ({death.reason}); trial {running.number} will go on from its checkpoint")
        elif death.out_of_memory:
            self.on_out_of_memory(running, "the host", f"the system ended its worker ({death.reason})")
        elif running.deaths + 1 >= MAX_DEATHS_OF_A_TRIAL:
            self.fail(running, f"its worker died {MAX_DEATHS_OF_A_TRIAL} times, last with {death.reason}", "")
        else:
            running.deaths += 1
            self.display.note(f"worker {worker} died ({death.reason}); trial {running.number} goes on from its checkpoint")
            self.drawer.ready.appendleft(running)

    def on_out_of_memory(self, running: Running, where: str, reason: str) -> None:
        """The same trial again, each batch in twice as many parts; it is recorded, since BatchNorm sees smaller ones."""
        batch = running.candidate.train.batch_size
        parts = more_parts(batch, running.micro_batches)
        if parts is None:
            last = batch // running.micro_batches
            self.fail(running, f"the memory of {where} does not suffice, even in micro-batches of {last} images ({reason})", "")
            return
        running.micro_batches = parts
        running.trial.set_user_attr("micro_batches", parts)
        images = batch // parts
        self.display.note(f"trial {running.number}: the memory of {where} ran out; again, in micro-batches of {images} images")
        self.drawer.ready.appendleft(running)

    def fail(self, running: Running, reason: str, traceback: str) -> None:
        file = self.paths.trial(running.number).error
        self.persist(lambda: write_whole(file, f"{reason}\n\n{traceback}".encode()))
        self.drawer.forget(running)
        running.trial.set_user_attr("reason", reason)
        self.display.note(f"trial {running.number} failed: {reason} (traceback in {file})")
        self.decide(running, "failed")
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            self.stop_because(
                StudyError(
                    f"{MAX_FAILURES_IN_A_ROW} trials in a row failed, the last with: {reason}",
                    hint=f"read {file}; the same command goes on with the next trial",
                )
            )

    # ------------------------------------------------------------------------------------------------------ outcomes

    def decide(self, running: Running, outcome: outcomes.Outcome) -> None:
        """Records it; `settle` does the rest."""
        outcomes.decide(running.trial, outcome)
        running.decided = True
        self.decided.append((running.trial, outcome))
        if outcome != "failed":
            self.failures_in_a_row = 0
            self.progress.trained_here += 1

    def settle(self) -> None:
        """Tells what was decided."""
        while self.decided:
            trial, outcome = self.decided[0]
            outcomes.finish(self.study, trial)
            self.decided.popleft()
            self.progress.counts[outcome] += 1
            trials = self.study.get_trials(deepcopy=False)
            self._note_best(trials)
            self.display.ended(TrialRecord.of(trials[trial.number]), self.progress)
            self.drawer.settle_twins(trials[trial.number])
            self._take_counts()
            self.checkpoints.drop(trial.number)

    def _note_best(self, trials: list[FrozenTrial]) -> None:
        best = self.checkpoints.choose(trials)
        self.progress.best = None if best is None else TrialRecord.of(best)
        self.progress.history = outcomes.best_so_far(trials)
