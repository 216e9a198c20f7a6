"""Batches from images that live on the device, prepared while the device computes. Nothing here waits: no worker processes, no
copies from the host. (Images that do not fit on the device are in `nas.data.stream`.)

An epoch's order and each step's augmentation follow from (seed, epoch, step) and, with `hardest`, from the losses in the
checkpoint, so that a training that was cut off in the middle of an epoch continues exactly.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing
from functools import cache
from typing import ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from nas.config import TrainConfig
from nas.data.augment import Draw, augment
from nas.data.augment.mix import mix
from nas.data.hardest import Hardest
from nas.data.images import ImageSet, JoinedSet

PATTERN_PIXELS = 256
"""Normalisation's constants are repeated for so many pixels: a multiple of any vector's width, and short enough for a core's
first cache. Images of sides that 16 divides are made of such patterns."""
COPY_BYTES = 2**26  # selected images go to a device in parts of about this size, so that the host never holds more of them
Batch = TypeVar("Batch")


def mix_seed(*parts: int) -> int:
    """A 63-bit seed in which every part matters; equal parts give equal seeds on every machine."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1


class Resident:
    """Labelled or unlabelled uint8 images on a device, normalised when they are used."""

    storage: ClassVar[str] = "resident"

    def __init__(
        self,
        data: ImageSet | JoinedSet | np.ndarray,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        indices: np.ndarray | None = None,
    ) -> None:
        """`data`: with labels, or uint8 (N, H, W, C) without. With `indices`, only those; on the CPU no image is copied."""
        self.device = device
        self._mean = torch.tensor(mean, device=device).repeat(PATTERN_PIXELS)
        self._scale = (1.0 / torch.tensor(std, device=device)).repeat(PATTERN_PIXELS)
        self._rows = rows_of((data,) if isinstance(data, np.ndarray) else data.arrays)  # uint8 (M, H, W, C)
        self._chosen = None if indices is None else torch.from_numpy(indices)  # int64 (N,), the rows in use; None: all
        self.labels: Tensor | None = None  # int64 (N,), on the device
        if not isinstance(data, np.ndarray):
            labels = torch.from_numpy(np.asarray(data.labels))
            self.labels = (labels if self._chosen is None else labels[self._chosen]).to(device)
        if self.storage == "resident" and device.type != "cpu":
            self._rows, self._chosen = copied(self._rows, self._chosen, device), None

    def __len__(self) -> int:
        return len(self._rows) if self._chosen is None else len(self._chosen)

    def take(self, which: Tensor) -> tuple[Tensor, Tensor | None]:
        """At positions int64 (B,): images uint8 (B, C, H, W), channels last in memory, as convolutions want, and labels (B,)."""
        # Not plain indexing, which would go through strides that all of the dimensions share.
        return self._rows.index_select(0, self._rows_at(which)).permute(0, 3, 1, 2), self._labels_at(which)

    def _rows_at(self, which: Tensor) -> Tensor:
        return which if self._chosen is None else self._chosen[which]

    def _labels_at(self, which: Tensor) -> Tensor | None:
        return None if self.labels is None else self.labels.index_select(0, which)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) → float32 of mean 0 and deviation 1, channels last."""
        normalised = images.to(torch.float32, copy=True).contiguous(memory_format=torch.channels_last)
        # As one row of numbers, because the inner loop over a mean for each channel would be three steps long.
        flat = normalised.permute(0, 2, 3, 1).view(-1)
        rest = len(flat) % len(self._mean)
        _normalise_rows(flat[: len(flat) - rest].view(-1, len(self._mean)), self._mean, self._scale)
        if rest:
            _normalise_rows(flat[-rest:], self._mean[:rest], self._scale[:rest])
        return normalised

    def sample(self, count: int) -> Tensor:
        """At most `count` images spread evenly over the set, normalised (N, C, H, W)."""
        stride = -(-len(self) // count)
        return self.normalise(self.take(torch.arange(0, len(self), stride, device=self.device))[0])

    def batches(self, size: int) -> Generator[tuple[Tensor, Tensor | None], None, None]:
        """All images in order, normalised (B, C, H, W), with their labels (B,)."""
        return ahead(self._in_order(size), self.device)

    def _in_order(self, size: int) -> Generator[tuple[Tensor, Tensor | None], None, None]:
        with closing(self.walk(torch.arange(len(self), device=self.device), size)) as taken:
            for _, images, labels in taken:
                yield self.normalise(images), labels

    def walk(self, order: Tensor, size: int) -> Generator[tuple[Tensor, Tensor, Tensor | None], None, None]:
        """`order`, int64 positions, in parts (B,) of `size`, each with its uint8 images (B, C, H, W) and labels (B,)."""
        for chosen in parts_of(order, size):
            yield chosen, *self.take(chosen)


class SideStream:
    """A CUDA stream beside the consumer's, which is the device's current one. Nothing here makes the host wait."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def working(self) -> AbstractContextManager[object]:
        """Within it, work goes to this stream."""
        return torch.cuda.stream(self._stream)

    def wait_for_consumer(self) -> None:
        """What is queued here from now on begins when what the consumer has queued so far is done."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def hand_over(self) -> None:
        """What the consumer queues from now on begins when what is queued here so far is done."""
        torch.cuda.current_stream(self._device).wait_stream(self._stream)


side_stream = cache(SideStream)
"""One for the process's whole life: torch keeps the memory freed on a stream for that stream alone."""


