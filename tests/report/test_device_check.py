"""What `nas doctor --check` does on a device, and what it says where something does not work."""

import errno
import getpass
import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nas.cores import usable_cores
from nas.report import device_check
from nas.report.device_check import REPORT, STEPS, Row, Step, as_table, check_devices, private_words, scrub
from nas.report.machine import Health
from tests.conftest import Done

HEALTH = Health("3.13", "Linux", 2, None, {"torch": "2.15"}, [], "3.45", "/studies", [], None, "/cache", {}, {}, [], [])


@pytest.mark.slow
@pytest.mark.usefixtures("all_cores")
def test_the_cpu_passes(nas: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(device_check, "find_devices", lambda: {"cpu": None})
    monkeypatch.setattr(device_check, "SECONDS", 250.0)  # other tests keep the cores busy,
    monkeypatch.setattr(device_check, "LEAST_SHARE", 0.0)  # and may do so in one of the two measurements alone
    done = nas("doctor", "--check", "--json")
    rows = json.loads(done.out)["check"]
    assert [row["step"] for row in rows] == list(STEPS)
    assert {row["device"] for row in rows} == {"cpu"}
    results = {row["step"]: row["passed"] for row in rows}
    assert results == dict.fromkeys(STEPS, True) | ({"two workers": None} if usable_cores() < 2 else {}), rows
    assert "the network trained with micro-batches of 32" in rows[3]["found"]
    written = json.loads((tmp_path / REPORT).read_text())
    assert written["rows"] == rows
    assert [*tmp_path.iterdir()] == [tmp_path / REPORT], "nothing else is left"


def run_with(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, str | None], steps: dict[str, Step], child: Callable[..., Any]
) -> tuple[list[Row], dict[str, Any]]:
    """The rows of a machine with those devices, and the file."""
    monkeypatch.setattr(device_check, "find_devices", lambda: found)
    monkeypatch.setattr(device_check, "STEPS", steps)
    monkeypatch.setattr(device_check.subprocess, "run", child)
    said: list[Row] = []
    rows = check_devices(HEALTH, said.append)
    assert rows == said
    return rows, json.loads(REPORT.read_text())


def ended(code: int = 0, out: str = "", err: str = "") -> Any:
    return lambda *command, **how: SimpleNamespace(returncode=code, stdout=out, stderr=err)


SLOW = "10 images/s in training, 10% of the 100 of a minimal PyTorch loop; at least 33% is expected"
SEARCHED = json.dumps({"trained": 1, "counts": {"completed": 1, "failed": 1}})


@pytest.mark.parametrize(
    ("name", "child", "found", "advice"),
    [
        ("search", ended(1, err="Error: no.\nNext:  do this\n"), "no.", "do this"),
        ("search", ended(-11, err="Fatal: a crash\n"), "Fatal: a crash", None),
        ("search", ended(3), "exit status 3", None),
        ("search", ended(out=SEARCHED), "1 of 2 trainings completed: 1 completed, 1 failed", None),
        ("memory", ended(out=SEARCHED), "nas did not notice that memory ran out", None),
        ("throughput", ended(out="10.0 100.0"), SLOW, None),
    ],
)
def test_a_step_that_fails_says_what_failed_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, name: str, child: Any, found: str, advice: str | None
) -> None:
    (row,), written = run_with(monkeypatch, {"cuda": None, "cuda:0": None, "cpu": None}, {name: STEPS[name]}, child)
    assert (row.device, row.step, row.passed, row.found) == ("cuda:0", name, False, found)
    assert row.advice == (advice or STEPS[name].advice)
    assert written["rows"][0]["found"] == found
    assert as_table([row]).rows[0][2] == "FAILED"


