"""What the decisions mean where harmful videos are as rare as in real traffic, and what a budget of reviews finds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from haechi.predict.evaluation.scored import Scored
from haechi.train.evaluate.bootstrap import Interval

# Alerts and misses are given per this number of videos.
PER_VIDEOS = 10_000


@dataclass(frozen=True, kw_only=True)
class AtPrevalence:
    """The decisions at the frozen threshold, where a share of `prevalence` of the videos is harmful."""

    prevalence: float
    """0 to 1."""
    precision: float | None
    """Of the flagged videos, the share that is harmful; None: nothing is flagged."""
    precision_interval: Interval | None
    alerts: float
    """Flagged videos of `PER_VIDEOS`."""
    alerts_interval: Interval | None
    misses: float
    """Harmful videos of `PER_VIDEOS` that are not flagged."""
    misses_interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a review of the videos with the highest scores finds."""

    reviewed: int
    """Videos, those with the highest scores of this set."""
    of_videos: int
    """Videos of this set."""
    found: float
    """Harmful videos among the reviewed ones. Where the score of the last reviewed video is shared by others, the
    expected number."""
    share_found: float | None
    """Of all harmful videos of the set; None: there are none."""
    share_found_interval: Interval | None
    precision: float
    """Of the reviewed videos, the share that is harmful."""
    precision_interval: Interval | None


def at_prevalences(here: Scored, prevalences: Sequence[float]) -> list[AtPrevalence]:
    """The decisions at each prevalence; empty unless the set has videos of both classes."""
    raise NotImplementedError


def review(here: Scored, budgets: Sequence[int]) -> list[Budget]:
    """What each budget finds; a budget above the number of videos reviews all. Empty without videos."""
    raise NotImplementedError


def budget_curve(here: Scored, *, max_points: int = 200) -> list[tuple[int, float]]:
    """Points (reviewed, found) of the curve over all budgets from 0 to N, exact at each point."""
    raise NotImplementedError


def curve_prevalences() -> np.ndarray:
    """(61,) prevalences from 0.001 to 0.5 for the page, evenly spaced as logarithms of odds."""
    raise NotImplementedError
