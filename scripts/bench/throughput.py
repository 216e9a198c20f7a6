"""How near a training by nas comes to the limit, and how far what one would write without it stays behind: images a second.

    python scripts/bench/throughput.py [--networks small-78k …] [--rounds 7] [--json throughput.json]

Side by side, each in a process of its own, one at a time and in turn, a round each:

    bare    the limit: one batch that is there already, forward, backward, step; the fastest settings known, no augmentation
    nas     nas's own `fit`: crop, flip and TrivialAugment, averaged weights, metrics; evaluation and checkpoint apart
    plain   torchvision's transforms in a DataLoader, fp32 (plain.py)

`--workers 1 2 3` lets so many trainings by nas share the device. On CUDA `--streamed` adds one whose images do not live there.
"""

import argparse
import gc
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import NETWORKS, in_words, machine, progress, spread, table, wait_policy
from torch.nn import functional as F

from nas.budget import count_macs, count_params
from nas.config import TrainConfig
from nas.cores import usable_cores
from nas.device import pick_device, pick_precision, tune_process, wait_for
from nas.space.space_file import CIFAR10
from nas.train.evaluate import autocast

VALIDATION_IMAGES = 5000
EPOCH_IMAGES = 45_000
"""What CIFAR-10 leaves to train on."""
PLAIN_SHARE = 5
"""It sees so many times fewer images a round, or it would take most of the time."""
WARM_UP = 2
FLOPS_A_MAC = 6
"""A multiplication and an addition, forward, for the gradient of the inputs, and for that of the weights."""


@dataclass(frozen=True)
class Task:
    """What a child process is to measure."""

    network: str
    device: str
    threads: int
    batch: int
    steps: int
    streamed: bool = False
    validation: int = VALIDATION_IMAGES
    chooses: bool = False  # whether nas chooses between `threads` and fewer before each round, by timing


Round = dict[str, float]
Say = Callable[[dict[str, Any]], None]
Wait = Callable[[], bool]
"""Until a round is asked for; False when it was the last."""


def bare(task: Task, say: Say, wait: Wait) -> None:
    """A round is `task.steps` steps."""
    from nas.models import build_model
    from nas.train.optimiser import make_optimiser

    device = pick_device(task.device)
    precision = pick_precision(device)
    model = build_model(NETWORKS[task.network], CIFAR10).to(device).to(memory_format=torch.channels_last).train()
    images = torch.randn(task.batch, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (task.batch,), device=device)
    optimiser = make_optimiser(model, recipe(task, 1), device)

    def train(steps: int) -> None:
        for _ in range(steps):
            with autocast(device, precision):
                loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        wait_for(device)

    train(WARM_UP)
    while wait():
        started = time.perf_counter()
        train(task.steps)
        say({"images_per_second": task.steps * task.batch / (time.perf_counter() - started)})


def recipe(task: Task, epochs: int) -> TrainConfig:
    augment = {"crop_padding": 4, "flip": "horizontal", "policy": "trivialaugment"}
    return TrainConfig.model_validate(
        {"epochs": epochs, "batch_size": task.batch, "lr": 0.01, "schedule": "constant", "ema_epochs": 0.5, "augment": augment}
    )


