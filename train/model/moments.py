"""Fits the parts of a head that find what the mean over a video hides (see `head.Moments`), without gradients.

The directions of `rows` and `steps` are those in which the covariance within harmful videos differs most from that
within safe ones: the first eigenvectors of the difference. A moment in a few rows, or a kind of unrest, shows there,
whatever direction of the features it has. What is pooled in these directions, and the trends, go into logistic
regressions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.sparse.linalg import eigsh
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from haechi.train.data.batches import batches
from haechi.train.data.features import Features
from haechi.train.data.stream import Stream
from haechi.train.model.head import MOMENTS, Moments, centred_and_steps, pool_directions, trends
from haechi.train.model.judge import Judge
from haechi.train.model.regression import Folds, Problem, thin_out

# The most videos that the directions are found in.
MAX_DIRECTION_VIDEOS = 1000

# Of eigenvalues, relative. Directions need not be exact.
EIGEN_TOLERANCE = 1e-3

# Scikit-learn's C of the regression on a few pooled values.
POOLED_C = 0.1


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of `head.MOMENTS`, fitted on n videos."""

    held_out: np.ndarray
    """(n,) float64: the logit of each video by the fit of the inner fold that holds it out."""
    bias: float
    buffers: dict[str, Tensor]
    """The buffers of `Moments` that the fit on all videos sets; for `rows` and `steps` without the first axis."""


def fit_moments(
    features: Features | Stream,
    labels: np.ndarray,
    rows: np.ndarray,
    folds: Folds,
    *,
    weights: np.ndarray,
    num_directions: int,
) -> dict[str, Part]:
    """Fit each of `head.MOMENTS` on the videos of `rows` (n,), ascending, of the N with `labels`.

    `folds` are inner folds, at least two, as positions in `rows`; `weights` (n,) those of the videos in the loss.
    `num_directions`: K, an even number, for rows and again for steps. Raises the errors of `Stream.buffers`.
    """
    truth = labels[rows]
    directions, scale = _find_directions(features, truth, rows, folds, num_directions)
    pooled, trend = _pool(features, rows, directions, scale)
    parts = {}
    for kind, name in enumerate(MOMENTS[:2]):
        part = _fit_pooled(pooled[kind], truth, weights, folds)
        part.buffers.update(directions=directions[kind, -1], scale=scale[kind])
        parts[name] = part
    return {**parts, "trend": _fit_trend(trend, truth, weights, folds)}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How a part's logits are used: multiplied by a factor, plus a shift."""

    factor: float
    shift: float

    def applied(self, logits: np.ndarray) -> np.ndarray:
        return np.asarray(self.factor * logits + self.shift)


def choose_parts(parts: dict[str, Part], start: np.ndarray, judge: Judge) -> dict[str, Scale]:
    """Part -> its scale, for those that significantly improve the logits `start` (n,).

    The directions of a part are fitted on its own videos so closely that its logits are only right up to a scale, which
    is fitted on held-out videos. Parts are tried from the one that is best alone, each beside those accepted before.
    """

    def scaled(name: str, logits: np.ndarray) -> tuple[Scale, np.ndarray]:
        scale = _fit_scale(parts[name].held_out, logits, judge)
        return scale, logits + scale.applied(parts[name].held_out)

    chosen: dict[str, Scale] = {}
    logits = start
    for name in sorted(parts, key=lambda name: judge.loss(scaled(name, start)[1])):
        scale, better = scaled(name, logits)
        if judge.prefers(better, logits):
            chosen[name], logits = scale, better
    return chosen


def _fit_scale(part: np.ndarray, start: np.ndarray, judge: Judge) -> Scale:
    """The scale with which `part` (n,), added to the logits `start` (n,), gives the least loss; no negative factor."""
    spread = part.std() or 1.0  # so that both unknowns are about 1
    found = minimize(
        lambda x: judge.loss(start + x[0] * part / spread + x[1]), np.zeros(2), bounds=[(0, None), (None, None)]
    )
    return Scale(factor=float(found.x[0] / spread), shift=float(found.x[1]))


def use_parts(moments: Moments, parts: dict[str, Part], scales: dict[str, Scale], *, factor: float) -> None:
    """Set new `moments` to the sum of the parts that `scales` names, each scaled, times `factor`."""
    for name, scale in scales.items():
        part = parts[name]
        moments.bias += (part.bias * scale.factor + scale.shift) * factor
        for buffer, values in part.buffers.items():
            target = getattr(moments, buffer)
            target = target if name == "trend" else target[MOMENTS.index(name)]
            target.copy_(values * scale.factor * factor if buffer in ("weight", "trend_weight") else values)


