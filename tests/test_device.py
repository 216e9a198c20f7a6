"""Which device, which number format, and what counts as running out of memory, on machines that this one need not be."""

import errno
import gc
import mmap
import os
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nas import device as devices
from nas.device import (
    cpu_flags,
    cpu_vendor,
    device_name,
    find_devices,
    out_of_memory,
    pick_device,
    pick_precision,
    release_memory,
    with_its_threads,
)
from nas.errors import DeviceError, NasError
from nas.predict.submission import submit
from nas.specs import PredictSpec, SubmitSpec


def test_a_command_computes_by_the_threads_that_are_asked_for_and_no_longer_than_it_runs() -> None:
    before, count = torch.get_num_threads(), with_its_threads(lambda spec: torch.get_num_threads())
    assert (count(PredictSpec(None, (), threads=before + 1)), count(PredictSpec(None, ()))) == (before + 1, before)
    with pytest.raises(NasError):
        submit(SubmitSpec(None, threads=before + 1, like=Path("nowhere.csv")))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("capability", "name", "scales"),
    [((7, 0), "fp16", True), ((7, 5), "fp16", True), ((8, 0), "bf16", False), ((9, 0), "bf16", False)],
)
def test_cuda_computes_in_bf16_from_capability_8_on(
    machine: Callable[..., None], capability: tuple[int, int], name: str, scales: bool
) -> None:
    machine([capability])
    precision = pick_precision(torch.device("cuda"))
    assert (precision.name, precision.scales_gradients) == (name, scales)
    assert f"{capability[0]}.{capability[1]}" in precision.reason


@pytest.mark.parametrize(
    ("flags", "vendor", "name"),
    [
        ({"avx512_bf16"}, "AuthenticAMD", "bf16"),
        ({"avx512_bf16"}, "GenuineIntel", "fp32"),
        ({"amx_bf16", "avx512_bf16"}, "GenuineIntel", "bf16"),
        ({"avx2", "avx512f"}, "AuthenticAMD", "fp32"),
        (set(), "", "fp32"),
    ],
)
def test_a_cpu_computes_in_bf16_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], vendor: str, name: str
) -> None:
    monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(devices, "cpu_vendor", lambda: vendor)
    precision = pick_precision(torch.device("cpu"))
    assert (precision.name, precision.scales_gradients) == (name, False)
    assert name == "fp32" or any(flag in precision.reason for flag in flags)
    precision = pick_precision(torch.device("mps"))
    assert (precision.autocast, precision.scales_gradients) == (None, False)
    for threads, said in ((1, "cpu, 1 thread"), (2, "cpu, 2 threads")):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert device_name(torch.device("cpu")) == said


