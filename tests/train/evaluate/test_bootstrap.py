import numpy as np
import pytest
from scipy import stats
from scipy.stats import norm
from sklearn import metrics

from haechi.train.evaluate.bootstrap import (
    bootstrap,
    differences,
    draw_weights,
    expanded_interval,
    intervals,
    threshold_interval,
    weighted_figures,
)
from haechi.train.evaluate.metrics import METRICS, Metric, WeightedCounts, metrics_at
from haechi.train.policy import Policy

ALONE = ""


def drawn(rng: np.random.Generator, num_videos: int, *, distance: float = 1.2) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels (num_videos,) of two normal distributions whose means are `distance` apart."""
    labels = (rng.random(num_videos) < 0.4).astype(int)
    return norm.cdf(rng.normal(size=num_videos) + distance * labels), labels


@pytest.mark.parametrize("digits", [1, 12])
def test_weighted_figures_are_scikit_learns(digits: int) -> None:
    rng = np.random.default_rng(digits)
    for _ in range(50):
        n = int(rng.integers(4, 60))
        scores, labels = rng.random(n).round(digits), rng.integers(0, 2, n)
        labels[:2] = 0, 1
        weights = rng.integers(0, 3, (3, n)).astype(float)
        weights[:, :2] += 1
        threshold = float(rng.random())
        found = weighted_figures(scores, labels, threshold, weights)
        for draw, weight in enumerate(weights):
            flagged = scores >= threshold
            options = {"sample_weight": weight, "zero_division": np.nan}
            expected = {
                "f1": metrics.f1_score(labels, flagged, **options),
                "precision": metrics.precision_score(labels, flagged, **options),
                "recall": metrics.recall_score(labels, flagged, **options),
                "accuracy": metrics.accuracy_score(labels, flagged, sample_weight=weight),
                "balanced_accuracy": metrics.balanced_accuracy_score(labels, flagged, sample_weight=weight),
                "average_precision": metrics.average_precision_score(labels, scores, sample_weight=weight),
                "roc_auc": metrics.roc_auc_score(labels, scores, sample_weight=weight),
            }
            for name, value in expected.items():
                assert found[name][draw] == pytest.approx(value, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("metric", METRICS, ids=[metric.name for metric in METRICS])
@pytest.mark.parametrize("digits", [1, 12])
def test_weighted_values_of_a_metric_are_its_exact_ones(metric: Metric, digits: int) -> None:
    rng = np.random.default_rng(digits)
    for _ in range(30):
        n = int(rng.integers(4, 60))
        scores, labels = rng.random(n).round(digits), rng.integers(0, 2, n)
        labels[:2] = 0, 1
        weights = rng.integers(0, 3, (3, n)).astype(float)
        weights[:, :2] += 1
        threshold = float(rng.random())
        found = metric.weighted_values(WeightedCounts.of(scores, labels, threshold, weights))
        judged = scores if metric.uses_scores else scores >= threshold
        for value, weight in zip(found, weights, strict=True):
            assert value == pytest.approx(metric.exact(labels, judged, sample_weight=weight), abs=1e-12, nan_ok=True)


def test_with_equal_weights_they_are_the_figures_of_a_run() -> None:
    scores, labels = drawn(np.random.default_rng(0), 80)
    found = weighted_figures(scores, labels, 0.5, np.ones((1, 80)))
    assert {name: float(values[0]) for name, values in found.items()} == pytest.approx(
        {name: metrics_at(scores, labels, 0.5)[name] for name in found}, abs=1e-12
    )


def test_groups_are_drawn_whole_and_videos_without_one_alone() -> None:
    groups = np.array(["a", "a", "", "b", "", "a"], dtype=object)
    weights = np.concatenate(list(draw_weights(groups, num_draws=300)))
    assert weights.shape == (300, 6)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 0] == weights[:, 5]).all()
    assert (weights[:, 2] != weights[:, 4]).any()
    assert (weights[:, [0, 2, 3, 4]].sum(axis=1) == 4).all()  # one draw per group


@pytest.mark.parametrize("per_group", [1, 3])
def test_intervals_cover_the_truth_as_often_as_they_say(per_group: int) -> None:
    """On 500 simulated test sets. With `per_group` 3, three videos share a recording and most of their score."""
    rng = np.random.default_rng(0)
    num_trials, num_groups, share, threshold, distance = 500, 120, 0.4, 0.6, 1.2
    recall, fpr = 1 - norm.cdf(threshold, distance), 1 - norm.cdf(threshold)
    flagged = share * recall + (1 - share) * fpr
    truth = {
        "f1": 2 * share * recall / (flagged + share),
        "precision": share * recall / flagged,
        "recall": recall,
        "accuracy": share * recall + (1 - share) * (1 - fpr),
        "balanced_accuracy": (recall + 1 - fpr) / 2,
        "roc_auc": norm.cdf(distance / np.sqrt(2)),
    }
    covered = dict.fromkeys(truth, 0)
    for _ in range(num_trials):
        harmful = np.repeat(rng.random(num_groups) < share, per_group)
        shared, own = rng.normal(size=num_groups), rng.normal(size=num_groups * per_group)
        noise = own if per_group == 1 else 0.8 * np.repeat(shared, per_group) + 0.6 * own  # variance 1
        groups = np.repeat([f"recording {i}" for i in range(num_groups)], per_group).astype(object)
        found = intervals(
            norm.cdf(noise + distance * harmful), harmful.astype(int), norm.cdf(threshold), groups, num_draws=400
        )
        for name, value in truth.items():
            low, high = found[name]
            covered[name] += low <= value <= high
    shares = {name: count / num_trials for name, count in covered.items()}
    assert all(0.93 <= value <= 0.97 for value in shares.values()), shares


def test_the_same_scores_differ_by_nothing_and_better_ones_by_more() -> None:
    rng = np.random.default_rng(2)
    scores, labels = drawn(rng, 300)
    groups = np.full(300, ALONE, dtype=object)
    same = differences((scores, 0.5), (scores, 0.5), labels, groups)
    assert set(same.values()) == {(0.0, 0.0)}
    better = norm.cdf(norm.ppf(scores) + labels)
    assert differences((scores, 0.5), (better, 0.5), labels, groups)["roc_auc"][0] > 0
    assert differences((better, 0.5), (scores, 0.5), labels, groups)["roc_auc"][1] < 0


def test_a_figure_that_is_mostly_undefined_has_no_interval() -> None:
    scores, labels = np.array([0.2, 0.3, 0.4]), np.array([0, 0, 1])
    found = intervals(scores, labels, 0.9, np.full(3, ALONE, dtype=object))
    assert found["precision"] is None  # nothing is flagged
    assert found["roc_auc"] is None  # a third of the draws lack the only harmful video
    assert found["accuracy"] is not None


def test_videos_that_are_all_judged_rightly_promise_nothing() -> None:
    for num_each in (4, 7, 20):  # some sums of shares round to slightly less than 1
        scores, labels = np.linspace(0, 1, 2 * num_each), np.repeat([0, 1], num_each)
        found = intervals(scores, labels, 0.5, np.full(2 * num_each, ALONE, dtype=object))
        assert set(found.values()) == {None}


def test_many_groups_without_bias_give_the_middle_95_percent_and_few_give_more() -> None:
    values, even = np.arange(1001) / 1000, np.array([0.4, 0.6])
    assert expanded_interval(values, 0.5, even, 1_000_000) == pytest.approx((0.025, 0.975), abs=1e-4)
    low, high = expanded_interval(values, 0.5, even, 10)
    assert (low, high) == pytest.approx((0.0086, 0.9914), abs=1e-3)  # t with 9 degrees of freedom, times sqrt(10 / 9)
    assert expanded_interval(values, 0.5, even, 1) is None
    nans = [np.nan] * 2
    assert expanded_interval(np.array([0.5] * 18 + nans), 0.5, even, 10) == (0.5, 0.5)
    assert expanded_interval(np.array([0.5] * 17 + nans), 0.5, even, 10) is None
    assert expanded_interval(values, np.nan, even, 10) is None


def test_the_interval_is_scipys() -> None:
    rng = np.random.default_rng(4)
    sample = rng.exponential(size=60)
    expected = stats.bootstrap(
        (sample,), np.mean, method="BCa", confidence_level=0.95, n_resamples=20_000, rng=rng
    ).confidence_interval

    def mean(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean": weights @ sample / weights.sum(axis=1)}

    low, high = bootstrap(mean, np.full(60, ALONE, dtype=object), num_draws=20_000)["mean"]
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.05 * width)  # ours is wider: it is expanded for 60 groups
    assert high == pytest.approx(expected.high, abs=0.05 * width)
    assert high - low > width


def test_more_videos_hold_the_threshold_closer() -> None:
    rng = np.random.default_rng(3)
    widths = []
    for num_videos in (40, 800):
        scores, labels = drawn(rng, num_videos)
        low, high = threshold_interval(
            scores, labels, np.full(num_videos, ALONE, dtype=object), Policy.parse("f1"), num_draws=100
        )
        assert 0 <= low <= high <= 1
        widths.append(high - low)
    assert widths[1] < widths[0]
