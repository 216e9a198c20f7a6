"""Where to compute, in which number format, and the memory there: keeping it, running out of it, giving it back."""

import ctypes
import errno
import functools
import gc
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from nas.errors import DeviceError, one_line

Call = TypeVar("Call", bound=Callable)

# ------------------------------------------------------------------------------------------------- device and format


@dataclass(frozen=True)
class Precision:
    autocast: torch.dtype | None  # of convolutions and matrix products; None leaves everything in float32
    scales_gradients: bool  # small gradients would vanish in that format (fp16): the loss must be scaled
    reason: str

    @property
    def name(self) -> str:
        return {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.autocast]


FULL_PRECISION = Precision(None, False, "predictions are the same on every device")
"""For predictions and for scores that are reported."""


def pick_device(name: str = "auto", offer_auto: bool = True) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU, the first that works. Raises DeviceError for what this machine does not have, or
    what does not work, with the choices; `auto` is one of them if `offer_auto`."""
    found = find_devices()
    have = [device for device, wrong in found.items() if wrong is None]
    if name == "auto":
        return torch.device(have[0])
    if name not in have:
        wrong, hint, parts = found.get(name), "nas doctor shows the devices", mig_parts()
        kind, _, index = name.partition(":")
        if kind == "cuda" and index.isdecimal() and int(index) < len(parts):
            hint = (
                "a process sees only the first MIG device in CUDA_VISIBLE_DEVICES; to use this one: "
                f"CUDA_VISIBLE_DEVICES={parts[int(index)]}"
            )
        raise DeviceError(
            (f"device {name!r} does not work: {wrong}" if wrong else f"this machine has no device {name!r}")
            + f". Choices: {', '.join(['auto'] * offer_auto + have)}.",
            hint=hint,
        )
    return torch.device(name)


def find_devices() -> dict[str, str | None]:
    """This machine's devices by name, best first, each with why it does not work; None where it does. `cuda` is `cuda:0`."""
    found: dict[str, str | None] = {}
    if torch.cuda.is_available():
        gpus = {f"cuda:{index}": _why_cuda_fails(index) for index in range(torch.cuda.device_count())}
        found = {"cuda": gpus.get("cuda:0"), **gpus}
    elif torch.backends.cuda.is_built():
        try:
            torch.cuda.init()
        except RuntimeError as error:
            if not _NO_GPU.search(str(error)):  # a driver that is too old, say
                found["cuda"] = one_line(error).rstrip(".")
    if torch.backends.mps.is_available():
        found["mps"] = None
    return {**found, "cpu": None}


def broken_among(devices: dict[str, str | None]) -> dict[str, str]:
    """Of `find_devices`, those that do not work, and why; each once."""
    return {name: wrong for name, wrong in devices.items() if wrong is not None and not (name == "cuda" and "cuda:0" in devices)}


def mig_parts() -> list[str]:
    """Parts of GPUs that CUDA_VISIBLE_DEVICES names, where it names nothing else: a process sees the first of them alone."""
    listed = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return listed if all(name.startswith("MIG-") for name in listed) else []


_NO_GPU = re.compile("no NVIDIA driver|no CUDA GPUs", re.I)
_KERNELS = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")


def _why_cuda_fails(index: int) -> str | None:
    """A kernel for sm_86 runs on capabilities 8.6 to 8.9, sm_90a on 9.0 alone; compute_86 is compiled there for 8.6 and later."""
    try:
        capability = torch.cuda.get_device_capability(index)
    except RuntimeError as error:
        return one_line(error).rstrip(".")
    architectures = torch.cuda.get_arch_list()
    for architecture in architectures:
        if not (known := _KERNELS.fullmatch(architecture)):  # AMD's
            return None
        kind, lowest, exact = known[1], (int(known[2]), int(known[3])), known[4] == "a"
        if capability == lowest or (lowest < capability and not exact and (kind == "compute" or capability[0] == lowest[0])):
            return None
    major, minor = capability
    return (
        f"torch {torch.__version__} has no kernels for its CUDA capability {major}.{minor}, only {', '.join(architectures)}; "
        "https://pytorch.org/get-started lists other builds"
    )


_SLOW_FP16 = ((5, 0), (5, 2), (6, 1))
"""By the CUDA programming guide's table of throughput: none, or a 64th of that of fp32. 6.0, the P100, has twice that."""


def pick_precision(device: torch.device) -> Precision:
    """The fastest format that this hardware computes natively and in which training is stable."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return Precision(torch.bfloat16, False, f"CUDA capability {major}.{minor} has bf16")
        if (major, minor) in _SLOW_FP16:
            return Precision(None, False, f"CUDA capability {major}.{minor} has neither bf16 nor fast fp16")
        return Precision(torch.float16, True, f"CUDA capability {major}.{minor} has no bf16; fp16 with a gradient scaler")
    if device.type == "cpu":
        # By the hardware alone, so that a study stays a function of its seed. One thread, a network of 2.4 M parameters: bf16 was
        # 2.2 to 2.5 times as fast as fp32 by AMX, 2 to 3.5 times on AMD's CPUs, and 0.73 to 0.82 times on Intel's without AMX.
        flags = cpu_flags()
        if "amx_bf16" in flags:
            return Precision(torch.bfloat16, False, "the CPU has amx_bf16")
        if "avx512_bf16" in flags:
            if cpu_vendor() == "GenuineIntel":
                return Precision(None, False, "this Intel CPU has avx512_bf16 but not amx_bf16, and is slower in bf16")
            return Precision(torch.bfloat16, False, "the CPU has avx512_bf16")
        return Precision(None, False, "without amx_bf16 or avx512_bf16 this CPU is slower in bf16")
    return Precision(None, False, f"half precision is not used on {device.type}")


def cpu_flags() -> frozenset[str]:
    """Instruction sets as Linux lists them; empty elsewhere."""
    return frozenset(_cpu_info("flags").split())


def cpu_vendor() -> str:
    """`GenuineIntel` or `AuthenticAMD`, as Linux says it; empty elsewhere."""
    return _cpu_info("vendor_id")


def _cpu_info(key: str) -> str:
    """Of the first core."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' * (threads != 1)}" if device.type == "cpu" else device.type


