"""Numbers as pages show them."""

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal

import numpy as np

UNIT = "\u00a0%"  # the space does not break a line


def figure(value: float | None, digits: int) -> str:
    """Rounded as JavaScript's `toFixed` rounds, halves up, so that template and scripts show the same text."""
    if value is None:
        return "–"
    return str(Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def figure_interval(interval: Sequence[float] | None, digits: int) -> str:
    """As in `0.71 to 0.84`; empty: there is none."""
    return f"{figure(interval[0], digits)} to {figure(interval[1], digits)}" if interval else ""


def signed(value: float | None, digits: int) -> str:
    """A difference, as in `+0.05` and `−0.12`; without a sign where it rounds to 0."""
    if value is None:
        return "–"
    size = figure(abs(value), digits)
    return size if not float(size) else f"{'−' if value < 0 else '+'}{size}"


def signed_interval(interval: Sequence[float] | None, digits: int) -> str:
    """As in `−0.34 to −0.12`; empty: there is none."""
    return f"{signed(interval[0], digits)} to {signed(interval[1], digits)}" if interval else ""


def percent(share: float) -> str:
    """A share of 0 to 1, as in `0.25 %`, `4.1 %` and `73 %`."""
    return f"{_percents(share)}{UNIT}"


def percent_interval(interval: Sequence[float] | None) -> str:
    """As in `2.3 to 6.9 %`; empty: there is none."""
    return f"{_percents(interval[0])} to {_percents(interval[1])}{UNIT}" if interval else ""


def _percents(share: float) -> str:
    value = 100 * share
    if value >= 1:
        return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")
    return np.format_float_positional(value, precision=2, fractional=False, trim="-")
