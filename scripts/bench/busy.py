"""What other work on the machine costs a training: images a second on a quiet machine, and beside another training.

    python scripts/bench/busy.py [--networks small-78k airbench94-like] [--policies default nas 1000] [--rounds 5]

The other one is plain torch in fp32, with a thread on each core and OpenMP's default wait policy, and trains all the time. A
policy is how long OpenMP's threads spin at a barrier before they sleep: `default` is the runtime's own, `nas` what `nas.cores`
sets, and a number GOMP_SPINCOUNT. In each round every contender trains alone, *two nas* both at once, then each again beside the
other one, whose own speed is taken, too. `nas` chooses its number of threads before each round, as a long training does now and
then; *fixed* has a thread on each core. *polite* is a neighbour whose threads never wait: a process of one thread on each core.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections import defaultdict
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from common import NETWORKS, in_words, machine, progress, spread, table, wait_policy
from throughput import Contender, Task
from torch.nn import functional as F

from nas.cores import usable_cores
from nas.space.space_file import CIFAR10

MINIMUM_STEPS = 4
VALIDATION_IMAGES = 500  # their evaluation is not what is measured


def other_training(connection: Connection, task: Task) -> None:
    """Trains from one message to the next, and says at how many images a second."""
    from nas.models import build_model

    torch.set_num_threads(task.threads)
    model = build_model(NETWORKS[task.network], CIFAR10).train()
    images, labels = torch.randn(task.batch, 3, 32, 32), torch.randint(0, 10, (task.batch,))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    connection.send(None)
    while connection.recv():
        steps, started = 0, time.perf_counter()
        while not connection.poll():
            F.cross_entropy(model(images), labels).backward()
            optimiser.step()
            optimiser.zero_grad()
            steps += 1
        connection.recv()
        connection.send(steps * task.batch / (time.perf_counter() - started))


class Neighbour:
    """One or several processes that train between `begin` and `end`."""

    def __init__(self, task: Task, policy: str, processes: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self._children = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=other_training, args=(theirs, task), daemon=True)
            with wait_policy(policy):
                process.start()
            ours.recv()
            self._children.append((process, ours))

    def begin(self) -> None:
        for _, connection in self._children:
            connection.send(True)

    def end(self) -> float:
        """Images a second since it began, of all processes."""
        for _, connection in self._children:
            connection.send(True)
        return sum(connection.recv() for _, connection in self._children)

    def close(self) -> None:
        for process, connection in self._children:
            connection.send(False)
            process.join()


def measure(network: str, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Images a second by who, and beside whom; a list holds a value a round."""
    task = Task(network, "cpu", options.threads, options.batch, steps=2)
    contenders = {}
    trial = Contender("bare", "bare", task)
    trial.start()
    rate = max(trial.round()["images_per_second"] for _ in range(3))
    trial.end()
    steps = max(MINIMUM_STEPS, round(options.seconds * rate / options.batch))
    task = Task(network, "cpu", options.threads, options.batch, steps, validation=VALIDATION_IMAGES)
    for policy in options.policies:
        for label, kind, processes in (("bare", "bare", 1), ("fixed", "nas", 1), ("nas", "nas", 1), ("two nas", "nas", 2)):
            own = replace(task, chooses=label.endswith("nas"))
            contender = contenders[f"{label}, {policy}"] = Contender(label, kind, own, processes, policy)
            contender.start()
    neighbour = Neighbour(task, "default")
    polite = Neighbour(Task(network, "cpu", 1, options.batch, steps), "default", options.threads)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def beside(what: str, run: Any) -> None:
        neighbour.begin()
        value = run()
        rate = neighbour.end()
        found[what]["the other"].append(rate)
        if value is not None:
            found[what]["busy"].append(value)

    def pause() -> None:
        time.sleep(options.seconds)

    for number in range(options.rounds):
        turn = number % len(contenders)
        names = [*list(contenders)[turn:], *list(contenders)[:turn]]
        for name in names:
            found[name]["quiet"].append(contenders[name].round()["images_per_second"])
        beside("nothing", pause)
        polite.begin()
        beside("polite", pause)
        polite.end()
        for name in names:
            if not name.startswith("two"):
                beside(name, lambda name=name: contenders[name].round()["images_per_second"])
        progress(f"{network}: round {number + 1} of {options.rounds}")
    for contender in contenders.values():
        contender.end()
    neighbour.close()
    polite.close()
    return found


def ratio(rows: list[float], to: list[float]) -> str:
    return spread((one / other for one, other in zip(rows, to, strict=True)), 2)


def report(network: str, found: dict[str, dict[str, list[float]]], options: argparse.Namespace) -> str:
    rows = []
    alone = found["nothing"]["the other"]
    for name, one in found.items():
        cells = [name]
        kind, _, policy = name.partition(", ")
        reference = found.get(f"{kind.removeprefix('two ')}, {options.policies[0]}", {}).get("quiet")
        own = found[f"nas, {policy}"]["quiet"] if kind.startswith("two") else reference
        cells.append(spread(one["quiet"]) if "quiet" in one else "")
        cells.append(ratio(one["quiet"], own) if own else "")
        cells.append(spread(one["busy"]) if "busy" in one else "")
        cells.append(ratio(one["busy"], one["quiet"]) if "busy" in one else "")
        cells.append(ratio(one["the other"], alone) if "the other" in one else "")
        rows.append(cells)
    head = [
        "who, policy",
        "quiet, images/s",
        f"to {options.policies[0]} (two: to one)",
        "busy",
        "of its quiet",
        "the other, of its speed alone",
    ]
    return f"**{network}**, the other alone {spread(alone)} images/s\n\n{table(head, rows)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=["small-78k", "airbench94-like"])
    parser.add_argument("--policies", nargs="+", default=["default", "nas"], help="default, nas, or a spin count")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="(default: all cores)")
    parser.add_argument("--rounds", type=int, default=5, help="whose median counts (default: 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round of the bare loop when it is quiet (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    where = machine(torch.device("cpu"))
    print(f"{in_words(where)}, n = {options.rounds}, load {os.getloadavg()[0]:.1f}\n")
    results = {}
    for network in options.networks:
        results[network] = measure(network, options)
        print(report(network, results[network], options), flush=True)
        if options.json:
            options.json.write_text(json.dumps({"machine": where, "results": results}, indent=1))


if __name__ == "__main__":
    main()
