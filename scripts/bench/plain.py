"""What one would write without nas: Optuna's PyTorch example with torchvision's transforms in a DataLoader.

    python scripts/bench/plain.py --space FILE --trials DRAWN.json --dataset folder --data FOLDER [--train-subset 5000]

It trains the networks that a search by nas has drawn (`trials.py` writes the list), on the same split and for as many epochs,
as a competent user would train them in fp32: decoded images in memory as torchvision's CIFAR10 holds them, augmented one by one
by workers that persist over the epochs, or with `--workers 0`, as in Optuna's example, by the process that trains. What it
leaves out speaks for it: no counting against a budget, no averaged weights to evaluate, no checkpoints, no curves on disk, no
storage but the memory. For colour images.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

from nas.config import DataConfig, TrainConfig
from nas.cores import usable_cores
from nas.data.datasets import load_dataset
from nas.data.images import Dataset, ImageSet
from nas.data.splits import Split, split
from nas.models import build_model
from nas.space.space_file import load_space

WORKERS = min(8, usable_cores())
TEST_BATCH = 1000


class Images(torch.utils.data.Dataset):
    """As torchvision.datasets.CIFAR10: a uint8 array in memory, one PIL image at a time."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: transforms.Compose) -> None:
        self.images, self.labels, self.transform = images, labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def make_sets(dataset: Dataset, parts: Split) -> tuple[Images, Images]:
    """For training and for validation."""
    to_normalised = [
        transforms.ToTensor(),
        transforms.Normalize([m / 255 for m in dataset.mean], [s / 255 for s in dataset.std]),
    ]
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.TrivialAugmentWide()]

    def pick(chosen: ImageSet, indices: np.ndarray | None, steps: list[Any]) -> Images:
        which = slice(None) if indices is None else indices
        return Images(np.array(chosen.images[which]), chosen.labels[which], transforms.Compose(steps))

    train = pick(dataset.train, parts.train, augment + to_normalised)
    return train, pick(dataset.validation or dataset.train, parts.validation, to_normalised)


def make_loaders(
    train: Images, validation: Images, batch_size: int, device: torch.device, workers: int = WORKERS
) -> tuple[DataLoader, DataLoader]:
    common: dict[str, Any] = {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": device.type == "cuda",
    }
    return (
        DataLoader(train, batch_size, shuffle=True, drop_last=len(train) >= batch_size, **common),
        DataLoader(validation, TEST_BATCH, **common),
    )


def make_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    decay = config.weight_decay
    match config.optimiser:
        case "adam":
            return torch.optim.Adam(model.parameters(), config.peak_lr, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(model.parameters(), config.peak_lr, weight_decay=decay)
    return torch.optim.SGD(model.parameters(), config.peak_lr, config.momentum, weight_decay=decay, nesterov=config.nesterov)


def train_epoch(
    model: nn.Module, loader: DataLoader, optimiser: torch.optim.Optimizer, device: torch.device, label_smoothing: float = 0.0
) -> None:
    model.train()
    for images, labels in loader:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        optimiser.zero_grad()
        F.cross_entropy(model(images), labels, label_smoothing=label_smoothing).backward()
        optimiser.step()


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader, device: torch.device) -> float:
    """Share of correct predictions."""
    model.eval()
    correct, seen = 0, 0
    for images, labels in loader:
        predicted = model(images.to(device, non_blocking=True)).argmax(1)
        correct += int((predicted == labels.to(device, non_blocking=True)).sum())
        seen += len(labels)
    return correct / seen


def search(options: argparse.Namespace) -> optuna.Study:
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    data = DataConfig(dataset=options.dataset, folder=options.data, subset=options.train_subset, seed=options.seed)
    dataset = load_dataset(data)
    sets = make_sets(dataset, split(dataset, data))
    drawn = json.loads(options.trials.read_text())
    space = load_space(options.space).with_epochs(drawn["epochs"])

    def objective(trial: optuna.Trial) -> float:
        started = time.perf_counter()
        candidate = space.draw(trial)
        config = candidate.train
        model = build_model(candidate.arch, dataset.shape).to(device)
        train_loader, validation_loader = make_loaders(*sets, config.batch_size, device, options.workers)
        optimiser = make_optimiser(model, config)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=config.epochs)
        accuracy, evaluating = 0.0, 0.0
        for epoch in range(1, drawn["trials"][trial.number]["epochs"] + 1):
            train_epoch(model, train_loader, optimiser, device, config.label_smoothing)
            schedule.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            trained = time.perf_counter()
            accuracy = evaluate(model, validation_loader, device)
            evaluating += time.perf_counter() - trained
            trial.report(accuracy, epoch)
        trial.set_user_attr("evaluating", evaluating)
        trial.set_user_attr("seconds", time.perf_counter() - started)
        return accuracy

    study = optuna.create_study(direction="maximize")
    for one in drawn["trials"]:
        study.enqueue_trial(one["params"])
    study.optimize(objective, n_trials=len(drawn["trials"]))
    return study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", required=True, help="a file, or a shipped name")
    parser.add_argument("--trials", type=Path, required=True, help='{"epochs": 2, "trials": [{"params": {…}, "epochs": 2}, …]}')
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data", help="as for nas search")
    parser.add_argument("--train-subset", type=int)
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=WORKERS, help="of the DataLoader (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="accuracies and seconds of each trial are written here")
    options = parser.parse_args()
    study = search(options)
    print(f"Best: {study.best_value:.2%}  {study.best_params}")
    if options.results:
        rows = [{"accuracy": trial.value, **trial.user_attrs} for trial in study.trials]
        options.results.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
