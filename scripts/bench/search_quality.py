"""What searching well is worth: samplers and pruners on recorded trainings, against random search and Optuna's defaults.

    python scripts/bench/search_quality.py [--table studies/reference/curves.csv] [--seeds 50] [--out FOLDER]

Three parts, all from the table of `record_curves.py`:

    signals   rank correlations of what an early epoch shows with the final accuracy
    pruners   replayed exactly: the recorded networks come in an order by lot, and each trains as it did
    searches  a sampler with a pruner draws from the whole space; costs are exact, accuracies come from a regression fitted to the
              table (its error on held-out rows is printed)

A search is measured in epochs. `epochs to half a point`: until the network that is the best so far lies within half a
point of the table's best. `chosen`: the share of runs in which the network that the search calls best, when --epochs are
spent, does so. FOLDER receives results.json, search-quality.html and, with a browser at hand, search-quality.png.
"""

import argparse
import json
import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast

import common
import numpy as np
import optuna
import torch
from curves import Row, World, held_out_error, read_table
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from quality_plot import draw_plots
from scipy.stats import spearmanr

from nas.budget import Budget
from nas.config import StrategyConfig, StudyConfig
from nas.paths import StudyPaths
from nas.space.space import Space
from nas.space.space_file import load_space
from nas.study import outcomes
from nas.study.drawing import SearchSource
from nas.study.optuna_private import overwrite_value, stored_trial
from nas.study.pruners import PRUNERS, FairPruner
from nas.study.samplers import SAMPLERS
from nas.study.source import Display
from nas.study.strategies import fill_new, make_pruner, make_sampler

HALF_A_POINT = 0.005
SLOW = {"gp": 10}
"""Seeds of what takes seconds for each draw."""


@dataclass(frozen=True)
class Run:
    """One search by one seed."""

    spent: list[int]
    """Epochs in all when each trial ended, and …"""
    best: list[float]
    """… the true accuracy of the best trial so far that ran to its end."""
    reached: float
    """Epochs to half a point; infinite where they did not suffice."""

    def chosen(self, epochs: int) -> float:
        """True accuracy of the network that is called best when so many are spent; 0 before any has run to its end."""
        place = next((i for i, spent in enumerate(self.spent) if spent >= epochs), len(self.spent) - 1)
        return self.best[place]


def run_of(ended: list[tuple[int, float | None, float]], target: float) -> Run:
    """`ended`: for each trial its epochs, the accuracy that was seen if it ran to the end, and its true one."""
    total, best, true, spent, curve, reached = 0, 0.0, 0.0, [], [], float("inf")
    for epochs, seen, truth in ended:
        total += epochs
        if seen is not None and seen > best:
            best, true = seen, truth
        spent.append(total)
        curve.append(true)
        if true >= target and total < reached:
            reached = total
    return Run(spent, curve, reached)


# ---------------------------------------------------------------------------------------------------------------- signals


def signals(rows: Sequence[Row], resamples: int = 1000) -> list[dict[str, Any]]:
    """Each signal's rank correlation with the final accuracy, by epoch, with a 90 % interval by resampling networks."""
    own = {row.draw: row for row in rows if row.variant == "own"}
    of = {variant: {row.draw: row for row in rows if row.variant == variant} for variant in ("again", "constant")}
    everybody, both = sorted(own), sorted(own.keys() & of["again"].keys())
    found = []

    def add(signal: str, draws: list[int], value: Callable[[int, int], float], epochs: Sequence[int]) -> None:
        finals = np.array([own[draw].final for draw in draws])
        rng = np.random.default_rng(0)
        for epoch in epochs:
            values = np.array([value(draw, epoch - 1) for draw in draws])
            parts = [rng.integers(len(draws), size=len(draws)) for _ in range(resamples)]
            spread = [spearmanr(values[part], finals[part]).statistic for part in parts]
            low, high = np.nanquantile(spread, [0.05, 0.95])
            rho = float(spearmanr(values, finals).statistic)
            found.append({"signal": signal, "epoch": epoch, "rho": rho, "low": low, "high": high, "n": len(draws)})

    last = len(next(iter(own.values())).averaged)
    early = [epoch for epoch in (1, 2, 3, 4, 6, 9, 12) if epoch < last]
    if len(everybody) > 3:
        add("averaged accuracy", everybody, lambda d, e: own[d].averaged[e], early)
        add("summed training loss", everybody, lambda d, e: -own[d].train_loss[: e + 1].sum(), early)
        add("last training loss", everybody, lambda d, e: -own[d].train_loss[e], early)
        add("multiply-adds", everybody, lambda d, e: own[d].macs, [1])
        add("parameters", everybody, lambda d, e: own[d].params, [1])
    if len(both) > 3:
        # By another seed than the final accuracy, so that no signal shares its luck with what it is to foretell.
        add("again: averaged accuracy", both, lambda d, e: of["again"][d].averaged[e], [*early, last])
        add("again: raw accuracy", both, lambda d, e: of["again"][d].raw[e], [*early, last])
        add("again: summed training loss", both, lambda d, e: -of["again"][d].train_loss[: e + 1].sum(), [*early, last])
    steady = [draw for draw in both if draw in of["constant"]]
    if len(steady) > 3:
        add("constant rate: averaged accuracy", steady, lambda d, e: of["constant"][d].averaged[e], [*early, last])
        add("constant rate: raw accuracy", steady, lambda d, e: of["constant"][d].raw[e], [*early, last])
    return found


