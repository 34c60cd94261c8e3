"""How far chance alone could have moved a figure: bootstrap intervals over groups of videos.

Videos of one recording are not independent, so whole groups are drawn with replacement, a video without a group being
one of its own. A draw is a weight a video: how often its group was drawn. The intervals are bias-corrected and
accelerated (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 14.3), and expanded for few groups as
Student's t is wider than a normal distribution (Hesterberg, "What Teachers Should Know About the Bootstrap", The
American Statistician 69, 2015, section 3.3). In simulations plain percentiles covered the truth too seldom.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.stats import norm, t

from haechi.train.data.split import group_numbers
from haechi.train.evaluate.threshold import choose_threshold, predict
from haechi.train.policy import Policy

NUM_DRAWS = 2000
# Each draw chooses a threshold anew: slower than figures at a threshold, which are computed for many draws at once.
NUM_THRESHOLD_DRAWS = 500
COVERAGE = 0.95
# An interval of a figure that is undefined in more draws than this would hide that it rests on luck.
MOST_UNDEFINED = 0.1

# Groups are left out in turn for the acceleration, in so many lots at most: with more, it is next to nothing.
MOST_LOTS = 500

# Draws agree that differ by less: sums of many terms round.
ROUNDING = 1e-9

CELLS = 1 << 22  # of a block of draws x videos: 32 MB an array

Interval = tuple[float, float]

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]
"""From weights (b, N) to values (b,) by name, NaN where undefined."""


def draw_weights(groups: np.ndarray, *, num_draws: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Blocks (b, N) of float64 weights, `num_draws` rows in all, for the videos of `groups` (N,), "" being none."""
    rng = np.random.default_rng(seed)
    number = group_numbers(groups)
    num_groups = int(number.max()) + 1
    block = max(1, CELLS // max(num_groups, len(groups)))
    for start in range(0, num_draws, block):
        size = min(block, num_draws - start)
        drawn = rng.integers(num_groups, size=(size, num_groups)) + num_groups * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_groups).reshape(size, num_groups)
        yield counts[:, number].astype(np.float64)


def weighted_figures(
    scores: np.ndarray, labels: np.ndarray, threshold: float | np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """The figures of `metrics.metrics_at` under each of b weightings: (b,) each, NaN where undefined.

    `scores` and `labels` are (N,), `weights` (b, N); `threshold` is one for all, or (N,).
    """
    flagged = predict(scores, threshold) == 1
    tp_at, fp_at = weights @ (flagged & (labels == 1)), weights @ (flagged & (labels != 1))  # (b,)
    order = np.argsort(-scores, kind="stable")
    scores, harmful, weights = scores[order], labels[order] == 1, weights[:, order]
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # (K,) the last video of each distinct score
    tp = np.cumsum(weights * harmful, axis=1)[:, ends]  # (b, K) harmful videos with at least that score
    fp = np.cumsum(weights * ~harmful, axis=1)[:, ends]
    num_harmful, num_safe = tp[:, -1], fp[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0: undefined, NaN
        tpr, precision = tp / num_harmful[:, None], tp / (tp + fp)
        gained = np.diff(tpr, axis=1, prepend=0)
        area = np.diff(fp / num_safe[:, None], axis=1, prepend=0) * (tpr - gained / 2)
        both = np.where((num_harmful > 0) & (num_safe > 0), 1.0, np.nan)
        tn_at = num_safe - fp_at
        return {
            "f1": 2 * tp_at / (tp_at + fp_at + num_harmful),
            "precision": tp_at / (tp_at + fp_at),
            "recall": tp_at / num_harmful,
            "accuracy": (tp_at + tn_at) / (num_harmful + num_safe),
            "balanced_accuracy": (tp_at / num_harmful + tn_at / num_safe) / 2,
            # A score that no video of the draw has is no step of the curve.
            "average_precision": np.where(gained > 0, gained * precision, 0).sum(axis=1) * both,
            "roc_auc": area.sum(axis=1) * both,
        }


def intervals(
    scores: np.ndarray,
    labels: np.ndarray,
    threshold: float | np.ndarray,
    groups: np.ndarray,
    *,
    num_draws: int = NUM_DRAWS,
) -> dict[str, Interval | None]:
    """Figure -> its 95 % interval. All arrays are (N,), with at least one video; `threshold` is one for all, or (N,).

    None where the figure is undefined in more than a tenth of the draws, and where all draws agree, as for the recall
    of a few videos that are all found: the bootstrap knows no video but these, and cannot tell how lucky that is.
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
    """Figure -> interval of the second model's figure less the first's, on the same draws of the same N videos.

    `first` and `second` are the scores (N,) and the threshold of each, one for all or (N,).
    """

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        a, b = (weighted_figures(scores, labels, threshold, weights) for scores, threshold in (first, second))
        return {name: b[name] - a[name] for name in a}

    return bootstrap(difference, groups, num_draws=NUM_DRAWS)


def threshold_interval(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, policy: Policy, *, num_draws: int = NUM_THRESHOLD_DRAWS
) -> Interval | None:
    """The interval of the threshold itself, chosen anew on each draw. All arrays are (N,)."""

    def chosen(weights: np.ndarray) -> dict[str, np.ndarray]:
        drawn = [np.repeat(np.arange(len(scores)), of_draw) for of_draw in weights.astype(int)]
        both = [0 < labels[rows].sum() < len(rows) for rows in drawn]
        found = [
            choose_threshold(scores[rows], labels[rows], policy).threshold if has_both else np.nan
            for rows, has_both in zip(drawn, both, strict=True)
        ]
        return {"threshold": np.array(found)}

    return bootstrap(chosen, groups, num_draws=num_draws)["threshold"]


def bootstrap(statistic: Statistic, groups: np.ndarray, *, num_draws: int) -> dict[str, Interval | None]:
    """Value of a statistic -> its 95 % interval, for the videos of `groups` (N,).

    None where it is undefined as it is or in more than a tenth of the draws, or where there is one group only.
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
    """The interval of a value from its draws (b,), the value itself, and its values (l,) without each lot of groups."""
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
    """Blocks (b, N) of weights that leave out each lot of groups in turn; a lot is one group where they are few."""
    number = group_numbers(groups)
    num_lots = min(int(number.max()) + 1, MOST_LOTS)
    lot = number % num_lots
    block = max(1, CELLS // len(groups))
    for start in range(0, num_lots, block):
        yield (lot != np.arange(start, min(start + block, num_lots))[:, None]).astype(np.float64)


def _joined(blocks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
