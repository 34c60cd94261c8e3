"""Plain scikit-learn classifiers on pooled features, to compare heads with.

Each has the strength of its regularisation chosen by cross-validation among its own training videos.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from haechi.train.data.dataset import Dataset
from haechi.train.data.features import make_batches
from haechi.train.data.groups import own_groups
from haechi.train.model.head import pool

STRENGTHS = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]  # scikit-learn's C
BATCH_VIDEOS, BATCH_ROWS = 256, 8192


@dataclass(frozen=True, kw_only=True)
class Columns:
    """One row of numbers for each of N videos, with its label and group."""

    pooled: dict[str, np.ndarray]
    """`mean`, `spread` and `step` over the rows, and `constant`: (N, width) float32 each."""
    labels: np.ndarray
    """(N,) int: 1 harmful, 0 safe."""
    groups: np.ndarray
    """(N,) str; empty: no group."""

    def joined(self, *names: str) -> np.ndarray:
        """(N, D) float32: these of `pooled`, side by side."""
        return np.concatenate([self.pooled[name] for name in names], axis=1)


Pipeline = Callable[[Columns, np.ndarray, int], np.ndarray]
"""Fits on the videos of `rows` (n,), with a seed, and returns scores (N,) float64 of all videos."""


def read_columns(dataset: Dataset) -> Columns:
    """Pool the features of a dataset over the rows of each video."""
    index = torch.arange(len(dataset.labels))
    parts = []
    batches = make_batches(index, dataset.features.lengths, max_videos=BATCH_VIDEOS, max_rows=BATCH_ROWS)
    for part in dataset.features.buffers(batches):
        rows, constant, mask = dataset.features.batch(part)
        parts.append([each.numpy() for each in (*pool(rows, mask), constant)])
    arrays = [np.concatenate(each) for each in zip(*parts, strict=True)]
    return Columns(
        pooled=dict(zip(("mean", "spread", "step", "constant"), arrays, strict=True)),
        labels=dataset.labels.astype(int),
        groups=dataset.groups,
    )


def regression(*names: str) -> Pipeline:
    """Logistic regression on standardised columns; inner folds choose C by log loss."""

    def scores(columns: Columns, rows: np.ndarray, seed: int) -> np.ndarray:
        x = columns.joined(*names)
        # With fewer videos than columns, the regression only depends on the columns' projection on the videos' span.
        scale = make_pipeline(StandardScaler(), *([PCA(svd_solver="full")] if len(rows) < x.shape[1] else []))
        x = scale.fit(x[rows]).transform(x)
        model = GridSearchCV(
            LogisticRegression(max_iter=300),
            {"C": STRENGTHS},
            cv=_inner_folds(columns, rows, seed),
            scoring="neg_log_loss",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x[rows], columns.labels[rows])
        result: np.ndarray = model.predict_proba(x)[:, 1]
        return result

    return scores


def rbf_svm(*names: str) -> Pipeline:
    """Support vector machine with a Gaussian kernel on standardised columns; inner folds choose C by ROC AUC."""

    def scores(columns: Columns, rows: np.ndarray, seed: int) -> np.ndarray:
        x = columns.joined(*names)
        x = StandardScaler().fit(x[rows]).transform(x)
        kernel = rbf_kernel(x, x[rows], gamma=1 / x.shape[1])  # (N, n); this gamma is scikit-learn's `scale`
        model = GridSearchCV(
            SVC(kernel="precomputed", class_weight="balanced"),
            {"C": [0.3, 1.0, 3.0]},
            cv=_inner_folds(columns, rows, seed),
            scoring="roc_auc",
        ).fit(kernel[rows], columns.labels[rows])
        result: np.ndarray = expit(model.decision_function(kernel))
        return result

    return scores


def _inner_folds(columns: Columns, rows: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """At most five folds of `rows` (n,), stratified, groups whole: positions in `rows` to fit and to test."""
    labels, groups = columns.labels[rows], own_groups(columns.groups[rows])
    number = min(5, *(len(set(groups[labels == label].tolist())) for label in (0, 1)))
    folds = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
    return [(fit, test) for fit, test in folds.split(labels, labels, groups)]
