"""The metrics, each declared once, and their values at a threshold.

Everything that shows or stores metrics goes through `METRICS`: metrics.json, the bootstrap intervals, the page, the
tables of the terminal, TensorBoard and experiments.csv. A new metric is one more entry there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from haechi.train.evaluate.threshold import predict

Figures = dict[str, int | float | None]
"""Name of a metric, or of a cell of the confusion matrix -> its value; None: undefined."""


@dataclass(frozen=True, kw_only=True)
class WeightedCounts:
    """Weighted numbers of videos under each of b weightings: what every metric is computed from."""

    true_positive: np.ndarray
    """(b,) harmful videos that are predicted harmful at the threshold."""
    false_positive: np.ndarray
    """(b,) safe videos that are predicted harmful at the threshold."""
    true_positive_curve: np.ndarray
    """(b, K) harmful videos whose score is at least the k-th of the K distinct scores, the highest score first."""
    false_positive_curve: np.ndarray
    """(b, K) safe videos, likewise."""

    @classmethod
    def of(
        cls, scores: np.ndarray, labels: np.ndarray, threshold: float | np.ndarray, weights: np.ndarray
    ) -> "WeightedCounts":
        """Count N videos: `scores` and `labels` (N,), `weights` (b, N); `threshold` is one for all, or (N,)."""
        flagged = predict(scores, threshold) == 1
        order = np.argsort(-scores, kind="stable")
        sorted_scores, harmful, sorted_weights = scores[order], labels[order] == 1, np.take(weights, order, axis=1)
        ends = np.append(np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1)  # (K,) last video of each score
        return cls(
            true_positive=weights @ (flagged & (labels == 1)),
            false_positive=weights @ (flagged & (labels != 1)),
            true_positive_curve=np.cumsum(sorted_weights * harmful, axis=1).take(ends, axis=1),
            false_positive_curve=np.cumsum(sorted_weights * ~harmful, axis=1).take(ends, axis=1),
        )

    @property
    def num_harmful(self) -> np.ndarray:
        """(b,) all harmful videos."""
        return self.true_positive_curve[:, -1]

    @property
    def num_safe(self) -> np.ndarray:
        """(b,) all safe videos."""
        return self.false_positive_curve[:, -1]

    @property
    def true_negative(self) -> np.ndarray:
        """(b,) safe videos that are predicted safe at the threshold."""
        count: np.ndarray = self.num_safe - self.false_positive
        return count

    @property
    def has_both_classes(self) -> np.ndarray:
        """(b,) bool"""
        return (self.num_harmful > 0) & (self.num_safe > 0)

    @cached_property
    def recall_curve(self) -> np.ndarray:
        """(b, K) recall at each distinct score as the threshold."""
        curve: np.ndarray = self.true_positive_curve / self.num_harmful[:, None]
        return curve

    @cached_property
    def recall_steps(self) -> np.ndarray:
        """(b, K) how much recall rises at each distinct score; 0 at a score that no video of the weighting has."""
        return _steps(self.recall_curve)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number from 0 to 1 that says how good scores or predictions are; higher is better."""

    name: str
    """As in metrics.json."""
    title: str
    """As in the middle of a sentence."""
    column_title: str = ""
    """Shorter, for tables; empty: the title."""
    meaning: str
    """One sentence for the page."""
    exact: Callable[..., float]
    """scikit-learn's function of labels (N,) and predictions (N,), with `sample_weight`; NaN where undefined."""
    uses_scores: bool = False
    """Whether `exact` takes scores (N,) in place of predictions."""
    weighted: Callable[[WeightedCounts], np.ndarray]
    """The same under b weightings: (b,), NaN where undefined. Division by 0 is allowed."""
    needs_both_classes: bool = False
    """Whether it is undefined where all videos have the same label; the two functions are not asked then."""
    page_place: int = 99
    """Place on the page, ascending; metrics of the same place follow each other in the order of `METRICS`."""
    is_page_tile: bool = False
    """Whether the page shows it in large type at the top, and for each fold."""
    comparison_place: int | None = None
    """Place in tables that compare runs, ascending; None: not shown there."""
    is_in_verdict: bool = False
    """Whether the comparison with the baselines rests on it."""

    @property
    def heading(self) -> str:
        """The title with a capital letter."""
        return self.title[0].upper() + self.title[1:]

    @property
    def column(self) -> str:
        """The title for tables with little room."""
        return self.column_title or self.title

    def value(self, scores: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float | None:
        """Its value for N videos, each argument (N,); None: undefined."""
        if not len(labels) or (self.needs_both_classes and len(np.unique(labels)) < 2):
            return None
        value = float(self.exact(labels, scores if self.uses_scores else predictions))
        return None if np.isnan(value) else value

    def weighted_values(self, counts: WeightedCounts) -> np.ndarray:
        """(b,) its value under each weighting, NaN where undefined."""
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0: undefined, NaN
            values = self.weighted(counts)
        return np.where(counts.has_both_classes, values, np.nan) if self.needs_both_classes else values


def _steps(curve: np.ndarray) -> np.ndarray:
    """(b, K) how much a curve (b, K) that starts at 0 rises at each place."""
    steps = curve.copy()
    steps[:, 1:] -= curve[:, :-1]
    return steps


def _average_precision(counts: WeightedCounts) -> np.ndarray:
    precision = counts.true_positive_curve / (counts.true_positive_curve + counts.false_positive_curve)
    steps = counts.recall_steps
    parts = steps * precision
    np.copyto(parts, 0, where=steps <= 0)  # precision is undefined before the first video
    total: np.ndarray = parts.sum(axis=1)
    return total


def _roc_auc(counts: WeightedCounts) -> np.ndarray:
    false_positive_rate = counts.false_positive_curve / counts.num_safe[:, None]
    area: np.ndarray = (_steps(false_positive_rate) * (counts.recall_curve - counts.recall_steps / 2)).sum(
        axis=1
    )  # trapezoids
    return area


METRICS: tuple[Metric, ...] = (
    Metric(
        name="f1",
        title="F1",
        meaning="harmonic mean of recall and precision: high only where both are",
        exact=partial(f1_score, zero_division=np.nan),
        weighted=lambda n: 2 * n.true_positive / (n.true_positive + n.false_positive + n.num_harmful),
        page_place=3,
        is_page_tile=True,
        comparison_place=1,
        is_in_verdict=True,
    ),
    Metric(
        name="precision",
        title="precision",
        meaning="of the flagged videos, the share that is harmful",
        exact=partial(precision_score, zero_division=np.nan),
        weighted=lambda n: n.true_positive / (n.true_positive + n.false_positive),
        page_place=2,
        is_page_tile=True,
    ),
    Metric(
        name="recall",
        title="recall",
        meaning="of the harmful videos, the share that is found",
        exact=partial(recall_score, zero_division=np.nan),
        weighted=lambda n: n.true_positive / n.num_harmful,
        page_place=1,
        is_page_tile=True,
    ),
    Metric(
        name="accuracy",
        title="accuracy",
        meaning="share of correct predictions; easily high where one class is rare",
        exact=accuracy_score,
        weighted=lambda n: (n.true_positive + n.true_negative) / (n.num_harmful + n.num_safe),
        page_place=7,
    ),
    Metric(
        name="balanced_accuracy",
        title="balanced accuracy",
        column_title="bal. acc.",
        meaning="mean of the shares of correct predictions among harmful and among safe videos; guessing gives 0.5",
        exact=balanced_accuracy_score,
        weighted=lambda n: (n.true_positive / n.num_harmful + n.true_negative / n.num_safe) / 2,
        needs_both_classes=True,
        page_place=6,
        comparison_place=3,
    ),
    Metric(
        name="average_precision",
        title="average precision",
        meaning="precision averaged over all recalls",
        exact=average_precision_score,
        uses_scores=True,
        weighted=_average_precision,
        needs_both_classes=True,
        page_place=5,
        is_in_verdict=True,
    ),
    Metric(
        name="roc_auc",
        title="ROC AUC",
        meaning="probability that a harmful video scores above a safe one; guessing gives 0.5",
        exact=roc_auc_score,
        uses_scores=True,
        weighted=_roc_auc,
        needs_both_classes=True,
        page_place=4,
        is_page_tile=True,
        comparison_place=2,
        is_in_verdict=True,
    ),
)
"""In the order of metrics.json and of the terminal's table of a run."""


def page_metrics() -> list[Metric]:
    """All metrics in the order of the page."""
    return sorted(METRICS, key=lambda metric: metric.page_place)


def comparison_metrics() -> list[Metric]:
    """The metrics of tables that compare runs, in the order of the columns."""
    chosen = [(metric.comparison_place, metric) for metric in METRICS if metric.comparison_place is not None]
    return [metric for _, metric in sorted(chosen, key=lambda entry: entry[0])]


def metrics_at(scores: np.ndarray, labels: np.ndarray, threshold: float | np.ndarray) -> Figures:
    """Values of all metrics, then the confusion matrix, for `scores` (N,) in [0, 1] and `labels` (N,) of 0 and 1.

    Harmful (1) is the positive class. `threshold` is one for all, or (N,), one for each video. An undefined value
    (precision where nothing is predicted harmful, ROC AUC of one class, all without videos) is None, never NaN and
    never a substitute number.
    """
    predictions = predict(scores, threshold)
    tn, fp, fn, tp = confusion_matrix(labels, predictions, labels=[0, 1]).ravel().tolist() if len(labels) else [0] * 4
    values = {metric.name: metric.value(scores, labels, predictions) for metric in METRICS}
    return {**values, "true_positive": tp, "false_positive": fp, "true_negative": tn, "false_negative": fn}
