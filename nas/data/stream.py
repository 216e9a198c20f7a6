"""Images that do not fit in the device's memory: a thread gathers each batch on the host, from where it is copied while the
device computes. And the choice between that and `Resident`.

The images stay in their memory-mapped files: all workers of a machine read one copy, the page cache's, and what does not fit
there is read again from the disk. Of resident images each worker has its own copy; to share one, a process beside the workers
would have to keep it. Its CUDA context alone takes more than the 150 MB of CIFAR, and with it every worker on that GPU would die.
"""

import sys
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from queue import SimpleQueue
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from nas.data.images import ImageSet, JoinedSet
from nas.data.loader import JoinedRows, Resident, Rows, parts_of

RESIDENT_SHARE = 0.5
"""Of a GPU's memory, the most that images take. The rest is for networks, whose size is not known yet: there a batch too many
fails a training, while a batch that is streamed is copied in the time of the one before."""
DEPTH = 2  # batches on the host at a time: one is gathered while the other is copied


def pick_storage(nbytes: int, device: torch.device, sharing: int = 1) -> type[Resident]:
    """`Resident` for so many bytes of images if they fit, else `Streamed`. `sharing`: workers on the device, each with a copy."""
    # A CPU computes with the mapped file itself; how much MPS has left, it does not say.
    return Streamed if device.type == "cuda" and nbytes > room_for_images(device, sharing) else Resident


def place(
    data: ImageSet | JoinedSet,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    indices: np.ndarray | None = None,
    *,
    sharing: int = 1,
) -> Resident:
    """The images on the device if they fit there, else streamed to it."""
    return pick_storage(bytes_of(data, indices), device, sharing)(data, mean, std, device, indices)


def bytes_of(data: ImageSet | JoinedSet, indices: np.ndarray | None) -> int:
    count = len(data) if indices is None else len(indices)
    return count * int(np.prod(data.arrays[0].shape[1:], dtype=np.int64))


def room_for_images(device: torch.device, sharing: int) -> int:
    """Bytes of a CUDA device's memory that one of so many workers may fill with images."""
    free, total = torch.cuda.mem_get_info(device)
    # What torch has taken from the device and holds in store for this process.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(RESIDENT_SHARE * min(free, total / sharing))


class Streamed(Resident):
    """Used as `Resident` is, but only labels and constants are on the device."""

    storage: ClassVar[str] = "streamed"

    def take(self, which: Tensor) -> tuple[Tensor, Tensor | None]:
        """As for resident images, but this waits for the device and the host: for a sample, not for an epoch."""
        images = self._rows.index_select(0, self._rows_at(which.cpu()))
        return images.to(self.device).permute(0, 3, 1, 2), self._labels_at(which)

    def walk(self, order: Tensor, size: int) -> Generator[tuple[Tensor, Tensor, Tensor | None], None, None]:
        fetch = fetched(order)

        def parts() -> Generator[Tensor, None, None]:
            yield from map(self._rows_at, parts_of(fetch(), size))

        with closing(gathered(self._rows, parts(), min(size, len(self)), self.device)) as batches:
            for chosen, images in zip(parts_of(order, size), batches, strict=True):
                yield chosen, images, self._labels_at(chosen)


def fetched(positions: Tensor) -> Callable[[], Tensor]:
    """Starts a copy to the host and returns at once; the function that it returns waits for the copy."""
    if positions.device.type != "cuda":
        return positions.cpu
    copy = torch.empty(positions.shape, dtype=positions.dtype, pin_memory=True)
    copy.copy_(positions, non_blocking=True)
    arrived = torch.cuda.Event(blocking=True)
    arrived.record(torch.cuda.current_stream(positions.device))

    def wait() -> Tensor:
        arrived.synchronize()
        return copy

    return wait


class _Slot:
    """The host's memory for one batch, page-locked where a GPU reads it, so that nobody has to wait for the copy."""

    def __init__(self, size: int, shape: torch.Size, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        with torch.inference_mode(False):  # in which an evaluation may be; then the thread, which is not, could not write here
            self.memory = torch.empty((size, *shape), dtype=torch.uint8, pin_memory=on_gpu)
        # Blocking, or else the waiting thread would keep a core busy.
        self._copied = torch.cuda.Event(blocking=True) if on_gpu else None
        self._device = device
        self._count = 0

    def fill(self, rows: Rows, part: Tensor) -> None:
        """Waits until the copy of what was here is done."""
        if self._copied is not None:
            self._copied.synchronize()
        self._count = len(part)
        if isinstance(rows, JoinedRows):
            rows.index_select(0, part, self.memory[: self._count])
        else:
            torch.index_select(rows, 0, part, out=self.memory[: self._count])

    def send(self) -> Tensor:
        """uint8 (B, H, W, C) on the device, copied on its current stream."""
        there = self.memory[: self._count].to(self._device, non_blocking=True, copy=True)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._device))
        return there


def gathered(rows: Rows, parts: Iterable[Tensor], size: int, device: torch.device) -> Generator[Tensor, None, None]:
    """uint8 (B, C, H, W) on the device, of each of `parts` in turn: those of the first dimension of `rows`, uint8 (N, H, W, C)
    on the host; `size` is the most that a part has.

    A thread reads them, `parts` included, and lives as long as this generator is not closed or at its end. What it raises is
    raised here.
    """
    free: SimpleQueue[_Slot | None] = SimpleQueue()
    full: SimpleQueue[_Slot | BaseException | None] = SimpleQueue()
    for _ in range(DEPTH):
        free.put(_Slot(size, rows.shape[1:], device))

    def gather() -> None:
        """Ends at the end of `parts`, or when it finds None free."""
        try:
            for part in parts:
                slot = free.get()
                if slot is None:
                    return
                slot.fill(rows, part)
                full.put(slot)
            full.put(None)
        except BaseException as error:
            full.put(error)

    # A daemon, so that one that is never closed does not keep the interpreter from ending.
    thread = threading.Thread(target=gather, name="nas-gather", daemon=True)
    thread.start()
    try:
        while (slot := full.get()) is not None:
            if isinstance(slot, BaseException):
                raise slot
            images = slot.send()
            free.put(slot)
            yield images.permute(0, 3, 1, 2)
    finally:
        slot = None  # an error refers to this frame, which is to refer to it no longer
        free.put(None)
        # Neither can be waited for: a thread once the interpreter ends, and the one in which garbage happens to be collected.
        if not sys.is_finalizing() and thread is not threading.current_thread():
            thread.join()
