"""What a head must beat on the same videos: the majority class, and logistic regression on pooled features."""

import numpy as np

from haechi.train.data.features import Features
from haechi.train.data.stream import Stream
from haechi.train.model.head import Regression
from haechi.train.model.regression import regression_logits
from haechi.train.model.scores import compute_scores


def baseline_scores(
    features: Features | Stream, labels: np.ndarray, rows: np.ndarray, regression: Regression
) -> dict[str, np.ndarray]:
    """`majority` and `logistic_regression` -> scores (N,) float64 in [0, 1] of all N videos of `features`.

    The majority class gives every video the same score: 1 if at least half of the videos of `rows` (n,), by their
    `labels` (N,), are harmful, else 0. Raises the errors of `Stream.buffers`.
    """
    return {
        "majority": np.full(len(labels), float((labels[rows] == 1).mean() >= 0.5)),
        "logistic_regression": compute_scores(regression_logits(features, regression, np.arange(len(labels)))),
    }
