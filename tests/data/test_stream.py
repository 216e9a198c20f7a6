"""Streamed images are to their user what resident ones are, and the thread that gathers them outlives nobody's use."""

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.config import ArchConfig, AugmentConfig, ImageShape, StageConfig, TrainConfig
from nas.data import loader, stream
from nas.data.images import ImageSet, JoinedSet
from nas.data.loader import JoinedRows, Resident, TrainBatches
from nas.data.stream import Streamed, bytes_of, gathered, pick_storage, place, room_for_images
from nas.device import Precision
from nas.models import build_model
from nas.paths import TrialPaths
from nas.train.evaluate import Stopped, predict_logits, tally
from nas.train.loop import fit
from tests.data.pictures import pictures

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MEAN, STD = [120.0, 100.0, 90.0], [60.0, 50.0, 70.0]
FP32 = Precision(None, False, "for the test")
N = 90
CHOSEN = np.sort(np.random.default_rng(1).permutation(N)[:61])
INDICES = pytest.mark.parametrize("indices", [None, CHOSEN], ids=["all", "chosen"])
EVERYTHING = AugmentConfig(policy="autoaugment", erasing=0.5, flip="alternating", mix="mixup_or_cutmix", mix_p=0.5)


@pytest.fixture
def mapped(tmp_path: Path) -> ImageSet:
    """As the cache has them."""
    np.save(tmp_path / "images.npy", pictures(N, 3, 8).permute(0, 2, 3, 1).contiguous().numpy())
    return ImageSet(np.load(tmp_path / "images.npy", mmap_mode="c"), np.arange(N, dtype=np.int64) % 5)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert gatherers() == []


def gatherers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "nas-gather"]


def both(data: ImageSet, indices: np.ndarray | None = None) -> tuple[Resident, Streamed]:
    return Resident(data, MEAN, STD, CPU, indices), Streamed(data, MEAN, STD, CPU, indices)


def equal(one: Any, other: Any) -> bool:
    """Bit by bit, and images in the same layout."""
    return len(one) == len(other) and all(
        torch.equal(a, b) and a.dtype == b.dtype and (a.ndim < 4 or a.stride() == b.stride())
        for pair in zip(one, other, strict=True)
        for a, b in zip(*pair, strict=True)
    )


def batches_of(data: Resident, config: AugmentConfig = EVERYTHING, size: int = 8) -> TrainBatches:
    return TrainBatches(data, TrainConfig(batch_size=size, augment=config), 7, 5)


@pytest.fixture
def joined(mapped: ImageSet, tmp_path: Path) -> JoinedSet:
    """The same images and labels in three files."""
    parts = []
    for i, part in enumerate((slice(0, 40), slice(40, 41), slice(41, N))):
        np.save(tmp_path / f"{i}.npy", mapped.images[part])
        parts.append(ImageSet(np.load(tmp_path / f"{i}.npy", mmap_mode="c"), mapped.labels[part]))
    return JoinedSet(tuple(parts))


@pytest.mark.parametrize("kind", [Resident, Streamed])
@INDICES
def test_several_arrays_are_as_one(kind: type[Resident], indices: np.ndarray | None, mapped: ImageSet, joined: JoinedSet) -> None:
    one, several = (kind(data, MEAN, STD, CPU, indices) for data in (mapped, joined))
    assert len(one) == len(several)
    assert equal(list(batches_of(one).epoch(1)), list(batches_of(several).epoch(1)))
    assert equal(list(one.batches(17)), list(several.batches(17)))
    assert torch.equal(one.sample(13), several.sample(13))
    assert bytes_of(joined, indices) == bytes_of(mapped, indices)


