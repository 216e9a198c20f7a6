"""Images that show the same: pairs whose pixels correlate, as they are or with one of them mirrored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.data.cache import Progress, silent

LEAST = 0.95  # correlation of twins. Of a random tenth of CIFAR-10, 0.8 % of the images have such a twin in the other tenths
COARSE, SLACK = 16, 0.05  # side of the grey thumbnails that find candidates, and by how much less these have to correlate
BLOCK = 1024  # thumbnails of a matrix product: its result stays in a core's cache
MOST_PAIRS = 500_000  # candidates that are verified: of images that resemble each other more, those that correlate the most
TOGETHER = 2**24  # values that are verified at once


@dataclass(frozen=True)
class Twins:
    same: np.ndarray  # int64 (N,): of each image the first that is equal
    pairs: np.ndarray  # int64 (P, 2) of images that are the first of their kind, the smaller index first, the most alike first
    correlation: np.ndarray  # float32 (P,)
    mirrored: np.ndarray  # bool (P,)
    complete: bool  # whether all pairs are here; else the most alike

    def groups(self, *given: np.ndarray) -> np.ndarray:
        """int64 (N,): images that a chain of twins connects have one number; numbers are from 0 on. `given`: what connects them,
        too, int64 (N,), of each image another one."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        all_images = np.arange(len(self.same))
        ends = np.concatenate([self.pairs, *(np.stack([all_images, other], 1) for other in (self.same, *given))])
        edges = coo_matrix((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), (len(self.same),) * 2)
        return connected_components(edges, directed=False)[1].astype(np.int64)


def first_of(keys: Sequence[object]) -> np.ndarray:
    """int64 (N,): of each key the index of the first that is equal."""
    firsts = dict[object, int]()
    return np.array([firsts.setdefault(key, i) for i, key in enumerate(keys)], np.int64)


def find_twins(images: np.ndarray, same: np.ndarray | None = None, progress: Progress = silent) -> Twins:
    """`images` uint8 (N, H, W, C). `same`, int64 (N,): of each the first that is equal, where that is known. Candidates are found
    by grey thumbnails and verified at the images' own size, in all colours; an image of one colour correlates with none."""
    if same is None:
        same = first_of([image.tobytes() for image in images])
    firsts = np.unique(same)
    candidates, complete = _candidates(images, firsts, progress)
    found = [np.empty((0, 2))]
    together = max(1, TOGETHER // int(np.prod(images.shape[1:])))
    for start in range(0, len(candidates), together):
        a, b = (_centred(images[side]) for side in candidates[start : start + together].T)
        plain, mirrored = ((a * other).sum((1, 2, 3)) for other in (b, b.flip(2)))
        found.append(torch.stack([torch.maximum(plain, mirrored), (mirrored > plain).float()], 1).numpy())
    values = np.concatenate(found)
    kept = np.flatnonzero(values[:, 0] >= LEAST)
    kept = kept[np.argsort(-values[kept, 0], kind="stable")]
    return Twins(same, candidates[kept], values[kept, 0].astype(np.float32), values[kept, 1] > 0, complete)


def _centred(images: np.ndarray) -> Tensor:
    """float32 (N, H, W, C) of mean 0 and norm 1 each."""
    values = torch.from_numpy(images).float()
    values -= values.mean((1, 2, 3), keepdim=True)
    return F.normalize(values.flatten(1), eps=1e-3).view_as(values)


def _candidates(images: np.ndarray, firsts: np.ndarray, progress: Progress) -> tuple[np.ndarray, bool]:
    """int64 (P, 2), and whether there were no more.

    With e and o the even and odd parts of a thumbnail under mirroring, a·b is e·e' + o·o', and with b mirrored e·e' − o·o': both
    products cost as much as one.
    """
    even, odd = _thumbnails(images, firsts)
    starts, held, pairs, least = range(0, len(firsts), BLOCK), 0, list[tuple[Tensor, Tensor]](), LEAST - SLACK
    for i in progress(starts, "looking for twins", len(starts)):
        for j in range(i, len(firsts), BLOCK):
            score = even[i : i + BLOCK] @ even[j : j + BLOCK].T
            score += (odd[i : i + BLOCK] @ odd[j : j + BLOCK].T).abs_()
            hits = (score > least).nonzero()
            if i == j:
                hits = hits[hits[:, 0] < hits[:, 1]]
            if len(hits):
                pairs.append((score[hits[:, 0], hits[:, 1]], hits + torch.tensor([i, j])))
                held += len(hits)
        if held > 2 * MOST_PAIRS or (held > MOST_PAIRS and i == starts[-1]):
            scores, which = (torch.cat(parts) for parts in zip(*pairs, strict=True))
            best = scores.topk(MOST_PAIRS)
            least, held, pairs = float(best.values[-1]), MOST_PAIRS, [(best.values, which[best.indices])]
    which = torch.cat([which for _, which in pairs]) if pairs else torch.empty(0, 2, dtype=torch.int64)
    return firsts[which.numpy()], least == LEAST - SLACK


def _thumbnails(images: np.ndarray, firsts: np.ndarray) -> tuple[Tensor, Tensor]:
    """Even and odd parts, float32 (N, COARSE² / 2), of mean 0 and together of norm 1."""
    together = max(1, TOGETHER // int(np.prod(images.shape[1:])))
    parts = []
    for start in range(0, len(firsts), together):
        grey = torch.from_numpy(images[firsts[start : start + together]]).float().mean(3, keepdim=True)
        small = F.adaptive_avg_pool2d(grey.permute(0, 3, 1, 2), COARSE).permute(0, 2, 3, 1)
        small = F.normalize((small - small.mean((1, 2, 3), keepdim=True)).flatten(1), eps=1e-3).view_as(small)
        left, right = small[:, :, : COARSE // 2], small.flip(2)[:, :, : COARSE // 2]
        parts.append(((left + right).flatten(1) / 2**0.5, (left - right).flatten(1) / 2**0.5))
    even, odd = zip(*parts, strict=True)
    return torch.cat(even), torch.cat(odd)
