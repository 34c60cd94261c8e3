"""Numbers as the terminal's tables show them."""

from haechi.train.evaluate.bootstrap import Interval


def number(name: str, value: float | None) -> str:
    """The value of a metric, or of another number of an experiment, by its name."""
    if value is None:
        return "undefined"
    return f"{value:.1f}" if name == "seconds" else f"{value:.3f}"


def interval(interval: Interval | None) -> str:
    """A 95 % interval, as in `0.816–0.929`."""
    return "undefined" if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"
