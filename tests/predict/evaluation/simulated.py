"""Small sets of labelled videos for the tests of the evaluation."""

import numpy as np
from scipy.special import expit

from haechi.predict.evaluation.scored import Scored


def scored(
    scores: list[float] | np.ndarray,
    labels: list[int] | np.ndarray,
    *,
    threshold: float | np.ndarray = 0.5,
    groups: np.ndarray | None = None,
) -> Scored:
    """Videos with these scores, which are also their calibrated probabilities."""
    scores = np.asarray(scores, dtype=np.float64)
    return Scored(
        scores=scores,
        labels=np.asarray(labels, dtype=np.int8),
        thresholds=np.broadcast_to(threshold, scores.shape),
        calibrated=scores,
        groups=np.full(len(scores), "", dtype=object) if groups is None else groups,
    )


def drawn(n: int, *, share: float = 0.4, distance: float = 2.0, seed: int = 0, per_group: int = 1) -> Scored:
    """Videos whose logits are two normal distributions `distance` apart, in groups of `per_group`."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < share
    number = np.arange(n) // per_group
    groups = np.full(n, "", dtype=object) if per_group == 1 else np.array([f"recording {i}" for i in number], object)
    noise = rng.normal(size=n) if per_group == 1 else 0.8 * rng.normal(size=n)[number] + 0.6 * rng.normal(size=n)
    return scored(expit(noise + distance * labels - distance / 2), labels, groups=groups)
