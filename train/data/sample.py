"""A sample of the labelled videos, for a first look at a large cache."""

import numpy as np

from haechi.cache.schema import HARMFUL, SAFE
from haechi.train.data.groups import group_numbers


def draw_sample(labels: np.ndarray, groups: np.ndarray, size: int, *, seed: int) -> np.ndarray:
    """(n,) int64, ascending: about `size` of N videos with `labels` (N,) of 0 and 1 and `groups` (N,); "": no group.

    Whole groups are drawn, in random order, as long as they fit into the share of both classes; so there may be fewer
    videos than `size`. All N if `size` is at least N; at least one group of each class that exists.
    """
    if size >= len(labels):
        return np.arange(len(labels))
    number = group_numbers(groups)
    counts = np.stack([np.bincount(number, labels == label) for label in (HARMFUL, SAFE)], axis=1).astype(int)  # (G, 2)
    quota = np.ceil(size * counts.sum(axis=0) / len(labels)).astype(int)  # (2,)
    taken, chosen = np.zeros(2, int), np.zeros(len(counts), bool)
    for group in np.random.default_rng(seed).permutation(len(counts)).tolist():
        missing = (taken == 0) & (counts[group] > 0)
        if missing.any() or (taken + counts[group] <= quota).all():
            taken += counts[group]
            chosen[group] = True
    return np.flatnonzero(chosen[number])
