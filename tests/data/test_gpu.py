"""Batches prepared on a stream of their own, and images streamed to the device: what only a CUDA device can show."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.data import stream
from nas.data.augment import EXAMPLES, NOTHING
from nas.data.images import ImageSet
from nas.data.loader import Resident, copied
from nas.data.stream import Streamed, place, room_for_images
from nas.train.evaluate import predict_logits
from tests.data.pictures import pictures
from tests.data.test_stream import CHOSEN, FP32, INDICES, MEAN, STD, N, batches_of, equal

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]
KINDS = pytest.mark.parametrize("kind", [Resident, Streamed], ids=["resident", "streamed"])


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", 0)


@pytest.fixture
def images() -> ImageSet:
    return ImageSet(pictures(N, 3, 8).permute(0, 2, 3, 1).contiguous().numpy(), np.arange(N, dtype=np.int64) % 5)


def busily(batches: Iterable[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Copies of them, each made late on the device, when the host has long prepared the next: one that is written over too soon
    would show."""
    work = torch.randn(2048, 2048, device="cuda")
    copies = []
    for one, labels in batches:
        for _ in range(10):
            work = torch.tanh(work @ work)
        copies.append((one.clone(), labels.clone()))
    return copies


@contextmanager
def waiting_refused() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@KINDS
@pytest.mark.parametrize("label", EXAMPLES)
def test_batches_prepared_ahead_are_those_prepared_in_place_and_wait_for_nothing(
    images: ImageSet, device: torch.device, kind: type[Resident], label: str
) -> None:
    batches = batches_of(kind(images, MEAN, STD, device, CHOSEN), EXAMPLES[label])
    list(batches.epoch(0))  # loads kernels
    with waiting_refused():
        kept = list(batches.epoch(1))
    assert equal(kept, list(batches._prepared(1, 0)))
    for first_step in (0, 3):
        assert equal(busily(batches.epoch(2, first_step)), list(batches._prepared(2, first_step)))


@KINDS
def test_batches_for_evaluation_prepared_ahead_are_those_prepared_in_place_and_wait_for_nothing(
    images: ImageSet, device: torch.device, kind: type[Resident]
) -> None:
    data = kind(images, MEAN, STD, device)
    assert equal(busily(data.batches(16)), list(data._in_order(16)))  # type: ignore[arg-type]
    with waiting_refused():
        for _ in data.batches(16):
            pass


@KINDS
def test_the_memory_of_batches_is_used_again(device: torch.device, kind: type[Resident]) -> None:
    """However far the host is ahead."""
    many = ImageSet(np.zeros((4096, 32, 32, 3), np.uint8), np.zeros(4096, np.int64))
    batches = batches_of(kind(many, MEAN, STD, device), NOTHING, 64)
    work = torch.randn(4096, 4096, device=device)
    work @ work  # takes memory for the libraries' own use
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    for one, _ in batches.epoch(0):
        for _ in range(5):
            torch.matmul(work, work, out=torch.empty_like(work))
        one.sum()
    torch.cuda.synchronize()
    batch = 64 * 32 * 32 * 3 * 4
    assert torch.cuda.max_memory_allocated() - before < 8 * batch + work.nbytes


@KINDS
def test_an_epoch_that_is_abandoned_leaves_nothing_behind(images: ImageSet, device: torch.device, kind: type[Resident]) -> None:
    batches = batches_of(kind(images, MEAN, STD, device))
    epoch = batches.epoch(0)
    next(epoch)
    del epoch
    assert not [thread for thread in threading.enumerate() if thread.name == "nas-gather"]
    assert equal(busily(batches.epoch(0)), list(batches._prepared(0, 0)))


@INDICES
def test_streamed_images_are_the_resident_ones(images: ImageSet, device: torch.device, indices: np.ndarray | None) -> None:
    both = [kind(images, MEAN, STD, device, indices) for kind in (Resident, Streamed)]
    for first_step in (0, 3):
        assert equal(*(busily(batches_of(data).epoch(1, first_step)) for data in both))
    model = nn.Flatten().to(device)
    assert torch.equal(*(predict_logits(model, data, FP32, batch=16) for data in both))
    assert torch.equal(*(data.sample(20) for data in both))


def test_slots_are_page_locked(device: torch.device) -> None:
    slot = stream._Slot(4, torch.Size([8, 8, 3]), device)
    assert slot.memory.is_pinned()


def test_what_does_not_fit_is_streamed(images: ImageSet, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    _, total = torch.cuda.mem_get_info(device)
    assert 0 < room_for_images(device, 2) <= total / 4
    data = place(images, MEAN, STD, device)
    assert data.storage == "resident"
    assert data.take(torch.zeros(1, dtype=torch.int64, device=device))[0].device == data._rows.device == device  # type: ignore[union-attr]
    monkeypatch.setattr(stream, "RESIDENT_SHARE", 1e-12)
    data = place(images, MEAN, STD, device)
    assert data.storage == "streamed"
    assert data._rows.device.type == "cpu"  # type: ignore[union-attr]
    assert data.labels.device == device


def test_chosen_images_are_copied_whole(images: ImageSet, device: torch.device) -> None:
    there = copied(torch.from_numpy(images.images), torch.from_numpy(CHOSEN), device)
    np.testing.assert_array_equal(there.cpu(), images.images[CHOSEN])
