"""Machines that nobody here has, as torch shows them: what `auto` takes, what doctor says, precision, workers, and refusals."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from nas.device import pick_device
from nas.errors import DeviceError
from nas.jobs.local import pinned_environment
from nas.jobs.placement import Placement, device_group, devices_of, plan_workers, say_left_out
from nas.report.machine import examine
from tests.jobs.test_placement import PLAN
from tests.machines import CUDA_12, Machine

OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver."
NO_DRIVER = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU."


@dataclass(frozen=True)
class Seen:
    auto: str
    precision: str  # of `auto`
    workers: str  # of a plain `nas search`
    pinned: str = ""  # CUDA_VISIBLE_DEVICES of each of them
    problem: str = ""  # of doctor
    two: str = ""  # what `--gpus 2` is refused with


T4, P100, V100, A100, RTX_3090, H200, RTX_5090 = (7, 5), (6, 0), (7, 0), (8, 0), (8, 6), (9, 0), (12, 0)
NONE, ONE = "torch finds no GPU", "torch finds 1 GPU"
FP16, BF16, FP32 = "fp16", "bf16", "fp32"


def lacks(device: str, capability: str) -> str:
    return f"{device} does not work: torch {torch.__version__} has no kernels for its CUDA capability {capability}, only sm_"


MACHINES = {
    "two T4 of Kaggle": (Machine((T4, T4)), Seen("cuda", FP16, "cuda:0 cuda:1", "0 1")),
    "T4 of Colab": (Machine((T4,)), Seen("cuda", FP16, "cuda:0", "0", two=ONE)),
    "P100": (
        Machine((P100,)),
        Seen("cpu", FP32, "cpu", problem=lacks("cuda:0", "6.0"), two=f"{NONE} that works; {lacks('cuda:0', '6.0')}"),
    ),
    "P100 with an older torch": (Machine((P100,), CUDA_12), Seen("cuda", FP16, "cuda:0", "0", two=ONE)),
    "V100": (
        Machine((V100, V100)),
        Seen("cpu", FP32, "cpu", problem=lacks("cuda:1", "7.0"), two=f"{NONE} that works; {lacks('cuda:0', '7.0')}"),
    ),
    "V100 with an older torch": (Machine((V100,), CUDA_12), Seen("cuda", FP16, "cuda:0", "0", two=ONE)),
    "P100 beside a T4": (
        Machine((P100, T4)),
        Seen("cuda:1", FP16, "cuda:1", "1", problem=lacks("cuda:0", "6.0"), two=f"{ONE} that works; {lacks('cuda:0', '6.0')}"),
    ),
    "GTX 1080 with an older torch": (Machine(((6, 1),), CUDA_12), Seen("cuda", FP32, "cuda:0", "0", two=ONE)),
    "A100": (Machine((A100,)), Seen("cuda", BF16, "cuda:0", "0", two=ONE)),
    "RTX 3090": (Machine((RTX_3090,)), Seen("cuda", BF16, "cuda:0", "0", two=ONE)),
    "eight H200": (Machine((H200,) * 8), Seen("cuda", BF16, " ".join(f"cuda:{i}" for i in range(8)), "0 1 2 3 4 5 6 7")),
    "RTX 5090": (Machine((RTX_5090,)), Seen("cuda", BF16, "cuda:0", "0", two=ONE)),
    "RTX 5090 with an older torch": (
        Machine((RTX_5090,), CUDA_12),
        Seen("cpu", FP32, "cpu", problem=lacks("cuda:0", "12.0"), two=f"{NONE} that works; {lacks('cuda:0', '12.0')}"),
    ),
    "two MIG devices": (
        Machine((A100,), visible="MIG-a,MIG-b"),  # of which CUDA shows a process one
        Seen("cuda", BF16, "cuda:0 cuda:1", "MIG-a MIG-b"),
    ),
    "GPUs by UUID": (Machine((A100, A100), visible="GPU-b, GPU-a"), Seen("cuda", BF16, "cuda:0 cuda:1", "GPU-b GPU-a")),
    "the last two of four": (Machine((T4, T4), visible="2,3"), Seen("cuda", FP16, "cuda:0 cuda:1", "2 3")),
    "GPUs that are hidden": (Machine(visible=""), Seen("cpu", FP32, "cpu", two=f"{NONE} (CUDA_VISIBLE_DEVICES=)")),
    "no driver": (Machine(driver=NO_DRIVER), Seen("cpu", FP32, "cpu", two=NONE)),
    "an old driver": (
        Machine(driver=OLD_DRIVER),
        Seen(
            "cpu",
            FP32,
            "cpu",
            problem="cuda does not work: RuntimeError: The NVIDIA driver on your system is too old (found version 11040)",
            two=f"{NONE} that works; cuda does not work: RuntimeError: The NVIDIA driver on your system is too old",
        ),
    ),
    "a Mac": (Machine(mps=True), Seen("mps", FP32, "mps", two=NONE)),
    "a CPU with AMX": (Machine(flags=frozenset({"amx_bf16"})), Seen("cpu", BF16, "cpu", two=NONE)),
}


@pytest.fixture(params=MACHINES)
def seen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Seen:
    machine, seen = MACHINES[request.param]
    machine.show(monkeypatch)
    return seen


def refusal(ask: Callable[[], object], hint: str = "") -> str:
    with pytest.raises(DeviceError) as refused:
        ask()
    assert ".." not in refused.value.message
    assert str(refused.value.hint).startswith(hint)
    return refused.value.message


def test_auto_and_doctor(seen: Seen) -> None:
    assert str(pick_device()) == seen.auto
    health = examine(Path("data"))
    assert (health.devices[0].name, health.devices[0].precision) == (seen.auto, seen.precision)
    assert health.devices[-1].name == "cpu"
    problems = [problem.removeprefix("device ") for problem in health.problems if problem.startswith("device ")]
    assert any(problem.startswith(seen.problem) for problem in problems) if seen.problem else problems == []


def test_workers_of_a_plain_search(seen: Seen) -> None:
    assert devices_of(Placement()) == seen.workers.split()
    plans = plan_workers(Placement(), PLAN)
    assert [plan.device for plan in plans] == seen.workers.split()
    assert {plan.threads for plan in plans} == {8 // len(plans)}
    said: list[str] = []
    say_left_out("auto", None, said.append)
    assert bool(said) == bool(seen.problem)
    assert any(
        f"Warning: {seen.problem.replace(' does not work', ' is left out, it does not work')}" in text for text in said
    ) == bool(said)
    say_left_out("auto", 0, said.clear)
    say_left_out("cpu", None, said.clear)
    pinned = [pinned_environment(plan.device, plan.threads).get("CUDA_VISIBLE_DEVICES") for plan in plans]
    assert pinned == (seen.pinned.split() or [None])


def test_two_gpus(seen: Seen) -> None:
    if seen.two:
        for ask in (lambda: devices_of(Placement(gpus=2)), lambda: device_group("auto", 2)):
            assert refusal(ask, f"--gpus {int(ONE in seen.two)}").startswith(f"--gpus 2: {seen.two}")
    else:
        assert devices_of(Placement(gpus=2)) == ["cuda:0", "cuda:1"]
        plans = plan_workers(replace(Placement(gpus=2), workers_per_gpu=2), PLAN)
        assert [(plan.device, plan.sharing) for plan in plans] == [("cuda:0", 2), ("cuda:1", 2)] * 2


def test_cuda_by_name(seen: Seen) -> None:
    if seen.pinned and seen.auto == "cuda":
        assert str(pick_device("cuda")) == "cuda"
        assert devices_of(Placement(device="cuda")) == seen.workers.split()
    elif seen.auto == "cuda:1":
        assert refusal(lambda: pick_device("cuda")).endswith("Choices: auto, cuda:1, cpu.")
    else:
        there = "device 'cuda' does not work: " if seen.problem else "this machine has no device 'cuda'"
        assert refusal(lambda: devices_of(Placement(device="cuda"))).startswith(there)
