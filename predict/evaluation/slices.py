"""Which parts of a set the head fails on: by kind, group, duration, resolution, and columns of the user."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from haechi.predict.evaluation.scored import Scored
from haechi.train.evaluate.bootstrap import COVERAGE, Interval, Replicates, Sample, replicate
from haechi.train.evaluate.subsets import Subset, find_rows, measure_subsets
from haechi.train.evaluate.threshold import predict

# More than for 95 % intervals: for 50 slices, the ends are the 2.5 smallest and largest of 5,000 draws.
NUM_SLICE_DRAWS = 5000


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Some videos of the set, their metrics, and how their share of mistakes compares with that of the other videos."""

    subset: Subset
    """Its `by` may also be a column of the user."""
    mistakes: float
    """Share of wrong decisions."""
    other_mistakes: float | None
    """Share of wrong decisions among the other videos; None: there are none."""
    difference_interval: Interval | None
    """Interval of `mistakes` minus `other_mistakes`, over groups, at a level that holds for all slices together; None
    where the slice is a single group, or so few that more than a tenth of the draws have none of them."""

    @property
    def is_worse(self) -> bool:
        """Whether the head fails more often here than elsewhere, by more than chance."""
        return self.difference_interval is not None and self.difference_interval[0] > 0


def find_slices(
    here: Scored,
    *,
    durations_seconds: np.ndarray,
    short_sides: np.ndarray,
    columns: Mapping[str, np.ndarray],
    num_draws: int = NUM_SLICE_DRAWS,
) -> list[Slice]:
    """All slices with at least `subsets.MIN_VIDEOS` of N videos. `columns`: name of a column -> (N,) str; "": no value.

    `durations_seconds` and `short_sides` are (N,), NaN where unknown. The intervals are those of `bootstrap`, each with
    a coverage of 1 - 0.05 / number of slices (Bonferroni), expanded for the number of groups in the slice.
    """
    found = find_rows(groups=here.groups, durations_seconds=durations_seconds, short_sides=short_sides, columns=columns)
    if not found:
        return []
    subsets = measure_subsets(found, here.scores, here.labels, here.thresholds)
    wrong = predict(here.scores, here.thresholds) != here.labels
    kinds = list(dict.fromkeys(by for by, _, _ in found))
    place = np.zeros((1 + len(kinds), len(here)), dtype=np.int64)  # the last: all videos
    for k, (by, _, rows) in enumerate(found):
        place[kinds.index(by), rows] = 1 + k
    place[-1] = 1 + len(found)

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        """Share of mistakes in each slice minus that of the other videos."""
        counts = np.pad(weights, ((0, 0), (0, 2 * (2 + len(found)) - weights.shape[1]))).reshape(len(weights), -1, 2)
        videos, mistakes = counts.sum(axis=2), counts[:, :, 1]  # (b, 2 + slices)
        others, other_mistakes = videos[:, -1:] - videos, mistakes[:, -1:] - mistakes
        with np.errstate(invalid="ignore", divide="ignore"):  # no video: undefined, NaN
            differences = mistakes / videos - other_mistakes / others
        return {str(k): differences[:, 1 + k] for k in range(len(found))}

    sample = Sample(groups=here.groups, cells=2 * place + wrong)
    values = replicate(statistic, sample, num_draws=num_draws)
    coverage = 1 - (1 - COVERAGE) / len(found)
    return [
        _slice(subset, rows, wrong, sample.number, values[str(k)], coverage)
        for k, (subset, (_, _, rows)) in enumerate(zip(subsets, found, strict=True))
    ]


def _slice(
    subset: Subset, rows: np.ndarray, wrong: np.ndarray, number: np.ndarray, difference: Replicates, coverage: float
) -> Slice:
    """The slice of the `rows` (n,) of N videos, of which `wrong` (N,) are and whose groups have the numbers (N,)."""
    num_groups, num_others = len(np.unique(number[rows])), len(wrong) - len(rows)
    return Slice(
        subset=subset,
        mistakes=float(wrong[rows].mean()),
        other_mistakes=float((wrong.sum() - wrong[rows].sum()) / num_others) if num_others else None,
        difference_interval=replace(difference, num_groups=(num_groups,)).interval(coverage=coverage),
    )
