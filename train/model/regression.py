"""Fits the logistic regression that a head starts from: its strength is chosen on videos that it was not fitted on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from haechi.train.data.batches import batches
from haechi.train.data.features import Features
from haechi.train.data.stream import Stream
from haechi.train.model.head import Pooled, Regression, pool

# The most values in the columns of the videos that are fitted on, 1 GB in float32, however large the cache is: 138,000
# videos with CLIP and the logits. On 100,000 made-up videos ROC AUC is 0.76 if 20,000 of them are fitted on, 0.78 if
# 80,000 are, and 0.79 for the true direction.
MAX_FIT_VALUES = 1 << 28

# Columns with at most this many values are stored in float64, larger ones in float32.
MAX_FLOAT64_VALUES = 1 << 25

SCALED_VIDEOS = 1 << 14  # whose mean and deviation are computed at once

# The most videos that the strength is chosen on.
MAX_CHOICE_VIDEOS = 1000

# Standard deviations of the logits under the prior that are tried, strongest regularisation first. For any number of
# columns D, scikit-learn's C is the square of this divided by D.
PRIOR_DEVIATIONS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)

MAX_ITERATIONS = 1000  # scikit-learn's 100 are not always enough

# If there are too few groups of videos for inner folds.
DEFAULT_DEVIATION = 0.8

# Limits of the factor that brings logits to scale.
FACTORS = (0.05, 100.0)

Folds = Sequence[tuple[np.ndarray, np.ndarray]]
"""For each inner fold two arrays of positions, ascending: videos that are fitted on, and videos that are held out."""


@dataclass(frozen=True, kw_only=True)
class FittedRegression:
    """A regression fitted on k of n videos, and how it does on videos that it was not fitted on."""

    regression: Regression
    kept: np.ndarray
    """(k,) int64, ascending: positions of the videos that it was fitted on; all n of them unless the cache is large."""
    held_out: np.ndarray
    """(k,) float64: the logit of each of them by the regression of the inner fold that holds it out."""
    prior_deviation: float
    """The chosen one of `PRIOR_DEVIATIONS`."""

    def offset(self, features: Features | Stream, rows: np.ndarray) -> np.ndarray:
        """What to add to the logits of a head that starts from the regression, (N,), for its n videos `rows`.

        With it the rest of the head learns what the regression misses on videos that it was not fitted on; on its own
        videos it misses almost nothing. For videos that it was not fitted on it is 0.
        """
        offset, fitted = np.zeros(len(features)), rows[self.kept]
        offset[fitted] = self.held_out - regression_logits(features, self.regression, fitted)
        return offset


def fit_regression(
    features: Features | Stream, labels: np.ndarray, rows: np.ndarray, folds: Folds, *, pos_weight: float
) -> FittedRegression:
    """Scikit-learn's logistic regression on the D standardised columns of `Regression`.

    It is fitted on the videos of `rows` (n,), ascending, or on as many of them, evenly spaced, as `MAX_FIT_VALUES`
    allows; `labels` (N,) must have both classes among them. `folds` are positions in `rows`; together they hold out
    each video once. Without folds, the strength is `DEFAULT_DEVIATION`, and `held_out` the logits of the regression on
    its own videos. A harmful video has `pos_weight` times the weight of a safe one.

    Of all strengths, the strongest is taken whose loss on held-out videos is within a standard error of the least one
    (Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning", section 7.10). Logits are multiplied by the
    factor with the least held-out loss: regressions are too sure of what they were fitted on.

    Raises the errors of `Stream.buffers`.
    """
    regression = Regression(*features.widths)
    num_columns = len(regression.weight)
    kept = thin_out(labels[rows], folds, max(1, MAX_FIT_VALUES // num_columns))
    dtype = np.float64 if len(kept) * num_columns <= MAX_FLOAT64_VALUES else np.float32
    columns, done = np.empty((len(kept), num_columns), dtype), 0
    for part in pooled_batches(features, rows[kept]):
        found = regression.columns(*part)
        columns[done : done + len(found)] = found.cpu().numpy()
        done += len(found)
    scaler = StandardScaler(copy=False)
    for start in range(0, len(kept), SCALED_VIDEOS):  # all at once it would take twice the memory of the columns
        scaler.partial_fit(columns[start : start + SCALED_VIDEOS])
    problem = Problem(
        points=scaler.transform(columns),
        num_columns=num_columns,
        labels=labels[rows[kept]],
        weights=class_weights(labels[rows], pos_weight)[kept],
        folds=restricted(folds, kept),
    )
    solution = problem.solve()
    factor = problem.best_factor(solution.held_out) if folds else 1.0
    values = {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "weight": solution.weight * factor,
        "bias": solution.bias * factor,
    }
    regression.load_state_dict({name: torch.as_tensor(value, dtype=torch.float32) for name, value in values.items()})
    return FittedRegression(
        regression=regression, kept=kept, held_out=solution.held_out * factor, prior_deviation=solution.prior_deviation
    )


@dataclass(frozen=True, kw_only=True)
class Solution:
    """A regression on k videos, with the strength that inner folds chose."""

    weight: np.ndarray
    """(D,)"""
    bias: float
    held_out: np.ndarray
    """(k,) as `FittedRegression.held_out`, not yet to scale."""
    prior_deviation: float


@dataclass(frozen=True, kw_only=True)
class Problem:
    """k videos that a regression is fitted on."""

    points: np.ndarray
    """(k, D) float64 or float32: the standardised columns, or fewer that span the same."""
    num_columns: int
    """D"""
    labels: np.ndarray
    """(k,) of 0 and 1."""
    weights: np.ndarray
    """(k,) float64: of each video in the loss."""
    folds: Folds

    def thinned(self) -> "Problem":
        """`MAX_CHOICE_VIDEOS` of the videos, in as few dimensions as they span; distances do not change by that."""
        kept = thin_out(self.labels, self.folds, MAX_CHOICE_VIDEOS)
        points = self.points[kept].astype(np.float64)
        if len(kept) < points.shape[1]:
            variances, directions = np.linalg.eigh(points @ points.T)
            points = directions * np.sqrt(variances.clip(min=0))
        return Problem(
            points=points,
            num_columns=self.num_columns,
            labels=self.labels[kept],
            weights=self.weights[kept],
            folds=restricted(self.folds, kept),
        )

    def solve(self) -> Solution:
        """Choose the strength, and fit on all videos; see `fit_regression`."""
        prior_deviation = self.thinned().choose_prior_deviation() if self.folds else DEFAULT_DEVIATION
        weight, bias = self.fit(np.arange(len(self.labels)), prior_deviation)
        held_out = self.held_out_logits([prior_deviation])[0] if self.folds else self.points @ weight + bias
        return Solution(weight=weight, bias=bias, held_out=held_out, prior_deviation=prior_deviation)

    def choose_prior_deviation(self) -> float:
        """The one of `PRIOR_DEVIATIONS` that `fit_regression` describes."""
        logits = self.held_out_logits(PRIOR_DEVIATIONS)
        losses = np.stack([self._losses(each * self.best_factor(each)) for each in logits])
        excess = losses - losses[losses.mean(axis=1).argmin()]  # (len(PRIOR_DEVIATIONS), k)
        error = excess.std(axis=1) / math.sqrt(len(self.labels))
        return PRIOR_DEVIATIONS[int(np.flatnonzero(excess.mean(axis=1) <= error)[0])]

    def held_out_logits(self, prior_deviations: Sequence[float]) -> np.ndarray:
        """(len(prior_deviations), k): the logit of each video by the regression of the fold that holds it out."""
        logits = np.zeros((len(prior_deviations), len(self.labels)))
        for fitted, held_out in self.folds:
            for i, deviation in enumerate(prior_deviations):
                weight, bias = self.fit(fitted, deviation)
                logits[i, held_out] = self.points[held_out] @ weight + bias
        return logits

    def fit(self, rows: np.ndarray, prior_deviation: float) -> tuple[np.ndarray, float]:
        """Weights (D,) and bias of the regression on some of the videos; the others, not copied, have the weight 0."""
        model = LogisticRegression(C=prior_deviation**2 / self.num_columns, max_iter=MAX_ITERATIONS)
        weights = np.zeros_like(self.weights)
        weights[rows] = self.weights[rows]
        model.fit(self.points, self.labels, weights)
        return model.coef_[0], float(model.intercept_[0])

    def best_factor(self, logits: np.ndarray) -> float:
        """The factor for `logits` (k,) that gives the least loss."""
        found = minimize_scalar(
            lambda log_factor: float(self._losses(logits * np.exp(log_factor)).mean()),
            bounds=tuple(np.log(FACTORS)),
            method="bounded",
        )
        return float(np.exp(found.x))

    def _losses(self, logits: np.ndarray) -> np.ndarray:
        """(k,) weighted log losses of `logits` (k,)."""
        return np.asarray(self.weights * np.logaddexp(0, np.where(self.labels == 1, -logits, logits)))


def class_weights(labels: np.ndarray, pos_weight: float) -> np.ndarray:
    """(n,) float64 with mean 1: a harmful video of `labels` (n,) has `pos_weight` times the weight of a safe one."""
    weights = np.where(labels == 1, pos_weight, 1.0)
    return np.asarray(weights / weights.mean())


def restricted(folds: Folds, kept: np.ndarray) -> Folds:
    """Folds as positions in `kept`, which are ascending positions of theirs; videos that are not kept are left out."""
    return [
        (np.flatnonzero(np.isin(kept, fitted)), np.flatnonzero(np.isin(kept, held_out))) for fitted, held_out in folds
    ]


def thin_out(labels: np.ndarray, folds: Folds, most: int) -> np.ndarray:
    """Positions, ascending, of all of `labels` (n,) or of about `most`, evenly spaced.

    The same share of each class that a fold holds out, and at least one video: no fold loses a rare class.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    part = labels.astype(np.int64)
    for number, (_, held_out) in enumerate(folds):
        part[held_out] += 2 * number
    kept = []
    for each in np.unique(part):
        positions = np.flatnonzero(part == each)
        num_kept = math.ceil(len(positions) * most / len(labels))
        kept.append(positions[np.linspace(0, len(positions) - 1, num_kept).astype(np.int64)])
    return np.sort(np.concatenate(kept))


def regression_logits(features: Features | Stream, regression: Regression, rows: np.ndarray) -> np.ndarray:
    """The regression's logits (n,) float64 for the videos of `rows` (n,), ascending."""
    logits = [
        regression.to(constant.device)(pooled, constant).double().cpu()
        for pooled, constant in pooled_batches(features, rows)
    ]
    return torch.cat(logits).numpy() if logits else np.empty(0)


def pooled_batches(features: Features | Stream, rows: np.ndarray) -> Iterator[tuple[Pooled, Tensor]]:
    """The videos of `rows` (n,), ascending, in batches: their pooled rows and their constant part (B, V)."""
    for video_rows, constant, mask in batches(features, torch.from_numpy(rows), small=True):
        yield pool(video_rows, mask), constant