def some_pictures(count: int) -> np.ndarray:
    """uint8 (N, 32, 32, 3): shapes with noise."""
    rng = np.random.default_rng(0)
    shapes = rng.integers(0, 200, (count, 8, 8, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    return shapes + rng.integers(0, 50, (count, 32, 32, 3), dtype=np.uint8)


def by_nas(task: Task, say: Say, wait: Wait) -> None:
    """A round is an epoch of `task.steps` steps."""
    from nas.data.images import ImageSet
    from nas.data.loader import TrainBatches
    from nas.data.stream import Streamed, place
    from nas.models import build_model
    from nas.paths import TrialPaths
    from nas.train.checkpoint import EpochMetrics
    from nas.train.loop import fit
    from nas.train.threads import ThreadChoice

    class EachRound(ThreadChoice):
        is_due = True

    device = pick_device(task.device)
    count = task.steps * task.batch

    def placed(pictures: int, seed: int) -> Any:
        labels = np.random.default_rng(seed).integers(0, 10, pictures)
        images = ImageSet(some_pictures(pictures), labels)
        mean, std = (120.0,) * 3, (60.0,) * 3
        return Streamed(images, mean, std, device) if task.streamed else place(images, mean, std, device)

    writing = 0.0

    def write(action: Callable[[], None]) -> None:
        nonlocal writing
        started = time.perf_counter()
        action()
        writing += time.perf_counter() - started

    def on_epoch(metrics: EpochMetrics) -> bool:
        nonlocal writing
        if metrics.epoch > 1:  # the first one warms up
            training = count / metrics.images_per_second
            say(
                {
                    "images_per_second": metrics.images_per_second,
                    "evaluation": metrics.seconds - training,
                    "checkpoint": writing,
                }
            )
        writing = 0.0
        return wait()

    config = recipe(task, 1000)
    train = TrainBatches(placed(count, 0), config, 0, 10)
    model = build_model(NETWORKS[task.network], CIFAR10)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            train,
            placed(task.validation, 1),
            config,
            on_epoch,
            paths=TrialPaths(Path(folder)),
            precision=pick_precision(device),
            seed=0,
            identity="throughput",
            write=write,
            threads=EachRound(task.threads, lambda text: None) if task.chooses else None,
        )


def by_plain_script(task: Task, say: Say, wait: Wait) -> None:
    """A round is an epoch of a fifth of the steps; its loader's processes persist."""
    import plain

    from nas.data.images import Dataset, ImageSet
    from nas.data.splits import Split
    from nas.models import build_model

    device = torch.device(task.device)
    count = max(4, task.steps // PLAIN_SHARE) * task.batch
    pictures = ImageSet(some_pictures(count), np.random.default_rng(0).integers(0, 10, count))
    names = tuple(map(str, range(10)))
    dataset = Dataset("pictures", names, pictures, pictures, None, (120.0,) * 3, (60.0,) * 3)
    sets = plain.make_sets(dataset, Split(np.arange(count), None))
    loader, _ = plain.make_loaders(*sets, task.batch, device)
    torch.backends.cudnn.benchmark = True
    model = build_model(NETWORKS[task.network], CIFAR10).to(device)
    optimiser = plain.make_optimiser(model, recipe(task, 1))
    plain.train_epoch(model, loader, optimiser, device)
    while wait():
        started = time.perf_counter()
        plain.train_epoch(model, loader, optimiser, device)
        wait_for(device)
        say({"images_per_second": count / (time.perf_counter() - started)})


def peak(task: Task, say: Say, wait: Wait) -> None:
    """Of the machine: the fastest product of two square matrices in the format that training uses."""
    device = pick_device(task.device)
    dtype = pick_precision(device).autocast or torch.float32
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    while wait():
        repeats, best = 10, 0.0
        for _ in range(3):
            wait_for(device)
            started = time.perf_counter()
            for _ in range(repeats):
                a @ b
            wait_for(device)
            best = max(best, repeats * 2 * size**3 / (time.perf_counter() - started))
        say({"flops": best})


CONTENDERS: dict[str, Callable[[Task, Say, Wait], None]] = {"bare": bare, "nas": by_nas, "plain": by_plain_script, "peak": peak}


def child(connection: Connection, contender: str, task: Task) -> None:
    torch.set_num_threads(task.threads)
    if contender != "plain":
        tune_process(torch.device(task.device))

    def wait() -> bool:
        gc.collect()
        connection.send(None)
        return connection.recv()

    torch.manual_seed(0)
    CONTENDERS[contender](task, connection.send, wait)
    connection.send(None)
    if task.device.startswith("cuda"):
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    connection.send({"memory": memory})


@dataclass
class Contender:
    """One or several processes that do the same at the same time."""

    label: str
    kind: str
    task: Task
    processes: int = 1
    policy: str = ""  # of waiting, as in `wait_policy`; empty for nas's, and the runtime's own of what is plain
    rounds: list[Round] = field(default_factory=list)
    memory: float = 0.0

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._children = []
        for _ in range(self.processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=child, args=(theirs, self.kind, self.task), daemon=False)
            with wait_policy(self.policy or ("default" if self.kind == "plain" else "nas")):
                process.start()
            theirs.close()
            self._children.append((process, ours))
        for _, connection in self._children:
            connection.recv()  # it is ready

    def round(self) -> Round:
        for _, connection in self._children:
            connection.send(True)
        found = [connection.recv() for _, connection in self._children]
        for _, connection in self._children:
            connection.recv()  # it waits for the next
        result = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
        if "images_per_second" in result:
            result["images_per_second"] *= self.processes
        self.rounds.append(result)
        return result

    def end(self) -> None:
        for process, connection in self._children:
            connection.send(False)
            connection.recv()
            self.memory = max(self.memory, connection.recv()["memory"])
            process.join()

    def column(self, key: str) -> list[float]:
        return [one[key] for one in self.rounds]


def measure(network: str, options: argparse.Namespace) -> dict[str, Any]:
    task = Task(network, options.device, options.threads, options.batch, steps=2)
    trial = Contender("bare", "bare", task)
    trial.start()
    rate = max(trial.round()["images_per_second"] for _ in range(2))
    trial.end()
    task = Task(network, options.device, options.threads, options.batch, max(4, round(options.seconds * rate / options.batch)))
    contenders = [Contender("bare", "bare", task), Contender("nas", "nas", task)]
    for count in options.workers:
        if count > 1:
            share = Task(network, options.device, max(1, options.threads // count), options.batch, task.steps)
            contenders.append(Contender(f"nas, {count} workers", "nas", share, count))
    if options.streamed:
        streamed = Task(network, options.device, options.threads, options.batch, task.steps, streamed=True)
        contenders.append(Contender("nas, streamed", "nas", streamed))
    if not options.without_plain:
        contenders.append(Contender("plain", "plain", task))
    contenders.append(Contender("peak", "peak", task))
    for contender in contenders:
        contender.start()
    for number in range(options.rounds):
        # Each goes first once in a while: what runs after a pause may run faster.
        turn = number % len(contenders)
        for contender in contenders[turn:] + contenders[:turn]:
            contender.round()
        progress(f"{network}: round {number + 1} of {options.rounds}")
    for contender in contenders:
        contender.end()
    arch = NETWORKS[network]
    return {
        "network": network,
        "params": count_params(arch, CIFAR10),
        "macs": count_macs(arch, CIFAR10),
        "batch": options.batch,
        "steps": task.steps,
        "peak_flops": max(contenders[-1].column("flops")),
        "contenders": {c.label: {"memory": c.memory, "rounds": c.rounds} for c in contenders[:-1]},
    }


def ratios(result: dict[str, Any], label: str) -> list[float]:
    """To the bare loop in the same round."""
    rows, limit = (result["contenders"][name]["rounds"] for name in (label, "bare"))
    return [one["images_per_second"] / other["images_per_second"] for one, other in zip(rows, limit, strict=True)]


def report(result: dict[str, Any]) -> str:
    rows = []
    for label, one in result["contenders"].items():
        rates = [r["images_per_second"] for r in one["rounds"]]
        rate = median(rates)
        share = FLOPS_A_MAC * result["macs"] * rate / result["peak_flops"]
        cells = [label, spread(rates), spread(ratios(result, label), 3), f"{EPOCH_IMAGES / rate:,.1f}", f"{share:.0%}"]
        for key in ("evaluation", "checkpoint"):
            cells.append(f"{median(r[key] for r in one['rounds']):.3f}" if key in one["rounds"][0] else "")
        rows.append([*cells, f"{one['memory'] / 2**20:,.0f}"])
    head = ["", "images/s", "of bare", "s an epoch", "of the peak", "evaluation, s", "checkpoint, s", "a process, MiB"]
    title = (
        f"**{result['network']}**: {result['params']:,} parameters, {result['macs'] / 1e6:,.0f} M MACs, batches of "
        f"{result['batch']}, {result['steps']} steps a round, peak {result['peak_flops'] / 1e12:.3g} TFLOP/s"
    )
    return f"{title}\n\n{table(head, rows)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of the CPU (default: all cores)")
    parser.add_argument("--rounds", type=int, default=7, help="whose median counts (default: 7)")
    parser.add_argument("--seconds", type=float, default=6.0, help="a round of the bare loop (default: 6)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="also so many trainings at once")
    parser.add_argument("--streamed", action="store_true", help="also with images that do not live on the device")
    parser.add_argument("--without-plain", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    where = machine(pick_device(options.device))
    print(f"{in_words(where)}, n = {options.rounds} rounds\n")
    results = []
    for network in options.networks:
        results.append(measure(network, options))
        print(report(results[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps({"machine": where, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
