"""Videos counted in cells, so that the metrics of many draws of many videos are computed from few numbers.

Every metric depends only on how many videos of each label have each score, on either side of the threshold.
"""

from dataclasses import dataclass

import numpy as np

from haechi.train.evaluate.threshold import predict

# Up to this many videos, every video is a cell by itself; up to this many distinct scores, every score has its cells.
MAX_EXACT = 4096
# With more, scores are put into bins between this many quantiles of the scores of each label. At 20,000 videos the ends
# of the intervals then move by less than a fiftieth of their widths.
NUM_QUANTILES = 1024


@dataclass(frozen=True, kw_only=True)
class Cells:
    """C cells of N videos. The videos of a cell have the same label and lie on the same side of their thresholds."""

    scores: np.ndarray
    """(C,) float64: the score that stands for the cell; the lowest of its bin."""
    labels: np.ndarray
    """(C,) 1 harmful, 0 safe."""
    thresholds: np.ndarray
    """(C,) float64: thresholds that flag the cells of flagged videos and no others."""
    index: np.ndarray | None
    """(N,) int: the cell of each video; None: every video is a cell, in order."""

    @classmethod
    def of(cls, scores: np.ndarray, labels: np.ndarray, threshold: float | np.ndarray) -> "Cells":
        """The cells of videos with `scores` and `labels` (N,); `threshold` is one for all, or (N,)."""
        thresholds = np.broadcast_to(threshold, scores.shape)
        if len(scores) <= MAX_EXACT:
            return cls(scores=scores, labels=labels, thresholds=thresholds, index=None)
        edges, bins = bin_scores(scores, labels)
        keys = 4 * bins + 2 * (labels == 1) + predict(scores, thresholds)
        found, index = np.unique(keys, return_inverse=True)
        return cls(
            scores=edges[found // 4],
            labels=found // 2 % 2,
            thresholds=np.where(found % 2, -np.inf, np.inf),
            index=index,
        )

    def __len__(self) -> int:
        return len(self.labels)


def bin_scores(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest score of each of K bins (K,), ascending, and the bin of each of N videos (N,).

    Each distinct score has a bin of its own if there are at most `MAX_EXACT`.
    """
    edges, bins = np.unique(scores, return_inverse=True)
    if len(edges) <= MAX_EXACT:
        return edges, bins
    shares = np.arange(NUM_QUANTILES) / NUM_QUANTILES
    quantiles = [
        np.quantile(scores[labels == label], shares, method="inverted_cdf")
        for label in (0, 1)
        if (labels == label).any()
    ]
    edges = np.unique(np.concatenate([[scores.min()], *quantiles]))
    return edges, np.searchsorted(edges, scores, side="right") - 1
