"""One training in several processes, each with its part of every batch: what they have to agree on, and how they do.

A training sees its `Group` alone; `Alone` is that of a training in one process, which everything passes through as it is. Who
starts the processes is not known here.
"""

import inspect
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from nas.data.loader import mix_seed

Result = TypeVar("Result")

PATIENCE = timedelta(minutes=30)
"""For one that is slower than the others. One that dies is noticed at once, by whoever started it."""


class Group(Protocol):
    """Every method but `part` and `seed` is to be called by all processes in the same order."""

    rank: int
    """From 0, who leads: reads, writes and is listened to."""
    size: int

    def part(self, count: int) -> slice:
        """Of so many images, those of this process."""
        ...

    def seed(self, seed: int) -> int:
        """This process's own."""
        ...

    def join(self, model: nn.Module) -> nn.Module:
        """What is to be called in training instead of `model`, which has the leader's weights from now on, statistics of whole
        batches in its BatchNorm, and gradients that are the means over the processes."""
        ...

    def gathering(self, last: bool) -> AbstractContextManager[object]:
        """Within it one part of a batch goes forward and back; gradients are exchanged with the last."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        ...

    def added(self, values: Tensor) -> Tensor:
        """Sums over the processes, which may be on the CPU then."""
        ...

    def asked_alone(self, ask: Callable[[], bool]) -> Callable[[], bool]:
        """`ask` where nobody else needs to know the answer; else what always says no."""
        ...

    def gathered(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        """That of every process, by rank; for the leader alone, others get nothing."""
        ...

    def from_leader(self, read: Callable[[], Result]) -> Result:
        """What the leader reads."""
        ...

    def led(self, write: Callable[[Callable[[], None]], None]) -> Callable[[Callable[[], None]], None]:
        """`write` for the leader; others write nothing."""
        ...


def part_of(count: int, rank: int, size: int) -> slice:
    """Consecutive positions, as many as the others have, or one more for the first ranks where they cannot be shared evenly."""
    least, more = divmod(count, size)
    start = rank * least + min(rank, more)
    return slice(start, start + least + (rank < more))


class Alone:
    """A training's only process."""

    rank = 0
    size = 1

    def part(self, count: int) -> slice:
        return slice(0, count)

    def seed(self, seed: int) -> int:
        return seed

    def join(self, model: nn.Module) -> nn.Module:
        return model

    def gathering(self, last: bool) -> AbstractContextManager[object]:
        return nullcontext()

    def any(self, flag: bool) -> bool:
        return flag

    def added(self, values: Tensor) -> Tensor:
        return values

    def asked_alone(self, ask: Callable[[], bool]) -> Callable[[], bool]:
        return ask

    def gathered(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        return [state]

    def from_leader(self, read: Callable[[], Result]) -> Result:
        return read()

    def led(self, write: Callable[[Callable[[], None]], None]) -> Callable[[Callable[[], None]], None]:
        return write


ALONE = Alone()


class Processes:
    """Process `rank` of `size`: over NCCL on GPUs, over gloo on the CPU.

    What the host needs to know goes over gloo on either, so that no host waits for its GPU.
    """

    def __init__(self, device: torch.device, rank: int, size: int, init_method: str) -> None:
        """Waits for the others, which have the same `init_method`: torch's `file:///path/of/no/file/yet` or `tcp://host:port`."""
        on_gpu = device.type == "cuda"
        if "GLOO_SOCKET_IFNAME" not in os.environ and sys.platform in ("linux", "darwin"):
            os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"  # one machine needs no network
        self.rank, self.size = rank, size
        backend = "nccl" if on_gpu else "gloo"
        distributed.init_process_group(backend, init_method=init_method, rank=rank, world_size=size, timeout=PATIENCE)
        hosts = distributed.new_group(backend="gloo", timeout=PATIENCE) if on_gpu else None
        assert hosts is None or isinstance(hosts, distributed.ProcessGroup), "every process is among the hosts"
        self._hosts = hosts
        """None is everybody, over gloo as it is."""
        self._network: DistributedDataParallel | None = None

    def close(self) -> None:
        distributed.destroy_process_group()

    def part(self, count: int) -> slice:
        return part_of(count, self.rank, self.size)

    def seed(self, seed: int) -> int:
        return mix_seed(seed, self.rank) if self.rank else seed

    def join(self, model: nn.Module) -> nn.Module:
        device = next(model.parameters()).device
        share_statistics(model, device)
        # Buffers are BatchNorm's alone, and the same everywhere by themselves. Newer versions of torch call this otherwise.
        known = inspect.signature(DistributedDataParallel).parameters
        off: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
        self._network = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None, **off)
        return self._network

    def gathering(self, last: bool) -> AbstractContextManager[object]:
        assert self._network is not None
        return nullcontext() if last else self._network.no_sync()

    def any(self, flag: bool) -> bool:
        said = torch.tensor([int(flag)])
        distributed.all_reduce(said, distributed.ReduceOp.MAX, group=self._hosts)
        return bool(said)

    def added(self, values: Tensor) -> Tensor:
        total = values.to("cpu", copy=True)
        distributed.all_reduce(total, group=self._hosts)
        return total

    def asked_alone(self, ask: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: False

    def gathered(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        states: list[dict[str, Any]] = [{}] * self.size
        distributed.gather_object(state, states if self.rank == 0 else None, group=self._hosts)
        return states if self.rank == 0 else []

    def from_leader(self, read: Callable[[], Result]) -> Result:
        what: list[Any] = [read() if self.rank == 0 else None]
        distributed.broadcast_object_list(what, group=self._hosts)
        return what[0]

    def led(self, write: Callable[[Callable[[], None]], None]) -> Callable[[Callable[[], None]], None]:
        return write if self.rank == 0 else lambda action: None


# ------------------------------------------------------------------------------------------- statistics of whole batches


def share_statistics(model: nn.Module, device: torch.device) -> None:
    """Every BatchNorm of `model` sees the images of all processes at once, as in one process it sees those of a whole batch."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = SharedBatchNorm2d  # with all that it holds


class SharedBatchNorm2d(nn.BatchNorm2d):
    """torch's SyncBatchNorm for tensors on the CPU, which that one refuses."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        normalised, mean, variance, count = _Normalisation.apply(x, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return normalised


class _Normalisation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, float]:
        """`x` (N, C, H, W). Returns it normalised, mean and biased variance float32 (C,), and how many values a channel has."""
        variance, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
        # In double precision the mean square less the squared mean keeps every digit of the variance.
        mean, variance = mean.double(), variance.double()
        count = torch.full((1,), x.numel() // x.shape[1], dtype=torch.float64)
        sums = torch.cat([mean * count, (variance + mean.square()) * count, count])
        distributed.all_reduce(sums)
        total = float(sums[-1])
        mean, square = (sums[:-1] / total).chunk(2)
        variance = (square - mean.square()).clamp(min=0)
        mean32, variance32 = mean.float(), variance.float()
        ctx.save_for_backward(x, weight, mean32, torch.rsqrt(variance + eps).float())
        ctx.total = total
        ctx.mark_non_differentiable(mean32, variance32)
        return F.batch_norm(x, mean32, variance32, weight, bias, training=False, eps=eps), mean32, variance32, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale = ctx.saved_tensors
        gradient = gradients[0].float()
        centred = (x.float() - _channels(mean)) * _channels(scale)
        own = torch.stack([gradient.sum((0, 2, 3)), (gradient * centred).sum((0, 2, 3))])
        shared = own.clone()
        distributed.all_reduce(shared)
        shared /= ctx.total
        through = gradient - _channels(shared[0]) - centred * _channels(shared[1])
        return (through * _channels(weight * scale)).to(x.dtype), own[1], own[0], None


def _channels(values: Tensor) -> Tensor:
    """(C,) → (1, C, 1, 1)"""
    return values[:, None, None]
