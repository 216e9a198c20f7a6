"""Which workers there are on this machine: how many, on which device each, with how many threads and processes."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from nas.cores import usable_cores
from nas.device import broken_among, device_name, find_devices, mig_parts, pick_device
from nas.errors import ConfigError, DeviceError
from nas.jobs.messages import WorkerPlan


@dataclass(frozen=True)
class Placement:
    """What the user asked for; None is the default."""

    device: str = "auto"
    gpus: int | None = None  # all that are visible; 0 is the CPU
    workers_per_gpu: int | None = None
    workers: int | None = None  # on the CPU
    threads: int | None = None  # of the CPU, for each worker


@dataclass(frozen=True)
class RayCluster:
    address: str  # `auto`, `local`, or where a cluster's head listens
    gpus_per_worker: float = 1.0  # a fraction puts several on one GPU; 0 computes on the CPU
    cpus_per_worker: float = 1.0


SHARED_OUT = "without it, the workers share the cores"


def ray_cluster(
    address: str | None, gpus_per_worker: float | None, cpus_per_worker: float | None, wanted: Placement
) -> RayCluster | None:
    """None where no address is given. Raises ConfigError for options that say nothing there."""
    if address is None:
        if gpus_per_worker is not None or cpus_per_worker is not None:
            raise ConfigError(
                "--gpus-per-worker and --cpus-per-worker are resources of a worker on a Ray cluster, and need --ray ADDRESS",
                hint="without a cluster: --gpus N, --workers-per-gpu K, or --workers K on the CPU",
            )
        return None
    given = [f"--{name.replace('_', '-')} {value}" for name, value in vars(wanted).items() if value != getattr(Placement, name)]
    if given:
        raise ConfigError(
            f"{' and '.join(given)} is only for this machine; --ray starts as many workers as its cluster has room for",
            hint="--gpus-per-worker N and --cpus-per-worker N set the resources of each; 0 GPUs: the CPU",
        )
    shares = {"gpus_per_worker": gpus_per_worker, "cpus_per_worker": cpus_per_worker}
    return RayCluster(address, **{name: share for name, share in shares.items() if share is not None})


def visible_gpus() -> list[str]:
    """CUDA devices that work and that workers of this process may use, MIG devices included, of which it sees one only."""
    seen = _seen_gpus()
    return [f"cuda:{index}" for index in range(len(parts))] if seen and (parts := mig_parts()) else seen


def _seen_gpus() -> list[str]:
    return [name for name, wrong in find_devices().items() if name.startswith("cuda:") and wrong is None]


def say_left_out(device: str, gpus: int | None, note: Callable[[str], None]) -> None:
    """Which GPUs the default leaves out because they do not work."""
    if device == "auto" and gpus != 0:
        for name, wrong in broken_among(find_devices()).items():
            note(f"Warning: {name} is left out, it does not work: {wrong}")


def devices_of(wanted: Placement) -> list[str]:
    """One entry a worker. Raises NasError for what this machine does not have, or a combination that means nothing."""
    _require_sense(wanted)
    have = visible_gpus()
    if wanted.gpus is not None and wanted.gpus > len(have):
        raise _missing_gpus(wanted.gpus, have, "" if have else " searches on the CPU")
    if wanted.device.startswith("cuda:"):  # one of several
        gpus = [str(pick_device(wanted.device))]
    elif wanted.device == "cuda" or (wanted.device == "auto" and wanted.gpus != 0 and have):
        gpus = have[: wanted.gpus] or [str(pick_device("cuda"))]  # which says why there is none
    else:
        gpus = []
    if not gpus:
        return _without_gpus(wanted)
    if wanted.workers is not None:
        on = gpus[0] if len(gpus) == 1 else f"{len(gpus)} GPUs"
        raise ConfigError(
            f"--workers {wanted.workers} counts workers on the CPU, but this search runs on {on}",
            hint=f"--workers-per-gpu K puts K on each GPU; --device cpu --workers {wanted.workers} searches on the CPU",
        )
    # Neighbours on different GPUs, so that the first ones drawn share none.
    return [gpu for _ in range(wanted.workers_per_gpu or 1) for gpu in gpus]


def _without_gpus(wanted: Placement) -> list[str]:
    device = "cpu" if wanted.gpus == 0 else str(pick_device(wanted.device))
    if wanted.workers_per_gpu is not None:
        raise ConfigError(
            f"--workers-per-gpu {wanted.workers_per_gpu} counts workers on CUDA GPUs, but this search runs on {device}",
            hint="use --workers K on the CPU" if device == "cpu" else "leave it out: one worker uses the device",
        )
    if wanted.workers is None:
        return [device]
    if device != "cpu":
        raise ConfigError(
            f"--workers {wanted.workers} counts workers on the CPU, but this search runs on {device}",
            hint=f"--device cpu --workers {wanted.workers} searches on the CPU",
        )
    cores = usable_cores()
    if wanted.workers > cores:
        raise ConfigError(
            f"--workers {wanted.workers} needs at least one core for each worker, and this process may use {cores}",
            hint=f"--workers {cores} is the most",
        )
    return [device] * wanted.workers


def _require_sense(wanted: Placement) -> None:
    for option, value, least, otherwise in (
        ("--gpus", wanted.gpus, 0, "without it, the search uses all visible GPUs; 0: the CPU"),
        ("--workers-per-gpu", wanted.workers_per_gpu, 1, "without it, each GPU has one worker"),
        ("--workers", wanted.workers, 1, "without it, there is one worker on the CPU"),
        ("--threads", wanted.threads, 1, SHARED_OUT),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{option} must be at least {least}, but is {value}", hint=otherwise)
    if wanted.gpus is not None and wanted.device != "auto":
        raise ConfigError(
            f"--gpus {wanted.gpus} and --device {wanted.device} contradict each other",
            hint="leave one out: --gpus N uses the first N visible GPUs, --device one device",
        )


def threads_each(wanted: int | None, processes: int) -> int:
    """CPU threads of each of so many processes. Raises ConfigError for more of them than there are cores."""
    cores = usable_cores()
    if wanted is None:
        return max(1, min(torch.get_num_threads(), cores) // processes)
    if wanted > (most := max(1, cores // processes)):
        raise ConfigError(
            f"--threads {wanted}: {processes} process{'es' * (processes > 1)} with {wanted} threads each would need "
            f"{wanted * processes} cores, and this command may use {cores}",
            hint=f"--threads {most} is the most; {SHARED_OUT}",
        )
    return wanted


def plan_workers(wanted: Placement, plan: WorkerPlan, on_cpu: int = 1) -> list[WorkerPlan]:
    """`plan` for each worker, with its device, how many share it, and its part of the cores. Raises NasError.

    Args:
        on_cpu: workers there, if there are threads for them, where neither their number nor that of their threads is asked for.
    """
    devices = devices_of(wanted)
    if devices == ["cpu"] and wanted.workers is wanted.threads is None:
        devices *= min(on_cpu, threads_each(None, 1))
    threads = threads_each(wanted.threads, len(devices))
    return [replace(plan, device=device, threads=threads, sharing=devices.count(device)) for device in devices]


# ----------------------------------------------------------------------------------------------- one network, several devices

LEAST_IMAGES = 2  # of a batch, in each process


@dataclass(frozen=True)
class DeviceGroup:
    """Where one network is trained: on one device, or by several processes with a GPU, or a part of the CPU's cores, each."""

    device: torch.device  # the first process's, on which the finished network is judged, too
    processes: int = 1
    wanted_threads: int | None = None

    @property
    def threads(self) -> int:
        """Of each process. Raises ConfigError for more of them than there are cores."""
        return threads_each(self.wanted_threads, self.processes)

    @property
    def name(self) -> str:
        if self.processes == 1:
            return device_name(self.device)
        if self.device.type == "cpu":
            return f"{self.processes} processes on the cpu, {self.threads} thread{'s' if self.threads > 1 else ''} each"
        return f"{self.processes} × {device_name(self.device)}"

    def require_share(self, batch: int, hardest: float = 1.0) -> None:
        """Raises ConfigError where a batch of so many images is too small to be shared out, or its choice needs one process."""
        if self.processes > 1 and hardest < 1:
            raise ConfigError(
                f"--gpus {self.processes}: the recipe has hardest: {hardest:g}, and its choice of images needs a single process",
                hint="use --gpus 1, or a recipe with hardest: 1",
            )
        most = max(1, batch // LEAST_IMAGES)
        if self.processes > most:
            raise ConfigError(
                f"--gpus {self.processes}: a batch of {batch} images is too small, each process needs at least {LEAST_IMAGES}",
                hint=f"--gpus {most} is the most",
            )


def device_group(device: str, gpus: int | None, compiled: bool | None = None, threads: int | None = None) -> DeviceGroup:
    """`gpus` None is one process on `device`; with `cpu` it counts processes there. Raises NasError for what this machine does
    not have, or a combination that means nothing."""
    if gpus is None:
        return DeviceGroup(pick_device(device), 1, threads)
    if gpus < 0:
        raise ConfigError(f"--gpus must be at least 0, but is {gpus}", hint="without it, one GPU is used; 0: the CPU")
    if gpus > 1 and compiled:
        raise ConfigError(
            f"--compile and --gpus {gpus}: a network that several processes train is not compiled, because each BatchNorm of it "
            "waits for the other processes",
            hint="leave --compile out; or --gpus 1 --compile",
        )
    if device == "cpu":
        if gpus > (cores := usable_cores()):
            raise ConfigError(
                f"--gpus {gpus} --device cpu: each process needs a core, but this command may use only {cores}",
                hint=f"--gpus {cores} is the most",
            )
        return DeviceGroup(torch.device("cpu"), max(1, gpus), threads)
    if device not in ("auto", "cuda"):
        raise ConfigError(
            f"--gpus {gpus} and --device {device} contradict each other",
            hint="leave one out: --gpus N uses the first N visible GPUs, --device one device; "
            "with --device cpu, --gpus N takes N processes there",
        )
    if gpus == 0:
        if device == "cuda":
            raise ConfigError("--gpus 0 and --device cuda contradict each other: 0 GPUs is the CPU", hint="leave one out")
        return DeviceGroup(torch.device("cpu"), 1, threads)
    have = _seen_gpus()
    if gpus > len(have):
        trains = "" if have else " trains on the CPU"
        raise _missing_gpus(gpus, have, f"{trains}; --gpus {gpus} --device cpu tries it in {gpus} processes there")
    if gpus > 1 and have[gpus - 1] != f"cuda:{gpus - 1}":
        raise _missing_gpus(gpus, have, f" trains on {have[0]}; for more, list only working GPUs in CUDA_VISIBLE_DEVICES", most=1)
    return DeviceGroup(torch.device(have[0]), gpus, threads)


def _missing_gpus(wanted: int, have: list[str], instead: str, most: int | None = None) -> DeviceError:
    """Names those that do not work, too; `most` of those that do can be taken."""
    count = f"{len(have) or 'no'} GPU{'s' * (len(have) > 1)}"
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    broken = broken_among(find_devices())
    works = f" that work{'s' * (len(have) == 1)}" if broken and have else " that works" if broken else ""
    return DeviceError(
        f"--gpus {wanted}: torch finds {count}{works}"
        + (f" (CUDA_VISIBLE_DEVICES={listed})" if listed is not None else "")
        + "".join(f"; {name} does not work: {wrong}" for name, wrong in broken.items()),
        hint=f"--gpus {len(have) if most is None else most}{instead}; nas doctor shows the devices",
    )
