"""Each metric on a set beside the run's own figure, and the interval of their difference."""

from dataclasses import dataclass

from haechi.predict.evaluation.scored import Scored
from haechi.train.evaluate.bootstrap import Interval
from haechi.train.evaluate.metrics import Metric


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


def find_changes(own: Scored | None, here: Scored) -> list[Change]:
    """A `Change` for each of `metrics.METRICS`, in that order."""
    raise NotImplementedError