def test_a_step_that_hangs_is_ended_at_its_devices_time(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import sys, time; print('begun', flush=True); time.sleep(100)"
    hang = Step(lambda bench: bench.python("-c", program), "send")
    monkeypatch.setattr(device_check, "SECONDS", 2.0)
    rows, _ = run_with(monkeypatch, {"cpu": None}, {"one": hang, "two": hang}, subprocess.run)
    assert [(row.passed, row.found) for row in rows] == [
        (False, "it was still running after the 2 s for this device"),
        (False, "the 2 s for this device are over"),
    ]
    assert rows[0].log == "begun\n"
    assert rows[1].advice == "run it again when the machine is idle"


def test_predictions_that_differ_from_the_cpus_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def child(command: list[str], cwd: Path, **how: Any) -> Any:
        share = 0.502 if "cpu" in command else 0.5
        (cwd / command[command.index("--probabilities") + 1]).write_text(f"ID,0,1\n0,{share},{1 - share}\n")
        return ended()()

    (row,), _ = run_with(monkeypatch, {"mps": None, "cpu": None}, {"prediction": Step(STEPS["prediction"].run, "send")}, child)
    assert (row.device, row.passed) == ("mps", False)
    assert row.found == "probabilities of 64 images differ from the CPU's by at most 0.002; 0.001 is allowed"


def test_every_device_has_its_rows_and_what_depends_on_a_failure_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"cuda": "no kernels", "cuda:0": "no kernels", "cuda:1": None, "cuda:2": None, "mps": None, "cpu": None}
    steps = {name: STEPS[name] for name in ("search", "retrain", "two workers")}
    rows, _ = run_with(monkeypatch, found, steps, ended(1, err="Error: no.\n"))
    assert (rows[0].device, rows[0].passed, rows[0].found) == ("cuda:0", False, "it does not work: no kernels")
    each = {device: [(row.step, row.passed) for row in rows if row.device == device] for device in ("cuda:1", "cuda:2", "mps")}
    assert each["cuda:1"] == each["cuda:2"] == [("search", False), ("retrain", None), ("two workers", False)]
    assert each["mps"] == [("search", False), ("retrain", None), ("two workers", None)]
    assert len(rows) == 10


def test_a_file_that_cannot_be_written_is_said_before_anything_is_tried(
    nas: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(errno.EACCES, "", str(path))

    monkeypatch.setattr(device_check, "write_whole", refuse)
    done = nas("doctor", "--check")
    assert done.code == 1
    assert done.err.startswith(f"Error: {REPORT}: Permission denied\n")


def test_a_failure_is_the_commands_exit_status(nas: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Row("cuda:0", "memory", False, 1.5, "it was not noticed", "send it", "log"), Row("cpu", "search", True, 2, "well")]
    monkeypatch.setattr(device_check, "check_devices", lambda health, say: rows)
    done = nas("doctor", "--check")
    assert done.code == 1
    assert "cuda:0  memory  FAILED  1.5      it was not noticed" in done.out
    assert "Problem:  cuda:0, memory: it was not noticed\nNext:     send it\n" in done.err
    assert json.loads(nas("doctor", "--check", "--json").out)["check"][0]["passed"] is False


def test_the_file_names_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    monkeypatch.setattr(socket, "gethostname", lambda: "mill.example.org")
    uuid = "0f7a3c1e-1b2c-4d5e-8f90-0123456789ab"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"GPU-{uuid}")
    said = f"/home/ada/.cache, /data/ada/x, ada@mill.example.org, mill: Adam on adapters, MIG-{uuid.upper()}"
    assert scrub(said, private_words()) == "~/.cache, /data/USER/x, USER@HOST, HOST: Adam on adapters, MIG-UUID"
    rows, written = run_with(monkeypatch, {"cpu": None}, {"search": STEPS["search"]}, ended(1, err=f"Error: {said}\n"))
    assert rows[0].found == said, "who looks at the terminal sees all"
    assert written["machine"]["environment"]["CUDA_VISIBLE_DEVICES"] == "GPU-UUID"
    text = REPORT.read_text()
    assert not any(word in text for word in ("/home/ada", "mill", uuid, uuid.upper(), "ada@"))
