"""The script for Slurm, with stand-ins for its commands and for the search: after which ends the job is queued again."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tests

SCRIPT = Path(tests.__file__).parents[1] / "scripts/cluster/slurm.sh"
COMMANDS = {
    "srun": "exit 0",
    "sleep": "command -p sleep 0.1",
    "scontrol": 'echo "$@" >> said',
    "nas": """
trap 'exit "$WHEN_TOLD"' TERM
touch searching
for _ in {1..100}; do [ -n "$UNTOLD" ] && exit "$UNTOLD"; sleep 0.1; done
""",
}

pytestmark = pytest.mark.skipif(sys.platform != "linux" or shutil.which("bash") is None, reason="Slurm is for Linux")


@pytest.mark.parametrize(
    ("told", "status", "again"),
    [(True, 130, True), (True, 1, True), (True, 0, False), (False, 130, True), (False, 1, False), (False, 0, False)],
)
def test_a_search_that_was_told_to_end_is_queued_again(tmp_path: Path, told: bool, status: int, again: bool) -> None:
    for name, text in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "1",
        "WHEN_TOLD": str(status),
        "UNTOLD": "" if told else str(status),
    }
    with subprocess.Popen(["bash", str(SCRIPT), "--study", "mine"], cwd=tmp_path, env=environment) as process:
        deadline = time.monotonic() + 30
        while told and not (tmp_path / "searching").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if told:
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == status
    assert (tmp_path / "said").exists() == again
    if again:
        assert (tmp_path / "said").read_text() == "requeue 7\n"
