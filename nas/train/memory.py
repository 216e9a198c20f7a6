"""Running out of memory: what counts as that, and how to be rid of what was occupied."""

import ctypes
import errno
import gc
import re
import sys
from collections.abc import Iterator
from contextlib import suppress

import torch

# Allocators that raise a plain RuntimeError: torch's on the CPU, the C++ library, oneDNN (a primitive is created where its code
# finds room; a primitive *descriptor* is refused for other reasons), and CUDA's libraries.
_HOST_SIGNS = re.compile(
    "DefaultCPUAllocator|can(no|')t allocate memory|bad_alloc|could not create a (memory object|primitive(?! descriptor))", re.I
)
_DEVICE_SIGNS = re.compile("out of memory|alloc_failed", re.I)


def out_of_memory(error: BaseException) -> str | None:
    """`the device` or `the host`, whichever had no memory left; None where it is another error."""
    for one in _chain(error):
        if isinstance(one, torch.OutOfMemoryError):
            return "the device"
        if isinstance(one, MemoryError) or (isinstance(one, OSError) and one.errno == errno.ENOMEM):
            return "the host"
        if isinstance(one, RuntimeError):
            if _HOST_SIGNS.search(str(one)):
                return "the host"
            if _DEVICE_SIGNS.search(str(one)):
                return "the device"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def release_memory(device: torch.device) -> None:
    """Gives back what nothing refers to any more. To be called when the exception is no longer being handled: its traceback
    refers to every frame, and so to the network that did not fit."""
    gc.collect()
    if sys.platform == "linux":
        # The C library keeps what is freed for its own next allocations; oneDNN, say, needs pages for the code that it compiles.
        with suppress(AttributeError):  # glibc alone has it
            ctypes.CDLL(None).malloc_trim(0)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
