"""What of the machine a process may use, from files as Linux has them, and from a real quota; how its OpenMP waits."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nas import cores
from nas.cores import WAIT_POLICY, available_memory, cpu_quota, prepare_openmp, usable_cores
from tests.cgroups import new_cgroup

V2 = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "31 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "32 23 0:29 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory"
CONTAINER = "31 23 0:28 /docker/abc /sys/fs/cgroup/cpu rw master:9 - cgroup cgroup rw,cpu"  # without a namespace of its own


def machine(root: Path, cgroup: str, mounts: str, files: dict[str, str]) -> Path:
    """A root folder with these files, those under /sys/fs/cgroup among them."""
    proc = {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mounts}
    for name, text in (proc | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("cgroup", "mounts", "files", "quota"),
    [
        ("0::/", V2, {}, None),
        ("0::/", V2, {"cpu.max": "max 100000"}, None),
        ("0::/", V2, {"cpu.max": "150000 100000"}, 1.5),
        ("0::/user/job", V2, {"user/job/cpu.max": "max 100000", "user/cpu.max": "400000 100000"}, 4.0),
        ("0::/user/job", V2, {"user/job/cpu.max": "200000 100000", "user/cpu.max": "400000 100000"}, 2.0),
        ("0::/../outside", V2, {"cpu.max": "100000 100000"}, 1.0),
        ("2:cpu,cpuacct:/", V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, None),
        (
            "2:cpu,cpuacct:/a/b\n0::/",
            f"{V1}\n{V2}",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "50000",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/a/b/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000",
            },
            0.5,
        ),
        ("3:cpu:/docker/abc", CONTAINER, {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3.0),
        ("3:cpu:/docker/abc/in", CONTAINER, {"cpu/in/cpu.cfs_quota_us": "90000", "cpu/in/cpu.cfs_period_us": "30000"}, 3.0),
        ("9:pids:/x", V1, {"cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, None),
        ("no cgroups", "no mounts", {}, None),
        ("0::/", V2, {"cpu.max": "a misprint"}, None),
    ],
)
def test_the_smallest_quota_on_the_way_counts(
    tmp_path: Path, cgroup: str, mounts: str, files: dict[str, str], quota: float | None
) -> None:
    assert cpu_quota(machine(tmp_path, cgroup, mounts, files)) == quota


def test_without_the_files_of_linux_nothing_is_known(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert available_memory(tmp_path) is None


@pytest.mark.parametrize(
    ("allowed", "quota", "usable"), [(8, None, 8), (8, 4.0, 4), (2, 4.0, 2), (8, 0.5, 1), (8, 1.0, 1), (8, 1.5, 2), (8, 0.001, 1)]
)
def test_cores_by_affinity_and_quota(monkeypatch: pytest.MonkeyPatch, allowed: int, quota: float | None, usable: int) -> None:
    monkeypatch.setattr(cores, "_allowed", lambda: allowed)
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert usable_cores() == usable


@pytest.mark.parametrize(
    ("mounts", "cgroup", "files", "room"),
    [
        (V2, "0::/", {}, 4096),
        (V2, "0::/", {"memory.max": "max", "memory.current": "100"}, 4096),
        (V2, "0::/", {"memory.max": "1000", "memory.current": "100"}, 900),
        (V1_MEMORY, "4:memory:/a", {"memory/a/memory.limit_in_bytes": "500", "memory/a/memory.usage_in_bytes": "200"}, 300),
    ],
)
def test_memory_by_the_system_and_by_cgroups(tmp_path: Path, mounts: str, cgroup: str, files: dict[str, str], room: int) -> None:
    root = machine(tmp_path, cgroup, mounts, files)
    (root / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 4 kB\n")
    assert available_memory(root) == room


# ---------------------------------------------------------------------------------------------------------------- OpenMP


@pytest.mark.parametrize(
    ("before", "usable", "after"),
    [
        ({}, 8, WAIT_POLICY),
        ({"GOMP_SPINCOUNT": "7"}, 8, WAIT_POLICY | {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, 8, {"OMP_WAIT_POLICY": "active"}),
        ({}, 3, WAIT_POLICY | {"OMP_NUM_THREADS": "3"}),
        ({"OMP_NUM_THREADS": "2"}, 3, WAIT_POLICY | {"OMP_NUM_THREADS": "2"}),
        ({"OMP_NUM_THREADS": "4,2"}, 3, WAIT_POLICY | {"OMP_NUM_THREADS": "3"}),
        ({"OMP_NUM_THREADS": "64"}, 8, WAIT_POLICY | {"OMP_NUM_THREADS": "8"}),
        ({"OMP_NUM_THREADS": "many"}, 8, WAIT_POLICY | {"OMP_NUM_THREADS": "many"}),
    ],
)
@pytest.mark.parametrize("loaded", [False, True])
def test_what_the_user_has_set_stays(
    monkeypatch: pytest.MonkeyPatch, before: dict[str, str], usable: int, after: dict[str, str], loaded: bool
) -> None:
    environment = dict(before)
    monkeypatch.setattr(cores, "_allowed", lambda: 8)
    monkeypatch.setattr(cores, "usable_cores", lambda: usable)
    monkeypatch.setattr(cores, "sys", SimpleNamespace(modules={"torch": None} if loaded else {}))
    monkeypatch.setattr(cores.os, "environ", environment)
    prepare_openmp()
    assert environment == (before if loaded else after)


def fresh(program: str, **environment: str) -> str:
    """What it prints in a process in which nothing of OpenMP is set."""
    unset = {*WAIT_POLICY, "OMP_WAIT_POLICY", "OMP_NUM_THREADS"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run(
        [sys.executable, "-c", program], env=kept | environment, capture_output=True, text=True, check=True
    ).stdout


POLICY = "print(json.dumps(os.environ.get('GOMP_SPINCOUNT')))"


def test_importing_nas_is_enough_if_it_comes_before_torch() -> None:
    assert json.loads(fresh(f"import json, os, nas; {POLICY}")) == WAIT_POLICY["GOMP_SPINCOUNT"]
    assert json.loads(fresh(f"import json, os, torch, nas; {POLICY}")) is None


ONE_CORE = (("cpu", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000"}), ("", {"cpu.max": "100000 100000"}))


@pytest.mark.usefixtures("all_cores")
def test_a_real_quota_of_one_core_gives_one_thread_everywhere() -> None:
    program = """
import nas
import torch
from pathlib import Path
from nas.config import DataConfig
from nas.jobs.messages import WorkerPlan
from nas.jobs.placement import DeviceGroup, Placement, plan_workers
from nas.report.machine import examine
plan = plan_workers(Placement(), WorkerPlan(DataConfig(dataset="digits"), "cpu", 9, Path(), ""))[0]
health = examine(Path("data"))
print(plan.threads, DeviceGroup(torch.device("cpu")).threads, torch.get_num_threads(), health.cores, health.devices[-1].model)
"""
    with new_cgroup(*ONE_CORE) as processes:
        joins = f"import os; open({str(processes)!r}, 'w').write(str(os.getpid()))"
        assert fresh(joins + program).split() == ["1", "1", "1", "1", "cpu,", "1", "thread"]
