"""Ray clusters of several nodes on this machine, for tests."""

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tests

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is missing: pip install 'nas-under-budget[ray]'"
)
PATIENCE = 120.0
"""Seconds; a process of Ray's takes one or two to start, and many more beside busy ones."""
ENVIRONMENT = {
    "PYTHONPATH": str(Path(tests.__file__).parents[1]),  # so that actors can import what tests give them to run
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # else Ray leaves a token in its user's home
}
QUICK = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 4}


@contextmanager
def new_cluster(**head: Any) -> Iterator[Any]:
    """A cluster whose head, unless it is told otherwise, does nothing but lead."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        # Other tests' memory is none of its business.
        monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")
        cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK} | head)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def wait_until(is_so: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
