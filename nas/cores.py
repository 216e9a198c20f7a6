"""What of the machine this process may use, cores and memory, and how the threads that compute there wait for each other."""

import math
import os
import posixpath
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

WAIT_POLICY = {"GOMP_SPINCOUNT": "10000"}
"""How long threads of GNU's OpenMP (torch on Linux) spin at a barrier before they sleep. By default they spin for milliseconds,
on a core that another process could use, or the very thread that they wait for; with 0 they sleep at once, which costs small
networks a fifth of their speed on a quiet machine. Measured in `scripts/bench/README.md`."""


def prepare_openmp() -> None:
    """To be called before torch loads, for its OpenMP reads these variables once, then; later it does nothing. What the user has
    set stays, but for more threads than there are cores."""
    if "torch" in sys.modules:
        return
    if "OMP_WAIT_POLICY" not in os.environ:
        for variable, value in WAIT_POLICY.items():
            os.environ.setdefault(variable, value)
    cores = usable_cores()
    if cores < _allowed() or cores < _asked():
        os.environ["OMP_NUM_THREADS"] = str(min(cores, _asked() or cores))


def usable_cores() -> int:
    """Those that this process may run on, by its affinity and the quotas of its cgroups: a batch system or a container often
    allots fewer than the machine has. At least 1; part of a core counts as one."""
    quota = cpu_quota()
    return _allowed() if quota is None else max(1, min(_allowed(), math.ceil(quota)))


def _allowed() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _asked() -> int:
    """0 where nobody asked for a number of threads. A list says how many each level of nested parallelism has."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores whose time Linux's cgroups allot to this process: the smallest quota on the path from its own cgroup up, of version 1
    or 2. None where nothing limits it, as on other systems.

    Args:
        root: where /proc and /sys/fs/cgroup lie.
    """
    found = _limits(root, "cpu", ["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"])
    return min((quota / period for quota, period in found if quota > 0), default=None)  # -1 is no limit


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that processes may still take, by Linux and by the cgroups. None where the system does not say."""
    found = _limits(root, "memory", ["memory.max", "memory.current"], ["memory.limit_in_bytes", "memory.usage_in_bytes"])
    rooms = [limit - used for limit, used in found]
    with suppress(OSError, ValueError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                rooms.append(1024 * int(line.split()[1]))
    return min(rooms, default=None)


def _limits(root: Path, controller: str, *alternatives: list[str]) -> Iterator[tuple[int, int]]:
    """The two numbers in these files, of version 2 or of version 1, of every cgroup that limits this process."""
    for folder in _cgroups(root, controller):
        for files in alternatives:
            with suppress(OSError, ValueError):  # not there, not readable, or `max`, which is no limit
                first, second = " ".join((folder / file).read_text() for file in files).split()
                yield int(first), int(second)


def _cgroups(root: Path, wanted: str) -> Iterator[Path]:
    """The folders of the cgroups of this process that a controller may limit, from its own up to where they are mounted."""
    with suppress(OSError, ValueError, IndexError):
        own: dict[str, str] = {}
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own |= dict.fromkeys(controllers.split(","), path)
        for line in (root / "proc/self/mountinfo").read_text().splitlines():
            mount, _, system = line.partition(" - ")
            shown, point = mount.split()[3:5]  # what of the hierarchy is mounted (a container's part), and where
            kind, _, options = system.split()[:3]
            controller = {"cgroup": wanted, "cgroup2": ""}.get(kind)
            if controller in own and (kind == "cgroup2" or wanted in options.split(",")):
                inside = Path(posixpath.normpath(own[controller]).removeprefix(shown.rstrip("/")).strip("/")).parts
                top = root / point.strip("/")
                yield from (top.joinpath(*inside[:depth]) for depth in range(len(inside) + 1))
