"""`nas` with clocks around the functions of its coordinator and its workers; `trials.py` starts it.

    NAS_BENCH_TIMES=FOLDER python scripts/bench/timed.py search …

Leaves coordinator.json and a worker-*.json for each worker in that folder. What is heavy is imported where it is used: a worker
reads this file, too, before it begins.
"""

import functools
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

TIMES = "NAS_BENCH_TIMES"


class Clocks:
    """Seconds by what they were spent on: of nested calls each counts its own alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self.marks: dict[str, float] = {}
        """When something happened first, by `time.time`, which several processes share."""
        self.spans: list[tuple[float, float]] = []
        """Of the trainings."""
        self._inner: list[float] = []

    def mark(self, what: str) -> None:
        self.marks.setdefault(what, time.time())

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[what] += spent - self._inner.pop()
            self.calls[what] += 1
            if self._inner:
                self._inner[-1] += spent

    def put(self, owner: Any, name: str, what: str | Callable[..., str], before: Callable[[], None] = lambda: None) -> None:
        """Around a function; `what` may follow from its arguments."""
        real = getattr(owner, name)

        @functools.wraps(real)
        def timed(*args: Any, **kwargs: Any) -> Any:
            before()
            with self.on(what if isinstance(what, str) else what(*args)):
                return real(*args, **kwargs)

        setattr(owner, name, timed)

    def put_on_each(self, owner: Any, name: str, what: str) -> None:
        """Around what a generator does between two items."""
        real = getattr(owner, name)

        @functools.wraps(real)
        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with closing(real(*args, **kwargs)) as items:
                while True:
                    with self.on(what):
                        item = next(items, None)
                    if item is None:
                        return
                    yield item

        setattr(owner, name, timed)

    def write(self, name: str) -> None:
        own = {"seconds": self.seconds, "calls": self.calls, "marks": self.marks, "spans": self.spans}
        Path(os.environ[TIMES], name).write_text(json.dumps(own))


def timed_search(arguments: list[str]) -> None:
    """`nas` with these arguments, in this process."""
    clocks = Clocks()
    from nas.budget import Budget
    from nas.cli.main import main
    from nas.jobs import local
    from nas.jobs.runner import Runner
    from nas.study import request, run
    from nas.study.drawing import SearchSource

    clocks.put(run, "run_search", "all else", before=lambda: clocks.mark("search"))
    clocks.put(run, "load_dataset", "start: data")
    clocks.put(request, "check_feasible", "start: is anything feasible")
    clocks.put(request, "split", "start: data")
    clocks.put(run, "owned_study", "start: study")
    clocks.put(SearchSource, "work", "draw")
    clocks.put(Budget, "check", "budget check")
    clocks.put(Runner, "_hand_out", "hand out")
    clocks.put(SearchSource, "on_epoch", "epoch: report and answer")
    clocks.put(SearchSource, "on_end", "end: record")
    clocks.put(SearchSource, "settle", "tell")
    clocks.put(local.LocalExecutor, "prepare", "start the workers")
    clocks.put(local.LocalExecutor, "start", "start the workers", before=lambda: clocks.mark("workers"))
    clocks.put(local.LocalExecutor, "receive", "wait for messages")
    clocks.put(local.LocalExecutor, "close", "end the workers")
    local._main = timed_worker  # type: ignore[assignment]
    sys.argv = ["nas", *arguments]
    try:
        main()
    finally:
        clocks.write("coordinator.json")


def timed_worker(*args: Any) -> None:
    """Takes the place of what a worker's process begins with."""
    clocks = Clocks()
    import torch

    from nas.data.loader import TrainBatches
    from nas.jobs import local, worker
    from nas.train import loop

    train = worker._Trainer.train

    def timed_train(*inner: Any) -> None:
        begun = time.time()
        with clocks.on("rest"):
            train(*inner)
        clocks.spans.append((begun, time.time()))

    def which_step(trainer: Any, *_: Any) -> str:
        return "other steps" if trainer.curve or trainer.epoch_step else "first step"

    worker._Trainer.train = timed_train  # type: ignore[method-assign, assignment]
    clocks.put(worker, "_serve", "wait for a candidate", before=lambda: clocks.mark("ready"))
    clocks.put(worker._Trainer, "__init__", "start: data and device")
    clocks.put(worker._Trainer, "_verdict", "wait for the answer to an epoch")
    clocks.put(worker._Trainer, "_should_suspend", "look for messages")
    clocks.put(worker, "build_model", "build")
    clocks.put(loop._Trainer, "__init__", "optimiser and averaged weights")
    clocks.put(loop._Trainer, "restore", "look for a checkpoint")
    clocks.put_on_each(TrainBatches, "epoch", "augmented batches")
    clocks.put(loop._Trainer, "step", which_step)
    clocks.put(loop._Trainer, "validate", "evaluation")
    clocks.put(loop, "save_checkpoint", "checkpoint")
    clocks.put(loop, "write_curve", "curve on disk")
    clocks.put(torch.cuda, "synchronize", "wait for the GPU")
    run_worker = local.run_worker

    def run_and_write(*inner: Any) -> None:
        try:
            run_worker(*inner)
        finally:
            clocks.write(f"worker-{os.getpid()}.json")

    local.run_worker = run_and_write
    local._main(*args)  # ends the process


if __name__ == "__main__":
    import timed  # a worker imports `timed_worker` from there, for it has nothing of this program's `__main__`

    timed.timed_search(sys.argv[1:])
