"""The share of harmful videos among unlabelled ones, with an interval."""

from dataclasses import dataclass

import numpy as np

from haechi.predict.evaluation.scored import Scored
from haechi.train.evaluate.bootstrap import Interval


@dataclass(frozen=True, kw_only=True)
class PrevalenceEstimate:
    """The estimated share of harmful videos among n unlabelled ones."""

    num_videos: int
    """n"""
    source: str
    """Whose labelled videos it rests on: `here`, labelled videos of this set, or `own`, the run's own part."""
    value: float | None
    """0 to 1; None: no estimate, see `reason`."""
    interval: Interval | None
    """95 % interval."""
    flagged: float
    """Share of the videos that reach the threshold: what counting decisions would give."""
    fit_p_value: float | None
    """Probability of a worse fit if the scores are a mixture of those of harmful and of safe videos of the source."""
    reason: str
    """Why there is no estimate, in a sentence; empty: there is one."""


def estimate_prevalence(
    scores: np.ndarray, calibrated: np.ndarray, groups: np.ndarray, *, threshold: float, source: Scored, name: str
) -> PrevalenceEstimate:
    """Estimate the share of harmful videos among n unlabelled ones; the arrays are (n,), `name` is `source`'s name."""
    raise NotImplementedError
