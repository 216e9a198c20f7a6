"""What `fit: params` changes: how many draws are over budget, where the others lie, and, of trainings, what accuracy they give.

    python scripts/bench/fit.py [--spaces resnet-small resnet-small-fit] [--draws 600] [--seeds 3] [--json FILE]
    python scripts/bench/fit.py --curves plain.csv fit.csv

Each space that scales nothing is measured a second time with `fit: params` in the same ranges. Every network is counted by
fvcore, its multiply-adds too where its parameters are over budget already.

--curves reads two tables of `record_curves.py`, one of each kind, of equally many images: as many trainings of each, in the order
of their draws, as fit into equally many multiply-adds. (Not seconds, which say what else the machine did.)
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median, quantiles, stdev

import torch
from common import in_words, machine, progress, spread, table
from curves import read_table

from nas.budget import count_macs, count_params
from nas.space.space import Space, UniformDraw
from nas.space.space_file import load_space, read_space
from nas.space.widths import FILLED

ORDERS = 1000
"""In which the trainings might have come."""


@dataclass(frozen=True)
class Draws:
    """Of one space and one seed."""

    space: str
    seed: int
    limits: dict[str, int | None]
    params: list[int]
    macs: list[int]
    milliseconds: list[float]
    """Of each draw, the scaling of its widths included."""

    def over(self, *limits: str) -> list[bool]:
        return [
            any((most := self.limits[limit]) is not None and cost[limit] > most for limit in limits)
            for cost in ({"params": p, "macs": m} for p, m in zip(self.params, self.macs, strict=True))
        ]

    def kept(self) -> list[float]:
        """Shares of the budget of parameters, of the draws that keep every limit."""
        most = self.limits["params"] or 1
        return [p / most for p, over in zip(self.params, self.over("params", "macs"), strict=True) if not over]


def variants(names: Sequence[str]) -> dict[str, Space]:
    spaces = {}
    for name in names:
        spaces[f"`{name}`"] = space = load_space(name)
        if not space.fills:
            spaces[f"`{name}` with `fit: params`"] = read_space(f"{space.text}\nfit: params\n", source=name, name=name)
    return spaces


def draw(label: str, space: Space, draws: int, seed: int) -> Draws:
    trial, params, macs, milliseconds = UniformDraw(seed), [], [], []
    for _ in range(draws):
        started = time.perf_counter()
        arch = space.draw(trial).arch
        milliseconds.append(1000 * (time.perf_counter() - started))
        params.append(count_params(arch, space.images))
        macs.append(count_macs(arch, space.images))
    limits = {"params": space.budget.params, "macs": space.budget.macs}
    progress(f"{label}, seed {seed}: {draws} draws")
    return Draws(label, seed, limits, params, macs, milliseconds)


def share(of: Sequence[bool]) -> float:
    return 100 * sum(of) / len(of)


def budget_table(measured: Sequence[Draws]) -> str:
    head = (
        "space", "over in parameters, %", "over in MACs, %", "over in any, %", "of those that fit: share of the budget, median",
        "10 %", "90 %", f"from {FILLED:.0%} up, %", "ms a draw",
    )  # fmt: skip
    rows = []
    for label in dict.fromkeys(one.space for one in measured):
        seeds = [one for one in measured if one.space == label]
        kept = [value for one in seeds for value in one.kept()]
        tenths = quantiles(kept, n=10)
        rows.append(
            [
                label,
                *(
                    spread((share(one.over(*limits)) for one in seeds), 1)
                    for limits in (["params"], ["macs"], ["params", "macs"])
                ),
                f"{median(kept):.3f}",
                f"{tenths[0]:.3f}",
                f"{tenths[-1]:.3f}",
                f"{share([value >= FILLED for value in kept]):.1f}",
                f"{fmean(ms for one in seeds for ms in one.milliseconds):.2f}",
            ]
        )
    return table(head, rows)


# -------------------------------------------------------------------------------------------------------- trainings


@dataclass(frozen=True)
class Training:
    params: int
    cost: float
    """Multiply-adds of an image's forward pass, times the epochs; in millions."""
    accuracy: float
    """After the last epoch, of the averaged weights."""


def read_trainings(file: Path) -> list[Training]:
    """In the order of their draws."""
    rows = sorted((row for row in read_table(file) if row.variant == "own"), key=lambda row: row.draw)
    return [Training(row.params, row.macs * len(row.seconds) / 1e6, row.final) for row in rows]


def within(trainings: Sequence[Training], cost: float) -> list[Training]:
    """The first that together cost no more."""
    done, left = [], cost
    for training in trainings:
        left -= training.cost
        if left < -1e-6:
            break
        done.append(training)
    return done


def best_over_orders(trainings: Sequence[Training], cost: float) -> str:
    """`70.1 (68.3–72.0)`: mean, 5 % and 95 % over random orders."""
    lots, found = random.Random(0), []
    for _ in range(ORDERS):
        done = within(lots.sample(trainings, len(trainings)), cost)
        if done:
            found.append(100 * max(training.accuracy for training in done))
    if len(found) < 2:
        return "–"
    twentieths = quantiles(found, n=20)
    return f"{fmean(found):.2f} ({twentieths[0]:.2f}–{twentieths[-1]:.2f})"


def curves_table(tables: dict[str, list[Training]], parts: Sequence[float] = (0.25, 0.5, 1.0)) -> str:
    common_cost = min(sum(training.cost for training in trainings) for trainings in tables.values())
    head = (
        "multiply-adds an image × epochs, millions",
        "trainings",
        "n",
        "parameters, median",
        "accuracy, mean ± standard error, %",
        "best, %",
        f"best, {ORDERS:,} orders, %",
    )
    rows = []
    for part in parts:
        for label, trainings in tables.items():
            done = within(trainings, part * common_cost)
            accuracies = [100 * training.accuracy for training in done]
            error = f" ± {stdev(accuracies) / len(accuracies) ** 0.5:.2f}" if len(accuracies) > 1 else ""
            rows.append(
                [
                    f"{part * common_cost:,.0f}",
                    label,
                    str(len(done)),
                    f"{median(training.params for training in done):,.0f}" if done else "–",
                    f"{fmean(accuracies):.2f}{error}" if done else "–",
                    f"{max(accuracies):.2f}" if done else "–",
                    best_over_orders(trainings, part * common_cost),
                ]
            )
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=["resnet-small", "resnet-small-fit"])
    parser.add_argument("--draws", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="what was drawn goes there, too")
    parser.add_argument("--curves", type=Path, nargs=2, metavar=("PLAIN", "FIT"))
    options = parser.parse_args()
    where = machine(torch.device("cpu"))
    print(in_words(where), end="\n\n")
    if options.curves:
        print(curves_table({f"`{file.name}`": read_trainings(file) for file in options.curves}))
        return
    spaces = variants(options.spaces)
    measured = [draw(label, space, options.draws, seed) for label, space in spaces.items() for seed in range(options.seeds)]
    print(f"{options.draws} uniform draws of each of {options.seeds} seeds, median over the seeds and range.\n")
    print(budget_table(measured))
    if options.json:
        options.json.write_text(json.dumps({"machine": where, "draws": [asdict(one) for one in measured]}))


if __name__ == "__main__":
    main()
