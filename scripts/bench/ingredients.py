"""What each ingredient of a retraining is worth: the recipe `fast`, by SGD, and with one thing changed, by several seeds.

    python scripts/bench/ingredients.py --data FOLDER [--images 5000] [--epochs 10] [--seeds 3] [--out FILE] [--only NAME …]

One small network, trained on a stratified part of the images and judged on a tenth of all, on which none of them trains, as they
are and under the simulated shift. Rows are appended to --out; what is there already is not trained again. The table says by how
many points each change moves the mean, and whether that is more than the seeds do.
"""

import argparse
import csv
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import common
import torch

from nas.config import ArchConfig, Candidate, DataConfig, TrainConfig
from nas.cores import usable_cores
from nas.data.datasets import load_dataset
from nas.data.loader import mix_seed
from nas.data.shift import shifted
from nas.data.splits import DataSelection, select_data
from nas.data.stream import place
from nas.device import pick_device, pick_precision, tune_process
from nas.runs.evaluation import judge
from nas.space.recipes import load_recipe
from nas.train.evaluate import TTA

BASE = "recipe `fast`, by SGD"
CHANGES: dict[str, dict[str, Any]] = {
    BASE: {},
    "no averaged weights": {"ema_epochs": 0.0},
    "averaged over 2 epochs": {"ema_epochs": 2.0},
    "cosine without warm-up": {"schedule": "cosine"},
    "multistep": {"schedule": "multistep"},
    "weight decay on BatchNorm and biases": {"decay_norm_and_bias": True},
    "BatchNorm's biases 8 times as fast": {"norm_bias_lr": 8.0},
    "BatchNorm's biases 64 times as fast": {"norm_bias_lr": 64.0},
    "no label smoothing": {"label_smoothing": 0.0},
    "label smoothing 0.2": {"label_smoothing": 0.2},
    "Muon": {"optimiser": "muon"},
    "Muon, half the rate": {"optimiser": "muon", "muon_lr": 0.12},
    "Muon, a quarter of the rate": {"optimiser": "muon", "muon_lr": 0.06},
    "SAM, at twice the cost": {"sam_rho": 0.05},
    "SAM, half the epochs": {"sam_rho": 0.05, "epochs": 0.5},
    "mirrored by lot": {"augment": {"flip": "horizontal"}},
    "not mirrored": {"augment": {"flip": "none"}},
    "not cropped": {"augment": {"crop_padding": 0}},
    "TrivialAugment": {"augment": {"policy": "trivialaugment"}},
    "RandAugment": {"augment": {"policy": "randaugment"}},
    "CutMix, half the batches": {"augment": {"mix": "cutmix", "mix_p": 0.5}},
    "RandAugment and CutMix": {"augment": {"policy": "randaugment", "mix": "cutmix", "mix_p": 0.5}},
    "cutout 8": {"augment": {"cutout": 8}},
    "noise": {"augment": {"noise": 0.2}},
    "stochastic depth 0.1": {"stochastic_depth": 0.1},
}
ARCH = ArchConfig.model_validate(
    {"stages": [{"blocks": 1, "channels": c} for c in (16, 40, 80)], "block": "preact", "activation": "silu"}
)


@dataclass(frozen=True)
class Job:
    change: str
    seed: int
    candidate: Candidate


@dataclass(frozen=True)
class Result:
    change: str
    seed: int
    flip: float
    shifted: float
    """With flip averaging, too."""
    seconds: float
    none: float | None = None
    """Of the recipe as it is alone; …"""
    flip_shift: float | None = None


def jobs(epochs: int, seeds: int, only: list[str] | None) -> Iterator[Job]:
    fast = load_recipe("fast", epochs)[1].fit(Candidate(arch=ARCH, train=TrainConfig()), epochs)
    base = fast.model_copy(update={"train": fast.train.model_copy(update={"optimiser": "sgd"})})
    for seed in range(seeds):
        for change, fields in CHANGES.items():
            if only is None or change in only:
                train, arch = base.train.model_dump(), base.arch
                for key, value in fields.items():
                    if key == "augment":
                        train["augment"] |= value
                    elif key == "epochs":
                        train["epochs"] = max(1, round(value * epochs))
                    elif key == "stochastic_depth":
                        arch = arch.model_copy(update={key: value})
                    else:
                        train[key] = value
                yield Job(change, seed, Candidate(arch=arch, train=TrainConfig.model_validate(train)))