def ahead(batches: Generator[Batch, None, None], device: torch.device) -> Generator[Batch, None, None]:
    """The same batches; on CUDA each is prepared while its predecessor is in use."""
    return one_ahead(batches, side_stream(device)) if device.type == "cuda" else batches


def one_ahead(batches: Generator[Batch, None, None], side: SideStream) -> Generator[Batch, None, None]:
    """`batches`, each prepared one step early on the side stream.

    Before each batch the side stream waits for all that the consumer has queued, which is its work on the batches before. So
    memory that the consumer has freed is overwritten only after its last use, and at most three batches exist, however far the
    host is ahead of the device. `Tensor.record_stream` would protect that memory, too, but keeps it from the allocator until the
    host happens to see that the device is done, and so grows with the host's lead.
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
            side.hand_over()  # also of a batch that nobody asks for: its sources may now be freed and their memory overwritten


class JoinedRows:
    """Several tensors uint8 (N, H, W, C) on the host, as if concatenated; only what is selected is copied."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])
        self.shape = torch.Size((int(self._ends[-1]), *parts[0].shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def index_select(self, dim: int, index: Tensor, out: Tensor | None = None) -> Tensor:
        """As a tensor's, of the first dimension."""
        result = torch.empty((len(index), *self.shape[1:]), dtype=self._parts[0].dtype) if out is None else out
        for part, end in zip(self._parts, self._ends, strict=True):
            here = torch.nonzero((index >= end - len(part)) & (index < end)).squeeze(1)
            result[here] = part.index_select(0, index[here] - (end - len(part)))
        return result


Rows = Tensor | JoinedRows


def rows_of(arrays: Sequence[np.ndarray]) -> Rows:
    parts = [torch.from_numpy(array) for array in arrays]
    return parts[0] if len(parts) == 1 else JoinedRows(parts)


def parts_of(positions: Tensor, size: int) -> Generator[Tensor, None, None]:
    """Unlike `Tensor.split`, no part of an empty tensor."""
    for start in range(0, len(positions), size):
        yield positions[start : start + size]


def copied(images: Rows, indices: Tensor | None, device: torch.device) -> Tensor:
    """uint8 (N, H, W, C) on the device."""
    if indices is None:
        if isinstance(images, Tensor):
            return images.to(device)
        indices = torch.arange(len(images))
    result = torch.empty((len(indices), *images.shape[1:]), dtype=torch.uint8, device=device)
    count = max(1, COPY_BYTES // images.shape[1:].numel())
    for there, part in zip(parts_of(result, count), parts_of(indices, count), strict=True):
        there.copy_(images.index_select(0, part))
    return result


def _normalise_rows(rows: Tensor, mean: Tensor, scale: Tensor) -> None:
    # Not addcmul, in which a number's last bit would depend on whether it is multiplied and added in one step.
    rows.sub_(mean).mul_(scale)


class TrainBatches:
    """Shuffled, augmented batches; the last, incomplete one of an epoch is left out."""

    def __init__(
        self,
        data: Resident,
        recipe: TrainConfig,
        seed: int,
        classes: int,
        part: Callable[[int], slice] = slice,
    ) -> None:
        """`data` has labels of so many `classes`. With `recipe.epoch_images` an epoch continues the pass over the data that the
        one before began. With `recipe.hardest` below 1, `self.hardest.record` has to be told the losses of each batch.
        `part(batch size)` selects the images of each batch that are returned; the batch is drawn, augmented and mixed as a whole,
        so that its parts belong to one and the same batch on whatever devices they train."""
        assert data.labels is not None
        self.data = data
        self.labels = data.labels
        self.classes = classes
        self.hardest = Hardest(len(data), recipe.hardest, data.device) if recipe.hardest < 1 else None
        images = self.hardest.count if self.hardest else len(data)  # of a pass
        self.batch_size = min(recipe.batch_of(len(data)), recipe.epoch_images or images)  # of the whole batch
        self.pass_steps = images // self.batch_size
        self.steps = (recipe.epoch_images or images) // self.batch_size  # of an epoch
        self.part = part(self.batch_size)
        self.augmentation = recipe.augment
        self.seed = seed
        self._generator = torch.Generator(device=data.device)
        self._by_class: tuple[Tensor, Tensor] | None = None
        """Where images are drawn by class: positions int64 (N,) by class, and how many each class has that there is."""
        if recipe.class_balance == "sampling":
            order = torch.argsort(self.labels, stable=True)
            self._by_class = order, torch.unique_consecutive(self.labels[order], return_counts=True)[1]

    def __len__(self) -> int:
        """Steps an epoch."""
        return self.steps

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Images, normalised (B, C, H, W), and labels (B,) of the steps from `first_step` on; where the configuration mixes
        images, targets float (B, classes) instead, also of a batch that is not mixed."""
        if self.hardest:
            return self._pass_by_pass(epoch, first_step)
        return ahead(self._prepared(epoch, first_step), self.data.device)

    def class_weights(self) -> Tensor:
        """float32 (classes,): the weight of an image of each class, so that all classes weigh the same and the mean weight
        is 1 (scikit-learn's "balanced"); 0 for a class without images."""
        counts = torch.bincount(self.labels, minlength=self.classes)
        there = int((counts > 0).sum())
        return torch.where(counts > 0, len(self.data) / (there * counts.clamp(min=1)), 0.0).float()

    def _order(self) -> Tensor:
        """int64 (N,): a permutation, or positions drawn by class."""
        device, lots = self.data.device, self._generator
        if self._by_class is None:
            return torch.randperm(len(self.data), generator=lots, device=device)
        by_class, counts = self._by_class
        drawn = torch.randint(len(counts), (len(self.data),), generator=lots, device=device)
        within = torch.rand(len(self.data), generator=lots, device=device, dtype=torch.float32) * counts[drawn]
        return by_class[(counts.cumsum(0) - counts)[drawn] + within.long().clamp(max=counts[drawn] - 1)]

    def _prepared(self, epoch: int, first_step: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        for number, first, last in self._passes(epoch, first_step):
            yield from self._of_pass(number, first, last)

    def _pass_by_pass(self, epoch: int, first_step: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Prepares the first batch of a pass only once all losses of the pass before are known."""
        for number, first, last in self._passes(epoch, first_step):
            assert self.hardest
            self.hardest.begin()
            yield from ahead(self._of_pass(number, first, last), self.data.device)

    def _passes(self, epoch: int, first_step: int) -> Generator[tuple[int, int, int], None, None]:
        """The passes over the data that an epoch consists of from `first_step` on: of each its number, its first step, and the
        one after its last."""
        step, end = epoch * self.steps + first_step, (epoch + 1) * self.steps
        while step < end:
            number, first = divmod(step, self.pass_steps)
            last = min(self.pass_steps, first + end - step)
            yield number, first, last
            step += last - first

    def _of_pass(self, number: int, first: int, last: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """The steps from `first` up to `last` of the pass over the data of that number."""
        self._generator.manual_seed(mix_seed(self.seed, number))
        order = self._order()
        if self.hardest:
            order = self.hardest.of_pass(number, order)
        with closing(self.data.walk(order[first * self.batch_size : last * self.batch_size], self.batch_size)) as taken:
            for step, (chosen, images, labels) in enumerate(taken, first):
                assert labels is not None
                if self.hardest:
                    self.hardest.give(chosen)
                times = self.hardest.uses[chosen] if self.hardest else number
                draw = Draw.seeded(mix_seed(self.seed, number, step + 1), chosen, times, self.seed)
                augmented = augment(images, self.augmentation, draw)
                if self.augmentation.mix == "none":
                    yield self.data.normalise(augmented[self.part]), labels[self.part]
                else:
                    mixed, targets = mix(self.data.normalise(augmented), labels, self.classes, self.augmentation, draw)
                    yield mixed[self.part], targets[self.part]
