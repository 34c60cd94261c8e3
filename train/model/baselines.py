"""What a head has to beat on the same rows: the majority class, and logistic regression on pooled features."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from haechi.train.data.features import Features, batches_of
from haechi.train.data.stream import Stream
from haechi.train.model.head import Pooled, Regression, pool

POOL_BATCH_SIZE, POOL_BATCH_ROWS = 256, 256 * 32  # videos, and their rows, padding included

# So many videos fit the regression at most: ten for each weight that CLIP and the logits give it, in 0.3 GB of float64
# however large the cache.
MAX_FIT_VIDEOS = 20_000

MAX_ITERATIONS = 1000  # scikit-learn's 100 are not always enough

# Cross-validated on 91 clips, 0.3 and 3 gave a lower ROC AUC in the mean of the folds (docs/bench/choices-cpu.json).
PRIOR_DEVIATION = 1.0


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Both baselines, fitted on the videos that the head is trained on."""

    scores: dict[str, np.ndarray]
    """`majority` and `logistic_regression` -> (N,) float64 in [0, 1]: every video's."""
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

    The majority class is the same score for every video: 1 where most training videos are harmful, else 0. For the
    regression and its options see `fit_regression`; `regression` is one that was fitted so before, as a head's own.
    Raises as that does.
    """
    regression = (
        fit_regression(features, labels, train_rows, pos_weight=pos_weight, prior_deviation=prior_deviation)
        if regression is None
        else copy.deepcopy(regression)  # it is moved to where the features are
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

    Videos of `train_rows` (n,), ascending, fit it, or `MAX_FIT_VIDEOS` of them, spaced evenly. A harmful video weighs
    `pos_weight` times a safe one, at a mean of 1; None: so much that the classes balance. `prior_deviation` is the
    standard deviation that the prior gives logits, whatever D is: scikit-learn's C is its square over D.

    Raises as `Stream.windows` does. `labels` (N,) of the rows hold both classes.
    """
    if len(train_rows) > MAX_FIT_VIDEOS:
        train_rows = _thinned(train_rows, labels[train_rows])
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


def _thinned(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """About `MAX_FIT_VIDEOS` of `rows` (n,), ascending, spaced evenly: the same share of each class, one at least."""
    kept = []
    for label in np.unique(labels):
        of_class = rows[labels == label]
        num_kept = math.ceil(len(of_class) * MAX_FIT_VIDEOS / len(rows))
        kept.append(of_class[np.linspace(0, len(of_class) - 1, num_kept).astype(np.int64)])
    return np.sort(np.concatenate(kept))


def _pooled(features: Features | Stream, rows: np.ndarray) -> Iterator[tuple[Pooled, Tensor]]:
    """The videos of `rows` (n,), ascending, in batches: their rows pooled, and their constant part (B, V)."""
    index = torch.from_numpy(rows)
    parts = batches_of(index, features.lengths, max_videos=POOL_BATCH_SIZE, max_rows=POOL_BATCH_ROWS)
    for part in features.windows(parts):
        of_rows, constant, mask = features.batch(part)
        yield pool(of_rows, mask), constant
