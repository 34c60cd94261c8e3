"""What a threshold is chosen on."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What the threshold is chosen on: videos, and their logits by heads that were not fitted on them."""

    rows: np.ndarray
    """(n,) int64, ascending: the val split, or with inner folds those that the head is fitted on."""
    logits: np.ndarray
    """(n,) float64: of the head that is kept; with inner folds of heads made in the same way."""
    regression_logits: np.ndarray
    """(n,) float64: of its regression alone."""