def _find_directions(
    features: Features | Stream, truth: np.ndarray, rows: np.ndarray, folds: Folds, num_directions: int
) -> tuple[Tensor, Tensor]:
    """Directions (2, M, K, F) of M members, one for each inner fold, which leaves its videos out, and one for all.

    Also the scale (2, F) of centred rows and of steps.
    """
    width = features.widths[0]
    fold = np.zeros(len(rows), int)
    for number, (_, held_out) in enumerate(folds):
        fold[held_out] = number
    sample = thin_out(truth, folds, MAX_DIRECTION_VIDEOS)
    scatter = torch.zeros(2, len(folds), 2, width, width)  # kind, inner fold, class: sums of squares and products
    counts = torch.zeros(len(folds), 2)
    done = 0
    for video_rows, _, mask in batches(features, torch.from_numpy(rows[sample])):
        part = sample[done : done + len(mask)]
        done += len(part)
        both = [values.cpu() for values in centred_and_steps(video_rows, mask)]
        for number, label in {*zip(fold[part].tolist(), truth[part].tolist(), strict=True)}:
            chosen = torch.from_numpy((fold[part] == number) & (truth[part] == label))
            counts[number, label] += mask.cpu()[chosen].sum()
            for kind, values in enumerate(both):
                flat = values[chosen].flatten(0, 1)  # padding is 0 and adds nothing
                scatter[kind, number, label] += flat.T @ flat
    variances = scatter.sum(dim=(1, 2)).diagonal(dim1=1, dim2=2) / counts.sum()
    scale = torch.where(variances > 0, variances, 1).sqrt()  # (2, F)
    directions = torch.zeros(2, len(folds) + 1, num_directions, width)
    for member in range(len(folds) + 1):
        used = [number for number in range(len(folds)) if number != member]
        for kind in range(2):
            difference = torch.zeros(width, width)  # of the covariances of the rows of each class
            for label, sign in ((1, 1.0), (0, -1.0)):
                num_rows = float(counts[used, label].sum())
                for number in used:
                    difference.add_(scatter[kind, number, label], alpha=sign / num_rows)
            difference /= scale[kind] * scale[kind].unsqueeze(1)
            found = _largest(difference.numpy(), num_directions // 2)
            directions[kind, member, : len(found)] = found
            directions[kind, member, num_directions // 2 :][: len(found)] = -found
    return directions, scale


def _largest(matrix: np.ndarray, count: int) -> Tensor:
    """The eigenvectors (count, F) float32 of a symmetric `matrix` (F, F) with the largest absolute eigenvalues.

    All of them if F is smaller than `count`.
    """
    width = len(matrix)
    if count < width // 2 and matrix.any():  # ARPACK fails on zeros, as of videos of one row
        start = np.random.default_rng(0).standard_normal(width).astype(matrix.dtype)
        vectors = eigsh(matrix, k=count, v0=start, tol=EIGEN_TOLERANCE)[1]
    else:
        values, vectors = np.linalg.eigh(matrix)
        vectors = vectors[:, np.argsort(-np.abs(values))[:count]]
    return torch.from_numpy(vectors.T.astype(np.float32))


def _pool(
    features: Features | Stream, rows: np.ndarray, directions: Tensor, scale: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """What is pooled in all directions, (2, n, M, K), and the trends (n, F), both float64, of the videos of `rows`."""
    _, num_members, num_directions, width = directions.shape
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    trend = []
    for video_rows, _, mask in batches(features, torch.from_numpy(rows), small=True):
        both = centred_and_steps(video_rows, mask)
        trend.append(trends(both[0], mask).cpu())
        for kind, values in enumerate(both):
            wanted = directions[kind].reshape(-1, width).to(values.device)
            found[kind].append(pool_directions(values / scale[kind].to(values.device), mask, wanted).cpu())
    pooled = torch.stack([torch.cat(parts).view(len(rows), num_members, num_directions) for parts in found])
    return pooled.double().numpy(), torch.cat(trend).double().numpy()


def _fit_pooled(pooled: np.ndarray, truth: np.ndarray, weights: np.ndarray, folds: Folds) -> Part:
    """A regression on the pooled values (n, M, K) of each member; the last is kept."""
    held_out = np.zeros(len(truth))
    for member, (fitted, others) in enumerate(folds):
        scaler, model = _fit_member(pooled[fitted, member], truth[fitted], weights[fitted])
        held_out[others] = model.decision_function(scaler.transform(pooled[others, member]))
    scaler, model = _fit_member(pooled[:, -1], truth, weights)
    buffers = {"pooled_mean": scaler.mean_, "pooled_scale": scaler.scale_, "weight": model.coef_[0]}
    return Part(held_out=held_out, bias=float(model.intercept_[0]), buffers=_as_tensors(buffers))


def _fit_member(
    values: np.ndarray, truth: np.ndarray, weights: np.ndarray
) -> tuple[StandardScaler, LogisticRegression]:
    scaler = StandardScaler().fit(values)
    return scaler, LogisticRegression(C=POOLED_C).fit(scaler.transform(values), truth, weights)


def _fit_trend(trend: np.ndarray, truth: np.ndarray, weights: np.ndarray, folds: Folds) -> Part:
    """A regression on the trends (n, F), whose strength is chosen as that of `fit_regression`."""
    scaler = StandardScaler(copy=False)
    problem = Problem(
        points=scaler.fit_transform(trend), num_columns=trend.shape[1], labels=truth, weights=weights, folds=folds
    )
    solution = problem.solve()
    buffers = {"trend_mean": scaler.mean_, "trend_scale": scaler.scale_, "trend_weight": solution.weight}
    return Part(held_out=solution.held_out, bias=solution.bias, buffers=_as_tensors(buffers))


def _as_tensors(values: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value, dtype=torch.float32) for name, value in values.items()}
