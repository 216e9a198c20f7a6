"""The next batch is prepared on a CUDA stream of its own while the device computes with the one before it.

Knows iterators and streams; knows nothing of what a batch is made of. Where there is no CUDA, nothing is done ahead.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, closing
from functools import cache
from typing import Protocol, TypeVar

import torch

Batch = TypeVar("Batch")


class Side(Protocol):
    """A queue of work beside the consumer's. Every method returns at once: the device waits, the host never does."""

    def working(self) -> AbstractContextManager[object]:
        """Within it, work goes to this queue."""
        ...

    def wait_for_consumer(self) -> None:
        """What is queued here from now on begins when what the consumer has queued so far is done."""
        ...

    def hand_over(self) -> None:
        """What the consumer queues from now on begins when what is queued here so far is done."""
        ...


class SideStream:
    """The consumer is whoever works on the device's current stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def working(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)

    def wait_for_consumer(self) -> None:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def hand_over(self) -> None:
        torch.cuda.current_stream(self._device).wait_stream(self._stream)


@cache
def side_stream(device: torch.device) -> SideStream:
    """One for the process's whole life: torch keeps the memory freed on a stream for that stream alone."""
    return SideStream(device)


def ahead(batches: Generator[Batch, None, None], device: torch.device) -> Generator[Batch, None, None]:
    """The same batches; on CUDA each is prepared while its predecessor is in use."""
    return one_ahead(batches, side_stream(device)) if device.type == "cuda" else batches


def one_ahead(batches: Generator[Batch, None, None], side: Side) -> Generator[Batch, None, None]:
    """`batches`, each drawn from them one step early and beside the consumer's work.

    The side waits before each batch for all that the consumer has queued, which is what it does with the batches before. So
    memory that the consumer has let go of is written anew only after its last use, and at most three batches exist, however
    far the host is ahead of the device. `Tensor.record_stream` would protect that memory, too, but keeps it from the
    allocator until the host happens to see that the device is done, and so grows with the host's lead.
    """

    def prepare() -> Batch | None:
        side.wait_for_consumer()
        with side.working():
            return next(batches, None)

    with closing(batches):
        try:
            upcoming = prepare()
            while (batch := upcoming) is not None:
                side.hand_over()
                upcoming = prepare()
                yield batch
        finally:
            side.hand_over()  # also of a batch that nobody asks for: its sources may now be freed and their memory used anew
