"""A search without processes: scripted workers that answer at once, and a study whose draws are listed beforehand."""

import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna

from nas.budget import Budget, Cost
from nas.config import ArchConfig, BudgetConfig, ImageShape
from nas.interrupts import Stop
from nas.jobs.crew import Crew
from nas.jobs.executor import Executor
from nas.jobs.job import Job
from nas.jobs.messages import (
    Began,
    Died,
    Ended,
    Epoch,
    Failed,
    FromWorker,
    OutOfMemory,
    Pause,
    Paused,
    Ready,
    Resume,
    Suspend,
    ToWorker,
    Train,
    Unfit,
    Verdict,
)
from nas.jobs.runner import Runner
from nas.paths import StudyPaths
from nas.space.space import Space
from nas.study.drawing import SearchSource
from nas.study.samplers import Random, SeededSampler
from nas.study.source import Display, Progress
from nas.study.trials import TrialRecord
from nas.train.checkpoint import EpochMetrics

EPOCHS = 3
SPACE = f"""
version: 1
budget: {{params: 5000}}
arch:
  stages: 1
  stage: {{blocks: 1, channels: {{type: int, low: 1, high: 100}}}}
train: {{epochs: {EPOCHS}}}
"""
# What a network costs here: so much for each channel.
PARAMS_A_CHANNEL = 100


class StubBudget(Budget):
    """Counts in no time."""

    def __init__(self, params: int = 5000) -> None:
        super().__init__(BudgetConfig(params=params), ImageShape(channels=1, size=8, classes=10))

    def check(self, arch: ArchConfig) -> Cost:
        params = arch.stages[0].channels * PARAMS_A_CHANNEL
        return Cost(params, 1, {"params": params / self.limits.params - 1})


