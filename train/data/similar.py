"""Searches pairs of similar descriptors, exactly among few, and among many in a random subspace first."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from haechi.device import has_bfloat16

TILE_VIDEOS = 2048  # side of a tile of the similarity matrix: limits memory

# With more descriptors than this, pairs are first compared in a random subspace. In d dimensions the cosine of a pair
# with the cosine c has about the standard deviation (1 - c^2) / sqrt(d) there: a pair is compared exactly unless it
# lies below the threshold by more than four of them. 3 in 100,000 links at the threshold are missed.
MANY_VIDEOS = 8192
SUBSPACE_DEVIATIONS = 4.0
# The number of dimensions is chosen such that an unrelated pair, with a cosine of 0, passes only if its cosine in the
# subspace is more than this many standard deviations above 0.
UNRELATED_DEVIATIONS = 3.5
# More than what rounding to bfloat16, 8 bits, changes in a cosine of at most 0.7, which is 0.003.
BFLOAT16_ERROR = 0.004
# With more dimensions than this share of all, the exact comparison is as fast.
MOST_DIMENSIONS = 0.6
# Where more pairs of a tile than this share pass, the whole tile is compared exactly.
MOST_PASSING = 0.02


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """The vectors along the last axis scaled to length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def closest(ours: np.ndarray, theirs: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """For each descriptor of `ours` (N, D) the closest one of `theirs` (M, D), if its cosine is at least `threshold`.

    Returns its index (N,) int64, -1 if there is none, and the cosine (N,) float32, 0 then.
    """
    index, cosine = np.full(len(ours), -1), np.zeros(len(ours), np.float32)
    for pairs, cosines in similar_pairs(ours, theirs, threshold):
        order = np.argsort(cosines, kind="stable")  # of several values for one place, the last one stays
        rows, others, values = pairs[order, 0], pairs[order, 1], cosines[order]
        better = values > cosine[rows]
        index[rows[better]], cosine[rows[better]] = others[better], values[better]
    return index, cosine


def similar_pairs(ours: np.ndarray, theirs: np.ndarray, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (n, 2) of `ours` (N, D) and `theirs` (M, D) with a cosine of at least `threshold`, and cosines (n,).

    Tile by tile. Where both are the same array, each pair of different descriptors is found in one order at least.
    """
    same = ours is theirs
    subspace = Subspace.of(ours, theirs, threshold)
    for start in range(0, len(ours), TILE_VIDEOS):
        rows = slice(start, start + TILE_VIDEOS)
        for other in range(start if same else 0, len(theirs), TILE_VIDEOS):
            columns = slice(other, other + TILE_VIDEOS)
            near = subspace.near(rows, columns) if subspace else None
            found, cosines = _similar(ours[rows], theirs[columns], threshold, near)
            yield found + np.array([start, other]), cosines


class Subspace:
    """Two sets of descriptors in a random subspace, again of unit length, where pairs are compared first.

    In bfloat16 where the processor computes in it: in half the time. Memory for a tile is used again for each: to get
    it from the system takes longer than to compute the tile.
    """

    def __init__(
        self, ours: np.ndarray, theirs: np.ndarray, threshold: float, *, num_dimensions: int, is_bfloat16: bool
    ) -> None:
        """`ours` (N, D) and `theirs` (M, D) may be the same array; `threshold`: of the pairs that are looked for."""
        normal = np.random.default_rng(0).standard_normal((ours.shape[1], num_dimensions))
        directions = np.linalg.qr(normal)[0].astype(np.float32)
        self._dtype = torch.bfloat16 if is_bfloat16 else torch.float32
        self._ours = torch.from_numpy(unit_length(ours @ directions)).to(self._dtype)
        self._theirs = self._ours
        if ours is not theirs:
            self._theirs = torch.from_numpy(unit_length(theirs @ directions)).to(self._dtype)
        margin = SUBSPACE_DEVIATIONS * (1 - threshold**2) / num_dimensions**0.5 + is_bfloat16 * BFLOAT16_ERROR
        self._lowest = _comparable(torch.tensor(threshold - margin, dtype=self._dtype))
        self._cosines = torch.empty(TILE_VIDEOS**2, dtype=self._dtype)
        self._near = np.empty(TILE_VIDEOS**2, bool)

    @classmethod
    def of(cls, ours: np.ndarray, theirs: np.ndarray, threshold: float) -> "Subspace | None":
        """None where all pairs are compared exactly: where that is fast, or few dimensions would not be enough."""
        deviations = SUBSPACE_DEVIATIONS * (1 - threshold**2) + UNRELATED_DEVIATIONS
        num_dimensions = math.ceil((deviations / max(threshold, 1e-3)) ** 2)
        if max(len(ours), len(theirs)) <= MANY_VIDEOS or num_dimensions > MOST_DIMENSIONS * ours.shape[1]:
            return None
        is_bfloat16 = has_bfloat16(torch.device("cpu"))
        return cls(ours, theirs, threshold, num_dimensions=num_dimensions, is_bfloat16=is_bfloat16)

    def near(self, rows: slice, columns: slice) -> np.ndarray:
        """Whether the pairs of a tile may be similar enough: (n, m) bool, valid until the next call."""
        ours, theirs = self._ours[rows], self._theirs[columns]
        shape, size = (len(ours), len(theirs)), len(ours) * len(theirs)
        cosines, near = self._cosines[:size].view(shape), self._near[:size].reshape(shape)
        if self._dtype == torch.float32:  # NumPy's product takes half the time of torch's on some processors
            np.matmul(ours.numpy(), theirs.numpy().T, out=cosines.numpy())
        else:
            torch.mm(ours, theirs.T, out=cosines)
        np.greater_equal(_comparable(cosines), self._lowest, out=near)
        return near


def _comparable(cosines: Tensor) -> np.ndarray:
    """Cosines as numbers that NumPy can compare. As integers, the bits of positive bfloat16 are in the order of their
    values, and those of negative ones are below."""
    return (cosines if cosines.dtype == torch.float32 else cosines.view(torch.int16)).numpy()


def _similar(
    ours: np.ndarray, theirs: np.ndarray, threshold: float, near: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of a tile with a cosine of at least `threshold`: (p, 2) places in the tile, and cosines (p,).

    `near` (n, m) bool: those that may have it; None: all of them.
    """
    if near is not None and np.count_nonzero(near) <= MOST_PASSING * near.size:
        pairs = _places(near)
        cosines = np.einsum("nd,nd->n", ours[pairs[:, 0]], theirs[pairs[:, 1]])
        kept = cosines >= threshold
        return pairs[kept], cosines[kept]
    every = ours @ theirs.T
    pairs = _places(every >= threshold)
    return pairs, every[pairs[:, 0], pairs[:, 1]]


def _places(found: np.ndarray) -> np.ndarray:
    """As `numpy.argwhere` of a contiguous matrix of bool with few true values, in a tenth of the time."""
    return np.stack(np.divmod(np.flatnonzero(found), found.shape[1]), axis=1)
