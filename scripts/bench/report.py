"""How long `nas report` takes, and how large its page is, for a study of many trials, made up from one that was searched a bit.

python scripts/bench/report.py --trials 1000 --epochs 20 --repeats 3

Wall-clock and processor seconds are those of the whole command, imports included.
"""

import argparse
import json
import math
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import common
import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState

RUNG = 2
"""Epochs after which the pruned ones were given up."""


def made_up(folder: Path, trials: int, epochs: int, pruned_share: float) -> Path:
    """A study with so many trials, drawn uniformly, of which a share is pruned; every training's curve lies in its folder."""
    environment = {**os.environ, "NAS_STUDIES": str(folder)}
    search = ["search", "--space", "digits", "--dataset", "digits", "--study", "many", "--trials", "2", "--finalists", "0"]
    for command in (
        [*search, "--device", "cpu", "--train-subset", "200", "--epochs", str(epochs)],
        ["retrain", "best", "--study", "many", "--epochs", "20"],
    ):
        subprocess.run([sys.executable, "-m", "nas", *command], env=environment, check=True, capture_output=True)
    paths = folder / "many"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="many", storage=f"sqlite:///{paths / 'study.db'}")
    known = study.get_trials()
    model = next(trial for trial in known if trial.state == TrialState.COMPLETE)
    source = paths / "trials" / f"{model.number:04d}"
    lots, began = random.Random(0), datetime.now()
    made = []
    for number in range(len(known), trials):
        pruned = lots.random() < pruned_share
        end = lots.uniform(0.5, 0.95)
        curve = {
            epoch: end * (1 - math.exp(-epoch / 4)) + lots.gauss(0, 0.01) for epoch in range(1, (RUNG if pruned else epochs) + 1)
        }
        outcome = "pruned_early" if pruned else "trained"
        costs = {"params": lots.randint(1_000, 60_000), "macs": lots.randint(10**5, 10**7)}
        trial = optuna.trial.create_trial(
            state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
            value=curve[max(curve)],
            params={name: drawn(distribution, lots) for name, distribution in model.distributions.items()},
            distributions=model.distributions,
            intermediate_values=curve,
            user_attrs={**model.user_attrs, "outcome": outcome, **costs},
        )
        trial.datetime_start, trial.datetime_complete = began + timedelta(seconds=number), began + timedelta(seconds=number + 1)
        made.append(trial)
        write_curve(paths / "trials" / f"{number:04d}", source, curve)
    study.add_trials(made)
    common.progress(f"{trials} trials made up in {datetime.now() - began}")
    return paths


def drawn(distribution: BaseDistribution, lots: random.Random) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return lots.choice(distribution.choices)
    assert isinstance(distribution, optuna.distributions.IntDistribution | optuna.distributions.FloatDistribution)
    if isinstance(distribution, optuna.distributions.IntDistribution):
        return lots.randrange(distribution.low, distribution.high + 1, distribution.step)
    low, high = distribution.low, distribution.high
    return math.exp(lots.uniform(math.log(low), math.log(high))) if distribution.log else lots.uniform(low, high)


def write_curve(folder: Path, source: Path, values: dict[int, float]) -> None:
    folder.mkdir(parents=True)
    shutil.copy(source / "candidate.json", folder)
    line = json.loads((source / "metrics.jsonl").read_text().splitlines()[0])
    lines = [json.dumps({**line, "epoch": epoch, "ema_val_accuracy": value}) for epoch, value in values.items()]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pruned", type=float, default=0.8, help=f"share of the trials that ended after {RUNG} epochs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make the study in this folder and leave it there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = asked.keep or Path(name)
        paths = folder / "many" if (folder / "many").is_dir() else made_up(folder, asked.trials, asked.epochs, asked.pruned)
        seconds, processor = [], []
        for _ in range(asked.repeats):
            started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [sys.executable, "-m", "nas", "report", "--study", "many"],
                env={**os.environ, "NAS_STUDIES": str(folder)},
                check=True,
                capture_output=True,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(time.perf_counter() - started)
            processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        size = (paths / "report.html").stat().st_size / 1e6
        print(
            f"{asked.trials} trials of {asked.epochs} epochs, {asked.pruned:.0%} pruned, n = {asked.repeats}: "
            f"{common.spread(seconds, 1)} s, of a processor {common.spread(processor, 1)} s; {size:.1f} MB"
        )
        print(json.dumps(common.machine(torch.device("cpu"))))


if __name__ == "__main__":
    main()
