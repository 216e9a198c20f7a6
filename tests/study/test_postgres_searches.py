"""A whole search whose trials are kept in PostgreSQL, with the server stopped and the coordinator killed in its middle."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.paths import study_paths
from tests.conftest import Done
from tests.postgres import PASSWORD, Cluster
from tests.study.sabotage import STUDY, check_study, epochs_trained, search_command


@pytest.mark.slow
@pytest.mark.usefixtures("all_cores")
def test_a_search_outlives_its_database(
    postgres: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nas: Callable[..., Done]
) -> None:
    url = postgres.create_database("whole_search")
    paths = study_paths(STUDY)
    # The password comes from the environment, the rest from the command line.
    monkeypatch.setenv("NAS_STORAGE", url)
    command = [sys.executable, "-m", "nas", *search_command(tmp_path, 8, 2, "--storage", postgres.url("whole_search", None))]
    log = tmp_path / "log.txt"

    def start() -> "subprocess.Popen[bytes]":
        with open(log, "a") as output:
            return subprocess.Popen(command, stdout=output, stderr=output, cwd=tmp_path)

    def wait_for(epochs: int, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + 120
        while epochs_trained(paths) < epochs:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)

    process = start()
    try:
        wait_for(3, process)
        postgres.restart()  # at once
        wait_for(epochs_trained(paths) + 3, process)
        postgres.stop()
        time.sleep(3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        postgres.start()
        process = start()
        assert process.wait(timeout=200) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    text = log.read_text()
    assert "Traceback" not in text, text
    assert len(re.findall(r"the study's database is not reachable \(.*\); waiting; the workers continue", text)) == 2, text
    assert "the study's database is available again; the search continues" in text
    check_study(paths, 8)
    assert not paths.database.exists()
    listed = nas("list", "--study", STUDY)
    assert listed.code == 0, listed.err
    assert "Best" in listed.out or "trained" in listed.out
    secrets = (PASSWORD, url.split(":")[2].split("@")[0])
    for file in [log, *(file for file in paths.folder.rglob("*") if file.is_file())]:
        content = file.read_bytes()
        assert not any(secret.encode() in content for secret in secrets), file
