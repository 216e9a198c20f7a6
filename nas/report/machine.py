"""What this machine offers and what is missing, for `nas doctor`; what takes room on its disk, for `nas clean`."""

import os
import platform
import shutil
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from nas.cores import usable_cores
from nas.data.containers import is_outdated
from nas.data.datasets import PLACES
from nas.device import device_name, find_devices, pick_precision
from nas.errors import NasError
from nas.paths import (
    NETWORK_FILE_SYSTEMS,
    StudyPaths,
    cache_folder,
    file_system,
    known_studies,
    shipped_folder,
    shipped_names,
    studies_folder,
    study_paths,
)
from nas.study.finalists import sibling
from nas.study.settings import git_state, installed_versions
from nas.study.storage import open_study

PACKAGES = (
    *("nas", "torch", "torchvision", "optuna", "optuna-dashboard", "fvcore", "plotly", "sqlalchemy", "typer", "pydantic"),
    *("scikit-learn", "scipy", "ray", "psycopg", "onnxruntime"),
)
LOW_DISK_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Device:
    name: str
    model: str
    precision: str
    reason: str


@dataclass(frozen=True)
class Health:
    python: str
    machine: str
    cores: int
    git: str | None
    packages: dict[str, str]
    devices: list[Device]  # best first; `auto` takes the first one
    sqlite: str
    studies: str
    studies_found: list[str]
    file_system: str | None  # of the studies folder; None where the system does not say
    cache: str
    free_bytes: dict[str, int]  # by folder
    data_found: dict[str, str]  # data sets that are usable as they are, and where they lie
    spaces: list[str]
    problems: list[str]  # one sentence each; empty where all is well


def examine(data: Path) -> Health:
    """`data` is the folder in which downloaded data sets are looked for."""
    found = find_devices()
    folders = _nearest(studies_folder()), _nearest(cache_folder())
    free = {str(path): shutil.disk_usage(path).free for path in folders}
    problems = [f"device {name} does not work: {wrong}" for name, wrong in found.items() if wrong]
    problems += [f"{path} is not writable for this user" for path in folders if not os.access(path, os.W_OK)]
    problems += [f"only {left / 1e9:.1f} GB are free in {path}" for path, left in free.items() if left < LOW_DISK_BYTES]
    spaces = shipped_names("space")
    if not spaces:
        problems.append(f"no search space was found in {shipped_folder()}: the installation is incomplete")
    system = file_system(folders[0])
    if system in NETWORK_FILE_SYSTEMS:
        problems.append(
            f"the studies folder is on a network file system ({system}), on which SQLite is slow and its locks are not safe"
        )
    return Health(
        python=platform.python_version(),
        machine=platform.platform(),
        cores=usable_cores(),
        git=git_state(),
        packages=installed_versions(PACKAGES),
        devices=[_device(name) for name, wrong in found.items() if wrong is None],
        sqlite=sqlite3.sqlite_version,
        studies=str(studies_folder().absolute()),
        studies_found=known_studies(),
        file_system=system,
        cache=str(cache_folder()),
        free_bytes=free,
        data_found={"digits": "embedded"}
        | {name: str(data / place) for name, place in PLACES.items() if (data / place).exists()},
        spaces=spaces,
        problems=problems,
    )


def _device(name: str) -> Device:
    device = torch.device(name)
    precision = pick_precision(device)
    return Device(name, device_name(device), precision.name, precision.reason)


def _nearest(path: Path) -> Path:
    """The path itself, or the folder in which it would be made."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


# ---------------------------- the disk: results, what only serves to go on, and decoded images; and freeing what no result needs


Need = Literal["result", "unfinished", "free", "cache"]
"""result: of a study. unfinished: a training goes on from it. free: nothing needs it. cache: made again when it is needed."""
ABANDONED_SECONDS = 24 * 3600.0  # after which what somebody had begun to write is given up


@dataclass(frozen=True)
class Item:
    what: str
    need: Need
    bytes: int
    paths: tuple[Path, ...]


def disk_use() -> list[Item]:
    """Of every study under the studies folder, and of the cache; studies that cannot be read count as results."""
    items = [item for name in known_studies() for item in _of_study(study_paths(name))]
    return [*items, *_of_cache(cache_folder())]


def _of_study(paths: StudyPaths) -> list[Item]:
    everything = size_of([paths.folder])
    unfinished, ended = _checkpoints(paths)
    unfinished += paths.retrained.glob("*/checkpoint.pt")
    unfinished += [*paths.ablations.glob("*/runs/*/checkpoint.pt"), *paths.baselines.glob("*/checkpoint.pt")]
    leftovers = [file for file in paths.folder.rglob("*.tmp") if _abandoned(file)]
    kept = size_of(unfinished), size_of([*ended, *leftovers])
    trainings = f"study {paths.name}: checkpoints of trainings that"
    items = [
        Item(f"study {paths.name}: trials, networks, database", "result", everything - sum(kept), (paths.folder,)),
        Item(f"{trainings} are unfinished", "unfinished", kept[0], tuple(unfinished)),
        Item(f"{trainings} have finished", "free", kept[1], (*ended, *leftovers)),
    ]
    return [item for item in items if item.paths]


def _checkpoints(paths: StudyPaths) -> tuple[list[Path], list[Path]]:
    """Of trainings that may go on, and of those that have ended. All may go on where the study cannot be read."""
    files = [*paths.trials.glob("*/checkpoint.pt"), *paths.finalists.trials.glob("*/checkpoint.pt")]
    if not files:
        return [], []
    try:
        study = open_study(paths)
        finals = sibling(study)
    except NasError:
        return files, []
    going_on = {
        folder.trial(trial.number).checkpoint
        for folder, one in ((paths, study), (paths.finalists, finals))
        if one is not None
        for trial in one.get_trials(deepcopy=False)
        if not trial.state.is_finished()
    }
    return [file for file in files if file in going_on], [file for file in files if file not in going_on]


def _of_cache(folder: Path) -> list[Item]:
    items = []
    need: Need
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if entry.name.startswith("."):
            if _abandoned(entry):
                items.append(Item(f"cache: {entry.name}, incomplete", "free", size_of([entry]), (entry,)))
        elif (entry / "meta.json").is_file():
            if is_outdated(entry):
                what, need = "decoded images of a folder that has changed", "free"
            else:
                what, need = "decoded images", "cache"
            items.append(Item(f"cache: {entry.name}, {what}", need, size_of([entry]), (entry,)))
        elif entry.match("given-*.npz"):
            items.append(Item(f"cache: {entry.name}, images that a script gave", "cache", size_of([entry]), (entry,)))
    return items


def _abandoned(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    except OSError:
        return False


def size_of(paths: Iterable[Path]) -> int:
    """Bytes of files and of all within folders; what cannot be read counts nothing."""
    total = 0
    for path in paths:
        for file in path.rglob("*") if path.is_dir() else (path,):
            with suppress(OSError):
                if file.is_file() and not file.is_symlink():
                    total += file.stat().st_size
    return total


def free(items: Iterable[Item]) -> int:
    """Removes them; what is gone already is none. Returns the bytes. Raises OSError where something cannot be removed."""
    freed = 0
    for item in items:
        assert item.need in ("free", "cache"), item
        for path in item.paths:
            freed += size_of([path])
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    return freed
