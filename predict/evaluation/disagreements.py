"""Videos whose label and score disagree: mistakes of the head, and likely errors of the labels."""

from dataclasses import dataclass

import numpy as np

from haechi.predict.evaluation.scored import Scored


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A video whose decision differs from its label, or whose label is likely wrong."""

    row: int
    """Of the N evaluated videos."""
    self_confidence: float
    """Calibrated probability of the label that the video has: small where the head disagrees most."""
    is_likely_label_error: bool
    """By confident learning: the probability of the other class is at least as high as it is on average among the
    videos labelled so (Northcutt, Jiang, Chuang, JAIR 70, 2021)."""


def find_disagreements(here: Scored) -> list[Disagreement]:
    """All disagreements, the most confident first: by ascending `self_confidence`."""
    raise NotImplementedError


def likely_label_errors(calibrated: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) bool: whether a label is likely wrong. `calibrated` (N,) are probabilities, `labels` (N,) 0 and 1."""
    raise NotImplementedError
