"""Machines that nobody here has, as torch and the system show them."""

import shutil
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

import nas.device
import nas.jobs.placement

CUDA_13 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
CUDA_12 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")


@dataclass(frozen=True)
class Machine:
    gpus: tuple[tuple[int, int], ...] = ()  # CUDA capabilities, of those that a process sees
    kernels: tuple[str, ...] = CUDA_13
    visible: str | None = None  # CUDA_VISIBLE_DEVICES
    driver: str | None = None  # what CUDA says instead of working
    mps: bool = False
    flags: frozenset[str] = frozenset()  # of the CPU
    cores: int = 8

    def show(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def begin() -> None:
            raise RuntimeError(self.driver)

        for name, shown in {
            "is_available": lambda: bool(self.gpus),
            "device_count": lambda: len(self.gpus),
            "get_device_capability": lambda device=None: self.gpus[getattr(device, "index", device) or 0],
            "get_device_name": lambda device: f"GPU {device}",
            "get_arch_list": lambda: list(self.kernels),
            "init": begin,
        }.items():
            monkeypatch.setattr(torch.cuda, name, shown)
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: self.driver is not None)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: self.mps)
        monkeypatch.setattr(nas.device, "cpu_flags", lambda: self.flags)
        monkeypatch.setattr(nas.jobs.placement, "usable_cores", lambda: self.cores)
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.cores)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=50_000_000_000))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if self.visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", self.visible)
