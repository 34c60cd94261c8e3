"""Bootstrap intervals of metrics and of the threshold, over groups of videos.

Videos of one recording are not independent, so whole groups are drawn with replacement; a video without a group is a
group by itself. A draw gives each video a weight: how often its group was drawn. The intervals are bias-corrected and
accelerated (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 14.3), and expanded for few groups as
Student's t is wider than a normal distribution (Hesterberg, "What Teachers Should Know About the Bootstrap", The
American Statistician 69, 2015, section 3.3). In simulations, plain percentile intervals covered the true value too
rarely.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.stats import norm, t

from haechi.train.data.split import group_numbers
from haechi.train.evaluate import metrics
from haechi.train.evaluate.metrics import WeightedCounts
from haechi.train.evaluate.threshold import choose_shrunk_threshold
from haechi.train.policy import Policy

NUM_DRAWS = 2000
# The threshold is chosen again for each draw, which is slower than metrics: those are computed for many draws at once.
NUM_THRESHOLD_DRAWS = 500
COVERAGE = 0.95
# Where a value is undefined in a larger share of the draws than this, no interval is given: it would be misleading.
MOST_UNDEFINED = 0.1

# For the acceleration, groups are left out one after another, in at most this many lots of groups. With more groups
# than that the acceleration is close to 0.
MOST_LOTS = 500

# Intervals narrower than this are rounding errors of sums.
ROUNDING = 1e-9

MAX_BLOCK_CELLS = 1 << 22  # draws x videos computed at once: 32 MB for each array

Interval = tuple[float, float]

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From weights (b, N) to named values (b,), NaN where undefined."""


def draw_weights(groups: np.ndarray, *, num_draws: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Blocks (b, N) of float64 weights, `num_draws` rows in total, for N videos with `groups` (N,); "": no group."""
    rng = np.random.default_rng(seed)
    number = group_numbers(groups)
    num_groups = int(number.max()) + 1
    block = max(1, MAX_BLOCK_CELLS // max(num_groups, len(groups)))
    for start in range(0, num_draws, block):
        size = min(block, num_draws - start)
        drawn = rng.integers(num_groups, size=(size, num_groups)) + num_groups * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_groups).reshape(size, num_groups)
        yield counts[:, number].astype(np.float64)


def weighted_figures(
    scores: np.ndarray, labels: np.ndarray, threshold: float | np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Values of all metrics under each of b weightings: (b,) each, NaN where undefined.

    `scores` and `labels` are (N,), `weights` (b, N); `threshold` is one for all, or (N,).
    """
    counts = WeightedCounts.of(scores, labels, threshold, weights)
    return {metric.name: metric.weighted_values(counts) for metric in metrics.METRICS}


def intervals(
    scores: np.ndarray,
    labels: np.ndarray,
    threshold: float | np.ndarray,
    groups: np.ndarray,
    *,
    num_draws: int = NUM_DRAWS,
) -> dict[str, Interval | None]:
    """Metric -> its 95 % interval. All arrays are (N,), with at least one video; `threshold` is one for all, or (N,).

    None where the metric is undefined in more than a tenth of the draws, and where all draws give the same value, as
    for recall where every harmful video is found: the bootstrap draws from these videos only, so it cannot estimate how
    recall varies among others.
    """
    found = bootstrap(lambda weights: weighted_figures(scores, labels, threshold, weights), groups, num_draws=num_draws)
    return {
        name: None if interval and interval[1] - interval[0] < ROUNDING else interval
        for name, interval in found.items()
    }


def differences(
    first: tuple[np.ndarray, float | np.ndarray],
    second: tuple[np.ndarray, float | np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray,
) -> dict[str, Interval | None]:
    """Metric -> 95 % interval of the second model's value minus the first's, on the same draws of the same N videos.

    `first` and `second` are the scores (N,) and the threshold (one for all, or (N,)) of the two models.
    """

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        a, b = (weighted_figures(scores, labels, threshold, weights) for scores, threshold in (first, second))
        return {name: b[name] - a[name] for name in a}

    return bootstrap(difference, groups, num_draws=NUM_DRAWS)


def threshold_interval(
    scores: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    policy: Policy,
    *,
    pos_weight: float | None = None,
    num_draws: int = NUM_THRESHOLD_DRAWS,
) -> Interval | None:
    """95 % interval of the threshold, which `choose_shrunk_threshold` chooses again on each draw.

    All arrays are (N,).
    """

    def chosen(weights: np.ndarray) -> dict[str, np.ndarray]:
        drawn = [np.repeat(np.arange(len(scores)), counts) for counts in weights.astype(int)]
        both = [0 < labels[rows].sum() < len(rows) for rows in drawn]
        found = [
            choose_shrunk_threshold(scores[rows], labels[rows], policy, pos_weight=pos_weight).threshold
            if has_both
            else np.nan
            for rows, has_both in zip(drawn, both, strict=True)
        ]
        return {"threshold": np.array(found)}

    return bootstrap(chosen, groups, num_draws=num_draws)["threshold"]


def bootstrap(statistic: Statistic, groups: np.ndarray, *, num_draws: int) -> dict[str, Interval | None]:
    """Name of each value of a statistic -> its 95 % interval, for N videos with `groups` (N,).

    None where the value is undefined on the videos themselves or in more than a tenth of the draws, and where there is
    only one group.
    """
    estimates = statistic(np.ones((1, len(groups))))
    draws, lots = (
        _joined([statistic(weights) for weights in blocks])
        for blocks in (draw_weights(groups, num_draws=num_draws), _leave_out(groups))
    )
    num_groups = int(group_numbers(groups).max()) + 1
    return {
        name: expanded_interval(draws[name], float(estimates[name][0]), lots[name], num_groups) for name in estimates
    }


def expanded_interval(values: np.ndarray, estimate: float, lots: np.ndarray, num_groups: int) -> Interval | None:
    """95 % interval of a value.

    `values` (b,) are the draws, `estimate` is the value on all videos, `lots` (l,) are the values without each lot of
    groups in turn.
    """
    defined, lots = values[~np.isnan(values)], lots[~np.isnan(lots)]
    if num_groups == 1 or np.isnan(estimate) or len(defined) < (1 - MOST_UNDEFINED) * len(values):
        return None
    below = ((defined < estimate).sum() + (defined == estimate).sum() / 2) / len(defined)
    bias = norm.ppf(np.clip(below, 1 / (2 * len(defined)), 1 - 1 / (2 * len(defined))))
    pull = lots.mean() - lots if len(lots) else np.zeros(1)
    spread = (pull**2).sum() ** 1.5
    acceleration = (pull**3).sum() / (6 * spread) if spread > 0 else 0.0
    wide = np.sqrt(num_groups / (num_groups - 1)) * t.ppf((1 + COVERAGE) / 2, num_groups - 1)
    ends = bias + np.array([-wide, wide])
    low, high = np.quantile(defined, norm.cdf(bias + ends / (1 - acceleration * ends)))
    return float(low), float(high)


def _leave_out(groups: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks (b, N) of weights, each row without one lot of groups; up to `MOST_LOTS` groups, each group is a lot."""
    number = group_numbers(groups)
    num_lots = min(int(number.max()) + 1, MOST_LOTS)
    lot = number % num_lots
    block = max(1, MAX_BLOCK_CELLS // len(groups))
    for start in range(0, num_lots, block):
        yield (lot != np.arange(start, min(start + block, num_lots))[:, None]).astype(np.float64)


def _joined(blocks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
