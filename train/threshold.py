"""From scores to a decision: prediction = score >= threshold. Pure functions of numpy arrays.

F1 is constant between two neighbouring scores, so all thresholds fall into one plateau a distinct score:

    score      s1          s2      s3               s4
    0 ─────────┤───────────┤───────┤────────────────┤ · · · 1
      all      │ not s1    │ ...   │ only s4        │ nothing predicted
"""

from dataclasses import dataclass

import numpy as np

from train.errors import TrainError

# The report's nine rows: 0.30 to 0.70 by 0.05.
TABLE_THRESHOLDS = (0.30, 0.35, 0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70)


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A threshold with what it achieves on the scores it was tried on."""

    threshold: float
    """0 to 1."""
    f1: float
    precision: float
    """0 where nothing is predicted harmful."""
    recall: float


def predict(scores: np.ndarray, threshold: float) -> np.ndarray:
    """(N,) int8: 1 where the score reaches the threshold."""
    return (scores >= threshold).astype(np.int8)


def threshold_table(scores: np.ndarray, labels: np.ndarray) -> list[Threshold]:
    """The report's table: precision, recall and F1 at each of `TABLE_THRESHOLDS`. Both arguments are (N,)."""
    return [_at(scores, labels, threshold) for threshold in TABLE_THRESHOLDS]


def chosen_row(table: list[Threshold]) -> int:
    """Index of the row with the best F1; of several the one nearest 0.5, then the lower threshold."""
    return min(range(len(table)), key=lambda i: (-table[i].f1, abs(table[i].threshold - 0.5), table[i].threshold))


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> Threshold:
    """The threshold with the best F1 of all that exist, for `scores` (N,) in [0, 1] and `labels` (N,) of 0 and 1.

    Ties favour stability: of all plateaus that reach the best F1 (neighbours are one plateau), the widest; of equally
    wide ones that whose middle is nearest 0.5, then the lower. The middle of the plateau is the threshold, so that no
    video of these sits on the border. The lowest plateau starts at 0.

    Raises `TrainError` where no video is harmful, or a score lies outside [0, 1].
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not (labels == 1).any():
        raise TrainError("no harmful video among those that choose the threshold: F1 is undefined")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise TrainError("scores that choose the threshold must lie in [0, 1]; got NaN or values outside")
    highs, score_of_row = np.unique(scores, return_inverse=True)  # (K,) ascending: the top of each plateau
    lows = np.concatenate([[0.0], highs[:-1]])  # (K,)
    num_predicted = np.cumsum(np.bincount(score_of_row)[::-1])[::-1]  # (K,) videos with score >= highs[k]
    num_correct = np.cumsum(np.bincount(score_of_row, weights=labels)[::-1])[::-1]  # (K,) harmful ones of them
    f1 = 2 * num_correct / (num_predicted + (labels == 1).sum())  # equal fractions of whole numbers are equal floats
    is_best = np.concatenate([[False], f1 == f1.max(), [False]]).astype(np.int8)
    first, after_last = np.flatnonzero(np.diff(is_best) == 1), np.flatnonzero(np.diff(is_best) == -1)
    plateaus = [(float(lows[i]), float(highs[j - 1])) for i, j in zip(first, after_last, strict=True)]
    low, high = min(plateaus, key=lambda p: (p[0] - p[1], abs((p[0] + p[1]) / 2 - 0.5), p[0]))
    middle = (low + high) / 2
    return _at(scores, labels, middle if middle > low else high)  # neighbouring floats have no middle


def _at(scores: np.ndarray, labels: np.ndarray, threshold: float) -> Threshold:
    predicted = scores >= threshold  # (N,)
    num_correct, num_predicted, num_harmful = (predicted & (labels == 1)).sum(), predicted.sum(), (labels == 1).sum()
    return Threshold(
        threshold=threshold,
        f1=float(2 * num_correct / max(num_predicted + num_harmful, 1)),
        precision=float(num_correct / max(num_predicted, 1)),
        recall=float(num_correct / max(num_harmful, 1)),
    )
