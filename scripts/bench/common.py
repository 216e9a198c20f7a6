"""What several measurements share: the networks, a training, the machine in words, a clock, tables."""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from nas.config import ArchConfig, Candidate
from nas.cores import WAIT_POLICY, usable_cores
from nas.data.images import Dataset
from nas.data.loader import TrainBatches
from nas.device import Precision
from nas.models import build_model
from nas.paths import TrialPaths
from nas.space.space_file import load_preset
from nas.study.settings import git_state
from nas.train.loop import FitResult, fit


def _stages(channels: Sequence[int], blocks: int, **others: Any) -> ArchConfig:
    return ArchConfig.model_validate({"stages": [{"blocks": blocks, "channels": c} for c in channels], **others})


NETWORKS: dict[str, ArchConfig] = {
    "small-78k": _stages([16, 32, 64], 1),
    "airbench94-like": _stages([64, 256, 256], 1, stem={"stride": 2}),
    "wrn-22-4": _stages([64, 128, 256], 3, block="preact", stem={"channels": 16}),
    "robust-resnet64": load_preset("robust-resnet64").candidate.arch,
}
"""From 78 k to 5 M parameters. airbench94 (arXiv 2404.00498) has no residual connections and pools between its convolutions;
this one has its widths and about its multiply-adds."""


def train(
    candidate: Candidate, dataset: Dataset, images: Any, validation: Any, precision: Precision, seed: int, **options: Any
) -> FitResult:
    """As nas trains it, in a folder that is gone afterwards. `options` are those of `fit`."""
    torch.manual_seed(seed)
    model = build_model(candidate.arch, dataset.shape)
    batches = TrainBatches(images, candidate.train, seed, len(dataset.classes))
    with tempfile.TemporaryDirectory(prefix="nas-bench-") as folder:
        where = {"paths": TrialPaths(Path(folder)), "precision": precision, "seed": seed, "identity": ""}
        return fit(model, batches, validation, candidate.train, lambda metrics: True, **where, **options)


def in_words(machine: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in machine.items())


def machine(device: torch.device) -> dict[str, Any]:
    """Where and with what a figure was measured."""
    cpu = platform.processor() or platform.machine()
    with open("/proc/cpuinfo") if Path("/proc/cpuinfo").exists() else open(os.devnull) as lines:
        for line in lines:
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "cpu": f"{cpu}, {usable_cores()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": git_state(),
    }


@contextmanager
def wait_policy(name: str) -> Iterator[None]:
    """How the OpenMP threads of processes that are started within wait: `nas` as nas has them, `default` as the runtime has, or a
    value of GOMP_SPINCOUNT."""
    before = dict(os.environ)
    for variable in (*WAIT_POLICY, "OMP_WAIT_POLICY"):
        os.environ.pop(variable, None)
    os.environ.update(WAIT_POLICY if name == "nas" else {} if name == "default" else {"GOMP_SPINCOUNT": name})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def spread(values: Iterable[float], digits: int = 0) -> str:
    """`104 (98–110)`: the median, the least and the greatest."""
    kept = sorted(values)
    return f"{median(kept):,.{digits}f} ({kept[0]:,.{digits}f}–{kept[-1]:,.{digits}f})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; columns but the first are aligned to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


class Clock:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def __call__(self, what: str, action: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = action()
        self.seconds.setdefault(what, []).append(time.perf_counter() - started)
        return result


def milliseconds(seconds: Sequence[float], digits: int = 0) -> str:
    return spread((1000 * value for value in seconds), digits)


def progress(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
