"""Scores of several folds, each with a threshold of its own, on one scale."""

import numpy as np
from scipy.special import expit, logit

TINY = 1e-12  # scores and thresholds are clipped to this distance from 0 and 1, so that their logits are finite


def on_one_scale(scores: np.ndarray, thresholds: np.ndarray, threshold: float) -> np.ndarray:
    """(N,) scores whose logits are shifted so that the threshold (N,) of each video is at `threshold`.

    Rounding cannot change a decision: a result is at least `threshold` exactly where the score reaches the threshold of
    its video.
    """
    logits = [logit(np.clip(p, TINY, 1 - TINY)) for p in (scores, thresholds, np.float64(threshold))]
    shifted = expit(logits[0] - logits[1] + logits[2])
    decided = np.where(
        scores >= thresholds, np.maximum(shifted, threshold), np.minimum(shifted, np.nextafter(threshold, -1))
    )
    result: np.ndarray = np.where(thresholds == threshold, scores, decided)
    return result