def tune_process(device: torch.device) -> None:
    """Settings of torch and of the C library that make training faster, for the rest of this process."""
    _keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every step has the same shapes: measured once, the fastest kernels stay


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Within, torch uses `count` CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def with_its_threads(run: Call) -> Call:
    """`run(spec, …)`, which computes here by as many CPU threads as the spec asks for."""

    @functools.wraps(run)
    def call(spec: Any, *more: Any, **named: Any) -> Any:
        with nullcontext() if spec.threads is None else cpu_threads(spec.threads):
            return run(spec, *more, **named)

    return cast(Call, call)


def wait_for(device: torch.device) -> None:
    """Until it has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def still_works(device: torch.device) -> bool:
    """After some errors (an illegal address, an assertion on the device, an uncorrectable memory fault) every later call to CUDA
    fails in that process."""
    try:
        wait_for(device)
    except Exception:
        return False
    return True


# ------------------------------------------------------------------------------------------------------------ memory

# Allocators that raise a plain RuntimeError: torch's on the CPU, the C++ library, oneDNN (a primitive is created where its code
# finds room; a primitive *descriptor* is refused for other reasons), CUDA's libraries (whose handles need memory, too), and MPS.
_HOST_SIGNS = re.compile(
    "DefaultCPUAllocator|can(no|')t allocate memory|bad_alloc|could not create a (memory object|primitive(?! descriptor))"
    "|host_allocation_failed",
    re.I,
)
_DEVICE_SIGNS = re.compile(
    "out of memory|alloc_failed|device_allocation_failed|(cublas|cudnn)_status_not_initialized|invalid buffer size", re.I
)
_NO_ENGINE = re.compile("unable to find an engine", re.I)
"""cuDNN's, where no kernel's workspace fits into the memory, and where it has no kernel for such a convolution."""

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_ALWAYS = 2**31 - 1
_MOST = 2**25  # bytes: the highest threshold that an older glibc takes for what is mapped apart

SMALLEST_MICRO_BATCH = 8  # images. BatchNorm's statistics of fewer are noise


def _glibc(name: str) -> Callable[..., int] | None:
    """A function of its allocator; None with another C library."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def _keep_freed_memory() -> None:
    """What a step frees is there for the next one. By itself glibc gives large tensors back to the system at once, which has to
    clear every page again when the next step asks for it. `release_memory` gives it back.

    Threads other than the main one have heaps of their own, of 64 MB at most: there it reaches the smaller tensors alone."""
    # One threshold without the other would be worse than none: setting either ends glibc's own adaptation of both.
    if (mallopt := _glibc("mallopt")) and (mallopt(_M_MMAP_THRESHOLD, _ALWAYS) or mallopt(_M_MMAP_THRESHOLD, _MOST)):
        mallopt(_M_TRIM_THRESHOLD, _ALWAYS)


def out_of_memory(error: BaseException | None, parts: int = 1) -> str | None:
    """`the device` or `the host`, whichever had no memory left; None where it and its causes are other errors. What may be either
    is for want of memory until a batch has gone through in a quarter, its `parts`."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return "the device"
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return "the host"
        if isinstance(error, RuntimeError):
            if _HOST_SIGNS.search(str(error)):
                return "the host"
            if _DEVICE_SIGNS.search(str(error)) or (parts < 4 and _NO_ENGINE.search(str(error))):
                return "the device"
        error = error.__cause__
    return None


def more_parts(batch: int, parts: int) -> int | None:
    """Twice as many parts of a batch, each of which takes half the memory; None where they would be too small."""
    return parts * 2 if batch // (parts * 2) >= SMALLEST_MICRO_BATCH else None


def release_memory(device: torch.device) -> None:
    """Gives back what nothing refers to any more. After running out of memory to be called when the exception is no longer being
    handled: its traceback refers to every frame, and so to the network that did not fit."""
    gc.collect()
    # The C library keeps what is freed for its own next allocations; oneDNN, say, needs pages for the code that it compiles.
    if malloc_trim := _glibc("malloc_trim"):
        malloc_trim(0)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "mps":
        torch.mps.empty_cache()


def peak_host_bytes() -> int | None:
    """What this process has held in the host's memory at most; None where the system does not say."""
    try:
        import resource
    except ImportError:  # on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_bytes(device: torch.device) -> int | None:
    """What this process has held on a CUDA device at most, since `release_memory`; None elsewhere."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
