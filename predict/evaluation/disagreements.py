"""Videos whose label and score disagree: mistakes of the head, and likely errors of the labels."""

from dataclasses import dataclass

import numpy as np

from haechi.cache.schema import HARMFUL, SAFE
from haechi.predict.evaluation.scored import Scored
from haechi.train.evaluate.threshold import predict

# Two probabilities this close are equal: `cleanlab.internal.constants.FLOATING_POINT_COMPARISON`.
EQUAL = 1e-6


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A video whose decision differs from its label, or whose label is likely wrong."""

    row: int
    """Of the N evaluated videos."""
    self_confidence: float
    """Calibrated probability of the label that the video has: small where the head disagrees most."""
    is_likely_label_error: bool
    """By confident learning: the other class is the more probable one, and its probability is at least as high as it is
    on average among the videos labelled so (Northcutt, Jiang, Chuang, JAIR 70, 2021)."""


def find_disagreements(here: Scored) -> list[Disagreement]:
    """All disagreements, the most confident first: by ascending `self_confidence`."""
    confidence = self_confidence(here.calibrated, here.labels)
    is_error = likely_label_errors(here.calibrated, here.labels)
    rows = np.flatnonzero((predict(here.scores, here.thresholds) != here.labels) | is_error)
    return [
        Disagreement(row=row, self_confidence=float(confidence[row]), is_likely_label_error=bool(is_error[row]))
        for row in rows[np.argsort(confidence[rows], kind="stable")].tolist()
    ]


def self_confidence(calibrated: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) float64: the probability of the label that each video has. `calibrated` (N,) are those of harmful."""
    return np.where(labels == HARMFUL, calibrated, 1 - calibrated)


def likely_label_errors(calibrated: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) bool: whether a label is likely wrong. `calibrated` (N,) are probabilities, `labels` (N,) 0 and 1.

    Confident learning for two classes. The probabilities must come from a head that was not trained on these videos.
    Nothing is likely wrong if all labels are of one class.
    """
    confidence = self_confidence(calibrated, labels)
    if len(set(labels.tolist())) < 2:
        return np.zeros(len(labels), dtype=bool)
    mean = {label: confidence[labels == label].mean() for label in (SAFE, HARMFUL)}
    mean_of_other = np.where(labels == HARMFUL, mean[SAFE], mean[HARMFUL])
    other = 1 - confidence
    return np.asarray((other > confidence + EQUAL) & (other >= mean_of_other - EQUAL))
