"""From scores to predictions: prediction = score >= threshold. Pure functions of numpy arrays.

All thresholds between two neighbouring scores give the same predictions, so the thresholds form plateaus:

    score      s1          s2      s3               s4
    0 ─────────┤───────────┤───────┤────────────────┤─────────── 1
      all      │ not s1    │ ...   │ only s4        │ nothing predicted
"""

from dataclasses import dataclass

import numpy as np

from haechi.cache.text import counted
from haechi.train.errors import TrainError
from haechi.train.evaluate.calibration import Calibration
from haechi.train.policy import Policy

# The report's nine rows: 0.30 to 0.70 by 0.05.
TABLE_THRESHOLDS = (0.30, 0.35, 0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70)

# A threshold that fewer videos than this chose is unreliable. From the project's brief.
FEW_VIDEOS = 50

# As many videos as this have the same weight in `shrink_labels` as their calibrated probabilities.
SHRINKAGE_VIDEOS = 200


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A threshold, and the metrics of its predictions."""

    threshold: float
    """0 to 1."""
    f1: float
    """0 where no video is harmful."""
    precision: float
    """0 where no video is predicted harmful."""
    recall: float
    """0 where no video is harmful."""


@dataclass(frozen=True, kw_only=True)
class Choice(Threshold):
    """The threshold that a policy chooses."""

    low: float
    high: float
    """The plateau: every threshold above `low` up to `high` gives the same predictions for these scores."""
    value: float
    """The quantity that the policy maximises, at this threshold."""
    met: bool
    """Whether the policy's bound is kept. If no threshold keeps it, the one that comes closest to it is chosen."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Counts for every threshold: plateau k holds the thresholds above low[k] up to high[k]; the first also holds 0."""

    low: np.ndarray
    high: np.ndarray
    """(K,) float64, ascending."""
    true_positive: np.ndarray
    false_positive: np.ndarray
    """(K,) float64: harmful and safe videos that are predicted harmful; whole numbers for labels of 0 and 1."""
    num_harmful: float
    num_safe: float

    @classmethod
    def of(cls, scores: np.ndarray, labels: np.ndarray) -> "Curve":
        """Count for `scores` (N,) in [0, 1] and `labels` (N,) of 0 and 1, or between for the chance to be harmful.

        Raises `TrainError` where a score lies outside [0, 1].
        """
        scores = np.asarray(scores, dtype=np.float64)
        if not ((scores >= 0) & (scores <= 1)).all():
            raise TrainError("scores to choose a threshold from must lie in [0, 1]; got NaN or values outside")
        distinct, score_index = np.unique(scores, return_inverse=True)  # ascending: the top of each plateau
        per_score = [
            np.bincount(score_index, weights=weights, minlength=len(distinct)) for weights in (labels, 1 - labels)
        ]
        predicted = [np.cumsum(counts[::-1])[::-1] for counts in per_score]  # videos with score >= distinct[k]
        none_fits = len(distinct) > 0 and distinct[-1] < 1
        return cls(
            low=np.concatenate([[0.0], distinct])[: len(distinct) + none_fits],
            high=np.concatenate([distinct, [1.0]])[: len(distinct) + none_fits],
            true_positive=np.concatenate([predicted[0], [0]])[: len(distinct) + none_fits],
            false_positive=np.concatenate([predicted[1], [0]])[: len(distinct) + none_fits],
            num_harmful=float(predicted[0][0]) if len(distinct) else 0.0,  # rounded as the others are
            num_safe=float(predicted[1][0]) if len(distinct) else 0.0,
        )


