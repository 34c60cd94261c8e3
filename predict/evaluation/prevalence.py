"""What the decisions mean where harmful videos are as rare as in real traffic, and what a budget of reviews finds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t

from haechi.cache.schema import HARMFUL, SAFE
from haechi.predict.evaluation.scored import Scored
from haechi.train.data.groups import group_numbers
from haechi.train.evaluate.bootstrap import COVERAGE, NUM_DRAWS, Interval, replicate
from haechi.train.evaluate.metrics import WeightedCounts
from haechi.train.evaluate.threshold import predict

NUM_POSTERIOR_DRAWS = 20_000

# Prevalences of the page's curve.
LEAST_PREVALENCE, GREATEST_PREVALENCE, NUM_PREVALENCES = 0.001, 0.5, 61

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
    """The decisions at each prevalence; empty unless the set has videos of both classes.

    The recall and the false positive rate are drawn from their posterior distributions under Jeffreys' prior,
    Beta(k + 1/2, n - k + 1/2) for k flagged of n videos of a class, so that the intervals keep their width where no
    safe video is flagged, or every harmful one. Videos of one group are not independent: both numbers are divided by
    the design effect (Rao and Scott, "A Simple Method for the Analysis of Clustered Binary Data", Biometrics 48, 1992),
    and for few groups as Korn and Graubard do ("Confidence Intervals for Proportions with Small Expected Number of
    Positive Counts Estimated from Survey Data", Survey Methodology 24, 1998). The prevalence is taken as exact.
    """
    if not (here.num_harmful and here.num_safe):
        return []
    flagged = predict(here.scores, here.thresholds) == 1
    rng = np.random.default_rng(0)
    rates, drawn = [], []
    for label in (HARMFUL, SAFE):
        rows = here.labels == label
        rates.append(float(flagged[rows].mean()))
        drawn.append(_posterior(flagged[rows], here.groups[rows], rng))

    def found(prevalence: float) -> AtPrevalence:
        recall, false_positive_rate = rates
        value = _Decisions.of(recall, false_positive_rate, prevalence)
        draws = _Decisions.of(drawn[0], drawn[1], prevalence)
        return AtPrevalence(
            prevalence=prevalence,
            precision=float(value.precision) if value.alerts > 0 else None,
            precision_interval=_middle(draws.precision, value.precision) if value.alerts > 0 else None,
            alerts=float(value.alerts),
            alerts_interval=_middle(draws.alerts, value.alerts),
            misses=float(value.misses),
            misses_interval=_middle(draws.misses, value.misses),
        )

    return [found(float(prevalence)) for prevalence in prevalences]


@dataclass(frozen=True, kw_only=True)
class _Decisions:
    """What two rates mean at a prevalence; arrays (b,), or numbers."""

    precision: np.ndarray
    """NaN where nothing is flagged."""
    alerts: np.ndarray
    misses: np.ndarray

    @classmethod
    def of(cls, recall: float | np.ndarray, false_positive_rate: float | np.ndarray, prevalence: float) -> "_Decisions":
        """Decisions at rates (b,)."""
        hits = prevalence * np.asarray(recall)
        flagged = hits + (1 - prevalence) * np.asarray(false_positive_rate)
        precision = np.divide(hits, flagged, out=np.full(flagged.shape, np.nan), where=flagged > 0)
        return cls(precision=precision, alerts=PER_VIDEOS * flagged, misses=PER_VIDEOS * (prevalence - hits))


def _posterior(flagged: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(b,) draws of the share of flagged videos, from `flagged` (n,) bool of videos with `groups` (n,)."""
    number = group_numbers(groups)
    sizes = np.bincount(number).astype(np.float64)
    n, num_groups, share = len(flagged), len(sizes), flagged.mean()
    if 0 < share < 1 and num_groups > 1:
        residuals = np.bincount(number, weights=flagged) - sizes * share
        variance = num_groups / (num_groups - 1) * (residuals**2).sum() / n**2
        effect = max(1.0, variance / (share * (1 - share) / n))
    else:  # the videos do not tell: as if all videos of a group were decided alike
        effect = (sizes**2).sum() / n
    if 1 < num_groups < n:
        tail = (1 + COVERAGE) / 2
        effect *= (t.ppf(tail, num_groups - 1) / t.ppf(tail, n - 1)) ** 2
    return rng.beta(flagged.sum() / effect + 0.5, (~flagged).sum() / effect + 0.5, size=NUM_POSTERIOR_DRAWS)


def _middle(draws: np.ndarray, value: np.ndarray) -> Interval:
    """The interval of `draws` (b,), extended to the estimated `value` where a rate is 0 or 1 (Brown, Cai, DasGupta,
    "Interval Estimation for a Binomial Proportion", Statistical Science 16, 2001, section 4.1.2)."""
    low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return min(float(low), float(value)), max(float(high), float(value))


def review(here: Scored, budgets: Sequence[int], *, num_draws: int = NUM_DRAWS) -> list[Budget]:
    """What each budget, at least 1, finds; a budget above the number of videos reviews all. Empty without videos.

    The intervals are those of `bootstrap`: in each draw, the same share of the videos is reviewed. None where all draws
    give the same value.
    """
    if not len(here) or not budgets:
        return []
    reviewed = np.minimum(np.asarray(budgets, dtype=np.int64), len(here))
    all_found = _found(_all_counts(here), reviewed[:, None])[:, 0]
    cells = here.cells

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        counts = WeightedCounts.of(cells.scores, cells.labels, cells.thresholds, weights)
        depths = (counts.num_harmful + counts.num_safe) * (reviewed / len(here))[:, None]  # (budgets, b)
        found = _found(counts, depths)
        with np.errstate(invalid="ignore", divide="ignore"):  # no harmful video, or none at all: undefined, NaN
            shares, precisions = found / counts.num_harmful, found / depths
        return {f"share {i}": share for i, share in enumerate(shares)} | {
            f"precision {i}": precision for i, precision in enumerate(precisions)
        }

    values = replicate(statistic, here.sample, num_draws=num_draws)
    return [
        Budget(
            reviewed=int(each),
            of_videos=len(here),
            found=float(found),
            share_found=float(found / here.num_harmful) if here.num_harmful else None,
            share_found_interval=values[f"share {i}"].telling_interval(),
            precision=float(found / each),
            precision_interval=values[f"precision {i}"].telling_interval(),
        )
        for i, (each, found) in enumerate(zip(reviewed, all_found, strict=True))
    ]


def budget_curve(here: Scored, *, max_points: int = 200) -> list[tuple[int, float]]:
    """Points (reviewed, found) of the curve over all budgets from 0 to N, exact at each point; close at small budgets.

    Empty without videos.
    """
    n = len(here)
    if not n:
        return []
    even = np.linspace(0, n, max_points // 2)
    close = np.geomspace(1, n, max_points - len(even))
    reviewed = np.unique(np.concatenate([even, close]).round().astype(np.int64))
    found = _found(_all_counts(here), reviewed[:, None])[:, 0]
    return list(zip(reviewed.tolist(), found.tolist(), strict=True))


def _all_counts(here: Scored) -> WeightedCounts:
    return WeightedCounts.of(here.scores, here.labels, here.thresholds, np.ones((1, len(here))))


def _found(counts: WeightedCounts, depths: np.ndarray) -> np.ndarray:
    """(budgets, b) harmful videos among the `depths` (budgets, b) highest scores under each of b weightings.

    Where the last reviewed video shares its score with others, the expected number.
    """
    harmful = counts.true_positive_curve  # (b, K)
    reviewed = harmful + counts.false_positive_curve
    rows = np.arange(len(harmful))
    offsets = rows * (reviewed[:, -1].max() + 1)  # lays the ascending rows one after another
    places = np.searchsorted((reviewed + offsets[:, None]).ravel(), depths + offsets)
    last = np.minimum(places - rows * reviewed.shape[1], reviewed.shape[1] - 1)  # the score of the last reviewed video
    (videos_before, videos), (found_before, found) = (
        (np.where(last > 0, curve[rows, last - 1], 0), curve[rows, last]) for curve in (reviewed, harmful)
    )
    part = np.minimum((depths - videos_before) / np.maximum(videos - videos_before, 1), 1)
    expected: np.ndarray = found_before + part * (found - found_before)
    return expected


def curve_prevalences() -> np.ndarray:
    """(61,) prevalences from 0.001 to 0.5 for the page, evenly spaced as logarithms of odds."""
    ends = logit(LEAST_PREVALENCE), logit(GREATEST_PREVALENCE)
    prevalences: np.ndarray = expit(np.linspace(*ends, NUM_PREVALENCES))
    return prevalences