def test_several_arrays_stay_where_they_are(joined: JoinedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def whole(*arrays: Any, **keywords: Any) -> None:
        raise AssertionError("joined in memory")

    monkeypatch.setattr(JoinedSet, "labels", joined.labels)
    monkeypatch.setattr(np, "concatenate", whole)
    data = Resident(joined, MEAN, STD, CPU)
    assert isinstance(data._rows, JoinedRows)
    assert all(np.shares_memory(rows.numpy(), part.images) for rows, part in zip(data._rows._parts, joined.parts, strict=True))
    assert len(list(data.walk(torch.randperm(N), 8))) == 12


@INDICES
def test_what_is_copied_to_a_device_is_copied_whole(
    indices: np.ndarray | None, mapped: ImageSet, joined: JoinedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = None if indices is None else torch.from_numpy(indices)
    for rows in (loader.rows_of(joined.arrays), loader.rows_of(mapped.arrays)):
        for nbytes in (1, 7 * 8 * 8 * 3, 2**26):
            monkeypatch.setattr(loader, "COPY_BYTES", nbytes)
            there = loader.copied(rows, chosen, CPU)
            np.testing.assert_array_equal(there.numpy(), mapped.images if indices is None else mapped.images[indices])


@INDICES
@pytest.mark.parametrize("config", [AugmentConfig(), EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("first_step", [0, 1, 5, 7])
def test_an_epochs_batches_are_the_same(
    mapped: ImageSet, indices: np.ndarray | None, config: AugmentConfig, first_step: int
) -> None:
    resident, streamed = (batches_of(data, config) for data in both(mapped, indices))
    for epoch in (0, 3):
        assert equal(list(resident.epoch(epoch, first_step)), list(streamed.epoch(epoch, first_step)))
    whole = list(streamed.epoch(3))
    assert equal(whole[first_step:], list(streamed.epoch(3, first_step)))


def test_batches_that_are_kept_are_not_written_over(mapped: ImageSet) -> None:
    data = both(mapped)[1]
    order = torch.arange(N).flip(0)
    kept = list(data.walk(order, 4))
    assert torch.equal(torch.cat([images for _, images, _ in kept]), data.take(order)[0])


@INDICES
def test_images_in_order_a_sample_and_an_evaluation_are_the_same(mapped: ImageSet, indices: np.ndarray | None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
    resident, streamed = both(mapped, indices)
    assert len(resident) == len(streamed)
    for size in (1, 20, 61, 90, 1000):
        assert equal(list(resident.batches(size)), list(streamed.batches(size)))
    which = torch.tensor([5, 5, 0, 60])
    assert equal([resident.take(which)], [streamed.take(which)])
    assert torch.equal(resident.sample(17), streamed.sample(17))
    assert torch.equal(*(predict_logits(model, data, FP32, batch=16) for data in (resident, streamed)))
    assert torch.equal(*(tally(model, data, FP32, batch=16) for data in (resident, streamed)))


def test_a_training_is_the_same(mapped: ImageSet, tmp_path: Path) -> None:
    arch = ArchConfig(stages=(StageConfig(blocks=1, channels=8),))
    config = TrainConfig(epochs=2, batch_size=16, lr=0.1, augment=EVERYTHING)
    results = []
    for data in (kind(mapped, MEAN, STD, CPU, CHOSEN) for kind in (Resident, Streamed)):
        torch.manual_seed(0)
        model = build_model(arch, ImageShape(channels=3, size=8, classes=5))
        batches, paths = batches_of(data, size=16), TrialPaths(tmp_path / data.storage)
        result = fit(model, batches, data, config, lambda _: True, paths=paths, precision=FP32, seed=0, identity="it")
        results.append((result.model.state_dict(), [(m.train_loss, m.ema_val_loss) for m in result.curve]))
    (one, curve), (other, same_curve) = results
    assert curve == same_curve
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_images_without_labels(mapped: ImageSet) -> None:
    streamed = Streamed(mapped.images, MEAN, STD, CPU)
    assert streamed.take(torch.arange(3))[1] is None
    batches = list(streamed.batches(40))
    assert [labels for _, labels in batches] == [None] * 3
    assert torch.equal(torch.cat([images for images, _ in batches]), both(mapped)[0].sample(N))


def test_the_images_stay_where_they_are_mapped(mapped: ImageSet) -> None:
    streamed = both(mapped, CHOSEN)[1]
    assert np.shares_memory(streamed._rows.numpy(), mapped.images)  # type: ignore[union-attr]
    assert streamed.labels.tolist() == (CHOSEN % 5).tolist()


@pytest.mark.parametrize("steps", [0, 1, 3, 11])
def test_an_epoch_that_ends_or_is_abandoned_leaves_no_thread(steps: int, mapped: ImageSet) -> None:
    epoch = batches_of(both(mapped)[1]).epoch(0)
    assert gatherers() == []
    for step in range(steps):
        next(epoch)
        assert step > 0 or len(gatherers()) == 1
    if steps == 11:
        assert next(epoch, None) is None
    del epoch
    assert gatherers() == []


def test_an_evaluation_that_is_stopped_leaves_no_thread(mapped: ImageSet) -> None:
    with pytest.raises(Stopped):
        predict_logits(nn.Flatten(), both(mapped)[1], FP32, batch=8, should_stop=lambda: True)
    assert gatherers() == []


def test_what_the_thread_raises_reaches_the_caller(mapped: ImageSet) -> None:
    streamed = both(mapped)[1]
    walk = streamed.walk(torch.tensor([0, 1, 2, 3, N, 4]), 2)
    next(walk)
    next(walk)
    with pytest.raises((IndexError, RuntimeError), match="index out of range"):
        next(walk)
    assert gatherers() == []


def test_the_thread_is_no_more_than_two_batches_ahead(mapped: ImageSet) -> None:
    asked: list[int] = []

    def parts() -> Iterator[Tensor]:
        for step in range(10):
            asked.append(step)
            yield torch.tensor([step])

    images = gathered(torch.from_numpy(mapped.images), parts(), 1, CPU)
    for step in range(3):
        next(images)
        deadline = time.monotonic() + 60
        while len(asked) < step + 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert asked == list(range(step + 4)), "two are gathered, and the next waits for room"
    images.close()


def test_an_error_keeps_no_batch_alive(mapped: ImageSet) -> None:
    def parts() -> Iterator[Tensor]:
        yield torch.tensor([0])
        raise ZeroDivisionError

    images = gathered(torch.from_numpy(mapped.images), parts(), 1, CPU)
    next(images)
    try:
        next(images)
    except ZeroDivisionError as error:
        frames = []
        trace = error.__traceback__
        while trace is not None:
            frames.append(trace.tb_frame)
            trace = trace.tb_next
        caught = error
    assert all(frame.f_locals.get("slot") is not caught for frame in frames)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`gpu(free, total, held)`: as torch shows a GPU; `held` by its allocator, and not in use."""

    def make(free: int, total: int, held: int = 0) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, total))
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 + held)

    return make


@pytest.mark.parametrize(
    ("free", "total", "held", "sharing", "room"),
    [
        (1000, 1000, 0, 1, 500),
        (1000, 1000, 0, 4, 125),
        (400, 1000, 0, 1, 200),
        (400, 1000, 200, 1, 300),
        (400, 1000, 0, 4, 125),
        (0, 1000, 0, 1, 0),
    ],
)
def test_the_room_for_images(gpu: Any, free: int, total: int, held: int, sharing: int, room: int) -> None:
    gpu(free, total, held)
    assert room_for_images(CUDA, sharing) == room
    assert pick_storage(room, CUDA, sharing) is Resident
    assert pick_storage(room + 1, CUDA, sharing) is Streamed


@pytest.mark.parametrize("device", [CPU, torch.device("mps")])
def test_elsewhere_images_are_resident(device: torch.device) -> None:
    assert pick_storage(2**60, device) is Resident


def test_what_counts_is_what_is_used(mapped: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bytes_of(mapped, None) == mapped.images.nbytes
    assert bytes_of(mapped, CHOSEN) == len(CHOSEN) * 8 * 8 * 3
    asked: list[int] = []

    def pick(nbytes: int, *_: Any) -> type[Resident]:
        asked.append(nbytes)
        return Streamed

    assert place(mapped, MEAN, STD, CPU).storage == "resident"
    monkeypatch.setattr(stream, "pick_storage", pick)
    data = place(mapped, MEAN, STD, CPU, CHOSEN)
    assert (data.storage, len(data), asked) == ("streamed", len(CHOSEN), [len(CHOSEN) * 8 * 8 * 3])
