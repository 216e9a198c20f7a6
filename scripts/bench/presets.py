"""Trains every preset for a few epochs on a few images by its own recipe, and prints the table of search_spaces/README.md.

    python scripts/bench/presets.py --dataset folder --data FOLDER [--epochs 2] [--images 5000] [--only NAME ...]

What it shows is that each recipe runs and its loss falls, not how good a network is.
"""

import argparse
import os
import tempfile
from pathlib import Path

from nas.config import DataConfig
from nas.interrupts import Stop
from nas.paths import shipped_names
from nas.runs.context import open_presets_study
from nas.runs.retrain import retrain
from nas.runs.train import TrainingDisplay
from nas.specs import RetrainSpec
from nas.train.checkpoint import read_curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data", help="as for nas search")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--only", nargs="*", default=shipped_names("preset"))
    options = parser.parse_args()
    folder = None if options.data is None else str(Path(options.data).absolute())
    with tempfile.TemporaryDirectory() as studies:
        os.environ["NAS_STUDIES"] = studies
        paths = open_presets_study(DataConfig(dataset=options.dataset, folder=folder))
        losses = " | ".join(f"loss, epoch {epoch + 1}" for epoch in range(options.epochs))
        print(f"| preset | {losses} | training accuracy | images/s |", flush=True)
        print("|---|" + "---|" * (options.epochs + 2), flush=True)
        for name in options.only:
            request = RetrainSpec(paths, f"preset:{name}", epochs=options.epochs, train_subset=options.images)
            done = retrain(request, lambda plans, pending, ctx: None, TrainingDisplay(), Stop())
            curve = read_curve(done.networks[0].runs[0].metrics)
            cells = [f"{metrics.train_loss:.3f}" for metrics in curve]
            last = curve[-1]
            print(f"| `{name}` | {' | '.join(cells)} | {last.train_accuracy:.1%} | {last.images_per_second:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
