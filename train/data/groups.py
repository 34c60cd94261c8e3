"""Numbers for the groups of videos, where each video without a group is a group by itself."""

import numpy as np


def own_groups(groups: np.ndarray) -> np.ndarray:
    """(N,) str: the groups, where each video without one gets its own group, with a name that no manifest can have."""
    return np.array([group or f"\0{i}" for i, group in enumerate(groups)], dtype=object)


def group_numbers(groups: np.ndarray) -> np.ndarray:
    """(N,) int: the number, from 0, of each video's group as `own_groups` gives it."""
    numbers: np.ndarray = np.unique(own_groups(groups).astype(str), return_inverse=True)[1]
    return numbers
