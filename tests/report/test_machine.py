"""What a machine is said to offer and to lack."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

import nas.paths
import nas.report.machine
from nas.cores import usable_cores
from nas.report.machine import PACKAGES, examine


@pytest.fixture(autouse=True)
def roomy_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests run on must not decide what they find."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=50_000_000_000))
    monkeypatch.setattr(nas.report.machine, "file_system", lambda path: "ext2/ext3")


def test_all_is_well(tmp_path: Path) -> None:
    health = examine(tmp_path / "data")
    assert health.problems == []
    assert health.packages.keys() == set(PACKAGES)
    assert {name for name, version in health.packages.items() if version == "not installed"} <= {"ray", "psycopg", "onnxruntime"}
    assert (health.cores, health.studies_found) == (usable_cores(), [])
    assert (health.studies, health.cache) == (str(tmp_path / "studies"), str(tmp_path / "cache"))
    assert {"digits", "resnet"} <= set(health.spaces)
    assert json.loads(json.dumps(asdict(health))) == asdict(health)
    assert list(tmp_path.iterdir()) == []


def test_last_device_is_the_cpu_and_says_why_it_computes_so(tmp_path: Path) -> None:
    cpu = examine(tmp_path).devices[-1]
    assert cpu.name == "cpu"
    assert (cpu.precision, "has" in cpu.reason) in (("bf16", True), ("fp32", True))


def test_data_is_found_where_it_was_downloaded(tmp_path: Path) -> None:
    assert examine(tmp_path).data_found == {"digits": "embedded"}
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "train_32x32.mat").touch()
    places = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "svhn": "train_32x32.mat"}
    found = {name: str(tmp_path / place) for name, place in places.items()}
    assert examine(tmp_path).data_found == {"digits": "embedded", **found}


def test_what_is_amiss_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    network = "the studies folder is on a network file system (nfs), on which SQLite is slow"
    amiss = {
        f"only 1.2 GB are free in {tmp_path}": (shutil, "disk_usage", lambda path: SimpleNamespace(free=1_234_000_000)),
        f"{tmp_path / 'cache'} is not writable for this user": (os, "access", lambda path, mode: Path(path).name != "cache"),
        network: (nas.report.machine, "file_system", lambda path: "nfs"),
    }
    for said, change in amiss.items():
        with monkeypatch.context() as patched:
            patched.setattr(*change)
            problems = examine(tmp_path).problems
        assert problems
        assert all(problem.startswith(said) for problem in problems)
    for module in (nas.report.machine, nas.paths):
        monkeypatch.setattr(module, "shipped_folder", lambda: tmp_path / "nowhere")
    assert examine(tmp_path).problems == [f"no search space was found in {tmp_path / 'nowhere'}: the installation is incomplete"]
