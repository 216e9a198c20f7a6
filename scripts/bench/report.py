"""How long `nas report` takes, and how large its page is, for a study of many trials, made up from one that was searched a bit.

python scripts/bench/report.py --trials 1000 --epochs 20 --repeats 3
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import common
import optuna

PRUNED_SHARE = 0.8


def made_up(folder: Path, trials: int, epochs: int) -> Path:
    """A study with so many trials, four fifths of them pruned after two epochs; every training's curve lies in its folder."""
    environment = {**os.environ, "NAS_STUDIES": str(folder)}
    search = ["search", "--space", "digits", "--dataset", "digits", "--study", "many", "--trials", "4", "--finalists", "0"]
    for command in (
        [*search, "--device", "cpu", "--epochs", str(epochs)],
        ["retrain", "best", "--study", "many", "--epochs", "20"],
    ):
        subprocess.run([sys.executable, "-m", "nas", *command], env=environment, check=True, capture_output=True)
    paths = folder / "many"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="many", storage=f"sqlite:///{paths / 'study.db'}")
    model = next(trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE)
    source = paths / "trials" / f"{model.number:04d}"
    lots, began = random.Random(0), datetime.now()
    for number in range(len(study.trials), trials):
        pruned = lots.random() < PRUNED_SHARE
        values = {epoch: lots.random() for epoch in range(1, (2 if pruned else epochs) + 1)}
        params = {name: lots.choice(study.trials[:4]).params[name] for name in model.params}
        outcome = "pruned_early" if pruned else "trained"
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE,
                value=values[max(values)],
                params=params,
                distributions=model.distributions,
                intermediate_values=values,
                user_attrs={
                    **model.user_attrs,
                    "outcome": outcome,
                    "params": lots.randint(1_000, 20_000),
                    "macs": lots.randint(10**5, 10**6),
                },
            )
        )
        write_curve(paths / "trials" / f"{number:04d}", source, values)
    common.progress(f"{trials} trials made up in {datetime.now() - began}")
    return paths


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
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        paths = made_up(Path(name), asked.trials, asked.epochs)
        seconds = []
        for _ in range(asked.repeats):
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "nas", "report", "--study", "many"],
                env={**os.environ, "NAS_STUDIES": name},
                check=True,
                capture_output=True,
            )
            seconds.append(time.perf_counter() - started)
        size = (paths / "report.html").stat().st_size / 1e6
        each = ", ".join(f"{value:.1f}" for value in sorted(seconds))
        print(
            f"{asked.trials} trials of {asked.epochs} epochs: {each} s in {asked.repeats} runs, the whole command; {size:.1f} MB"
        )


if __name__ == "__main__":
    main()
