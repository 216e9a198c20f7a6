"""Where to compute and in which number format."""

import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from nas.errors import DeviceError
from nas.train.memory import keep_freed_memory


@dataclass(frozen=True)
class Precision:
    autocast: torch.dtype | None
    """The format of convolutions and matrix products; None leaves everything in float32."""
    scales_gradients: bool
    """Whether small gradients would vanish in that format (fp16) and the loss must be scaled."""
    reason: str

    @property
    def name(self) -> str:
        return {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.autocast]


FULL_PRECISION = Precision(None, False, "what is handed in is the same whatever predicts it")
"""For predictions and for scores that are reported."""


def pick_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. Raises DeviceError for what this machine does not have."""
    have = available_devices()
    if name == "auto":
        return torch.device(have[0])
    if name not in have:
        raise DeviceError(
            f"this machine has no device {name!r}. Choices: auto, {', '.join(have)}.",
            hint="nas doctor shows the devices",
        )
    return torch.device(name)


def available_devices() -> list[str]:
    """Best first."""
    found = []
    if torch.cuda.is_available():
        found += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def pick_precision(device: torch.device) -> Precision:
    """The fastest format that this hardware computes natively and in which training is stable."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return Precision(torch.bfloat16, False, f"CUDA capability {major}.{minor} computes in bf16")
        return Precision(torch.float16, True, f"CUDA capability {major}.{minor} has no bf16; fp16 with a gradient scaler")
    if device.type == "cpu":
        for flag in ("amx_bf16", "avx512_bf16"):
            if flag in cpu_flags():
                return Precision(torch.bfloat16, False, f"the CPU has {flag}")
        return Precision(None, False, "the CPU has neither amx_bf16 nor avx512_bf16, without which bf16 is slower")
    return Precision(None, False, f"half precision is not relied upon on {device.type}")


def tune_process(device: torch.device) -> None:
    """Settings of torch and of the C library that make training faster, for the rest of this process."""
    keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every step has the same shapes: measured once, the fastest kernels stay


def wait_for(device: torch.device) -> None:
    """Until it has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def still_works(device: torch.device) -> bool:
    """After some errors (an illegal address, an assertion on the device, an uncorrectable memory fault) every later call to CUDA
    fails in that process."""
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except Exception:
            return False
    return True


def cpu_flags() -> frozenset[str]:
    """Instruction sets as Linux lists them; empty elsewhere."""
    if platform.system() != "Linux":
        return frozenset()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' * (threads != 1)}" if device.type == "cpu" else device.type
