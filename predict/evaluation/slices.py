"""Which parts of a set the head fails on: by kind, group, duration, resolution, and columns of the user."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from haechi.predict.evaluation.scored import Scored
from haechi.train.evaluate.bootstrap import Interval
from haechi.train.evaluate.subsets import Subset


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
    where the slice is a single group."""

    @property
    def is_worse(self) -> bool:
        """Whether the head fails more often here than elsewhere, by more than chance."""
        return self.difference_interval is not None and self.difference_interval[0] > 0


def find_slices(
    here: Scored, *, durations_seconds: np.ndarray, short_sides: np.ndarray, columns: Mapping[str, np.ndarray]
) -> list[Slice]:
    """All slices with at least `subsets.MIN_VIDEOS` of N videos. `columns`: name of a column -> (N,) str; "": no value.

    `durations_seconds` and `short_sides` are (N,), NaN where unknown.
    """
    raise NotImplementedError
