"""How good scores are at a threshold. All figures are scikit-learn's."""

import numpy as np
from sklearn import metrics

from haechi.train.evaluate.threshold import predict

Figures = dict[str, int | float | None]


def metrics_at(scores: np.ndarray, labels: np.ndarray, threshold: float | np.ndarray) -> Figures:
    """Figures for `scores` (N,) in [0, 1] against `labels` (N,) of 0 and 1; harmful is the positive class.

    `threshold` is one for all, or (N,): each video's own.

    A figure that is undefined (precision where nothing is predicted harmful, ROC AUC of one class) is None, never NaN
    and never a number that stands for it.
    """
    predictions = predict(scores, threshold)
    tn, fp, fn, tp = metrics.confusion_matrix(labels, predictions, labels=[0, 1]).ravel().tolist()
    has_both = tn + fp > 0 and fn + tp > 0
    options = {"zero_division": np.nan}
    figures = {
        "f1": metrics.f1_score(labels, predictions, **options) if tp + fp + fn else None,
        "precision": metrics.precision_score(labels, predictions, **options) if tp + fp else None,
        "recall": metrics.recall_score(labels, predictions, **options) if tp + fn else None,
        "accuracy": metrics.accuracy_score(labels, predictions) if len(labels) else None,
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, predictions) if has_both else None,
        "average_precision": metrics.average_precision_score(labels, scores) if has_both else None,
        "roc_auc": metrics.roc_auc_score(labels, scores) if has_both else None,
    }
    plain = {name: None if value is None else float(value) for name, value in figures.items()}
    return {**plain, "true_positive": tp, "false_positive": fp, "true_negative": tn, "false_negative": fn}