def predict(scores: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """(N,) int8: 1 where the score is at least the threshold, which is one for all, or (N,)."""
    return (scores >= threshold).astype(np.int8)


def threshold_table(scores: np.ndarray, labels: np.ndarray) -> list[Threshold]:
    """The report's table: precision, recall and F1 at each of `TABLE_THRESHOLDS`. Both arguments are (N,)."""
    return [Threshold(threshold=threshold, **_figures(scores, labels, threshold)) for threshold in TABLE_THRESHOLDS]


def chosen_row(table: list[Threshold]) -> int:
    """Index of the row with the best F1; among equal ones the threshold closest to 0.5, then the lower one."""
    return min(range(len(table)), key=lambda i: (-table[i].f1, abs(table[i].threshold - 0.5), table[i].threshold))


def shrink_labels(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) between `labels` (N,) of 0 and 1 and calibrated `probabilities` (N,); nearer to the labels if N is large.

    Few labels choose a threshold mostly by chance, and probabilities alone are wrong where the calibration does not
    fit. `SHRINKAGE_VIDEOS` has the least regret over 15 sets of scores (`python -m bench.thresholds`).
    """
    share = len(labels) / (len(labels) + SHRINKAGE_VIDEOS)
    return np.asarray(share * labels + (1 - share) * probabilities)


def choose_threshold(
    scores: np.ndarray, labels: np.ndarray, policy: Policy, *, expected: np.ndarray | None = None
) -> Choice:
    """The best of all possible thresholds by a policy, for `scores` (N,) in [0, 1] and `labels` (N,) of 0 and 1.

    `expected` (N,), from `shrink_labels`, are the chances to be harmful that the policy is judged by; None: `labels`.

    Among equally good plateaus (adjacent ones are joined) the widest is chosen; among equally wide ones the one whose
    middle is closest to 0.5, then the lower one. The threshold is the middle of the plateau, as far as possible from
    the scores. The lowest plateau starts at 0.

    Raises `TrainError` where there is no video, none of a class that the policy needs, or a score outside [0, 1].
    """
    curve = Curve.of(scores, labels if expected is None else expected)
    for needed, count, name in [
        (policy.needs_harmful, curve.num_harmful, "harmful"),
        (policy.needs_safe, curve.num_safe, "safe"),
        (True, len(labels), "labelled"),
    ]:
        if needed and not count:
            raise TrainError(f"no {name} video among those that the threshold is chosen on: {policy.text} is undefined")
    met, value, second = _judge(policy, curve)
    best = met == met.max()
    for goodness in (value, second):
        best &= goodness == goodness[best].max()
    edges = np.diff(np.concatenate([[False], best, [False]]).astype(np.int8))
    first, after_last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    plateaus = [(float(curve.low[i]), float(curve.high[j - 1]), int(i)) for i, j in zip(first, after_last, strict=True)]
    low, high, k = min(plateaus, key=lambda p: (p[0] - p[1], abs((p[0] + p[1]) / 2 - 0.5), p[0]))
    middle = (low + high) / 2
    threshold = middle if middle > low else high  # neighbouring floats have no middle
    return Choice(
        threshold=threshold,
        **_figures(scores, labels, threshold),
        low=low,
        high=high,
        value=float(value[k]),
        met=bool(met[k]),
    )


def choose_shrunk_threshold(
    scores: np.ndarray, labels: np.ndarray, policy: Policy, *, pos_weight: float | None
) -> Choice:
    """As `choose_threshold`, with labels shrunk towards calibrated probabilities.

    `pos_weight` is that of the training; None: nothing is shrunk, as in the report.
    """
    if pos_weight is None:
        return choose_threshold(scores, labels, policy)
    probabilities = Calibration.fit(scores, labels, pos_weight=pos_weight).apply(scores)
    return choose_threshold(scores, labels, policy, expected=shrink_labels(labels, probabilities))


def _judge(policy: Policy, curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of K plateaus: whether it keeps the policy's bound (bool), the value to maximise, the tie-breaker; (K,).

    Without a bound, all plateaus count as keeping it. Where a bound is not kept, the value to maximise is the bounded
    quantity itself, so that the plateau closest to the bound wins.
    """
    tp, fp = curve.true_positive.astype(np.float64), curve.false_positive.astype(np.float64)
    fn = curve.num_harmful - tp
    if policy.beta is not None:
        square = policy.beta**2
        value = _ratio((1 + square) * tp, (1 + square) * tp + square * fn + fp)
        return np.ones(len(tp), bool), value, np.zeros(len(tp))
    if policy.costs is not None:
        return np.ones(len(tp), bool), -(policy.costs[0] * fp + policy.costs[1] * fn), np.zeros(len(tp))
    assert policy.bound is not None
    # Comparing floats is exact here: equal fractions of integers are equal floats, and 9 / 10 == float("0.9").
    precision, recall, fpr = _ratio(tp, tp + fp), _ratio(tp, curve.num_harmful), _ratio(fp, curve.num_safe)
    kept, aim, second = {
        "precision": (precision, recall, precision),
        "recall": (recall, precision, recall),
        "false_positive_rate": (-fpr, recall, -fpr),
    }[policy.bound.figure]
    met = kept >= (policy.bound.value if policy.bound.sense == ">=" else -policy.bound.value)
    return met, np.where(met, aim, kept), np.where(met, second, aim)


def _ratio(a: np.ndarray, b: np.ndarray | float) -> np.ndarray:
    """a / b, and 0 where b is 0."""
    result: np.ndarray = np.divide(a, b, out=np.zeros(len(a)), where=np.asarray(b) > 0)
    return result


def cautions(num_videos: int, policy: Policy, *, met: bool, where: str = "") -> list[str]:
    """Warnings about a threshold that was chosen on `num_videos` videos; `met`: it keeps the policy's bound.

    `where` is added to the texts, such as " in a fold".
    """
    notes = []
    if num_videos < FEW_VIDEOS:
        notes.append(
            f"chosen on only {counted(num_videos, 'video')}{where}; with fewer than {FEW_VIDEOS} it is unreliable"
        )
    if not met:
        notes.append(f"no threshold keeps {policy.text} on validation{where}; the closest one is used")
    return notes


def _figures(scores: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, float]:
    predicted = scores >= threshold  # (N,)
    num_correct, num_predicted, num_harmful = (predicted & (labels == 1)).sum(), predicted.sum(), (labels == 1).sum()
    return {
        "f1": float(2 * num_correct / max(num_predicted + num_harmful, 1)),
        "precision": float(num_correct / max(num_predicted, 1)),
        "recall": float(num_correct / max(num_harmful, 1)),
    }