class _Worker:
    def __init__(self, data: DataConfig, images: int, threads: int) -> None:
        torch.set_num_threads(threads)
        self.device = pick_device("cpu")
        tune_process(self.device)
        self.precision = pick_precision(self.device)
        self.dataset = load_dataset(data)
        chosen = select_data(self.dataset, data, DataSelection(subset=images, hold_out=0.1))
        of = self.dataset
        self.train = place(chosen.images, of.mean, of.std, self.device, chosen.train)
        assert chosen.hold_out is not None
        self.judged = of.train.only(chosen.hold_out)
        self.shifted = shifted(self.judged, None, 0)

    def run(self, job: Job) -> Result:
        of = self.dataset
        result = common.train(job.candidate, of, self.train, None, self.precision, mix_seed(0, job.seed))
        clean, changed = (place(images, of.mean, of.std, self.device) for images in (self.judged, self.shifted))
        averaged = TTA if job.change == BASE else ("flip",)
        scores = {tta: judge(result.model, clean, self.judged, tta).accuracy for tta in averaged}
        under_shift = judge(result.model, changed, self.shifted, "flip").accuracy
        seconds = sum(metrics.seconds for metrics in result.curve)
        return Result(job.change, job.seed, **scores, shifted=under_shift, seconds=round(seconds, 1))


_worker: _Worker


def _start(data: DataConfig, images: int, threads: int) -> None:
    global _worker
    _worker = _Worker(data, images, threads)


def _run(job: Job) -> Result:
    return _worker.run(job)


def read_rows(file: Path) -> list[Result]:
    if not file.is_file():
        return []
    with file.open(newline="") as lines:
        return [
            Result(row.pop("change"), int(row.pop("seed")), **{key: float(value) for key, value in row.items() if value})
            for row in csv.DictReader(lines)
        ]


def append(file: Path, result: Result) -> None:
    begins = not file.is_file()
    with file.open("a", newline="") as lines:
        writer = csv.DictWriter(lines, list(asdict(result)), lineterminator="\n")
        if begins:
            writer.writeheader()
        writer.writerow({key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(result).items()})


def as_table(results: list[Result]) -> str:
    base = [one for one in results if one.change == BASE]
    rows = []
    for change in dict.fromkeys(one.change for one in results):
        own = sorted((one for one in results if one.change == change), key=lambda one: one.seed)
        paired = [(one, other) for one in own for other in base if one.seed == other.seed]
        cells = [change, str(len(own))]
        for score in ("flip", "shifted"):
            values = [100 * getattr(one, score) for one in own]
            cells.append(f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else ""))
            gains = [100 * (getattr(one, score) - getattr(other, score)) for one, other in paired]
            error = stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
            cells.append("" if change == BASE or not gains else f"{fmean(gains):+.2f} ± {error:.2f}")
        rows.append(cells)
    head = ("", "n", "accuracy, %", "gain, points", "shifted, %", "gain, points")
    averaged = common.table(
        ("averaged over", "accuracy, %"),
        [[tta, f"{fmean(100 * getattr(one, tta) for one in base):.2f}"] for tta in TTA] if base else [],
    )
    return f"{common.table(head, rows)}\n\n{averaged}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--only", nargs="+", choices=list(CHANGES))
    parser.add_argument("--out", type=Path, default=Path("studies/reference/ingredients.csv"))
    options = parser.parse_args()
    results = read_rows(options.out)
    there = {(one.change, one.seed) for one in results}
    wanted = [job for job in jobs(options.epochs, options.seeds, options.only) if (job.change, job.seed) not in there]
    common.progress(f"{len(there)} trainings are there, {len(wanted)} are missing; {common.machine(torch.device('cpu'))}")
    data = DataConfig(dataset="folder", folder=str(options.data))
    context = multiprocessing.get_context("spawn")
    threads = max(1, usable_cores() // options.workers)
    with ProcessPoolExecutor(options.workers, context, _start, (data, options.images, threads)) as pool:
        for done in as_completed([pool.submit(_run, job) for job in wanted]):
            result = done.result()
            append(options.out, result)
            results.append(result)
            common.progress(f"{result.change}, seed {result.seed}: {result.flip:.4f}, shifted {result.shifted:.4f}")
    print(as_table(results))


if __name__ == "__main__":
    main()
