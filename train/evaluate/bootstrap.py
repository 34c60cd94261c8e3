"""Bootstrap intervals of metrics and of the threshold, over groups of videos.

Videos of one recording are not independent, so whole groups are drawn with replacement; a video without a group is a
group by itself. A draw gives each video a weight: how often its group was drawn. The intervals are bias-corrected and
accelerated (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 14.3), and expanded for few groups as
Student's t is wider than a normal distribution (Hesterberg, "What Teachers Should Know About the Bootstrap", The
American Statistician 69, 2015, section 3.3). In simulations, plain percentile intervals covered the true value too
rarely.

A statistic of two independent samples draws the groups of each. Its acceleration comes from both samples (Efron and
Tibshirani, section 14.3, for each sample's own groups), and the degrees of freedom of Student's t are those of Welch
and Satterthwaite (Welch, "The Generalization of Student's Problem when Several Different Population Variances are
Involved", Biometrika 34, 1947).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import norm, t

from haechi.train.data.groups import group_numbers
from haechi.train.evaluate import metrics
from haechi.train.evaluate.cells import Cells
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

# Draws x videos computed at once: arrays of 256 KB stay in the cache of a processor, 4 times as fast as 32 MB.
MAX_BLOCK_CELLS = 1 << 15

# More groups than this are merged at random into this many, which are drawn. The variance of the draws keeps its mean,
# and gains a standard deviation of sqrt(2 / 4095) = 2.2 %; that of 2,000 draws has 3.2 % anyway.
MOST_DRAWN_GROUPS = 4096

Interval = tuple[float, float]

Statistic = Callable[..., dict[str, np.ndarray]]
"""From weights (b, C) of each sample to named values (b,), NaN where undefined. A sample may have b = 1 instead."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """N videos in groups, of which whole groups are drawn, counted in C cells."""

    groups: np.ndarray
    """(N,) str; "": no group."""
    cells: np.ndarray | None = None
    """(N,) int: the cell of each video, from 0; or (k, N): a video is counted in k cells. None: in one of its own."""

    @cached_property
    def number(self) -> np.ndarray:
        """(N,) int: the number of each video's group, from 0."""
        return group_numbers(self.groups)

    @cached_property
    def num_groups(self) -> int:
        """Groups; a video without one counts as one."""
        return int(self.number.max()) + 1

    @cached_property
    def num_cells(self) -> int:
        """C"""
        return len(self.groups) if self.cells is None else int(self.cells.max()) + 1

    @cached_property
    def totals(self) -> np.ndarray:
        """(1, C) the weights of the videos as they are."""
        if self.cells is None:
            return np.ones((1, len(self.groups)))
        return np.bincount(self.cells.ravel(), minlength=self.num_cells).astype(np.float64)[None]

    @cached_property
    def _drawn_number(self) -> np.ndarray:
        """(N,) int: the number of each video's group, merged with others where there are too many."""
        if self.num_groups <= MOST_DRAWN_GROUPS:
            return self.number
        merged: np.ndarray = np.random.default_rng(0).permutation(self.num_groups) % MOST_DRAWN_GROUPS
        of_videos: np.ndarray = merged[self.number]
        return of_videos

    @cached_property
    def _num_drawn(self) -> int:
        return min(self.num_groups, MOST_DRAWN_GROUPS)

    @cached_property
    def _videos(self) -> csr_array:
        """(C, g) numbers of videos in each cell of each group that is drawn."""
        assert self.cells is not None
        cells = np.atleast_2d(self.cells)
        places = (cells.ravel(), np.tile(self._drawn_number, len(cells)))
        return csr_array((np.ones(cells.size), places), shape=(self.num_cells, self._num_drawn))

    @property
    def block(self) -> int:
        """How many draws are made at once."""
        return max(1, MAX_BLOCK_CELLS // max(self._num_drawn, self.num_cells))

    def draws(self, num_draws: int, *, seed: int = 0, block: int | None = None) -> Iterator[np.ndarray]:
        """Blocks (b, C) of weights, `num_draws` rows in total, whole numbers as float64. The draws depend on `seed`
        alone, not on `block`, the most rows of a block."""
        rng, num_groups, block = np.random.default_rng(seed), self._num_drawn, block or self.block
        for start in range(0, num_draws, block):
            size = min(block, num_draws - start)
            drawn = rng.integers(num_groups, size=(size, num_groups)) + num_groups * np.arange(size)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=size * num_groups).reshape(size, num_groups)
            weights = counts.astype(np.float64)
            yield weights.take(self._drawn_number, axis=1) if self.cells is None else (self._videos @ weights.T).T

    def without_lots(self) -> Iterator[np.ndarray]:
        """Blocks (b, C) of weights, each row without one lot of groups; up to `MOST_LOTS` groups, each is a lot."""
        num_lots = min(self.num_groups, MOST_LOTS)
        lot = self.number % num_lots
        block = max(1, MAX_BLOCK_CELLS // self.num_cells)
        for start in range(0, num_lots, block):
            stop = min(start + block, num_lots)
            if self.cells is None:
                yield (lot != np.arange(start, stop)[:, None]).astype(np.float64)
                continue
            within = (lot >= start) & (lot < stop)
            left_out = ((lot[within] - start) * self.num_cells + np.atleast_2d(self.cells)[:, within]).ravel()
            counts = np.bincount(left_out, minlength=(stop - start) * self.num_cells)
            yield self.totals - counts.reshape(stop - start, self.num_cells)


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """A value of one or more independent samples, on draws of their groups, and without parts of them."""

    estimate: float
    """On all videos; NaN: undefined."""
    draws: np.ndarray
    """(b,) on each draw."""
    lots: tuple[np.ndarray, ...]
    """For each sample (l,): without each lot of its groups in turn."""
    num_groups: tuple[int, ...]
    """Of each sample."""

    def of_sample(self, k: int) -> "Replicates":
        """The same for a value that depends on the k-th sample alone."""
        return replace(self, lots=(self.lots[k],), num_groups=(self.num_groups[k],))

    def interval(self, *, coverage: float = COVERAGE, is_corrected: bool = True) -> Interval | None:
        """The interval of the value; None as in `bootstrap`. `is_corrected` as in `expanded_interval`."""
        return expanded_interval(
            self.draws, self.estimate, self.lots, self.num_groups, coverage=coverage, is_corrected=is_corrected
        )

    def telling_interval(self) -> Interval | None:
        """95 % interval; None also where all draws give the same value: then they do not tell how it varies."""
        interval = self.interval()
        return None if interval and interval[1] - interval[0] < ROUNDING else interval


def combine(function: Callable[..., np.ndarray], *values: Replicates) -> Replicates:
    """A function of values of the same samples and draws; it is given arrays."""
    return Replicates(
        estimate=float(function(*(np.array(value.estimate) for value in values))),
        draws=function(*(value.draws for value in values)),
        lots=tuple(function(*lots) for lots in zip(*(value.lots for value in values), strict=True)),
        num_groups=values[0].num_groups,
    )


def replicate(statistic: Statistic, *samples: Sample, num_draws: int, seed: int = 0) -> dict[str, Replicates]:
    """Name of each value of a statistic of independent samples -> its replicates.

    The k-th sample is drawn with the seed `seed` + k.
    """
    block = min(sample.block for sample in samples)
    totals = [sample.totals for sample in samples]
    estimates = statistic(*totals)
    drawn = zip(*(sample.draws(num_draws, seed=seed + k, block=block) for k, sample in enumerate(samples)), strict=True)
    draws = _joined([statistic(*weights) for weights in drawn], estimates)
    lots = [
        _joined([statistic(*totals[:k], weights, *totals[k + 1 :]) for weights in sample.without_lots()], estimates)
        for k, sample in enumerate(samples)
    ]
    return {
        name: Replicates(
            estimate=float(value[0]),
            draws=draws[name],
            lots=tuple(values[name] for values in lots),
            num_groups=tuple(sample.num_groups for sample in samples),
        )
        for name, value in estimates.items()
    }


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
    cells = Cells.of(scores, labels, threshold)

    def figures(weights: np.ndarray) -> dict[str, np.ndarray]:
        return weighted_figures(cells.scores, cells.labels, cells.thresholds, weights)

    found = replicate(figures, Sample(groups=groups, cells=cells.index), num_draws=num_draws)
    return {name: value.telling_interval() for name, value in found.items()}


def differences(
    first: tuple[np.ndarray, float | np.ndarray],
    second: tuple[np.ndarray, float | np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray,
) -> dict[str, Interval | None]:
    """Metric -> 95 % interval of the second model's value minus the first's, on the same draws of the same N videos.

    `first` and `second` are the scores (N,) and the threshold (one for all, or (N,)) of the two models.
    """
    a, b = (Cells.of(scores, labels, threshold) for scores, threshold in (first, second))
    shared = a.index is None or b.index is None  # every video is a cell of both models
    index = None if a.index is None or b.index is None else np.stack([a.index, len(a) + b.index])

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        parts = (weights, weights) if shared else (weights[:, : len(a)], weights[:, len(a) :])
        low, high = (
            weighted_figures(cells.scores, cells.labels, cells.thresholds, part)
            for cells, part in zip((a, b), parts, strict=True)
        )
        return {name: high[name] - low[name] for name in low}

    found = replicate(difference, Sample(groups=groups, cells=index), num_draws=NUM_DRAWS)
    return {name: value.interval() for name, value in found.items()}


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

    order = np.argsort(scores)  # once: sorting again what is sorted takes little time

    def chosen(weights: np.ndarray) -> dict[str, np.ndarray]:
        drawn = [np.repeat(order, counts[order]) for counts in weights.astype(int)]
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
    found = replicate(statistic, Sample(groups=groups), num_draws=num_draws)
    return {name: value.interval() for name, value in found.items()}


def expanded_interval(
    values: np.ndarray,
    estimate: float,
    lots: Sequence[np.ndarray],
    num_groups: Sequence[int],
    *,
    coverage: float = COVERAGE,
    is_corrected: bool = True,
) -> Interval | None:
    """Interval of a value of one or more independent samples.

    `values` (b,) are the draws, `estimate` is the value on all videos. For each sample, `lots` has the values (l,)
    without each lot of its groups in turn, and `num_groups` the number of its groups. `is_corrected`: whether the bias
    of the draws is corrected, and the interval accelerated; else its ends are percentiles of the draws.
    """
    defined = values[~np.isnan(values)]
    if min(num_groups) == 1 or np.isnan(estimate) or len(defined) < (1 - MOST_UNDEFINED) * len(values):
        return None
    known = [each[~np.isnan(each)] for each in lots]
    pulls = [each.mean() - each if len(each) else np.zeros(1) for each in known]
    wide = _width([float((each**2).sum()) for each in pulls], np.array(num_groups), coverage)
    bias, acceleration = _corrections(defined, estimate, np.concatenate(pulls)) if is_corrected else (0.0, 0.0)
    ends = bias + np.array([-wide, wide])
    low, high = np.quantile(defined, norm.cdf(bias + ends / (1 - acceleration * ends)))
    return float(low), float(high)


def _corrections(draws: np.ndarray, estimate: float, pull: np.ndarray) -> tuple[float, float]:
    """Bias, in standard deviations, and acceleration, from the draws (b,) and each lot's pull on the value (l,)."""
    below = ((draws < estimate).sum() + (draws == estimate).sum() / 2) / len(draws)
    bias = norm.ppf(np.clip(below, 1 / (2 * len(draws)), 1 - 1 / (2 * len(draws))))
    spread = (pull**2).sum() ** 1.5
    return float(bias), float((pull**3).sum() / (6 * spread)) if spread > 0 else 0.0


def _width(variances: list[float], num_groups: np.ndarray, coverage: float) -> float:
    """Half the width of the interval, in standard deviations of the draws; `variances` are those of the samples."""
    total = sum(variances)
    shares = np.array(variances) / total if total > 0 else np.full(len(variances), 1 / len(variances))
    unbiased = shares * num_groups / (num_groups - 1)
    parts = unbiased / unbiased.sum()
    fewest = num_groups.min() - 1
    degrees = fewest / (parts**2 * (fewest / (num_groups - 1))).sum()  # Welch and Satterthwaite
    return float(np.sqrt(unbiased.sum()) * t.ppf((1 + coverage) / 2, degrees))


def _joined(blocks: list[dict[str, np.ndarray]], like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values of all blocks; those of a statistic that does not depend on the weights of a block are repeated."""
    sizes = [max(len(value) for value in block.values()) for block in blocks]
    return {
        name: np.concatenate([np.broadcast_to(block[name], size) for block, size in zip(blocks, sizes, strict=True)])
        for name in like
    }