# ---------------------------------------------------------------------------------------------------------------- pruners


class Seen:
    """As much of a study as pruners read."""

    def __init__(self) -> None:
        self.trials: list[FrozenTrial] = []
        self.direction = StudyDirection.MAXIMIZE
        self.directions = [self.direction]

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        return [trial for trial in self.trials if states is None or trial.state in states]

    _get_trials = get_trials


def replay(curves: Sequence[np.ndarray], pruner: optuna.pruners.BasePruner | None, target: float, seed: int) -> Run:
    """The recorded networks in an order by lot."""
    study = Seen()
    ended: list[tuple[int, float | None, float]] = []
    for number, which in enumerate(np.random.default_rng(seed).permutation(len(curves))):
        curve = curves[which]
        trial = create_trial(state=TrialState.RUNNING)
        trial.number = number
        study.trials.append(trial)
        for epoch, value in enumerate(curve, 1):
            trial.intermediate_values[epoch] = float(value)
            if pruner is not None and epoch < len(curve) and pruner.prune(cast(optuna.Study, study), trial):
                trial.state = TrialState.PRUNED
                break
        else:
            trial.state, trial.values = TrialState.COMPLETE, [float(curve[-1])]
        seen = trial.value if trial.state == TrialState.COMPLETE else None
        ended.append((len(trial.intermediate_values), seen, float(curve[-1])))
    return run_of(ended, target)


def as_shipped(name: str, epochs: int, warmup: float) -> optuna.pruners.BasePruner | None:
    if name == "Optuna's default":
        return optuna.pruners.MedianPruner()
    return new_pruner(StrategyConfig(name=name), epochs, warmup)


def new_pruner(config: StrategyConfig, epochs: int, warmup: float) -> FairPruner:
    """As in a study that begins."""
    return make_pruner(fill_new(StudyConfig(pruner=config), epochs, warmup).pruner, epochs)


def replay_one(name: str, curves: Sequence[np.ndarray], warmup: float, target: float, seed: int) -> Run:
    return replay(curves, as_shipped(name, len(curves[0]), warmup), target, seed)


# --------------------------------------------------------------------------------------------------------------- searches


class WorldBudget(Budget):
    """The world's costs."""

    def __init__(self, world: World) -> None:
        super().__init__(world.space.budget, world.shape)
        self.world = world

    def check(self, arch: Any) -> Any:
        return self.world.check(arch)


def search_one(strategy: tuple[str, str], world: World, epochs: int, target: float, seed: int) -> Run:
    """Our own drawer, sampler and pruner, as `nas search` puts them together, with one worker."""
    sampler, pruner = (StrategyConfig.model_validate(part) for part in strategy)
    judge = new_pruner(pruner, world.epochs, world.space.warmup)
    study = optuna.create_study(direction="maximize", pruner=judge)
    budget, paths = WorldBudget(world), StudyPaths(Path("none"))  # nothing is trained
    drawer = SearchSource(
        study, paths, make_sampler(sampler, seed), world.space, budget, seed=seed, goal=10**6, display=Display()
    )
    ended: list[tuple[int, float | None, float]] = []
    while sum(spent for spent, _, _ in ended) < epochs and drawer.exhausted is None:
        drawer.begin_draw()
        while drawer.busy:
            drawer.work()
        if not drawer.ready:
            break
        running = drawer.ready.popleft()
        frozen = stored_trial(running.trial)
        curve, truth = world.training(frozen.params, running.candidate)
        for epoch, value in enumerate(curve, 1):
            overwrite_value(running.trial, float(value), epoch)
            if epoch < len(curve) and judge.prune(study, stored_trial(running.trial)):
                outcomes.decide(running.trial, "pruned_early")
                break
        else:
            outcomes.decide(running.trial, "trained")
        outcomes.finish(study, running.trial)
        done = study.get_trials(deepcopy=False)[running.number]
        drawer.settle_twins(done)
        ended.append((epoch, done.value if done.state == TrialState.COMPLETE else None, truth))
    return run_of(ended, target)


