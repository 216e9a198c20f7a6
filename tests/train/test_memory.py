"""What counts as running out of memory, of which, and that it can be had back."""

import errno
import gc
import mmap
import os
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch

from nas.train.device import out_of_memory, release_memory

FAR_TOO_MUCH = 2**60

ON_THE_DEVICE = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 139.72 GiB"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
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
