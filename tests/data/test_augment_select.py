"""Picking, choosing and putting back whole images, against indexing and masks."""

import pytest
import torch

from nas.data.augment.select import choose, pick, put
from tests.data.pictures import pictures


@pytest.mark.parametrize("channels_last", [True, False])
def test_as_indexing_and_masks_do_it(channels_last: bool) -> None:
    images = pictures(7, 3, 8)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    others, where = 255 - images, torch.tensor([5, 0, 3])
    which = torch.tensor([True, False, True, True, False, False, True])
    assert torch.equal(pick(images, where), images[where])
    assert torch.equal(choose(which, others, images), torch.where(which.view(-1, 1, 1, 1), others, images))
    expected = images.clone()
    expected[where] = others[where]
    assert torch.equal(put(images, where, [others[[5]], others[[0, 3]]]), expected)
    assert not torch.equal(images, expected), "the images themselves stay"


def test_none_is_picked_and_none_put() -> None:
    images, nowhere = pictures(3, 1, 8), torch.zeros(0, dtype=torch.int64)
    assert pick(images, nowhere).shape == (0, 1, 8, 8)
    assert torch.equal(put(images, nowhere, [images[:0]]), images)
