"""What a head must beat on the same videos: the majority class, and logistic regression on pooled features."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from haechi.train.data.features import Features, make_batches
from haechi.train.data.stream import Stream
from haechi.train.model.head import Pooled, Regression, pool

POOL_BATCH_SIZE, POOL_BATCH_ROWS = 256, 256 * 32  # limits of a batch: videos, and rows with padding

# The most videos that the regression is fitted on: ten for each of its weights with CLIP and the logits. Their columns
# take 0.3 GB in float64, however large the cache is.
MAX_FIT_VIDEOS = 20_000

MAX_ITERATIONS = 1000  # scikit-learn's 100 are not always enough

# In cross-validation on 91 clips, 0.3 and 3 gave a lower mean ROC AUC over the folds (docs/bench/choices-cpu.json).
PRIOR_DEVIATION = 1.0


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Both baselines, fitted on the videos that the head is trained on."""

    scores: dict[str, np.ndarray]
    """`majority` and `logistic_regression` -> scores (N,) float64 in [0, 1] of all videos."""
    regression: Regression


def fit_baselines(
    features: Features | Stream,
    labels: np.ndarray,
    train_rows: np.ndarray,
    *,
    pos_weight: float | None = None,
    prior_deviation: float = PRIOR_DEVIATION,
    regression: Regression | None = None,
) -> Baselines:
    """Fit on `train_rows` (n,), ascending, and score all N videos of `features` and `labels` (N,) of 0 and 1.

    The majority class gives every video the same score: 1 if at least half of the training videos are harmful, else 0.
    See `fit_regression` for the regression, its options and the errors raised. `regression` is one that is already
    fitted with these options, such as the one in a head.
    """
    regression = (
        fit_regression(features, labels, train_rows, pos_weight=pos_weight, prior_deviation=prior_deviation)
        if regression is None
        else copy.deepcopy(regression)  # a copy, since it is moved to the features' device
    )
    logits = [
        regression.to(constant.device)(pooled, constant).cpu()
        for pooled, constant in _pooled(features, np.arange(len(labels)))
    ]
    return Baselines(
        scores={
            "majority": np.full(len(labels), float((labels[train_rows] == 1).mean() >= 0.5)),
            "logistic_regression": torch.sigmoid(torch.cat(logits).double()).numpy(),
        },
        regression=regression,
    )


def fit_regression(
    features: Features | Stream,
    labels: np.ndarray,
    train_rows: np.ndarray,
    *,
    pos_weight: float | None = None,
    prior_deviation: float = PRIOR_DEVIATION,
) -> Regression:
    """Scikit-learn's logistic regression on the D standardised columns of `Regression`.

    It is fitted on the videos of `train_rows` (n,), ascending, or on `MAX_FIT_VIDEOS` of them, evenly spaced;
    `labels` (N,) must have both classes among them. A harmful video has `pos_weight` times the weight of a safe one,
    and the mean weight is 1; None: the classes have equal weight in total. `prior_deviation` is the standard deviation
    of the logits under the prior, for any D: scikit-learn's C is its square divided by D.

    Raises the errors of `Stream.buffers`.
    """
    if len(train_rows) > MAX_FIT_VIDEOS:
        train_rows = _thin_out(train_rows, labels[train_rows])
    batches = [torch.cat([*pooled, constant], dim=1).cpu() for pooled, constant in _pooled(features, train_rows)]
    columns = torch.cat(batches).double().numpy()  # (n, D)
    truth = labels[train_rows]
    num_safe, num_harmful = np.bincount(truth, minlength=2)
    ratio = num_safe / num_harmful if pos_weight is None else pos_weight
    safe_weight = len(truth) / (num_safe + ratio * num_harmful)

    scaler = StandardScaler(copy=False)
    model = LogisticRegression(
        C=prior_deviation**2 / columns.shape[1],
        class_weight={0: safe_weight, 1: ratio * safe_weight},
        max_iter=MAX_ITERATIONS,
    )
    model.fit(scaler.fit_transform(columns), truth)
    regression = Regression(*features.widths)
    found = {"mean": scaler.mean_, "scale": scaler.scale_, "weight": model.coef_[0], "bias": model.intercept_[0]}
    regression.load_state_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in found.items()})
    return regression


def _thin_out(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """About `MAX_FIT_VIDEOS` of `rows` (n,), ascending, evenly spaced: the same share of each class, at least one."""
    kept = []
    for label in np.unique(labels):
        class_rows = rows[labels == label]
        num_kept = math.ceil(len(class_rows) * MAX_FIT_VIDEOS / len(rows))
        kept.append(class_rows[np.linspace(0, len(class_rows) - 1, num_kept).astype(np.int64)])
    return np.sort(np.concatenate(kept))


def _pooled(features: Features | Stream, rows: np.ndarray) -> Iterator[tuple[Pooled, Tensor]]:
    """The videos of `rows` (n,), ascending, in batches: their pooled rows and their constant part (B, V)."""
    index = torch.from_numpy(rows)
    parts = make_batches(index, features.lengths, max_videos=POOL_BATCH_SIZE, max_rows=POOL_BATCH_ROWS)
    for part in features.buffers(parts):
        video_rows, constant, mask = features.batch(part)
        yield pool(video_rows, mask), constant
