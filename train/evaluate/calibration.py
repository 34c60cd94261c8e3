"""From scores to probabilities: temperature scaling, and the calibration error of scores.

Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017. Training with `pos_weight` shifts
every logit by about log(pos_weight). The shift is undone first, because no temperature could correct it.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

MAX_BINS = 10
MIN_VIDEOS_IN_BIN = 5

# Bounds of the temperature. Without them it would be 0 where a few videos are all predicted correctly, and infinite on
# noise.
TEMPERATURES = (0.05, 20.0)

# Scores are clipped to this distance from 0 and 1: the logits of 0 and 1 are infinite.
EDGE = 1e-12


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Converts a score into a probability: sigmoid((logit(score) - shift) / temperature)."""

    shift: float
    """Natural logarithm of pos_weight."""
    temperature: float
    """Above 1: the head was overconfident."""

    @classmethod
    def fit(cls, scores: np.ndarray, labels: np.ndarray, *, pos_weight: float) -> "Calibration":
        """The temperature with the least log loss on `scores` (N,) in [0, 1] and `labels` (N,) of 0 and 1."""
        from scipy.optimize import minimize_scalar  # `predict` only applies a calibration, and starts faster without

        shift = float(np.log(pos_weight))
        logits, sign = _logits(scores) - shift, np.where(labels == 1, 1.0, -1.0)

        def log_loss(log_temperature: float) -> float:
            return float(np.logaddexp(0, -sign * logits / np.exp(log_temperature)).mean())

        found = minimize_scalar(log_loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
        return cls(shift=shift, temperature=float(np.exp(found.x)))

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """(N,) probabilities that a video is harmful, for (N,) scores. A higher score gives a higher probability."""
        probabilities: np.ndarray = expit((_logits(scores) - self.shift) / self.temperature)
        return probabilities


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Videos with similar scores."""

    score: float
    """Their mean score."""
    fraction: float
    """Share of harmful videos among them."""
    count: int
    """Videos."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How well scores agree with the shares of harmful videos."""

    ece: float
    """Expected calibration error: mean distance of `score` and `fraction` over all videos, bin by bin."""
    brier: float
    """Brier score: mean squared error of the scores as probabilities."""
    curve: list[Bin]
    """Up to `MAX_BINS` bins with about the same number of videos each, by ascending score."""


def measure_reliability(probabilities: np.ndarray, labels: np.ndarray) -> Reliability:
    """Compare `probabilities` (N,) in [0, 1], or scores read as such, with `labels` (N,) of 0 and 1."""
    from sklearn.metrics import brier_score_loss

    num_bins = int(np.clip(len(labels) // MIN_VIDEOS_IN_BIN, 1, MAX_BINS))
    bins = np.array_split(np.argsort(probabilities, kind="stable"), num_bins)
    curve = [
        Bin(score=float(probabilities[rows].mean()), fraction=float(labels[rows].mean()), count=len(rows))
        for rows in bins
    ]
    error = sum(each.count * abs(each.score - each.fraction) for each in curve) / len(labels)
    return Reliability(ece=float(error), brier=float(brier_score_loss(labels, probabilities, pos_label=1)), curve=curve)


def _logits(scores: np.ndarray) -> np.ndarray:
    result: np.ndarray = logit(_inside(scores))
    return result


def _inside(values: np.ndarray | float) -> np.ndarray:
    return np.clip(values, EDGE, 1 - EDGE)
