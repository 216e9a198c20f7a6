"""How long the coordinator is busy with one candidate, and with one epoch, in a study that holds many trials already.

    python scripts/bench/coordinator.py [--trials 2000] [--draws 50] [--space resnet] [--storage URL]

A worker waits for the coordinator's answer to an epoch; if a draw is under way, for that draw, too. It never waits for a
candidate, since those are drawn ahead.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.budget import Budget
from nas.paths import StudyPaths
from nas.search import outcomes
from nas.search.drawing import Drawer
from nas.search.ownership import own_study
from nas.search.pruners import PRUNERS
from nas.search.samplers import SAMPLERS
from nas.search.storage import owned_study
from nas.space import Space
from nas.space_file import CIFAR10, load_space


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


class Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def __call__(self, what: str, action: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = action()
        self.seconds.setdefault(what, []).append(time.perf_counter() - started)
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--space", default="resnet")
    parser.add_argument("--storage")
    options = parser.parse_args()
    space, clock = load_space(options.space), Clock()
    budget = Budget(space.budget, CIFAR10)
    with tempfile.TemporaryDirectory() as folder:
        paths = StudyPaths(Path(folder) / f"bench-{time.time_ns()}")
        with own_study(paths, options.storage, note=print, stop_requested=lambda: False) as storage:
            sampler = SAMPLERS["tpe"]()
            study = owned_study(storage, paths, sampler, PRUNERS["asha"](space.epochs))
            study.add_trials(history(space, options.trials))
            drawer = Drawer(study, sampler, space, budget, seed=0)
            check = budget.check
            budget.check = lambda arch: clock("of which the budget's check", lambda: check(arch))  # type: ignore[method-assign]
            for number in range(options.draws + 1):
                if number == 1:  # the first one reads the whole study
                    clock.seconds.clear()
                drawer.begin()
                clock("ask + check", drawer.step)
                for running in drawer.ready:
                    for epoch in range(1, space.epochs):
                        clock("epoch: report + verdict", lambda r=running, e=epoch: one_epoch(study, r.trial, e))
                    clock("tell", lambda r=running: tell(study, r.trial))
                drawer.ready.clear()
    parameters = sum(slot.drawn for slot in space.slots)
    print(f"space {space.name}, {parameters} parameters drawn, {options.trials} trials before, {options.draws} draws")
    for what, seconds in clock.seconds.items():
        print(f"  {what:30s} median {1000 * median(seconds):6.1f} ms, slowest {1000 * max(seconds):6.1f} ms, n = {len(seconds)}")


def one_epoch(study: optuna.Study, trial: optuna.Trial, epoch: int) -> None:
    outcomes.report(study, trial, 0.9, epoch)
    study.pruner.prune(study, outcomes.stored(study, trial))


def tell(study: optuna.Study, trial: optuna.Trial) -> None:
    outcomes.decide(trial, "pruned_early")
    outcomes.finish(study, trial)


if __name__ == "__main__":
    main()
