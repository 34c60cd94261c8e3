"""Metrics of subsets of the videos: by group, by duration and by resolution, to see where a head fails."""

from dataclasses import dataclass

import numpy as np

from haechi.cache.schema import HARMFUL
from haechi.train.evaluate.metrics import Figures, metrics_at

# Metrics of fewer videos than this are meaningless.
MIN_VIDEOS = 5
# Only the largest groups are listed: a dataset may have thousands.
MAX_GROUPS = 20

# Name of each band -> its upper end, in seconds or pixels. Our choice: typical durations of clips, reels, short videos
# and films; common heights of video.
DURATION_BANDS = {"up to 5 s": 5, "5 s to 15 s": 15, "15 s to 1 min": 60, "1 min to 5 min": 300, "over 5 min": np.inf}
RESOLUTION_BANDS = {
    "up to 240 pixels": 240,
    "241 to 360 pixels": 360,
    "361 to 480 pixels": 480,
    "481 to 720 pixels": 720,
    "over 720 pixels": np.inf,
}


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Some of the videos of a part of the split, and the metrics of these videos alone."""

    by: str
    """`group`, `duration` or `resolution` (of the shorter side)."""
    name: str
    """The group, or the band, such as `5 s to 15 s`."""
    count: int
    """Videos."""
    harmful: int
    """Harmful videos among them."""
    figures: Figures


def find_subsets(
    scores: np.ndarray,
    labels: np.ndarray,
    threshold: float | np.ndarray,
    *,
    groups: np.ndarray,
    durations_seconds: np.ndarray,
    short_sides: np.ndarray,
) -> list[Subset]:
    """All subsets with at least `MIN_VIDEOS` of N videos: groups, the largest first, then the bands in order.

    Arguments are (N,); `threshold` is one for all, or (N,). A group "" and a NaN belong to no subset.
    """
    thresholds = np.broadcast_to(threshold, scores.shape)
    names = {
        "group": groups,
        "duration": _bands(durations_seconds, DURATION_BANDS),
        "resolution": _bands(short_sides, RESOLUTION_BANDS),
    }
    orders = {"duration": list(DURATION_BANDS), "resolution": list(RESOLUTION_BANDS)}
    found, counts = np.unique(groups[groups != ""].astype(str), return_counts=True)
    orders["group"] = found[np.argsort(-counts, kind="stable")][:MAX_GROUPS].tolist()
    return [
        Subset(
            by=by,
            name=name,
            count=len(rows),
            harmful=int((labels[rows] == HARMFUL).sum()),
            figures=metrics_at(scores[rows], labels[rows], thresholds[rows]),
        )
        for by in names
        for name in orders[by]
        if len(rows := np.flatnonzero(names[by] == name)) >= MIN_VIDEOS
    ]


def _bands(values: np.ndarray, bands: dict[str, float]) -> np.ndarray:
    """(N,) str: the first band whose upper end is at least the value; "" for NaN."""
    known = np.array([*bands, ""], dtype=object)
    places = np.searchsorted(list(bands.values()), values)
    return known[np.where(np.isnan(values), len(bands), places)]
