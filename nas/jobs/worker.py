"""A worker: trains the jobs that it is given, with one message an epoch. Knows neither Optuna nor where a study is stored.

Of a worker of several processes, which train one network together, each runs this; the executor forwards what the first one says.
"""

import gc
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from nas.config import ArchConfig
from nas.data.datasets import load_dataset
from nas.data.images import ImageSet, JoinedSet
from nas.data.loader import Resident, TrainBatches
from nas.data.splits import select_data, split
from nas.data.stream import bytes_of, pick_storage
from nas.device import (
    device_name,
    out_of_memory,
    peak_bytes,
    peak_host_bytes,
    pick_device,
    pick_precision,
    release_memory,
    still_works,
    tune_process,
    wait_for,
)
from nas.errors import DeviceError, NasError, one_line
from nas.files import is_disk_full, write_whole
from nas.jobs.job import Job
from nas.jobs.messages import (
    Alive,
    Began,
    Broken,
    Ended,
    Epoch,
    Failed,
    FromWorker,
    Note,
    OutOfMemory,
    Pause,
    Paused,
    Ready,
    Resume,
    Saved,
    Shutdown,
    Suspend,
    Timed,
    TimeSteps,
    ToWorker,
    Train,
    Unfit,
    Verdict,
    Waiting,
    WorkerPlan,
)
from nas.models import build_model
from nas.models.user_code import place_of
from nas.paths import StudyPaths, TrialPaths
from nas.train.checkpoint import EpochMetrics, Found
from nas.train.distributed import ALONE, Group, Processes
from nas.train.evaluate import Stopped
from nas.train.loop import EpochProgress, fit
from nas.train.pace import measure_pace
from nas.train.threads import ThreadChoice

ALIVE_SECONDS = 1.0  # of silence within an epoch, after which it says how far it is
EXIT_BROKEN = 3  # exit code of a worker whose device no longer works
DISK_FULL_SECONDS = 5.0  # between two attempts to write


class Channel(Protocol):
    """A worker's end of the line to the runner: multiprocessing's `Connection`, or what acts as one. Every method raises EOFError
    or OSError once the runner is gone."""

    def send(self, message: FromWorker) -> None: ...
    def recv(self) -> ToWorker: ...
    def poll(self) -> bool: ...


class LostOwnership(Exception):
    """Another runner owns the study, or none does: nothing may be written any more."""


def warm_up() -> None:
    """Does now what the first training would do for the first time, and wait for: the first step of an optimiser imports torch's
    compiler, which a search does not use, and that takes as long as all of torch."""
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.SGD([weight], lr=0.1).step()


def time_steps(order: TimeSteps) -> Timed:
    torch.set_num_threads(order.threads)
    device, shape, recipe = torch.device("cpu"), order.shape, order.candidate.train.model_copy(update={"hardest": 1.0})
    tune_process(device)
    noise = np.random.default_rng(0)
    pictures = noise.integers(0, 256, (2 * recipe.batch_size, shape.size, shape.size, shape.channels), dtype=np.uint8)
    images = ImageSet(pictures, noise.integers(0, shape.classes, len(pictures)))
    data = Resident(images, [128.0] * shape.channels, [64.0] * shape.channels, device)
    train = TrainBatches(data, recipe, 0, shape.classes)
    few = Resident(images.only(np.arange(1)), [128.0] * shape.channels, [64.0] * shape.channels, device)
    pace = measure_pace(build_model(order.candidate.arch, shape), train, few, recipe, pick_precision(device), order.seconds)
    release_memory(device)
    return Timed(train.batch_size / pace.step, peak_host_bytes())


def run_worker(channel: Channel, plan: WorkerPlan) -> None:
    """Serves the runner until it says Shutdown or is gone."""
    torch.set_num_threads(plan.threads)
    try:
        trainer = _Trainer(channel, plan)
    except NasError as error:
        with suppress(EOFError, OSError):
            channel.send(Unfit(error.message, error.hint))
        return
    gc.freeze()  # all that is imported by now: looking for garbage there after each training would take 0.2 s
    try:
        with suppress(LostOwnership, EOFError, OSError):  # the runner is gone; the last checkpoint holds all but this epoch
            _serve(channel, trainer)
    finally:
        gc.unfreeze()


