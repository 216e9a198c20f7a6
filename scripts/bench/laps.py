"""What a fresh process does before it can train, step by step. Prints JSON; `scale.py` starts it.

    python scripts/bench/laps.py data folder --data FOLDER
    python scripts/bench/laps.py worker digits

Its own imports are part of what it measures, so that everything heavy is imported within the steps.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WATCHED = ("optuna", "sqlalchemy", "fvcore", "plotly", "sklearn", "torchvision", "torch._dynamo", "sympy")
"""Packages that take long to import: those of them that a process has in the end are named."""


class Laps:
    def __init__(self, begun: float | None) -> None:
        """`begun`: when the process was started, by `time.time`."""
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()
        if begun is not None:
            self.seconds["the interpreter"] = time.time() - begun

    def end(self, what: str) -> None:
        now = time.perf_counter()
        self.seconds[what] = self.seconds.get(what, 0.0) + now - self._last
        self._last = now


def data(laps: Laps, dataset: str, folder: str | None) -> None:
    """As a worker and the coordinator read them."""
    import torch

    from nas.config import DataConfig

    laps.end("import torch")
    from nas.data.datasets import load_dataset
    from nas.data.loader import Resident
    from nas.data.splits import split

    laps.end("import nas.data")
    config = DataConfig(dataset=dataset, folder=folder)
    loaded = load_dataset(config)
    laps.end("load_dataset")
    parts = split(loaded, config)
    laps.end("split")
    for indices in (parts.train, parts.validation):
        Resident(loaded.train, loaded.mean, loaded.std, torch.device("cpu"), indices)
    laps.end("Resident")
    assert loaded.fingerprint
    laps.end("fingerprint")


class _Probe:
    """Stands where the coordinator would: hands out one training, and ends it after its second step has begun."""

    def __init__(self, laps: Laps, order: Callable[[], Any]) -> None:
        self.laps, self.order = laps, order
        self.steps = 0

    def send(self, message: Any) -> None:
        match type(message).__name__:
            case "Ready":
                self.laps.end("data")
            case "Began":
                self.laps.end("build the network, the optimiser, the average")
            case "Failed" | "Unfit":
                raise SystemExit(str(message))

    def recv(self) -> Any:
        order = self.order()
        self.laps.end("(draw a candidate, which is the coordinator's work)")
        return order

    def poll(self) -> bool:
        """Asked before every step."""
        if self.steps:
            self.laps.end("first step")
            raise EOFError
        self.steps = 1
        self.laps.end("first batch")
        return False


def worker(laps: Laps, dataset: str, folder: str | None) -> None:
    """The worker of a search, from its first import to the end of its first step, without a coordinator."""
    import tempfile

    import torch

    laps.end("import torch")
    from nas.jobs.job import Job
    from nas.jobs.messages import Train, WorkerPlan
    from nas.jobs.worker import run_worker, warm_up

    laps.end("import the worker's modules")
    warm_up()
    laps.end("warm up")
    from nas.config import ArchConfig, DataConfig, StageConfig, TrainConfig

    with tempfile.TemporaryDirectory() as scratch:
        paths = Path(scratch)
        (paths / "study.token").write_text("probe")

        def order() -> Train:
            arch = ArchConfig(stages=(StageConfig(blocks=1, channels=16), StageConfig(blocks=1, channels=32)))
            return Train(Job("0", "trial 0", paths / "trial", arch, TrainConfig(epochs=1), seed=0, identity=""))

        plan = WorkerPlan(DataConfig(dataset=dataset, folder=folder), "cpu", torch.get_num_threads(), paths, "probe")
        run_worker(_Probe(laps, order), plan)


MODES = {"data": data, "worker": worker}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("dataset")
    parser.add_argument("--data", metavar="FOLDER")
    parser.add_argument("--begun", type=float, help="when the process was started, in seconds since 1970")
    options = parser.parse_args()
    laps = Laps(options.begun)
    MODES[options.mode](laps, options.dataset, options.data)
    imported = [name for name in WATCHED if name in sys.modules]
    print(json.dumps({"seconds": laps.seconds, "imported": imported}))


if __name__ == "__main__":
    main()
