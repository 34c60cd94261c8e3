"""Where a head fails: its figures by group, by length and by resolution."""

from dataclasses import dataclass

import numpy as np

from haechi.cache.schema import HARMFUL
from haechi.train.evaluate.metrics import Figures, metrics_at

# A slice of fewer videos than this says nothing.
FEWEST_IN_SLICE = 5
# The largest groups that are shown: a dataset may have thousands.
MOST_GROUPS = 20

# Upper ends of the bands, our choice: the lengths of clips, reels, short videos and films; common heights of video.
DURATION_BANDS = {"up to 5 s": 5, "5 s to 15 s": 15, "15 s to 1 min": 60, "1 min to 5 min": 300, "over 5 min": np.inf}
RESOLUTION_BANDS = {
    "up to 240 pixels": 240,
    "241 to 360 pixels": 360,
    "361 to 480 pixels": 480,
    "481 to 720 pixels": 720,
    "over 720 pixels": np.inf,
}


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Some of the videos of a part, with the figures of these alone."""

    by: str
    """`group`, `duration` or `resolution` (of the shorter side)."""
    name: str
    count: int
    harmful: int
    figures: Figures


def slices(
    scores: np.ndarray,
    labels: np.ndarray,
    threshold: float | np.ndarray,
    *,
    groups: np.ndarray,
    durations_seconds: np.ndarray,
    short_sides: np.ndarray,
) -> list[Slice]:
    """Slices of at least `FEWEST_IN_SLICE` of N videos, each argument (N,): of groups the largest first.

    `threshold` is one for all, or (N,).
    """
    thresholds = np.broadcast_to(threshold, scores.shape)
    names = {
        "group": groups,
        "duration": _bands(durations_seconds, DURATION_BANDS),
        "resolution": _bands(short_sides, RESOLUTION_BANDS),
    }
    orders = {"duration": list(DURATION_BANDS), "resolution": list(RESOLUTION_BANDS)}
    found, counts = np.unique(groups[groups != ""].astype(str), return_counts=True)
    orders["group"] = found[np.argsort(-counts, kind="stable")][:MOST_GROUPS].tolist()
    return [
        Slice(
            by=by,
            name=name,
            count=len(rows),
            harmful=int((labels[rows] == HARMFUL).sum()),
            figures=metrics_at(scores[rows], labels[rows], thresholds[rows]),
        )
        for by in names
        for name in orders[by]
        if len(rows := np.flatnonzero(names[by] == name)) >= FEWEST_IN_SLICE
    ]


def _bands(values: np.ndarray, bands: dict[str, float]) -> np.ndarray:
    """(N,) str: the first band whose upper end a value does not pass; a NaN is in none."""
    known = np.array([*bands, ""], dtype=object)
    places = np.searchsorted(list(bands.values()), values)
    return known[np.where(np.isnan(values), len(bands), places)]
