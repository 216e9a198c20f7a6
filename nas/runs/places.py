"""Where a retraining computes: on one device, or in several processes with a GPU, or a part of the CPU's cores, each."""

import os
from dataclasses import dataclass

import torch

from nas.cores import usable_cores
from nas.errors import ConfigError, DeviceError
from nas.train.device import device_name, pick_device

LEAST_IMAGES = 2
"""Of a batch, in each process."""


@dataclass(frozen=True)
class Places:
    device: torch.device
    """The first process's, on which the finished network is judged, too."""
    processes: int = 1

    @property
    def threads(self) -> int:
        """Of each process."""
        return max(1, min(torch.get_num_threads(), usable_cores()) // self.processes)

    @property
    def name(self) -> str:
        if self.processes == 1:
            return device_name(self.device)
        if self.device.type == "cpu":
            return f"{self.processes} processes on the cpu, {self.threads} thread{'s' if self.threads > 1 else ''} each"
        return f"{self.processes} × {device_name(self.device)}"

    def require_share(self, batch: int) -> None:
        """Raises ConfigError where a batch of so many images is too small to be shared out."""
        most = max(1, batch // LEAST_IMAGES)
        if self.processes > most:
            raise ConfigError(
                f"--gpus {self.processes}: a batch of {batch} images cannot be shared out, each process takes {LEAST_IMAGES} at "
                "least",
                hint=f"--gpus {most} is the most",
            )


def pick_places(device: str, gpus: int | None, compiled: bool | None = None) -> Places:
    """`gpus` None is one process on `device`; with `cpu` it counts processes there. Raises NasError for what this machine does
    not have, or a combination that means nothing."""
    if gpus is None:
        return Places(pick_device(device))
    if gpus < 0:
        raise ConfigError(f"--gpus must be at least 0, but is {gpus}", hint="without it one GPU trains; 0 is the CPU")
    if gpus > 1 and compiled:
        raise ConfigError(
            f"--compile and --gpus {gpus}: a network that several processes train is not compiled, because each BatchNorm of it "
            "waits for the other processes",
            hint="leave --compile out; or --gpus 1 --compile",
        )
    if device == "cpu":
        return Places(torch.device("cpu"), _cpu_processes(gpus))
    if device not in ("auto", "cuda"):
        raise ConfigError(
            f"--gpus {gpus} and --device {device} both say where to compute",
            hint="leave one out: --gpus N takes the first N that are visible, --device the one that it names; "
            "with --device cpu, --gpus N takes N processes there",
        )
    if gpus == 0:
        if device == "cuda":
            raise ConfigError("--gpus 0 and --device cuda: one says the CPU, the other a GPU", hint="leave one out")
        return Places(torch.device("cpu"))
    have = torch.cuda.device_count()
    if gpus > have:
        there_are = {0: "this machine shows no GPU", 1: "this machine shows 1 GPU"}.get(have, f"this machine shows {have} GPUs")
        listed = os.environ.get("CUDA_VISIBLE_DEVICES")
        fewer = f"--gpus {have}" if have else "--gpus 0 trains on the CPU"
        raise DeviceError(
            f"--gpus {gpus}: {there_are}" + (f" (CUDA_VISIBLE_DEVICES={listed})" if listed is not None else ""),
            hint=f"{fewer}; --gpus {gpus} --device cpu tries it in {gpus} processes there; nas doctor shows the devices",
        )
    pick_device("cuda")
    return Places(torch.device("cuda", 0), gpus)


def _cpu_processes(wanted: int) -> int:
    cores = usable_cores()
    if wanted > cores:
        raise ConfigError(
            f"--gpus {wanted} --device cpu: each process takes a core at least, and this one may use {cores}",
            hint=f"--gpus {cores} is the most",
        )
    return max(1, wanted)