def optuna_one(world: World, epochs: int, target: float, seed: int) -> Run:
    """As a user would write it with Optuna's defaults: TPE and the median pruner, what is over budget pruned."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    ended: list[tuple[int, float | None, float]] = []

    def objective(trial: optuna.Trial) -> float:
        candidate = world.space.draw(trial)
        if not world.check(candidate.arch).fits:
            raise optuna.TrialPruned
        curve, truth = world.training(trial.params, candidate)
        for epoch, value in enumerate(curve, 1):
            trial.report(float(value), epoch)
            if epoch < len(curve) and trial.should_prune():
                ended.append((epoch, None, truth))
                raise optuna.TrialPruned
        ended.append((len(curve), float(curve[-1]), truth))
        return float(curve[-1])

    while sum(spent for spent, _, _ in ended) < epochs:
        study.optimize(objective, n_trials=1)
    return run_of(ended, target)


# ------------------------------------------------------------------------------------------------------------------ report


def summary(
    name: str, runs: Sequence[Run], target: float, epochs_given: int, random: Sequence[Run], optunas: Sequence[Run]
) -> list[str]:
    middle = median(run.reached for run in runs)
    quartiles = np.quantile([min(run.reached, 10**9) for run in runs], [0.25, 0.75])

    def epochs(value: float) -> str:
        return f"{value:,.0f}" if value < 10**8 else "never"

    def factor(others: Sequence[Run]) -> str:
        theirs = median(run.reached for run in others)
        if theirs == float("inf"):
            return ">" + f"{max(others[0].spent) / middle:.1f}" if middle < float("inf") else "?"
        return f"{theirs / middle:.1f}"

    chosen = sum(run.chosen(epochs_given) >= target for run in runs) / len(runs)
    spread = f"{epochs(middle)} ({epochs(quartiles[0])}–{epochs(quartiles[1])})"
    return [name, str(len(runs)), spread, factor(random), factor(optunas), f"{chosen:.0%}"]


def measured(pool: ProcessPoolExecutor, one: Callable[[int], Run], seeds: int, name: str) -> list[Run]:
    started = time.perf_counter()
    runs = list(pool.map(one, range(seeds)))
    common.progress(f"{name}: {seeds} seeds in {time.perf_counter() - started:.0f} s")
    return runs


def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=Path("studies/reference/curves.csv"))
    parser.add_argument("--space", default="resnet-small")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=900, help="that each search may spend")
    parser.add_argument(
        "--baseline-epochs", type=int, default=3000, help="random search and Optuna's defaults, so as to get there"
    )
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS))
    parser.add_argument("--pruners", nargs="*", default=list(PRUNERS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("studies/reference"))
    args = parser.parse_args()
    quiet()
    rows = read_table(args.table)
    space: Space = load_space(args.space)
    world = World(rows, space)
    error = held_out_error(world)
    target = float(world.finals.max()) - HALF_A_POINT
    best, middle = world.finals.max(), np.median(world.finals)
    print(f"Table: {len(world.rows)} networks, {world.epochs} epochs, best {best:.2%}, median {middle:.2%}")
    print(f"Regression on held-out rows: RMSE {100 * error.rmse:.2f} points, R² {error.r2:.2f}, ρ {error.rank_correlation:.2f}")
    results: dict[str, Any] = {
        "epochs": args.epochs,
        "machine": common.machine(torch.device("cpu")),
        "table": {"networks": len(world.rows), "epochs": world.epochs, "best": float(world.finals.max()), "error": asdict(error)},
    }
    results["signals"] = signals(rows)
    lines = [
        [s["signal"], str(s["epoch"]), f"{s['rho']:.2f} ({s['low']:.2f}–{s['high']:.2f})", str(s["n"])]
        for s in results["signals"]
    ]
    print("\n" + common.table(["signal", "epoch", "ρ with the final accuracy", "n"], lines))

    head = ["", "seeds", "epochs to half a point", "× fewer than random", "× fewer than Optuna's", "chosen"]
    curves = [row.averaged for row in world.rows]
    with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn"), initializer=quiet) as pool:
        pruned = {
            name: measured(pool, partial(replay_one, name, curves, space.warmup, target), args.seeds, f"replayed, {name}")
            for name in ("none", "Optuna's default", *(p for p in args.pruners if p != "none"))
        }
        print("\nPruners, replayed on the table\n")
        print(
            common.table(
                head, [summary(n, r, target, 10**9, pruned["none"], pruned["Optuna's default"]) for n, r in pruned.items()]
            )
        )

        # The regression's own best among the table's networks: what it makes of their luck is not there to be found.
        aim = float(world.final(world.points).max()) - HALF_A_POINT
        longer = max(args.epochs, args.baseline_epochs)
        searches = {
            "random, none": measured(
                pool, partial(search_one, ("random", "none"), world, longer, aim), args.seeds, "random, none"
            ),
            "Optuna's defaults": measured(pool, partial(optuna_one, world, longer, aim), args.seeds, "Optuna's defaults"),
        }
        pairs = [(sampler, "asha") for sampler in args.samplers] + [("tpe", p) for p in args.pruners if p != "asha"]
        for pair in pairs:
            name = ", ".join(pair)
            if name not in searches:
                seeds = min(args.seeds, SLOW.get(pair[0], args.seeds))
                searches[name] = measured(pool, partial(search_one, pair, world, args.epochs, aim), seeds, name)
        print(f"\nSearches of {args.epochs} epochs, in the world of the regression\n")
        random, optunas = searches["random, none"], searches["Optuna's defaults"]
        print(common.table(head, [summary(n, r, aim, args.epochs, random, optunas) for n, r in searches.items()]))
    results["pruners"] = {name: [asdict(run) for run in runs] for name, runs in pruned.items()}
    results["searches"] = {name: [asdict(run) for run in runs] for name, runs in searches.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    draw_plots(results, target, aim, args.out)
    (args.out / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