def _serve(channel: Channel, trainer: "_Trainer") -> None:
    channel.send(Ready(trainer.device_name, trainer.precision.name, trainer.sees_study))
    while True:
        match channel.recv():
            case Train() as order:
                trainer.train(order)
            case Shutdown():
                return
            case Pause(number=number):
                trainer.pause(number)
            case Suspend() | Resume():
                pass  # nothing is being trained


def _blamed(job: Job, error: BaseException) -> str:
    """In one line. Of a known network whatever fails is its own code's fault as far as anybody can tell, with the place in it."""
    if isinstance(job.network, ArchConfig) or isinstance(error, NasError):
        return one_line(error)
    from nas.foreign.known import named

    return f"{job.network.built} fails in its training: {one_line(error)}{place_of(error, named(job.network.name).file)}"


class _Trainer:
    """The data and the device, loaded once for all trainings."""

    def __init__(self, channel: Channel, plan: WorkerPlan) -> None:
        self.channel, self.plan = channel, plan
        self.token_file = plan.token_file or StudyPaths(plan.study).token
        self.sees_study = self._leads()
        self.device = pick_device(plan.device)
        tune_process(self.device)
        self.device_name = device_name(self.device)
        self.precision = pick_precision(self.device)
        self.dataset = load_dataset(plan.data)
        try:
            self._reside()
        except Exception as error:
            where = out_of_memory(error)
            if where is None:
                raise
            raise DeviceError(
                f"the images do not fit in the free memory of {where}: {one_line(error)}",
                hint="use fewer workers on it, --train-subset, or a smaller --image-size",
            ) from None
        self.group: Group = ALONE
        if plan.processes > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            self.group = Processes(self.device, plan.rank, plan.processes, plan.init_method)
        self._suspended = False
        self._early_verdict: Verdict | None = None
        self._progress: EpochProgress | None = None  # of the job
        self._last_word = time.monotonic()

    def _reside(self) -> None:
        data = self.dataset
        if self.plan.selection is None:
            parts = split(data, self.plan.data)
            used: list[tuple[ImageSet | JoinedSet, np.ndarray | None]] = [
                (data.train, parts.train),
                (data.validation or data.train, parts.validation),
            ]
        else:
            chosen = select_data(data, self.plan.data, self.plan.selection)
            used = [(chosen.images, chosen.train)]
        nbytes = sum(bytes_of(images, indices) for images, indices in used)
        storage = pick_storage(nbytes, self.device, self.plan.sharing)
        placed = [storage(images, data.mean, data.std, self.device, indices) for images, indices in used]
        self.train_data, self.validation = placed[0], placed[1] if len(placed) > 1 else None
        if storage.storage == "streamed":
            self.device_name += ", images streamed from the cache"

    def train(self, order: Train) -> None:
        """Trains one job and says how it ended. An exception costs this job, not the worker."""
        self._suspended, self._early_verdict, self._progress = False, None, None
        ending = self._fit_or_say_why(order)
        torch.set_num_threads(self.plan.threads)
        release_memory(self.device)  # the next network, or another worker on the same device, may need it elsewhere
        self._send(ending)

    def _fit_or_say_why(self, order: Train) -> Ended | OutOfMemory | Failed:
        try:
            if self.sees_study:
                return self._fit(order.job, order.job.paths)
            with tempfile.TemporaryDirectory(prefix="nas-job-", ignore_cleanup_errors=True) as folder:
                return self._fit_elsewhere(order, TrialPaths(Path(folder)))
        except (LostOwnership, EOFError, ConnectionError):
            raise
        except (Exception, SystemExit) as error:  # whatever building or training may raise is the job's failure
            if where := out_of_memory(error, order.job.micro_batches):
                return OutOfMemory(where, one_line(error))
            if not still_works(self.device):
                self._send(Broken(one_line(error)))
                sys.exit(EXIT_BROKEN)
            return Failed(_blamed(order.job, error), traceback.format_exc())

    def _fit_elsewhere(self, order: Train, paths: TrialPaths) -> Ended:
        """Where the study's folder cannot be seen, checkpoints travel as messages."""
        if (checkpoint := order.checkpoint) is not None:
            try:
                self._write(lambda: write_whole(paths.checkpoint, checkpoint))
            except Stopped:
                return Ended("suspended")
        ending = self._fit(order.job, paths)
        if ending.status == "suspended" and paths.checkpoint.exists():
            self._send(Saved(paths.checkpoint.read_bytes()))
        return ending

    def _fit(self, job: Job, paths: TrialPaths) -> Ended:
        resumed_after = 0

        def on_begin(epochs_done: int, found: Found) -> None:
            nonlocal resumed_after
            resumed_after = epochs_done
            self._send(Began(epochs_done, found))

        def on_progress(progress: EpochProgress) -> None:
            self._progress = progress

        def on_epoch(metrics: EpochMetrics) -> bool:
            if not self.sees_study and metrics.epoch > resumed_after:
                self._send(Saved(paths.checkpoint.read_bytes()))
            self._send(Epoch(metrics, peak_bytes(self.device)))
            return self._verdict()

        def note(text: str) -> None:
            self._send(Note(text))

        quiet: AbstractContextManager[Any] = nullcontext()
        build: Callable[..., torch.nn.Module] = build_model
        if not isinstance(job.network, ArchConfig):
            from nas.foreign import known  # takes long, and few need it

            quiet, build = known.quiet(), known.build
        torch.manual_seed(job.seed)
        with quiet:
            model = build(job.network, self.dataset.shape)
            classes = len(self.dataset.classes)
            result = fit(
                model,
                TrainBatches(self.train_data, job.train, job.seed, classes, self.group.part),
                self.validation,
                job.train,
                on_epoch,
                paths=paths,
                precision=self.precision,
                seed=job.seed,
                identity=job.identity,
                micro_batches=job.micro_batches,
                should_suspend=self._should_suspend,
                on_begin=on_begin,
                on_progress=on_progress,
                write=self._write,
                compiling=note if job.compiled else None,
                group=self.group,
                channels_last=isinstance(job.network, ArchConfig) or job.network.channels_last,
                threads=ThreadChoice(self.plan.threads, note) if self.plan.times_threads and not job.compiled else None,
            )
        return Ended(result.status)

    # ------------------------------------------------------------------------------------------------------- writing

    def _leads(self) -> bool:
        """Whether the study's folder is seen, and led by the runner that this worker belongs to."""
        try:
            return self.token_file.read_text() == self.plan.token
        except OSError:
            return False

    def _write(self, action: Callable[[], None]) -> None:
        """Waits for room where a disk is full; raises Stopped where it is suspended meanwhile, and LostOwnership where another
        runner may have given the job to a worker of its own."""
        while True:
            if self.sees_study and not self._leads():
                raise LostOwnership
            try:
                return action()
            except OSError as error:
                if not is_disk_full(error):
                    raise
                if self._suspended:  # it cannot wait any longer, and goes on from the checkpoint before
                    raise Stopped from None
                self._send(Waiting(f"{error.strerror}: {error.filename}"))
            until = time.monotonic() + DISK_FULL_SECONDS
            while time.monotonic() < until and not self._should_suspend():
                time.sleep(0.1)

    # ------------------------------------------------------------------------------------------------------ messages

    def _send(self, message: FromWorker) -> None:
        self.channel.send(message)
        self._last_word = time.monotonic()

    def _verdict(self) -> bool:
        """Waits for the answer to an epoch; a Suspend may come before it."""
        while self._early_verdict is None:
            match self.channel.recv():
                case Verdict(go_on=go_on):
                    return go_on
                case message:
                    self._heed(message)
        verdict, self._early_verdict = self._early_verdict, None
        return verdict.go_on

    def _should_suspend(self) -> bool:
        if not self._suspended and self.channel.poll():
            self._heed(self.channel.recv())
        if time.monotonic() - self._last_word > ALIVE_SECONDS:
            self._send(Alive(self._progress))
        return self._suspended

    def _heed(self, message: ToWorker) -> None:
        match message:
            case Suspend():
                self._suspended = True
            case Pause(number=number):
                self.pause(number)
            case Verdict() if self.plan.processes > 1:  # the first process's epoch was answered before this one ended its own
                self._early_verdict = message
            case Shutdown():
                raise EOFError("shut down in the middle of a training")

    def pause(self, number: int) -> None:
        """Until the runner says Resume, or to suspend the training; a verdict may come meanwhile. The runner may time a network
        on this device next: it is idle by then, and has the memory that the training does not use."""
        wait_for(self.device)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._send(Paused(number))
        while not self._suspended:
            match self.channel.recv():
                case Resume():
                    break
                case Verdict() as verdict:
                    self._early_verdict = verdict
                case message:
                    self._heed(message)
        self._last_word = time.monotonic()
