"""What this machine offers and what is missing, for `nas doctor`."""

import os
import platform
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from nas.paths import (
    NETWORK_FILE_SYSTEMS,
    cache_folder,
    file_system,
    known_studies,
    shipped_folder,
    shipped_names,
    studies_folder,
)
from nas.study.settings import git_state, installed_versions
from nas.train.device import available_devices, device_name, pick_device, pick_precision

PACKAGES = (
    "nas",
    "torch",
    "torchvision",
    "optuna",
    "optuna-dashboard",
    "fvcore",
    "plotly",
    "sqlalchemy",
    "typer",
    "pydantic",
    "scikit-learn",
    "scipy",
    "ray",
    "psycopg",
    "onnxruntime",
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
    devices = []
    for name in available_devices():
        device = pick_device(name)
        precision = pick_precision(device)
        devices.append(Device(name, device_name(device), precision.name, precision.reason))
    folders = {"studies": _nearest(studies_folder()), "cache": _nearest(cache_folder())}
    free = {str(path): shutil.disk_usage(path).free for path in folders.values()}
    problems = [f"{path} cannot be written by this user" for path in folders.values() if not os.access(path, os.W_OK)]
    problems += [f"only {left / 1e9:.1f} GB are free in {path}" for path, left in free.items() if left < LOW_DISK_BYTES]
    spaces = shipped_names("space")
    if not spaces:
        problems.append(f"no search space was found in {shipped_folder()}: the installation is not whole")
    system = file_system(folders["studies"])
    if system in NETWORK_FILE_SYSTEMS:
        problems.append(
            f"the studies folder is on a network file system ({system}), on which SQLite is slow and its locks are not safe"
        )
    return Health(
        python=platform.python_version(),
        machine=platform.platform(),
        cores=os.cpu_count() or 1,
        git=git_state(),
        packages=installed_versions(PACKAGES),
        devices=devices,
        sqlite=sqlite3.sqlite_version,
        studies=str(studies_folder().absolute()),
        studies_found=known_studies(),
        file_system=system,
        cache=str(cache_folder()),
        free_bytes=free,
        data_found=_data_found(data),
        spaces=spaces,
        problems=problems,
    )


def _nearest(path: Path) -> Path:
    """The path itself, or the folder in which it would be made."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _data_found(data: Path) -> dict[str, str]:
    found = {"digits": "embedded"}
    for name, place in (
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("svhn", "train_32x32.mat"),
    ):
        if (data / place).exists():
            found[name] = str(data / place)
    return found
