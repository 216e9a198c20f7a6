"""How costs grow: with the trials of a study, the depth of a network, the images of a data set, the epochs of a search.

    python scripts/bench/scale.py [study] [storage] [budget] [data] [memory] [start] [formats] [--json FILE]

    study   what the coordinator does for a candidate and for an epoch, in a study that holds many trials already
    storage SQL statements and processor time of a whole trial, against a loop of Optuna's own with the same parameters
    budget  the budget's check of ever deeper networks
    data    decoding a folder of images once, and reading it at every later start
    memory  what a worker and the coordinator of a real search occupy
    start   from the command to the first epoch of training
    formats the same with each of --formats, from an empty cache of decoded images and from a full one

Folders of images are made up, and lie under --scratch with all that is measured, searches and cache included.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import optuna
import sqlalchemy
import torch
from common import Clock, machine, milliseconds, progress, table
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from processes import (
    data_table,
    formats_table,
    measure_data,
    measure_formats,
    measure_memory,
    measure_start,
    memory_table,
    start_table,
)

from nas.budget import Budget, Cost, count_params
from nas.config import ArchConfig, BudgetConfig
from nas.paths import StudyPaths
from nas.space.space import Space
from nas.space.space_file import CIFAR10, load_space
from nas.study import outcomes
from nas.study.address import study_address
from nas.study.drawing import SearchSource
from nas.study.optuna_private import overwrite_value, stored_trial
from nas.study.owned import OwnedStorage
from nas.study.ownership import own_study
from nas.study.pruners import PRUNERS
from nas.study.samplers import SAMPLERS
from nas.study.source import Display
from nas.study.storage import owned_study

# ------------------------------------------------------------------------------------------------- trials in the study


def history(space: Space, count: int) -> list[FrozenTrial]:
    """Trials as a search leaves them: 40 % over budget, of the others two thirds pruned at each rung."""
    rng = np.random.default_rng(0)
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = []
    for number in range(count):
        trial = drawn.ask()
        space.draw(trial)
        trial.set_constraint("params", 0.5)
        infeasible = drawn.get_trials(deepcopy=False)[number].system_attrs
        kind = rng.choice(["over_budget", "rung 2", "rung 6", "trained"], p=[0.4, 0.4, 0.13, 0.07])
        epochs = {"over_budget": 0, "rung 2": 2, "rung 6": 6, "trained": space.epochs}[kind]
        curve = {epoch: float(0.9 - 0.6 * rng.random() / epoch) for epoch in range(1, epochs + 1)}
        outcome = "pruned_early" if kind.startswith("rung") else kind
        attributes = {"outcome": outcome, "params": 4_000_000, "architecture": "-" * 60, "digest": f"{number:016x}"}
        trials.append(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE if kind == "trained" else TrialState.PRUNED,
                value=curve.get(space.epochs),
                params=trial.params,
                distributions=trial.distributions,
                intermediate_values=curve,
                user_attrs=attributes,
                system_attrs=infeasible if kind == "over_budget" else {},
            )
        )
    return trials


def measure_study(options: argparse.Namespace) -> dict[str, Any]:
    space = load_space(options.space)
    budget = Budget(space.budget, CIFAR10)
    before = history(space, max(options.trials))
    rows = []
    for count in options.trials:
        progress(f"a study of {count:,} trials")
        rows.append({"trials": count, "seconds": in_a_study(space, budget, before[:count], options)})
    return {"space": space.name, "parameters drawn": sum(slot.drawn for slot in space.slots), "rows": rows}


def in_a_study(space: Space, budget: Budget, before: list[FrozenTrial], options: argparse.Namespace) -> dict[str, list[float]]:
    """As the coordinator goes about it; nothing is trained."""
    clock, check = Clock(), budget.check
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        paths = StudyPaths(Path(folder) / f"bench-{time.time_ns()}")
        with own_study(paths, options.storage, note=print, stop_requested=lambda: False) as storage:
            sampler = SAMPLERS["tpe"]()
            study = owned_study(storage, paths, sampler, PRUNERS["asha"](space.epochs))
            study.add_trials(before)
            drawer = SearchSource(study, paths, sampler, space, budget, seed=0, goal=10**6, display=Display())
            budget.check = lambda arch: clock("of which the check", lambda: check(arch))  # type: ignore[method-assign]
            for number in range(options.draws + 1):
                if number == 1:  # the first one reads the whole study
                    clock.seconds.clear()
                drawer.begin_draw()
                clock("ask + check", drawer.work)
                for running in drawer.ready:
                    for epoch in range(1, space.epochs):
                        clock("an epoch", lambda r=running, e=epoch: one_epoch(study, r.trial, e))
                    clock("tell", lambda r=running: tell(study, r.trial))
                drawer.ready.clear()
    budget.check = check  # type: ignore[method-assign]
    return clock.seconds


def one_epoch(study: optuna.Study, trial: optuna.Trial, epoch: int) -> None:
    """Report and verdict."""
    overwrite_value(trial, 0.9, epoch)
    study.pruner.prune(study, stored_trial(trial))


def tell(study: optuna.Study, trial: optuna.Trial) -> None:
    outcomes.decide(trial, "pruned_early")
    outcomes.finish(study, trial)


def study_table(result: dict[str, Any], options: argparse.Namespace) -> str:
    parts = ("ask + check", "of which the check", "tell", "an epoch")
    rows = [[f"{row['trials']:,}", *(milliseconds(row["seconds"][part], 1) for part in parts)] for row in result["rows"]]
    return (
        f"Space {result['space']}, {result['parameters drawn']} parameters drawn, {options.draws} draws after the first; "
        f"milliseconds, median (fastest–slowest).\n\n{table(['trials in the study', *parts], rows)}"
    )


# -------------------------------------------------------------------------------------------------- a trial's storage


def measure_storage(options: argparse.Namespace) -> dict[str, Any]:
    """Random draws, of which each fits and trains to its end: neither sampling nor the budget's check is part of it."""
    space = load_space(options.space)
    budget = Budget(space.budget, CIFAR10)
    budget.check = lambda arch: Cost(1_000_000, 1, {"params": -0.5})  # type: ignore[method-assign]
    before, rows = history(space, max(options.trials)), []
    for count in options.trials:
        progress(f"a study of {count:,} trials")
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            paths = StudyPaths(Path(folder) / f"bench-{time.time_ns()}")
            with own_study(paths, options.storage, note=print, stop_requested=lambda: False) as storage:
                assert isinstance(storage, OwnedStorage)
                study = owned_study(storage, paths, SAMPLERS["random"](), PRUNERS["asha"](space.epochs))
                study.add_trials(before[:count])
                source = SearchSource(study, paths, SAMPLERS["random"](), space, budget, seed=0, goal=10**6, display=Display())
                ours = costs(storage.engine, lambda s=source: a_trial(s), options.draws)
            address = study_address(paths, None)
            url = f"sqlite:///{paths.database}" if address is None else address.render_as_string(hide_password=False)
            plain = optuna.storages.RDBStorage(url)
            sampler, pruner = optuna.samplers.RandomSampler(seed=0), optuna.pruners.SuccessiveHalvingPruner()
            study = optuna.load_study(study_name=paths.name, storage=plain, sampler=sampler, pruner=pruner)
            theirs = costs(plain.engine, lambda s=study: a_trial_of_optunas(s, space), options.draws)
            plain.engine.dispose()
        rows.append({"trials": count, "nas": ours, "Optuna": theirs})
    return {"space": space.name, "epochs": space.epochs, "rows": rows}