class Listed(Random):
    """Draws what a list says for each trial's number, and at random after its end."""

    def __init__(self, channels: Sequence[int]) -> None:
        self.channels = channels
        self.seed(0)

    def sample_independent(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        if param_name == "stage0.channels" and trial.number < len(self.channels):
            return self.channels[trial.number]
        return super().sample_independent(study, trial, param_name, param_distribution)


@dataclass
class PruneAfter(optuna.pruners.BasePruner):
    """Prunes each trial named here after this epoch; notes at which epochs it was asked."""

    epochs: Mapping[int, int] = field(default_factory=dict)
    asked: list[tuple[int, int]] = field(default_factory=list)

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        assert trial.last_step is not None
        self.asked.append((trial.number, trial.last_step))
        return self.epochs.get(trial.number) == trial.last_step


@dataclass(frozen=True)
class Life:
    """What happens to one training."""

    curve: Sequence[float] = (0.5, 0.6, 0.7)
    end: Literal["finished", "diverged", "failed"] = "finished"
    """After the curve."""
    memory: int | None = None
    """Images that fit; a larger micro-batch ends the training in its first epoch."""
    deaths: Sequence[int] = ()
    """The worker dies after so many epochs, once for each entry."""


Lives = Callable[[Job], Life]


def metrics(epoch: int, accuracy: float) -> EpochMetrics:
    return EpochMetrics(epoch, 1.0, 0.5, 1.0, accuracy - 0.1, 1.0, accuracy, 0.1, 0.01, 100.0)


@dataclass
class World:
    """What outlives an executor."""

    trained: list[tuple[int, int]] = field(default_factory=list)
    """(trial, epoch), in the order in which they were trained."""
    deaths: list[tuple[int, int]] = field(default_factory=list)


class FakeExecutor(Executor):
    """Workers go on whenever the coordinator listens; their messages arrive one at a time."""

    def __init__(self, lives: Lives, world: World, study: optuna.Study, workers: int = 1) -> None:
        self.lives, self.world, self.study = lives, world, study
        self.count = workers
        self.submitted: list[Job] = []
        self.verdicts: list[tuple[int, bool, str | None]] = []
        """(trial, whether it goes on, its outcome in the storage at that moment)"""
        self.still_born: dict[int, int | Unfit] = {}
        """Workers that die so many times before they are ready, or say why they cannot start."""
        self.restarted: list[int] = []
        self.killed: list[int] = []
        self.started = False
        self.most_silences = 5
        """In a row, before it is taken for a search that waits for nothing."""
        self.deaf = False
        """Whether no worker hears a Suspend."""
        self.hangs: Callable[[], bool] = lambda: False
        """Whether no worker says anything now; not once one was killed for it."""
        self.hung = 0
        """How often the coordinator listened in vain."""
        self._trainings: dict[int, Generator[FromWorker, bool, None]] = {}
        self._orders: dict[int, Job] = {}
        self._suspended: set[int] = set()
        self._outbox: deque[tuple[int, FromWorker]] = deque()
        self._answers: dict[int, bool | None] = {}
        """What each worker was told and has not acted on yet."""
        self._asking: set[int] = set()
        """Workers that wait for the answer to an epoch."""
        self._silent = 0
        self.paused: set[int] = set()

    @property
    def workers(self) -> list[int]:
        return list(range(self.count))

    def tell(self, **changes: Any) -> None:
        raise NotImplementedError

    def start(self) -> None:
        self.started = True
        for worker in self.workers:
            self._spawn(worker)

    def _spawn(self, worker: int) -> None:
        match self.still_born.get(worker, 0):
            case Unfit() as unfit:
                self._outbox += [(worker, unfit), (worker, Died("exit code 0"))]
            case 0:
                self._outbox.append((worker, Ready("fake", "fp32")))
            case int(left):
                self.still_born[worker] = left - 1
                self._outbox.append((worker, Died("exit code 3")))

    def restart(self, worker: int) -> None:
        self.restarted.append(worker)
        self.break_off(worker)
        self._spawn(worker)

    def kill(self, worker: int) -> None:
        self.killed.append(worker)
        self.break_off(worker, Died("SIGKILL"))

    def close(self, force: bool = False) -> None:
        raise AssertionError("whoever started the search ends the workers")

    def send(self, worker: int, message: ToWorker) -> None:
        match message:
            case Train(job=job):
                assert worker not in self._trainings, "a worker that trains was given another job"
                self.submitted.append(job)
                self._orders[worker] = job
                self._suspended.discard(worker)
                self._trainings[worker] = self._train(worker, job)
                self._answers[worker] = None
            case Verdict(go_on=go_on):
                number = int(self._orders[worker].key)
                outcome = self.study.get_trials(deepcopy=False)[number].user_attrs.get("outcome")
                self.verdicts.append((number, go_on, outcome))
                if worker in self._asking:  # the others ignore it
                    self._answers[worker] = go_on
                    self._asking.discard(worker)
            case Suspend():
                self._suspended |= set() if self.deaf else {worker}
                self.paused.discard(worker)
            case Pause(number=number):
                self.paused.add(worker)
                self._outbox.append((worker, Paused(number)))
            case Resume():
                self.paused.discard(worker)

    @property
    def quiet(self) -> bool:
        """Whether nobody trains."""
        return self._trainings.keys() <= self.paused

    def break_off(self, worker: int, *messages: FromWorker) -> None:
        """Its training ends with these."""
        self._trainings.pop(worker, None)
        self._answers.pop(worker, None)
        self._outbox += [(worker, message) for message in messages]

    def receive(self, timeout: float) -> list[tuple[int, FromWorker]]:
        if not self.killed and self.hangs():
            self.hung += 1
            time.sleep(0.05)
            return []
        for worker in self._answers.keys() - self.paused:
            self._advance(worker, self._answers.pop(worker))
        if not self._outbox:
            self._silent += 1
            assert self._silent < self.most_silences, "the coordinator waits for workers that have nothing to say"
            return []
        self._silent = 0
        return [self._outbox.popleft()]

    def _advance(self, worker: int, answer: bool | None) -> None:
        message = next(self._trainings[worker]) if answer is None else self._trainings[worker].send(answer)
        if isinstance(message, Began):
            self._answers[worker] = None  # nobody answers that
        elif isinstance(message, Epoch):
            self._asking.add(worker)
        else:
            del self._trainings[worker]
        self._outbox.append((worker, message))

    def _train(self, worker: int, job: Job) -> Generator[FromWorker, bool, None]:
        """As `fit` does it: says again what its checkpoint holds, then trains."""
        life, checkpoint = self.lives(job), job.folder / "checkpoint.pt"
        done = int(checkpoint.read_text()) if checkpoint.exists() else 0
        assert job.folder.is_dir()
        yield Began(done, "whole" if checkpoint.exists() else "none")
        if life.memory is not None and job.train.batch_size // job.micro_batches > life.memory:
            yield OutOfMemory("the device", "OutOfMemoryError: tried to allocate a lot")
            return
        for epoch in range(1, len(life.curve) + 1):
            if epoch > done:
                if worker in self._suspended:
                    checkpoint.write_text(str(epoch - 1))
                    yield Ended("suspended")
                    return
                dead = life.deaths.count(epoch - 1) - self.world.deaths.count((int(job.key), epoch - 1))
                if dead > 0:
                    self.world.deaths.append((int(job.key), epoch - 1))
                    yield Died("SIGKILL")
                    return
                self.world.trained.append((int(job.key), epoch))
                checkpoint.write_text(str(epoch))
            go_on = yield Epoch(metrics(epoch, life.curve[epoch - 1]))
            if not go_on and epoch < EPOCHS:
                yield Ended("stopped")
                return
        if life.end == "failed":
            yield Failed("RuntimeError: out of luck", "Traceback: somewhere")
        else:
            yield Ended(life.end)


@dataclass
class FakeDisplay(Display):
    """Remembers what it was shown; `on_update` may intervene."""

    notes: list[str] = field(default_factory=list)
    rows: list[TrialRecord] = field(default_factory=list)
    on_update: Callable[[Progress], None] = lambda progress: None

    def update(self, progress: Progress) -> None:
        self.on_update(progress)

    def ended(self, row: TrialRecord, progress: Progress) -> None:
        self.rows.append(row)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Search:
    """A source and its runner."""

    def __init__(self, source: SearchSource, runner: Runner) -> None:
        self.source, self.runner, self.stop, self.crew = source, runner, runner.stop, runner.crew

    @property
    def progress(self) -> Progress:
        return self.source.progress

    def run(self) -> None:
        self.source.adopt(self.crew.size)
        self.runner.run()


def draw_only(
    study: optuna.Study, sampler: SeededSampler, space: Space, budget: Budget, seed: int = 0, least_params: int | None = None
) -> SearchSource:
    """A source of which nothing is trained."""
    return SearchSource(
        study,
        StudyPaths(Path("none")),
        sampler,
        space,
        budget,
        seed=seed,
        least_params=least_params,
        goal=10**6,
        display=FakeDisplay(),
    )


def has_reported(progress: Progress, epoch: int | None = None) -> bool:
    """Whether some training that runs has reported this epoch, or any."""
    return any(r.last and epoch in (None, r.last.epoch) for r in progress.running.values())


@dataclass
class Bench:
    """A study, and coordinators for it, one after another."""

    paths: StudyPaths
    space: Space
    channels: Sequence[int]
    """What is drawn for each trial."""
    storage: Any = field(default_factory=optuna.storages.InMemoryStorage)
    budget: Budget = field(default_factory=StubBudget)
    pruner: optuna.pruners.BasePruner = field(default_factory=PruneAfter)
    sampler: SeededSampler | None = None
    world: World = field(default_factory=World)
    display: FakeDisplay = field(default_factory=FakeDisplay)
    executor: FakeExecutor | None = None
    """Of the latest coordinator."""

    def coordinator(
        self,
        goal: int,
        lives: Lives | Mapping[int, Life] | None = None,
        workers: int = 1,
        seed: int = 0,
        deadline: float | None = None,
        **more: Any,
    ) -> Search:
        """`lives` by trial; a mapping leaves all others at their default. `more`: see `SearchSource`."""
        known = {"storage": self.storage, "study_name": "study", "direction": "maximize", "load_if_exists": True}
        study = optuna.create_study(**known, pruner=self.pruner)
        by_number = dict(lives) if isinstance(lives, Mapping) else {}
        chosen = lives if callable(lives) else lambda job: by_number.get(int(job.key), Life())
        self.executor = FakeExecutor(chosen, self.world, study, workers)
        sampler, shown = self.sampler or Listed(self.channels), {"goal": goal, "display": self.display}
        source = SearchSource(study, self.paths, sampler, self.space, self.budget, seed=seed, **shown, **more)
        crew = Crew(self.executor, self.display.note)
        return Search(source, Runner(source, crew, note=self.display.note, stop=Stop(), deadline=deadline))

    def run(self, goal: int, lives: Any = None, workers: int = 1, **more: Any) -> Search:
        coordinator = self.coordinator(goal, lives, workers, **more)
        coordinator.run()
        return coordinator

    def cut_off(self, goal: int, lives: Any = None, workers: int = 1, epoch: int | None = None) -> Search:
        """A run that is stopped once somebody has reported this epoch, or any."""
        coordinator = self.coordinator(goal, lives, workers)
        self.stop_when(lambda progress: has_reported(progress, epoch), coordinator)
        coordinator.run()
        return coordinator

    def once(self, condition: Callable[[Progress], bool], action: Callable[[], None]) -> None:
        """Does this as soon as the condition is true."""

        def on_update(progress: Progress) -> None:
            if condition(progress):
                self.display.on_update = lambda progress: None
                action()

        self.display.on_update = on_update

    def stop_when(self, condition: Callable[[Progress], bool], coordinator: Search) -> None:
        """As Ctrl-C does."""
        self.once(condition, coordinator.stop.request)

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name="study", storage=self.storage).get_trials()

    @property
    def outcomes(self) -> list[str]:
        """Of each trial; those that are not told yet in brackets by their state."""
        return [trial.user_attrs["outcome"] if trial.state.is_finished() else f"({trial.state.name})" for trial in self.trials]

    @property
    def submitted(self) -> list[int]:
        return [int(job.key) for job in self.executor.submitted]
