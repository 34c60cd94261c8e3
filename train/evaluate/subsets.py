"""Metrics of subsets of the videos: by group, by duration and by resolution, to see where a head fails."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from haechi.cache.schema import HARMFUL
from haechi.train.evaluate.metrics import Figures, metrics_at

# Metrics of fewer videos than this are meaningless.
MIN_VIDEOS = 5
# Only the largest groups, and values of a column, are listed: a dataset may have thousands.
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

# What subsets are found by without a column of the user.
ALWAYS_SHOWN = ("group", "duration", "resolution")


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Some of the videos of a part of the split, and the metrics of these videos alone."""

    by: str
    """`group`, `duration` or `resolution` (of the shorter side), or the name of a column."""
    name: str
    """The group, the band, such as `5 s to 15 s`, or the value in the column."""
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
    columns: Mapping[str, np.ndarray] | None = None,
) -> list[Subset]:
    """All subsets with at least `MIN_VIDEOS` of N videos: groups, the largest first, then the bands in order, then the
    values of each of the `columns` (name -> (N,) str), the most frequent first.

    Arguments are (N,); `threshold` is one for all, or (N,). A group or value "" and a NaN belong to no subset.
    """
    found = find_rows(
        groups=groups, durations_seconds=durations_seconds, short_sides=short_sides, columns=columns or {}
    )
    return measure_subsets(found, scores, labels, threshold)


def measure_subsets(
    rows: list[tuple[str, str, np.ndarray]], scores: np.ndarray, labels: np.ndarray, threshold: float | np.ndarray
) -> list[Subset]:
    """A `Subset` for each entry of `find_rows`; `scores` and `labels` are (N,), `threshold` is one for all, or (N,)."""
    thresholds = np.broadcast_to(threshold, scores.shape)
    return [
        Subset(
            by=by,
            name=name,
            count=len(each),
            harmful=int((labels[each] == HARMFUL).sum()),
            figures=metrics_at(scores[each], labels[each], thresholds[each]),
        )
        for by, name, each in rows
    ]


def find_rows(
    *,
    groups: np.ndarray,
    durations_seconds: np.ndarray,
    short_sides: np.ndarray,
    columns: Mapping[str, np.ndarray],
) -> list[tuple[str, str, np.ndarray]]:
    """`by`, `name` and rows (n,) of each subset that `find_subsets` lists, in its order."""
    bands = [
        ("duration", _bands(durations_seconds, DURATION_BANDS), list(DURATION_BANDS)),
        ("resolution", _bands(short_sides, RESOLUTION_BANDS), list(RESOLUTION_BANDS)),
    ]
    named = [
        ("group", groups, _most_frequent(groups)),
        *bands,
        *((name, values, _most_frequent(values)) for name, values in columns.items()),
    ]
    return [
        (by, name, rows)
        for by, values, names in named
        for name in names
        if len(rows := np.flatnonzero(values == name)) >= MIN_VIDEOS
    ]


def _most_frequent(values: np.ndarray) -> list[str]:
    """The `MAX_GROUPS` most frequent of N values that are not "", equally frequent ones in alphabetical order."""
    found, counts = np.unique(values[values != ""].astype(str), return_counts=True)
    names: list[str] = found[np.argsort(-counts, kind="stable")][:MAX_GROUPS].tolist()
    return names


def _bands(values: np.ndarray, bands: dict[str, float]) -> np.ndarray:
    """(N,) str: the first band whose upper end is at least the value; "" for NaN."""
    known = np.array([*bands, ""], dtype=object)
    places = np.searchsorted(list(bands.values()), values)
    return known[np.where(np.isnan(values), len(bands), places)]
