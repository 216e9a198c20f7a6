"""Batches from images that live on the device. Nothing here waits: no worker processes, no copies from the host.

An epoch's order and each step's augmentation follow from (seed, epoch, step) alone, so that a training that was cut off
in the middle of an epoch continues exactly.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from nas.config import AugmentConfig
from nas.data.augment import Draw, augment, mix
from nas.data.datasets import ImageSet


def mix_seed(*parts: int) -> int:
    """A 63-bit seed in which every part matters; equal parts give equal seeds on every machine."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1


class Resident:
    """Labelled or unlabelled uint8 images on a device, normalised when they are used."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        indices: np.ndarray | None = None,
    ) -> None:
        """`images` uint8 (N, H, W, C), `labels` int64 (N,). With `indices`, only those; on the CPU nothing is copied."""
        on_device = device.type != "cpu"
        if indices is not None and on_device:
            images = images[indices]
            labels = None if labels is None else labels[indices]
            indices = None
        self.device = device
        # Channels last in memory, which is what convolutions want; (N, C, H, W) to whoever indexes.
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).to(device)
        self.labels = None if labels is None else torch.from_numpy(np.asarray(labels)).to(device)
        self.indices = None if indices is None else torch.from_numpy(indices)
        self._mean = torch.tensor(mean, device=device).view(1, -1, 1, 1)
        self._scale = 1.0 / torch.tensor(std, device=device).view(1, -1, 1, 1)

    @classmethod
    def of(
        cls,
        data: ImageSet,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        indices: np.ndarray | None = None,
    ) -> "Resident":
        return cls(data.images, data.labels, mean, std, device, indices)

    def __len__(self) -> int:
        return len(self.images) if self.indices is None else len(self.indices)

    def take(self, which: Tensor | slice) -> tuple[Tensor, Tensor | None]:
        """uint8 images (B, C, H, W) and labels (B,) at these positions."""
        if self.indices is not None:
            which = self.indices[which]
        return self.images[which], None if self.labels is None else self.labels[which]

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) → float32 of mean 0 and deviation 1, channels last."""
        normalised = (images.float() - self._mean) * self._scale
        return normalised.contiguous(memory_format=torch.channels_last)

    def sample(self, count: int) -> Tensor:
        """At most `count` images spread evenly over the set, normalised (N, C, H, W)."""
        stride = -(-len(self) // count)
        return self.normalise(self.take(slice(None, None, stride))[0])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """All images in order, normalised (B, C, H, W), with their labels (B,)."""
        for start in range(0, len(self), size):
            images, labels = self.take(slice(start, start + size))
            yield self.normalise(images), labels


class TrainBatches:
    """Shuffled, augmented batches; the last, incomplete one of an epoch is left out."""

    def __init__(
        self, data: Resident, batch_size: int, augmentation: AugmentConfig, seed: int, *, classes: int | None = None
    ) -> None:
        """`classes` is how many there are; only mixing needs it."""
        assert classes is not None or augmentation.mix == "none", "mixed images need the number of classes for their targets"
        self.data = data
        self.classes = classes
        self.batch_size = min(batch_size, len(data))
        self.augmentation = augmentation
        self.seed = seed
        self._generator = torch.Generator(device=data.device)

    def __len__(self) -> int:
        """Steps an epoch."""
        return len(self.data) // self.batch_size

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Images, normalised (B, C, H, W), and labels (B,) of the steps from `first_step` on; where the configuration mixes
        images, targets float (B, classes) instead, also of a batch that is not mixed."""
        self._generator.manual_seed(mix_seed(self.seed, epoch))
        order = torch.randperm(len(self.data), generator=self._generator, device=self.data.device)
        for step in range(first_step, len(self)):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            images, labels = self.data.take(chosen)
            assert labels is not None
            draw = Draw.seeded(mix_seed(self.seed, epoch, step + 1), chosen, epoch, self.seed)
            normalised = self.data.normalise(augment(images, self.augmentation, draw))
            if self.augmentation.mix == "none":
                yield normalised, labels
            else:
                assert self.classes is not None
                yield mix(normalised, labels, self.classes, self.augmentation, draw)