def costs(engine: sqlalchemy.Engine, action: Callable[[], None], repeats: int) -> dict[str, list[float]]:
    """Of each repetition after the first, which reads the whole study."""
    statements = [0]

    def count(*_: object) -> None:
        statements[0] += 1

    sqlalchemy.event.listen(engine, "before_cursor_execute", count)
    found: dict[str, list[float]] = {"statements": [], "seconds": []}
    for number in range(repeats + 1):
        statements[0], started = 0, time.process_time()
        action()
        if number:
            found["statements"].append(statements[0])
            found["seconds"].append(time.process_time() - started)
    return found


def a_trial(source: SearchSource) -> None:
    source.begin_draw()
    while source.busy:
        source.work()
    trial = source.ready.popleft().trial
    for epoch in range(1, source.progress.epochs + 1):
        one_epoch(source.study, trial, epoch)
    tell(source.study, trial)
    source.study.get_trials(deepcopy=False)  # to show the best


def a_trial_of_optunas(study: optuna.Study, space: Space) -> None:
    trial = study.ask(space.distributions)
    for epoch in range(1, space.epochs + 1):
        trial.report(0.9, epoch)
        trial.should_prune()
    study.tell(trial, 0.9)


def storage_table(result: dict[str, Any], options: argparse.Namespace) -> str:
    rows = [
        [f"{row['trials']:,}", *(cell for who in ("nas", "Optuna") for cell in (
            f"{median(row[who]['statements']):.0f}", milliseconds(row[who]["seconds"], 1)
        ))]
        for row in result["rows"]
    ]  # fmt: skip
    head = ["trials in the study", "nas: statements", "nas: ms of a processor", "Optuna: statements", "Optuna: ms of a processor"]
    return (
        f"Parameters of space {result['space']}, {result['epochs']} epochs, {options.draws} trials each; "
        f"median (least–most).\n\n{table(head, rows)}"
    )


# ------------------------------------------------------------------------------------------------ depth of the network


