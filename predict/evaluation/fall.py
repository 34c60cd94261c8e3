"""Each metric on a set beside the run's own figure, and the interval of their difference."""

from dataclasses import dataclass

import numpy as np

from haechi.predict.evaluation.scored import Scored
from haechi.train.evaluate.bootstrap import NUM_DRAWS, Interval, replicate, weighted_figures
from haechi.train.evaluate.metrics import METRICS, Metric


@dataclass(frozen=True, kw_only=True)
class Change:
    """One metric in the run's own test part and on this set."""

    metric: Metric
    own: float | None
    """In the run's own test part (or out of fold); None: undefined, or the run has no such part."""
    own_interval: Interval | None
    here: float | None
    """On this set; None: undefined."""
    here_interval: Interval | None
    difference_interval: Interval | None
    """95 % interval of `here` minus `own`, for two independent samples whose groups are drawn."""

    @property
    def difference(self) -> float | None:
        """`here` minus `own`: negative where the figure fell."""
        return None if self.own is None or self.here is None else self.here - self.own


def find_changes(own: Scored | None, here: Scored, *, num_draws: int = NUM_DRAWS) -> list[Change]:
    """A `Change` for each of `metrics.METRICS`, in that order; empty if `here` is. An empty `own` counts as None.

    The intervals of a side are those of `bootstrap.intervals`, for `own` to the bit. That of the difference is None
    where a side has none: where all draws of a side give the same value, they do not tell how much it varies.
    """
    sides = {name: side for name, side in (("own", own), ("here", here)) if side is not None and len(side)}
    if "here" not in sides:
        return []

    def statistic(*weights: np.ndarray) -> dict[str, np.ndarray]:
        found = {
            name: weighted_figures(side.cells.scores, side.cells.labels, side.cells.thresholds, drawn)
            for (name, side), drawn in zip(sides.items(), weights, strict=True)
        }
        if "own" in found:
            found["difference"] = {metric: value - found["own"][metric] for metric, value in found["here"].items()}
        return {f"{metric} {name}": value for name, each in found.items() for metric, value in each.items()}

    samples = [side.sample for side in sides.values()]
    values = replicate(statistic, *samples, num_draws=num_draws, seed=2 - len(samples))  # the same seed for `here`

    def change(metric: Metric) -> Change:
        intervals = {
            name: values[f"{metric.name} {name}"].of_sample(k).telling_interval() for k, name in enumerate(sides)
        }
        return Change(
            metric=metric,
            own=sides["own"].figures[metric.name] if "own" in sides else None,
            own_interval=intervals.get("own"),
            here=here.figures[metric.name],
            here_interval=intervals["here"],
            difference_interval=values[f"{metric.name} difference"].interval()
            if intervals.get("own") and intervals["here"]
            else None,
        )

    return [change(metric) for metric in METRICS]
