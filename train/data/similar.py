"""Searches pairs of similar descriptors, exactly among few, and among many in a random subspace first."""

import math
from collections.abc import Iterator

import numpy as np

TILE_VIDEOS = 1024  # side of a tile of the similarity matrix: limits memory

# With more descriptors than this, pairs are first compared in a random subspace. In d dimensions the cosine of a pair
# with the cosine c has about the standard deviation (1 - c^2) / sqrt(d) there: a pair is compared exactly unless it
# lies below the threshold by more than four of them. 3 in 100,000 links at the threshold are missed.
MANY_VIDEOS = 8192
SUBSPACE_DEVIATIONS = 4.0
# The number of dimensions is chosen such that an unrelated pair, with a cosine of 0, passes only if its cosine in the
# subspace is more than this many standard deviations above 0.
UNRELATED_DEVIATIONS = 3.5
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
    num_dimensions = _num_dimensions(threshold)
    projected = _project(ours, theirs, num_dimensions)
    margin = SUBSPACE_DEVIATIONS * (1 - threshold**2) / num_dimensions**0.5
    for start in range(0, len(ours), TILE_VIDEOS):
        rows = slice(start, start + TILE_VIDEOS)
        for other in range(start if same else 0, len(theirs), TILE_VIDEOS):
            columns = slice(other, other + TILE_VIDEOS)
            found, cosines = _similar(
                (ours[rows], theirs[columns]),
                projected and (projected[0][rows], projected[1][columns]),
                threshold,
                margin=margin,
            )
            yield found + np.array([start, other]), cosines


Sides = tuple[np.ndarray, np.ndarray]


def _num_dimensions(threshold: float) -> int:
    """Dimensions of a subspace in which pairs with a cosine of `threshold` differ from unrelated ones."""
    deviations = SUBSPACE_DEVIATIONS * (1 - threshold**2) + UNRELATED_DEVIATIONS
    return math.ceil((deviations / max(threshold, 1e-3)) ** 2)


def _project(ours: np.ndarray, theirs: np.ndarray, num_dimensions: int) -> Sides | None:
    """The descriptors (N, D) and (M, D) in a random subspace, again of unit length; None where it is not used."""
    width = ours.shape[1]
    if max(len(ours), len(theirs)) <= MANY_VIDEOS or num_dimensions > MOST_DIMENSIONS * width:
        return None
    normal = np.random.default_rng(0).standard_normal((width, num_dimensions))
    directions = np.linalg.qr(normal)[0].astype(np.float32)
    projected = unit_length(ours @ directions)
    return projected, projected if ours is theirs else unit_length(theirs @ directions)


def _similar(tile: Sides, projected: Sides | None, threshold: float, *, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of a tile with a cosine of at least `threshold`: (n, 2) places in the tile, and cosines (n,).

    `margin`: how far below the threshold the cosine in the subspace may be.
    """
    ours, theirs = tile
    if projected is not None:
        near = projected[0] @ projected[1].T >= threshold - margin
        if np.count_nonzero(near) <= MOST_PASSING * near.size:
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