def largest(space: Space, block: str, most_blocks: int | None = None) -> ArchConfig:
    """Every range at its high end, and of the choices whatever takes most to build."""
    heaviest = {"se_reduction": 16, "dropout_place": "stem+block", "zero_init": True, "init": "dirac", "stem.type": "whitening"}
    values = {}
    for slot in space.slots:
        value = slot.domain.high if isinstance(slot.domain, IntDistribution | FloatDistribution) else slot.ends()[-1]
        values[slot.name] = block if slot.name == "block" else heaviest.get(slot.name, value)
        if most_blocks is not None and slot.name.endswith(".blocks"):
            values[slot.name] = most_blocks
    return space.candidate(values).arch


def measure_budget(options: argparse.Namespace) -> dict[str, Any]:
    """On one thread, as in a coordinator beside its workers."""
    space, rows = load_space(options.space), []
    networks = {f"{n} in each stage": largest(space, "bottleneck", n) for n in range(1, 11)}
    blocks = ("basic", "preact", "bottleneck")
    networks |= {f"the largest of space {space.name}, {block}": largest(space, block) for block in blocks}
    for name, arch in networks.items():
        progress(f"budget: {name}")
        params = count_params(arch, CIFAR10)
        row: dict[str, Any] = {"network": name, "blocks": sum(stage.blocks for stage in arch.stages), "params": params}
        for what, limits in (("params", BudgetConfig(params=params)), ("macs", BudgetConfig(params=params, macs=10**15))):
            budget, clock = Budget(limits, CIFAR10), Clock()
            for _ in range(options.checks):
                row["macs"] = clock("check", lambda b=budget, a=arch: b.check(a)).macs
            row[f"seconds {what}"] = clock.seconds["check"]
        rows.append(row)
    return {"space": space.name, "rows": rows}


def budget_table(result: dict[str, Any], options: argparse.Namespace) -> str:
    head = ["blocks", "blocks in all", "parameters", "multiply-adds", "check of parameters, ms", "with multiply-adds, ms"]
    rows = [
        [
            row["network"],
            str(row["blocks"]),
            f"{row['params']:,}",
            f"{row['macs'] / 1e6:,.0f} M",
            milliseconds(row["seconds params"], 1),
            milliseconds(row["seconds macs"]),
        ]
        for row in result["rows"]
    ]
    return (
        f"Space {result['space']}, everything at its high end, images of 3×32×32, {options.checks} checks each; "
        f"median (fastest–slowest).\n\n{table(head, rows)}"
    )


# ----------------------------------------------------------------------------------------------------------------- all

MEASUREMENTS = {
    "study": (measure_study, study_table),
    "storage": (measure_storage, storage_table),
    "budget": (measure_budget, budget_table),
    "data": (measure_data, data_table),
    "memory": (measure_memory, memory_table),
    "start": (measure_start, start_table),
    "formats": (measure_formats, formats_table),
}


def numbers(text: str) -> list[int]:
    return [int(part.replace("k", "000")) for part in text.split(",")]


def folders(text: str) -> list[tuple[int, int]]:
    """`1k:32,100k:64`: how many images of which size."""
    return [(numbers(count)[0], int(size or 32)) for count, _, size in (part.partition(":") for part in text.split(","))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="MEASUREMENT", help=f"of {', '.join(MEASUREMENTS)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="kept, and used again (default: a temporary one)")
    parser.add_argument("--repeats", type=int, default=5, help="of data's and start's processes (default: 5)")
    parser.add_argument(
        "--trials", type=numbers, default="10,100,1000,10000", help="study, storage: in it before (default: %(default)s)"
    )
    parser.add_argument("--draws", type=int, default=50, help="study, storage (default: 50)")
    parser.add_argument("--space", default="resnet", help="study, storage, budget (default: resnet)")
    parser.add_argument("--storage", metavar="URL", help="study, storage: of a PostgreSQL database (default: SQLite)")
    parser.add_argument("--checks", type=int, default=21, help="budget: of each network (default: 21)")
    parser.add_argument("--images", type=folders, default="1k,10k,100k,100k:64", help="data, memory (default: %(default)s)")
    parser.add_argument("--searched", type=int, default=4, help="memory: trials with the last data set (default: 4)")
    parser.add_argument("--start-images", type=int, default=50_000, help="start: in its folder (default: 50000)")
    parser.add_argument("--formats", type=Path, nargs="+", default=[], metavar="PATH", help="formats: the same data set each")
    options = parser.parse_args()
    if unknown := set(options.what) - MEASUREMENTS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choices: {', '.join(MEASUREMENTS)}")
    torch.set_num_threads(1)
    found: dict[str, Any] = {"machine": machine(torch.device("cpu")), "command": " ".join(sys.argv)}
    print(f"{found['machine']}\n{found['command']}")
    with tempfile.TemporaryDirectory(prefix="nas-scale-") as temporary:
        options.scratch = (options.scratch or Path(temporary)).absolute()
        options.scratch.mkdir(parents=True, exist_ok=True)
        for name in options.what or MEASUREMENTS:
            measure, as_table = MEASUREMENTS[name]
            found[name] = measure(options)
            print(f"\n## {name}\n\n{as_table(found[name], options)}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
