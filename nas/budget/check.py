"""Whether a network fits its budget. Limits are checked one after the other; an expensive one is checked only if all cheaper ones
are kept."""

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from nas.budget.counts import count_macs, count_params, peak_memory, quick_macs
from nas.budget.int8 import count_flash, count_ram
from nas.budget.latency import MeasuredLatencies, Write, measure_latency
from nas.config import ArchConfig, BudgetConfig, ImageShape, amount
from nas.errors import NasError
from nas.files import write_whole

COMPUTED: dict[str, Callable[[ArchConfig, ImageShape], int]] = {"flash": count_flash, "ram": count_ram, "memory": peak_memory}
"""Computed on the meta device, by the limit; the cheapest first."""
TOO_LARGE_TO_RUN = 1000.0  # replaces an infinite excess, which neither JSON nor a sampler can hold


@dataclass(frozen=True)
class Cost:
    params: int
    macs: int | None
    """By fvcore if MACs are limited and the network keeps the cheaper limits, else in closed form. With a user's own block by
    fvcore, or None if the network is over another limit."""
    excess: dict[str, float]  # for each limit, by which share it is exceeded; at most 0 if it is kept
    memory: int | None = None  # peak bytes of the activations
    flash: int | None = None  # bytes of the file in eight bits
    ram: int | None = None  # bytes of RAM to run that file
    latency_ms: float | None = None  # None also if the network is too large to run on this machine

    @property
    def broken(self) -> list[str]:
        """The limits that are exceeded."""
        return [name for name, value in self.excess.items() if value > 0]

    @property
    def fits(self) -> bool:
        return not self.broken

    def sentence(self, limits: BudgetConfig) -> str:
        """Which limits are exceeded, and by how much."""
        return "; ".join(self._words(name, limits) for name in self.broken)

    def _words(self, name: str, limits: BudgetConfig) -> str:
        if name == "latency" and limits.latency is not None:
            took = "too large to run" if self.latency_ms is None else amount(name, self.latency_ms)
            return f"{took} by {limits.latency.setting()}: over the budget of {limits.latency.max_ms:g}"
        return f"{amount(name, getattr(self, name))}: over the budget of {getattr(limits, name):,}"


class Budget:
    def __init__(
        self, limits: BudgetConfig, shape: ImageShape, latency_file: Path | None = None, write: Write = write_whole
    ) -> None:
        """`latency_file` stores measurements, so that a draw that is repeated after a crash gets the same verdict; `write` writes
        it. Raises BudgetError if the file exists and cannot be read."""
        self.limits = limits
        self.shape = shape
        self._measured = None if limits.latency is None else MeasuredLatencies(shape, limits.latency, latency_file, write)
        self._last: tuple[ArchConfig, BudgetConfig, Cost] | None = None

    def narrowed(self, params: int) -> Self:
        """The same with this limit of parameters; measurements are shared."""
        narrower = copy(self)
        narrower.limits = self.limits.model_copy(update={"params": params})
        return narrower

    def check(self, arch: ArchConfig) -> Cost:
        """Counts exactly, by fvcore, and measures a latency that is not known yet. The machine must be idle for that: see
        `needs_idle_machine`.

        Raises ConfigError if the network cannot be built for these images, DeviceError or BudgetError if it cannot be timed.
        """
        cost = self._counted(arch)
        if self.limits.latency is None or not cost.fits:
            return cost
        ms = self.latency(arch)
        excess = ms / self.limits.latency.max_ms - 1 if math.isfinite(ms) else TOO_LARGE_TO_RUN
        return replace(cost, latency_ms=ms if math.isfinite(ms) else None, excess={**cost.excess, "latency": excess})

    def needs_idle_machine(self, arch: ArchConfig) -> bool:
        """Whether the next `check` of this network would measure."""
        if self._measured is None or self._measured.get(arch) is not None:
            return False
        try:
            return self._counted(arch).fits
        except NasError:  # `check` reports it
            return False

    def latency(self, arch: ArchConfig) -> float:
        """Milliseconds, measured unless known; infinite if the network is too large to run. The budget must limit the latency."""
        assert self._measured is not None
        assert self.limits.latency is not None
        ms = self._measured.get(arch)
        if ms is None:
            ms = measure_latency(arch, self.shape, self.limits.latency)
            self._measured.add(arch, ms)
        return ms

    def _counted(self, arch: ArchConfig) -> Cost:
        """Everything except the latency."""
        if self._last is None or self._last[:2] != (arch, self.limits):
            self._last = arch, self.limits, self._count(arch)
        return self._last[2]

    def _count(self, arch: ArchConfig) -> Cost:
        limits, shape = self.limits, self.shape
        params = count_params(arch, shape)
        excess = {} if limits.params is None else {"params": params / limits.params - 1}
        of_own_block = arch.block_source is not None
        cost = Cost(params, None if of_own_block else quick_macs(arch, shape), excess)
        for name, count in COMPUTED.items():
            limit = getattr(limits, name)
            if limit is not None and cost.fits:
                found = count(arch, shape)
                cost = replace(cost, **{name: found}, excess={**cost.excess, name: found / limit - 1})
        if not cost.fits:
            return cost
        # fvcore allocates and runs the network, so a network of any size is counted by it only without a closed form
        macs = quick_macs(arch, shape) if cost.macs is None else cost.macs
        if limits.macs is not None:
            if not of_own_block and macs <= limits.macs:
                macs = count_macs(arch, shape)
            excess = {**cost.excess, "macs": macs / limits.macs - 1}
            cost = replace(cost, excess=excess)
        return replace(cost, macs=macs)
