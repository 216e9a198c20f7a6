"""How many cores of the CPU there are for this process."""

import os


def usable_cores() -> int:
    """Those that it may run on: a batch system or a container often allots fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1