def test_flags_are_those_that_linux_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.platform, "system", lambda: "Linux")
    monkeypatch.setattr(
        Path, "read_text", lambda self: "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 amx_bf16\nbugs\t: none\n"
    )
    assert cpu_flags() == {"fpu", "avx2", "amx_bf16"}
    assert cpu_vendor() == "GenuineIntel"
    monkeypatch.setattr(Path, "read_text", lambda self: "processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert cpu_flags() == frozenset()
    monkeypatch.setattr(devices.platform, "system", lambda: "Darwin")
    assert cpu_flags() == frozenset()


def test_auto_takes_the_best_device_there_is(machine: Callable[..., None]) -> None:
    machine(gpus=2, mps=True)
    assert list(find_devices()) == ["cuda", "cuda:0", "cuda:1", "mps", "cpu"]
    assert pick_device().type == "cuda"
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    machine(mps=True)
    assert pick_device("auto").type == "mps"
    machine()
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:2", "cuda:x", "gpu", "mps", ""])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(machine: Callable[..., None], name: str) -> None:
    for gpus, choices in ((0, "auto, cpu"), (2, "auto, cuda, cuda:0, cuda:1, cpu")):
        machine(gpus)
        with pytest.raises(DeviceError) as caught:
            pick_device(name)
        assert caught.value.message == f"this machine has no device {name!r}. Choices: {choices}."
        assert caught.value.hint == "nas doctor shows the devices"


@pytest.mark.parametrize(
    ("capability", "works"),
    [
        *(((7, 5), True), ((8, 9), True), ((9, 0), True), ((12, 0), True), ((13, 1), True)),
        *(((6, 1), False), ((7, 0), False), ((10, 0), False)),
    ],
)
def test_a_gpu_for_which_torch_has_no_kernels_does_not_work(
    machine: Callable[..., None], capability: tuple[int, int], works: bool
) -> None:
    machine([capability, (8, 0)], kernels=("sm_75", "sm_80", "sm_86", "sm_90a", "sm_90", "compute_120"))
    found = find_devices()
    assert (found["cuda"] is None) == (found["cuda:0"] is None) == works
    assert str(pick_device()) == ("cuda" if works else "cuda:1")
    if not works:
        with pytest.raises(
            DeviceError, match=r"'cuda:0' does not work: torch .* capability .*, only sm_75, .*: auto, cuda:1, cpu"
        ):
            pick_device("cuda:0")


FAR_TOO_MUCH = 2**60

ON_THE_DEVICE = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 139.72 GiB"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("Invalid buffer size: 24.00 GiB"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max allowed: 9.07 GB)"),
]
ON_THE_HOST = [
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
        "116813856768 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:83] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."
    ),
    RuntimeError("could not create a memory object"),
    RuntimeError("could not create a primitive"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("unable to mmap 64 bytes from file <filename not specified>: Cannot allocate memory (12)"),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
]
ANOTHER = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (100x4 and 12x10)"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    ValueError("out of memory is what this is about"),
    KeyError("memory"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize(
    ("error", "where"),
    [
        *((error, "the device") for error in ON_THE_DEVICE),
        *((error, "the host") for error in ON_THE_HOST),
        *((error, None) for error in ANOTHER),
    ],
    ids=lambda value: f"{type(value).__name__} {str(value)[:40]}" if isinstance(value, BaseException) else str(value),
)
def test_errors_are_told_apart(error: BaseException, where: str | None) -> None:
    assert out_of_memory(error) == where


def test_without_an_engine_for_a_quarter_of_the_batch_it_is_another_error() -> None:
    error = RuntimeError("GET was unable to find an engine to execute this computation")
    assert [out_of_memory(error, parts) for parts in (1, 2, 4, 8)] == ["the device", "the device", None, None]
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory."), 8) == "the device"


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(FAR_TOO_MUCH, dtype=torch.uint8),
        lambda: np.empty(FAR_TOO_MUCH, np.uint8),
        lambda: bytearray(FAR_TOO_MUCH),
        lambda: mmap.mmap(-1, 2**55),
    ],
    ids=["torch", "numpy", "python", "the system"],
)
def test_what_the_allocators_here_really_raise_is_the_hosts(allocate: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, MemoryError, OSError)) as caught:
        allocate()
    assert out_of_memory(caught.value) == "the host"


def test_an_error_that_another_one_caused_is_what_its_cause_is() -> None:
    wrapped = ValueError("the network could not be trained")
    wrapped.__cause__ = RuntimeError("in the second block")
    wrapped.__cause__.__cause__ = torch.OutOfMemoryError("CUDA out of memory.")
    assert out_of_memory(wrapped) == "the device"
    wrapped.__cause__.__cause__ = ZeroDivisionError()
    assert out_of_memory(wrapped) is None


def test_what_refers_to_itself_is_given_back(request: pytest.FixtureRequest) -> None:
    model = torch.nn.Linear(3, 3)
    model.itself = [model]
    gone = weakref.ref(model)
    gc.disable()
    request.addfinalizer(gc.enable)
    del model
    assert gone() is not None
    release_memory(torch.device("cpu"))
    assert gone() is None
