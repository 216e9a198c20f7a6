"""Batches that are prepared ahead, on a device that can be watched: two queues of work, done in any order that they allow."""

import random
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch

from nas.data.loader import ahead, one_ahead

STEPS = 8


class Queue:
    def __init__(self) -> None:
        self.work: list[Callable[[], None] | tuple[Queue, int]] = []
        """What to do, or another queue and how much of it has to be done before anything further here."""
        self.done = 0

    def may_go_on(self) -> bool:
        if self.done == len(self.work):
            return False
        head = self.work[self.done]
        return not isinstance(head, tuple) or head[0].done >= head[1]

    def go_on(self) -> None:
        head = self.work[self.done]
        if not isinstance(head, tuple):
            head()
        self.done += 1


class Device:
    """The host only queues, and is done before the device begins: as far ahead as it can get. As torch's allocator does, memory
    that the host frees is given out again at once, to whoever allocates on the same queue."""

    def __init__(self) -> None:
        self.main, self.side = Queue(), Queue()
        self.current = self.main
        self.memory: list[int | None] = []
        self.free: list[int] = []

    # What `one_ahead` knows of it.

    @contextmanager
    def _on_side(self) -> Iterator[None]:
        self.current = self.side
        try:
            yield
        finally:
            self.current = self.main

    def working(self) -> AbstractContextManager[object]:
        return self._on_side()

    def wait_for_consumer(self) -> None:
        self.side.work.append((self.main, len(self.main.work)))

    def hand_over(self) -> None:
        self.main.work.append((self.side, len(self.side.work)))

    # What the test does with it.

    def batch(self, value: int) -> "Batch":
        if not self.free:
            self.free.append(len(self.memory))
            self.memory.append(None)
        batch = Batch(self.free.pop())
        weakref.finalize(batch, self.free.append, batch.place)
        place = batch.place
        self.current.work.append(lambda: self.memory.__setitem__(place, value))
        return batch

    def read(self, batch: "Batch", seen: list[int | None]) -> None:
        place = batch.place
        self.current.work.append(lambda: seen.append(self.memory[place]))

    def run(self, chance: random.Random) -> None:
        while ready := [queue for queue in (self.main, self.side) if queue.may_go_on()]:
            chance.choice(ready).go_on()
        assert self.main.done == len(self.main.work), "the queues wait for each other"
        assert self.side.done == len(self.side.work), "the queues wait for each other"


class Batch:
    def __init__(self, place: int) -> None:
        self.place = place


def prepared(device: Device, steps: int = STEPS) -> Generator[Batch, None, None]:
    for step in range(steps):
        yield device.batch(step)


def consumed(device: Device, seed: int) -> list[int | None]:
    """What the consumer finds in each batch, which it reads twice and lets go of when it asks for the next."""
    seen: list[int | None] = []
    for batch in one_ahead(prepared(device), device):
        device.read(batch, seen)
        device.read(batch, seen)
    device.run(random.Random(seed))
    return seen


WANTED = [step for step in range(STEPS) for _ in range(2)]


def test_the_consumer_finds_every_batch_whole_in_whatever_order_the_device_works() -> None:
    for seed in range(200):
        device = Device()
        assert consumed(device, seed) == WANTED
        assert len(device.memory) <= 3


@pytest.mark.parametrize("wait", ["wait_for_consumer", "hand_over"])
def test_neither_wait_can_be_left_out(wait: str) -> None:
    def spoils(seed: int) -> bool:
        device = Device()
        setattr(device, wait, lambda: None)
        return consumed(device, seed) != WANTED

    assert any(map(spoils, range(200)))


def test_a_batch_is_prepared_beside_the_step_before() -> None:
    """There is an order in which the second batch is ready before the first is read."""
    device = Device()
    seen: list[int | None] = []
    batches = one_ahead(prepared(device), device)
    device.read(next(batches), seen)
    while device.side.done < len(device.side.work):
        (device.side if device.side.may_go_on() else device.main).go_on()
    assert len(device.memory) == 2
    assert seen == []


@pytest.mark.parametrize("steps", [0, 1, 2, STEPS])
def test_batches_that_are_kept_stay_what_they_are(steps: int) -> None:
    device = Device()
    kept = list(one_ahead(prepared(device, steps), device))
    seen: list[int | None] = []
    for batch in kept:
        device.read(batch, seen)
    device.run(random.Random(0))
    assert seen == list(range(steps))


def test_what_nobody_asks_for_any_more_is_waited_for_and_closed() -> None:
    device, closed = Device(), []

    def watched() -> Generator[Batch, None, None]:
        try:
            yield from prepared(device)
        finally:
            closed.append(len(device.memory))

    batches = one_ahead(watched(), device)
    next(batches)
    batches.close()
    assert closed == [2], "of the batches after the first, one was prepared"
    assert device.main.work[-1] == (device.side, len(device.side.work))
    device.run(random.Random(0))


def test_an_error_while_preparing_reaches_the_consumer() -> None:
    def broken() -> Generator[Batch, None, None]:
        yield device.batch(0)
        raise ZeroDivisionError

    device = Device()
    batches = one_ahead(broken(), device)
    with pytest.raises(ZeroDivisionError):
        next(batches)
    assert device.current is device.main
    device.run(random.Random(0))


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_without_cuda_nothing_is_done_ahead(kind: str) -> None:
    batches = prepared(Device())
    assert ahead(batches, torch.device(kind)) is batches
