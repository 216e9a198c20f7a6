"""One training in several processes, each with its part of every batch: what they have to agree on, and how they do.

Who starts the processes is not known here.
"""

import inspect
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

Result = TypeVar("Result")

PATIENCE = timedelta(minutes=30)
"""For one that is slower than the others. One that dies is noticed at once, by whoever started it."""


class Group:
    """The processes of one training, as one of them sees them. This one is a training's only process: everything passes through
    as it is. All processes call every method but `part` in the same order."""

    rank = 0  # from 0, the leader: it reads, writes and is listened to
    size = 1

    def part(self, count: int) -> slice:
        """Of so many images, those of this process: consecutive, as many as the others have, or one more for the first ranks
        where they cannot be shared evenly."""
        least, more = divmod(count, self.size)
        start = self.rank * least + min(self.rank, more)
        return slice(start, start + least + (self.rank < more))

    def wrap(self, model: nn.Module) -> nn.Module:
        """What is to be called in training instead of `model`, which has the leader's weights from now on, statistics of whole
        batches in its BatchNorm, and gradients that are the means over the processes."""
        return model

    def backward_of(self, last: bool) -> AbstractContextManager[object]:
        """Within it one part of a batch goes forward and back; gradients are exchanged with the last."""
        return nullcontext()

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return flag

    def sum(self, values: Tensor) -> Tensor:
        """Over the processes; of several, on the CPU."""
        return values

    def gather(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        """That of every process, by rank; for the leader alone, others get nothing."""
        return [state]

    def from_leader(self, read: Callable[[], Result]) -> Result:
        """What the leader reads."""
        return read()


ALONE = Group()


class Processes(Group):
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
        # None is the default group, which is over gloo on the CPU.
        self._hosts: Any = distributed.new_group(backend="gloo", timeout=PATIENCE) if on_gpu else None
        self._network: DistributedDataParallel | None = None

    def close(self) -> None:
        distributed.destroy_process_group()

    def wrap(self, model: nn.Module) -> nn.Module:
        device = next(model.parameters()).device
        share_statistics(model, device)
        # Buffers are BatchNorm's alone, and the same everywhere by themselves. Newer versions of torch call this otherwise.
        known = inspect.signature(DistributedDataParallel).parameters
        off: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
        self._network = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None, **off)
        return self._network

    def backward_of(self, last: bool) -> AbstractContextManager[object]:
        assert self._network is not None
        return nullcontext() if last else self._network.no_sync()

    def any(self, flag: bool) -> bool:
        flags = torch.tensor([int(flag)])
        distributed.all_reduce(flags, distributed.ReduceOp.MAX, group=self._hosts)
        return bool(flags)

    def sum(self, values: Tensor) -> Tensor:
        total = values.to("cpu", copy=True)
        distributed.all_reduce(total, group=self._hosts)
        return total

    def gather(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        states: list[dict[str, Any]] = [{}] * self.size
        distributed.gather_object(state, states if self.rank == 0 else None, group=self._hosts)
        return states if self.rank == 0 else []

    def from_leader(self, read: Callable[[], Result]) -> Result:
        box: list[Any] = [read() if self.rank == 0 else None]
        distributed.broadcast_object_list(box, group=self._hosts)
        return box[0]


# ------------------------------------------------------------------------------------------- statistics of whole batches


def share_statistics(model: nn.Module, device: torch.device) -> None:
    """Every BatchNorm of `model` sees the images of all processes at once, as in one process it sees those of a whole batch."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        # With all that it holds.
        if isinstance(module, nn.SyncBatchNorm):
            module.__class__ = SyncBatchNorm
        elif isinstance(module, nn.BatchNorm2d):
            module.__class__ = SharedBatchNorm2d


class _KeepingAll(TorchFunctionMode):
    """Within it no tensor is selected from by a mask."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__getitem__ and isinstance(args[1], Tensor) and args[1].dtype == torch.bool:
            return args[0]
        return func(*args, **(kwargs or {}))


class SyncBatchNorm(nn.SyncBatchNorm):
    """torch's own selects the processes that have images, for which each host waits for its GPU; here all have some."""

    def forward(self, x: Tensor) -> Tensor:
        with _KeepingAll():
            return super().forward(x)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """torch's SyncBatchNorm for tensors on the CPU, which that one refuses."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        normalised, mean, variance, count = _Normalisation.apply(x, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            running: Any = self  # torch types each as if it could be None
            with torch.no_grad():
                running.num_batches_tracked += 1
                running.running_mean.lerp_(mean, self.momentum)
                running.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
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
