"""One of several processes that train one network: what it is told, what it trains, what it says.

It is deaf to signals and has a line to who started it, over which it hears when to suspend; where that line ends, so does it.
"""

import os
import pickle
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from setproctitle import setproctitle

from nas.config import Candidate, DataConfig, ImageShape
from nas.data.datasets import load_dataset
from nas.data.loader import Resident, TrainBatches
from nas.data.splits import DataSelection, select_data
from nas.data.stream import place
from nas.models import build_model
from nas.paths import TrialPaths
from nas.train.checkpoint import EpochMetrics
from nas.train.device import pick_precision, tune_process
from nas.train.distributed import ALONE, Group, Processes
from nas.train.evaluate import never
from nas.train.loop import FitResult, Status, carry_out, fit


@dataclass(frozen=True)
class Training:
    """What is trained and on which images: all that a process needs, as data."""

    run: TrialPaths
    candidate: Candidate
    shape: ImageShape
    data: DataConfig
    selection: DataSelection
    seed: int
    identity: str
    micro_batches: int = 1

    def fit(
        self,
        data: Resident,
        on_epoch: Callable[[EpochMetrics], bool],
        should_suspend: Callable[[], bool] = never,
        compiling: Callable[[str], None] | None = None,
        write: Callable[[Callable[[], None]], None] = carry_out,
        group: Group = ALONE,
    ) -> FitResult:
        """On `data`, which holds the images that this describes."""
        recipe = self.candidate.train
        torch.manual_seed(self.seed)
        return fit(
            build_model(self.candidate.arch, self.shape),
            TrainBatches.by_recipe(data, recipe, self.seed, self.shape.classes, group.part),
            None,
            recipe,
            on_epoch,
            paths=self.run,
            precision=pick_precision(data.device),
            seed=self.seed,
            identity=self.identity,
            micro_batches=self.micro_batches,
            should_suspend=should_suspend,
            write=write,
            compiling=compiling,
            group=group,
        )


# ------------------------------------------------------------------------------------------------------ what it says


@dataclass(frozen=True)
class Here:
    """It has begun, and heard who it is."""

    pid: int


@dataclass(frozen=True)
class Epoch:
    """By the first alone: an epoch has ended."""

    metrics: EpochMetrics


@dataclass(frozen=True)
class Ended:
    status: Status


@dataclass(frozen=True)
class Failed:
    """Its last word."""

    error: BaseException
    trace: str


FromRank = Here | Epoch | Ended | Failed
SUSPEND = "suspend"
"""All that it is ever told."""


def run_rank(training: Training, device: str, threads: int, lines: Sequence[Connection]) -> None:
    """What torch's launcher calls in each process; `device` is `cuda` or `cpu`, `lines` are those of all of them."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    setproctitle(f"nas process {rank + 1} of {size} on {device}, {training.run.folder.name}")
    for other in lines:
        if other is not lines[rank]:  # or its end would not be heard while this process lives
            other.close()
    line, stop = lines[rank], threading.Event()
    threading.Thread(target=_listen, args=(line, stop), name="nas-line", daemon=True).start()
    line.send(Here(os.getpid()))
    try:
        line.send(Ended(_train(training, device, threads, stop.is_set, line, rank)))
    except BaseException as error:
        with suppress(OSError):
            line.send(Failed(portable(error), traceback.format_exc()))
        os._exit(1)  # whatever the others wait for


def _train(
    training: Training, device: str, threads: int, should_suspend: Callable[[], bool], line: Connection, rank: int
) -> Status:
    torch.set_num_threads(threads)
    here = torch.device(device, int(os.environ["LOCAL_RANK"])) if device == "cuda" else torch.device(device)
    if here.type == "cuda":
        torch.cuda.set_device(here)
    tune_process(here)
    dataset = load_dataset(training.data)
    chosen = select_data(dataset, training.data, training.selection)

    def tell(metrics: EpochMetrics) -> bool:
        if rank == 0:
            line.send(Epoch(metrics))
        return True

    group = Processes(here, rank, int(os.environ["WORLD_SIZE"]), "env://")
    data = place(chosen.images, dataset.mean, dataset.std, here, chosen.train)
    result = training.fit(data, tell, should_suspend, group=group)
    group.close()
    return result.status


def _listen(line: Connection, stop: threading.Event) -> None:
    with suppress(EOFError, OSError):
        while line.recv() == SUSPEND:
            stop.set()
    os._exit(1)  # who started it is gone, or wants it to end; the last checkpoint holds all but the epoch under way


def portable(error: BaseException) -> BaseException:
    """The error, if another process can be told it, else what it says."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
