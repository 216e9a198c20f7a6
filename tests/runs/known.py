"""A user's file of networks beside the study `tiny`."""

from collections.abc import Callable
from pathlib import Path

import pytest

import nas.foreign.known
from nas.config import ImageShape
from nas.foreign import ForeignName, build_network
from nas.foreign.inspection import try_training
from nas.foreign.known import quiet
from nas.foreign.measure import ForeignFacts, measure
from nas.paths import StudyPaths
from nas.runs.baseline import Done, train_baselines
from nas.specs import BaselineSpec
from tests.runs.told import Told

NETWORKS = '''\
import sys
import time

import torch
from torch import nn

print("importing mine.py")


class Net(nn.Module):
    """Views its maps as rows, which channels-last memory does not have."""

    def __init__(self, width=4, num_classes=10):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(width * 64, num_classes)

    def forward(self, x):
        print("forward of", len(x))
        return self.head(self.drop(torch.relu(self.norm(self.conv(x)))).view(len(x), -1))


class Large(nn.Module):
    """Over the budget; one of its weights has two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.second = nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.head = nn.LazyLinear(10)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x.flatten(1))))))


class Maps(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv = nn.Conv2d(1, num_classes, 1)

    def forward(self, x):
        return self.conv(x)


class Auxiliary(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x):
        x = x.flatten(1)
        return (self.one(x), self.other(x)) if self.training else self.one(x)


class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        raise RuntimeError("the roof fell in")


class Hangs(nn.Module):
    def __init__(self):
        super().__init__()
        while True:
            time.sleep(0.01)


class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class Large3(nn.Module):
    """Fails once a batch is larger than those by which it is tried."""

    def __init__(self, how="raises"):
        super().__init__()
        self.how = how
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        if len(x) > 2 and self.how == "exits":
            sys.exit("enough")
        if len(x) > 2 and self.how == "reads":
            open("nowhere.txt")
        if len(x) > 2:
            raise ValueError("too many images")
        return self.head(x.flatten(1))


class Diverges(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(x.flatten(1)) * (float("inf") if len(x) > 2 and self.training else 1.0)
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """In the working folder."""
    file = tmp_path / "mine.py"
    file.write_text(NETWORKS)
    return file


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures in this process, for a process of its own takes some seconds; what that protects from is tested apart."""

    def inspect(
        name: ForeignName, shape: ImageShape, timeout: float, printed: Callable[[str], None], training: bool
    ) -> ForeignFacts:
        with quiet():
            model, built = build_network(name, shape)
            facts = measure(model, built, shape)
            return facts.model_copy(update=try_training(model, built, shape, name))

    monkeypatch.setattr(nas.foreign.known, "inspect_network", inspect)


def asked(study: StudyPaths, *networks: str, seeds: tuple[int, ...] = (0,), epochs: int = 1) -> BaselineSpec:
    return BaselineSpec(study, networks, epochs=epochs, seeds=seeds, train_subset=200, device="cpu", timeout=250)


def train(request: BaselineSpec, told: Told | None = None) -> Done:
    told = told or Told()
    return train_baselines(request, told.on_plan, told, told.stop)
