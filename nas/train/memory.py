"""Memory: keeping it from one step to the next, what counts as running out of it, and how to be rid of what was occupied."""

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


# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_ALWAYS = 2**31 - 1
_MOST = 2**25
"""Bytes: the highest threshold that an older glibc takes for what is mapped apart."""


def keep_freed_memory() -> None:
    """What a step frees is there for the next one, for the rest of the process. By itself glibc gives large tensors back to the
    system at once, which has to clear every page again when the next step asks for it. `release_memory` gives it back.

    Threads other than the main one have heaps of their own, of 64 MB at most: there it reaches the smaller tensors alone."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # glibc alone has it
            mallopt = ctypes.CDLL(None).mallopt
            # One threshold without the other would be worse than none: setting either ends glibc's own adaptation of both.
            if mallopt(_M_MMAP_THRESHOLD, _ALWAYS) or mallopt(_M_MMAP_THRESHOLD, _MOST):
                mallopt(_M_TRIM_THRESHOLD, _ALWAYS)


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


SMALLEST_MICRO_BATCH = 8
"""Images. BatchNorm's statistics of fewer are noise."""


def more_parts(batch: int, parts: int) -> int | None:
    """Twice as many parts of a batch, each of which takes half the memory; None where they would be too small."""
    return parts * 2 if batch // (parts * 2) >= SMALLEST_MICRO_BATCH else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def release_memory(device: torch.device) -> None:
    """Gives back what nothing refers to any more. After running out of memory to be called when the exception is no longer being
    handled: its traceback refers to every frame, and so to the network that did not fit."""
    gc.collect()
    if sys.platform == "linux":
        # The C library keeps what is freed for its own next allocations; oneDNN, say, needs pages for the code that it compiles.
        with suppress(AttributeError):  # glibc alone has it
            ctypes.CDLL(None).malloc_trim(0)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "mps":
        torch.mps.empty_cache()


def peak_bytes(device: torch.device) -> int | None:
    """What this process has held on a CUDA device at most, since `release_memory`; None elsewhere."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
