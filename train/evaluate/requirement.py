"""Requirements for pipelines, such as `f1>=0.75`: met by the lower end of the interval, or by the figure itself."""

from dataclasses import dataclass

from haechi.train.evaluate.bootstrap import Interval


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """The least value of a metric."""

    text: str
    """As the user wrote it."""
    metric: str
    """Name of a metric in `metrics.METRICS`."""
    least: float
    """0 to 1."""

    @classmethod
    def parse(cls, text: str) -> "Requirement":
        """Read a requirement from its text. Raises `TrainError` that lists the forms."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a requirement is met."""

    requirement: Requirement
    value: float | None
    """The figure; None: undefined."""
    interval: Interval | None
    by_point: bool
    """Whether the figure itself counts, and not the lower end of its interval."""
    met: bool

    @property
    def sentence(self) -> str:
        """One sentence, such as `f1>=0.75 is not met: the lower end of the interval of F1 0.78 is 0.71`."""
        raise NotImplementedError
