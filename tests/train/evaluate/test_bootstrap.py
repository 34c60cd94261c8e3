import numpy as np
import pytest
from scipy import stats
from scipy.stats import norm
from sklearn import metrics

from haechi.train.evaluate.bootstrap import (
    Sample,
    bootstrap,
    combine,
    differences,
    expanded_interval,
    intervals,
    replicate,
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
    weights = np.concatenate(list(Sample(groups=groups).draws(300)))
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
    assert expanded_interval(values, 0.5, [even], [1_000_000]) == pytest.approx((0.025, 0.975), abs=1e-4)
    low, high = expanded_interval(values, 0.5, [even], [10])
    assert (low, high) == pytest.approx((0.0086, 0.9914), abs=1e-3)  # t with 9 degrees of freedom, times sqrt(10 / 9)
    assert expanded_interval(values, 0.5, [even], [1]) is None
    nans = [np.nan] * 2
    assert expanded_interval(np.array([0.5] * 18 + nans), 0.5, [even], [10]) == (0.5, 0.5)
    assert expanded_interval(np.array([0.5] * 17 + nans), 0.5, [even], [10]) is None
    assert expanded_interval(values, np.nan, [even], [10]) is None


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


def means(*weights: np.ndarray, of: list[np.ndarray]) -> list[np.ndarray]:
    """Mean of each sample under its weights."""
    return [each @ values / each.sum(axis=1) for each, values in zip(weights, of, strict=True)]


def test_the_interval_of_two_samples_is_scipys() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.exponential(size=50), 2 * rng.exponential(size=80)
    expected = stats.bootstrap(
        (first, second),
        lambda a, b, axis: b.mean(axis=axis) - a.mean(axis=axis),
        method="BCa",
        confidence_level=0.95,
        n_resamples=20_000,
        rng=rng,
    ).confidence_interval

    def difference(*weights: np.ndarray) -> dict[str, np.ndarray]:
        a, b = means(*weights, of=[first, second])
        return {"first": a, "difference": b - a}

    samples = [Sample(groups=np.full(len(each), ALONE, dtype=object)) for each in (first, second)]
    found = replicate(difference, *samples, num_draws=20_000)
    low, high = found["difference"].interval()
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.05 * width)  # ours is wider: it is expanded for few groups
    assert high == pytest.approx(expected.high, abs=0.05 * width)
    assert high - low > width
    alone = bootstrap(lambda weights: {"first": means(weights, of=[first])[0]}, samples[0].groups, num_draws=20_000)
    assert found["first"].of_sample(0).interval() == alone["first"]


def test_two_samples_have_the_degrees_of_freedom_of_welch_and_satterthwaite() -> None:
    values = np.linspace(-4, 4, 100_001)
    first, second = np.array([-1.0, 1.0, 0.0]), np.array([-2.0, 2.0])  # variances 2 and 8
    _, high = expanded_interval(norm.cdf(values), 0.5, [first, second], [10, 20])
    corrected = np.array([2 * 10 / 9, 8 * 20 / 19])
    degrees = corrected.sum() ** 2 / (corrected**2 / [9, 19]).sum()
    wide = np.sqrt(corrected.sum() / 10) * stats.t.ppf(0.975, degrees)
    assert high == pytest.approx(np.quantile(norm.cdf(values), norm.cdf(wide)), abs=1e-6)
    assert expanded_interval(values, 0.0, [first, second], [10, 1]) is None


def test_equal_samples_are_drawn_independently() -> None:
    values = np.random.default_rng(0).normal(size=100)
    sample = Sample(groups=np.full(100, ALONE, dtype=object))
    found = replicate(
        lambda *weights: dict(zip("ab", means(*weights, of=[values, values]), strict=True)),
        sample,
        sample,
        num_draws=2000,
    )
    assert abs(np.corrcoef(found["a"].draws, found["b"].draws)[0, 1]) < 0.1
    difference = combine(np.subtract, found["a"], found["b"])
    assert difference.estimate == 0
    assert difference.draws.std() == pytest.approx(np.sqrt(2) * values.std() / 10, rel=0.1)


def test_draws_do_not_depend_on_the_size_of_blocks() -> None:
    groups = np.array(["a", "a", "", "b", "", "a"], dtype=object)
    for sample in (Sample(groups=groups), Sample(groups=groups, cells=np.array([0, 1, 1, 0, 2, 2]))):
        whole, parts = (np.concatenate(list(sample.draws(50, block=block))) for block in (50, 7))
        np.testing.assert_array_equal(whole, parts)


def test_videos_are_counted_in_their_cells() -> None:
    rng = np.random.default_rng(0)
    groups = np.array([f"g{i}" for i in rng.integers(9, size=40)], dtype=object)
    cells = rng.integers(5, size=(2, 40)) + np.array([[0], [5]])
    videos, counted = Sample(groups=groups), Sample(groups=groups, cells=cells)
    in_cells = np.stack([(cells == cell).any(axis=0) for cell in range(10)], axis=1)  # (N, C)
    np.testing.assert_array_equal(counted.totals, videos.totals @ in_cells)
    for of_videos, of_cells in (
        (videos.draws(20), counted.draws(20)),
        (videos.without_lots(), counted.without_lots()),
    ):
        np.testing.assert_array_equal(np.concatenate(list(of_videos)) @ in_cells, np.concatenate(list(of_cells)))


def test_many_groups_are_merged_and_vary_as_much() -> None:
    rng = np.random.default_rng(0)
    values = rng.exponential(size=20_000)
    found = replicate(
        lambda weights: {"mean": means(weights, of=[values])[0]},
        Sample(groups=np.full(20_000, ALONE, dtype=object)),
        num_draws=1000,
    )["mean"]
    assert found.draws.std() == pytest.approx(values.std() / np.sqrt(20_000), rel=0.1)
    assert found.num_groups == (20_000,)


@pytest.mark.parametrize("size", [200, 6000])
def test_differences_of_many_videos_are_those_of_the_models(size: int) -> None:
    """Above the limit of single cells too: a video is counted in one cell of each model."""
    rng = np.random.default_rng(2)
    scores, labels = drawn(rng, size)
    groups = np.array([f"recording {i // 3}" for i in range(size)], dtype=object)
    better = norm.cdf(norm.ppf(scores) + 0.5 * labels)
    found = differences((scores, 0.5), (better, 0.6), labels, groups)
    for name, (low, high) in found.items():
        value = metrics_at(better, labels, 0.6)[name] - metrics_at(scores, labels, 0.5)[name]
        assert low <= value <= high, name
        assert high - low < 5 / np.sqrt(size), name


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
