"""Which device and which number format, on machines that this one need not be."""

from pathlib import Path

import pytest
import torch

from nas.errors import DeviceError
from nas.train import device as devices
from nas.train.device import available_devices, cpu_flags, device_name, pick_device, pick_precision


@pytest.mark.parametrize(
    ("capability", "name", "scales"),
    [((7, 0), "fp16", True), ((7, 5), "fp16", True), ((8, 0), "bf16", False), ((9, 0), "bf16", False)],
)
def test_cuda_computes_in_bf16_from_capability_8_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], name: str, scales: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    precision = pick_precision(torch.device("cuda"))
    assert (precision.name, precision.scales_gradients) == (name, scales)
    assert f"{capability[0]}.{capability[1]}" in precision.reason


@pytest.mark.parametrize(
    ("flags", "name"),
    [({"avx512_bf16"}, "bf16"), ({"amx_bf16", "avx2"}, "bf16"), ({"avx2", "avx512f"}, "fp32"), (set(), "fp32")],
)
def test_a_cpu_computes_in_bf16_where_it_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], name: str
) -> None:
    monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset(flags))
    precision = pick_precision(torch.device("cpu"))
    assert (precision.name, precision.scales_gradients) == (name, False)
    assert name == "fp32" or any(flag in precision.reason for flag in flags)


def test_mps_computes_in_fp32() -> None:
    precision = pick_precision(torch.device("mps"))
    assert (precision.name, precision.autocast, precision.scales_gradients) == ("fp32", None, False)


def test_flags_are_those_that_linux_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.platform, "system", lambda: "Linux")
    monkeypatch.setattr(Path, "read_text", lambda self: "processor\t: 0\nflags\t\t: fpu avx2 amx_bf16\nbugs\t: none\n")
    assert cpu_flags() == {"fpu", "avx2", "amx_bf16"}
    monkeypatch.setattr(Path, "read_text", lambda self: "processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert cpu_flags() == frozenset()
    monkeypatch.setattr(devices.platform, "system", lambda: "Darwin")
    assert cpu_flags() == frozenset()


def machine(monkeypatch: pytest.MonkeyPatch, gpus: int, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_auto_takes_the_best_device_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=2, mps=True)
    assert available_devices() == ["cuda", "cuda:0", "cuda:1", "mps", "cpu"]
    assert pick_device().type == "cuda"
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    machine(monkeypatch, gpus=0, mps=True)
    assert pick_device("auto").type == "mps"
    machine(monkeypatch, gpus=0, mps=False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:2", "cuda:x", "gpu", "mps", ""])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    machine(monkeypatch, gpus=2, mps=False)
    with pytest.raises(DeviceError) as caught:
        pick_device(name)
    assert "auto, cuda, cuda:0, cuda:1, cpu" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(("threads", "name"), [(1, "cpu, 1 thread"), (2, "cpu, 2 threads")])
def test_a_cpu_is_named_with_its_threads(threads: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert device_name(torch.device("cpu")) == name
