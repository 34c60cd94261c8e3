"""Labelled videos with the scores of one head: what all figures of an evaluation are computed from."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from haechi.cache.schema import HARMFUL, SAFE
from haechi.train.evaluate.bootstrap import Sample
from haechi.train.evaluate.cells import Cells
from haechi.train.evaluate.metrics import Figures, metrics_at


@dataclass(frozen=True, kw_only=True)
class Scored:
    """N labelled videos, scored by one head, or by the heads of several folds."""

    scores: np.ndarray
    """(N,) float64 in [0, 1]"""
    labels: np.ndarray
    """(N,) int8: 1 harmful, 0 safe."""
    thresholds: np.ndarray
    """(N,) float64: the threshold that decides each video; with folds, the threshold of its fold."""
    calibrated: np.ndarray
    """(N,) float64: the scores as probabilities that a video is harmful, by the run's calibration."""
    groups: np.ndarray
    """(N,) str: videos of one group are not independent; empty: no group."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def figures(self) -> Figures:
        """Their metrics."""
        return metrics_at(self.scores, self.labels, self.thresholds)

    @cached_property
    def cells(self) -> Cells:
        """Their cells, in which the bootstrap counts them. At least one video."""
        return Cells.of(self.scores, self.labels, self.thresholds)

    @cached_property
    def sample(self) -> Sample:
        """The sample that the bootstrap draws. At least one video."""
        return Sample(groups=self.groups, cells=self.cells.index)

    @property
    def num_harmful(self) -> int:
        """Harmful videos."""
        return int((self.labels == HARMFUL).sum())

    @property
    def num_safe(self) -> int:
        """Safe videos."""
        return int((self.labels == SAFE).sum())

    @property
    def share_harmful(self) -> float:
        """Share of harmful videos; NaN without videos."""
        return self.num_harmful / len(self) if len(self) else float("nan")

    def select(self, rows: np.ndarray) -> "Scored":
        """The videos of `rows` (n,), indices or bool."""
        return Scored(
            scores=self.scores[rows],
            labels=self.labels[rows],
            thresholds=self.thresholds[rows],
            calibrated=self.calibrated[rows],
            groups=self.groups[rows],
        )
