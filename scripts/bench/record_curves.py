"""Trains random networks of a space for real, without pruning, and keeps every epoch: the table on which samplers, pruners and
signals are compared (`search_quality.py`).

One row of the CSV is one training:

    draw          number of the uniform draw; run again, the command goes on after the last one
    variant       own: by the space's recipe. --variants N adds to the first N networks
                  again: by another seed, the raw weights evaluated, too; constant: so, and at a constant rate
    params, macs  by fvcore
    values        JSON: what was drawn
    train_loss, val_accuracy, ema_val_accuracy, seconds
                  one number an epoch, separated by spaces; val_accuracy is that of the raw weights

    python scripts/bench/record_curves.py --data FOLDER --minutes 60
    python scripts/bench/record_curves.py --data FOLDER --variants 24
    python scripts/bench/record_curves.py --data FOLDER --space resnet --subset 0 --device cuda --workers 3 --out FILE

Interrupted by Ctrl-C it keeps what has ended.
"""

import argparse
import csv
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import common
import torch

from nas.budget import Budget
from nas.config import Candidate, DataConfig
from nas.cores import usable_cores
from nas.data.datasets import load_dataset
from nas.data.loader import Resident, mix_seed
from nas.data.splits import split
from nas.device import pick_device, pick_precision, tune_process
from nas.space.space import Space, UniformDraw
from nas.space.space_file import load_space
from nas.train.checkpoint import EpochMetrics

COLUMNS = ("draw", "variant", "params", "macs", "values", "train_loss", "val_accuracy", "ema_val_accuracy", "seconds")


@dataclass(frozen=True)
class Job:
    draw: int
    variant: str
    values: dict[str, Any]
    candidate: Candidate
    seed: int
    params: int
    macs: int | None


class _Worker:
    """The data and the device of one process."""

    def __init__(self, data: DataConfig, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.device = pick_device(device)
        tune_process(self.device)
        self.precision = pick_precision(self.device)
        self.dataset = load_dataset(data)
        parts = split(self.dataset, data)
        of = self.dataset
        self.train = Resident(of.train, of.mean, of.std, self.device, parts.train)
        self.validation = Resident(of.train, of.mean, of.std, self.device, parts.validation)

    def run(self, job: Job) -> list[EpochMetrics]:
        data = self.dataset, self.train, self.validation
        return common.train(job.candidate, *data, self.precision, job.seed, raw_weights=job.variant != "own").curve


_worker: _Worker


def _start(data: DataConfig, device: str, threads: int) -> None:
    global _worker
    _worker = _Worker(data, device, threads)


def _run(job: Job) -> list[EpochMetrics]:
    return _worker.run(job)


def new_networks(space: Space, budget: Budget, seed: int, first: int) -> Iterator[Job]:
    for draw in count(first):
        trial = Recorded(mix_seed(seed, draw))
        candidate = space.draw(trial)
        cost = budget.check(candidate.arch)
        if cost.fits:
            yield Job(draw, "own", trial.values, candidate, mix_seed(seed, draw, 0), cost.params, cost.macs)


def variants(space: Space, rows: list[dict[str, str]], seed: int, networks: int) -> Iterator[Job]:
    """Those that the first networks lack."""
    there = {(row["draw"], row["variant"]) for row in rows}
    for row in [row for row in rows if row["variant"] == "own"][:networks]:
        draw, values = int(row["draw"]), json.loads(row["values"])
        candidate = space.candidate({slot.name: values.get(slot.name, slot.domain) for slot in space.slots})
        constant = candidate.model_copy(update={"train": candidate.train.model_copy(update={"schedule": "constant"})})
        for variant, what in (("again", candidate), ("constant", constant)):
            if (row["draw"], variant) not in there:
                yield Job(draw, variant, values, what, mix_seed(seed, draw, 1), int(row["params"]), int(row["macs"]))


class Recorded(UniformDraw):
    """Remembers what it drew."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.values: dict[str, Any] = {}

    def _keep(self, name: str, value: Any) -> Any:
        self.values[name] = value
        return value

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return self._keep(name, super().suggest_int(name, low, high, step=step, log=log))

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        return self._keep(name, float(f"{super().suggest_float(name, low, high, step=step, log=log):.6g}"))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._keep(name, super().suggest_categorical(name, choices))


def row(job: Job, curve: list[EpochMetrics]) -> dict[str, Any]:
    def series(name: str, digits: int) -> str:
        return " ".join(f"{value:.{digits}f}" for value in (getattr(m, name) for m in curve) if value is not None)

    return {
        "draw": job.draw,
        "variant": job.variant,
        "params": job.params,
        "macs": job.macs,
        "values": json.dumps(job.values, separators=(",", ":")),
        "train_loss": series("train_loss", 4),
        "val_accuracy": series("val_accuracy", 4),
        "ema_val_accuracy": series("ema_val_accuracy", 4),
        "seconds": series("seconds", 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="resnet-small")
    parser.add_argument("--data", help="folder of CIFAR-10, of torchvision or with one folder a class")
    parser.add_argument("--dataset", default="folder")
    parser.add_argument("--subset", type=int, default=4000, help="training images; 0 is all")
    parser.add_argument("--epochs", type=int, help="[default: the space's]")
    parser.add_argument("--minutes", type=float, default=60, help="no training begins after this")
    parser.add_argument("--validation", type=float, default=0.05, help="share of each class that is set aside")
    parser.add_argument("--variants", type=int, help="train those of the first so many networks, instead of new ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--out", type=Path, default=Path("studies/reference/curves.csv"))
    args = parser.parse_args()

    space = load_space(args.space)
    if args.epochs:
        space = space.with_epochs(args.epochs)
    data = DataConfig(dataset=args.dataset, folder=args.data, subset=args.subset or None, validation=args.validation)
    dataset = load_dataset(data)
    space = space.for_images(dataset.shape)
    budget = Budget(space.budget, dataset.shape)
    budget = Budget(budget.limits.model_copy(update={"macs": budget.limits.macs or 10**15}), dataset.shape)  # count them anyway
    before = list(csv.DictReader(args.out.open())) if args.out.exists() else []
    common.progress(f"{len(before)} trainings are there; {common.machine(pick_device(args.device))}")
    until = time.monotonic() + 60 * args.minutes
    threads = max(1, usable_cores() // args.workers)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with (
        ProcessPoolExecutor(
            args.workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(data, args.device, threads)
        ) as pool,
        args.out.open("a", newline="") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not before:
            writer.writeheader()
        if args.variants:
            stream = variants(space, before, args.seed, args.variants)
        else:
            stream = new_networks(space, budget, args.seed, max((int(r["draw"]) for r in before), default=-1) + 1)
        waiting: dict[Future[list[EpochMetrics]], Job] = {}
        try:
            while True:
                while len(waiting) < args.workers and time.monotonic() < until and (job := next(stream, None)):
                    waiting[pool.submit(_run, job)] = job
                if not waiting:
                    break
                for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                    job, curve = waiting.pop(done), done.result()
                    if len(curve) < job.candidate.train.epochs:
                        common.progress(f"draw {job.draw} {job.variant}: diverged after {len(curve)} epochs, and is left out")
                        continue
                    writer.writerow(row(job, curve))
                    file.flush()
                    seconds = sum(m.seconds for m in curve)
                    common.progress(
                        f"draw {job.draw} {job.variant}: {curve[-1].ema_val_accuracy:.4f}, {job.params:,} parameters, "
                        f"{job.macs:,} multiply-adds, {seconds:.0f} s"
                    )
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
