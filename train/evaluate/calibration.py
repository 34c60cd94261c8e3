"""From scores to probabilities: temperature scaling, and how far scores are from what happens.

Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017. `pos_weight` moves every logit by
its logarithm on purpose; that is undone first, or no temperature could make a score a probability.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss

NUM_BINS = 10
FEWEST_IN_BIN = 5

# A head sure of itself on a few videos that are all right would be given temperature 0, on noise an infinite one.
TEMPERATURES = (0.05, 20.0)

# Scores of exactly 0 or 1 have no logit.
EDGE = 1e-12


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a score becomes a probability: sigmoid((logit(score) - shift) / temperature)."""

    shift: float
    """Natural logarithm of pos_weight."""
    temperature: float
    """Above 1: the head was too sure of itself."""

    @classmethod
    def fit(cls, scores: np.ndarray, labels: np.ndarray, *, pos_weight: float) -> "Calibration":
        """The temperature with the least log loss on `scores` (N,) in [0, 1] and `labels` (N,) of 0 and 1."""
        shift = float(np.log(pos_weight))
        logits, sign = _logits(scores) - shift, np.where(labels == 1, 1.0, -1.0)

        def log_loss(log_temperature: float) -> float:
            return float(np.logaddexp(0, -sign * logits / np.exp(log_temperature)).mean())

        found = minimize_scalar(log_loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
        return cls(shift=shift, temperature=float(np.exp(found.x)))

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """(N,) scores to (N,) probabilities of harm, in the same order."""
        probabilities: np.ndarray = expit((_logits(scores) - self.shift) / self.temperature)
        return probabilities


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float | list[dict[str, float | int]]]:
    """Expected calibration error, Brier score, and the curve that the former sums up; arguments are (N,).

    The curve has up to 10 bins of as many videos each: their mean score, their share of harmful videos, their number.
    """
    num_bins = int(np.clip(len(labels) // FEWEST_IN_BIN, 1, NUM_BINS))
    bins = np.array_split(np.argsort(probabilities, kind="stable"), num_bins)
    curve: list[dict[str, float | int]] = [
        {"score": float(probabilities[rows].mean()), "fraction": float(labels[rows].mean()), "count": len(rows)}
        for rows in bins
    ]
    error = sum(point["count"] * abs(point["score"] - point["fraction"]) for point in curve) / len(labels)
    return {"ece": float(error), "brier": float(brier_score_loss(labels, probabilities, pos_label=1)), "curve": curve}


def _logits(scores: np.ndarray) -> np.ndarray:
    result: np.ndarray = logit(_inside(scores))
    return result


def _inside(values: np.ndarray | float) -> np.ndarray:
    return np.clip(values, EDGE, 1 - EDGE)
