from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from haechi.train.errors import TrainError
from haechi.train.evaluate.calibration import Calibration
from haechi.train.evaluate.threshold import (
    TABLE_THRESHOLDS,
    Choice,
    Curve,
    Threshold,
    cautions,
    choose_shrunk_threshold,
    choose_threshold,
    chosen_row,
    predict,
    shrink_labels,
    threshold_table,
)
from haechi.train.policy import Policy

F1 = Policy.parse("f1")

POLICIES = ["f1", "fbeta:2", "fbeta:0.5", "precision>=0.9", "precision>=0.5", "recall>=0.9", "fpr<=0.1", "cost:1,10"]


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> Choice:
    return choose_threshold(scores, labels, F1)


def goodness(policy: str, tp: int, fp: int, num_harmful: int, num_safe: int) -> tuple[bool, Fraction, Fraction]:
    """Whether the bound is kept, the value to maximise and the tie-breaker, in exact numbers."""
    precision = Fraction(tp, tp + fp) if tp + fp else Fraction(0)
    recall, fpr = Fraction(tp, max(num_harmful, 1)), Fraction(fp, max(num_safe, 1))
    name, _, number = policy.replace("=", "").replace(":", "<").replace(">", "<").partition("<")
    if name in ("f1", "fbeta"):
        square = Fraction(number or 1) ** 2
        below = (1 + square) * tp + square * (num_harmful - tp) + fp
        return True, (1 + square) * tp / below if below else Fraction(0), Fraction(0)
    if name == "cost":
        a, b = map(int, number.split(","))
        return True, Fraction(-a * fp - b * (num_harmful - tp)), Fraction(0)
    kept, aim = {"precision": (precision, recall), "recall": (recall, precision), "fpr": (-fpr, recall)}[name]
    met = kept >= Fraction(number) * (-1 if name == "fpr" else 1)
    return met, *((aim, kept) if met else (kept, aim))


def brute_force(scores: list[float], labels: list[int], policy: str) -> tuple[tuple, float]:
    """The best goodness and its threshold by the documented rule, plateau by plateau, in plain Python."""

    def at(threshold: float) -> tuple:
        flagged = [y for s, y in zip(scores, labels, strict=True) if s >= threshold]
        return goodness(policy, sum(flagged), len(flagged) - sum(flagged), sum(labels), len(labels) - sum(labels))

    edges = sorted(set(scores))
    intervals = [(low, high, at(high)) for low, high in zip([0.0, *edges[:-1]], edges, strict=True)]
    if edges[-1] < 1:
        intervals.append((edges[-1], 1.0, at(1.0)))
    best = max(value for _, _, value in intervals)
    plateaus: list[tuple[float, float]] = []
    for low, high, value in intervals:
        if value == best and plateaus and plateaus[-1][1] == low:
            plateaus[-1] = (plateaus[-1][0], high)
        elif value == best:
            plateaus.append((low, high))
    low, high = min(plateaus, key=lambda p: (-(p[1] - p[0]), abs((p[0] + p[1]) / 2 - 0.5), p[0]))
    return best, (low + high) / 2


@pytest.mark.parametrize("policy", POLICIES)
def test_it_agrees_with_brute_force(policy: str) -> None:
    rng = np.random.default_rng(POLICIES.index(policy))
    for case in range(1000):
        n = int(rng.integers(1, 30))
        scores = rng.random(n).round([1, 2, 12][case % 3]).clip(0.01, 1)
        labels = (rng.random(n) < rng.choice([0, 0.2, 0.5, 0.8, 1])).astype(np.int8)
        if (not labels.any() and not policy.startswith("cost")) or (labels.all() and policy.startswith("fpr")):
            with pytest.raises(TrainError, match=r"no (harmful|safe) video"):
                choose_threshold(scores, labels, Policy.parse(policy))
            continue
        found = choose_threshold(scores, labels, Policy.parse(policy))
        (met, value, _), threshold = brute_force(scores.tolist(), labels.tolist(), policy)
        assert (found.met, found.value) == (met, pytest.approx(float(value), abs=1e-12))
        assert found.threshold == pytest.approx(threshold, abs=1e-12)
        assert found.low <= found.threshold <= found.high
        precision, recall, f1, _ = precision_recall_fscore_support(
            labels, predict(scores, found.threshold), average="binary", zero_division=0
        )
        assert (found.precision, found.recall, found.f1) == pytest.approx((precision, recall, f1), abs=1e-12)


def test_the_curve_is_what_every_threshold_does() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.random(40).round(1).clip(0.1, 0.9), rng.integers(0, 2, 40)
    curve = Curve.of(scores, labels)
    assert (curve.low[0], curve.high[-1]) == (0, 1)
    assert (curve.low[1:] == curve.high[:-1]).all()
    for threshold in rng.random(50):
        k = np.searchsorted(curve.high, threshold)
        flagged = scores >= threshold
        assert curve.true_positive[k] == (flagged & (labels == 1)).sum()
        assert curve.false_positive[k] == (flagged & (labels == 0)).sum()


def test_an_equal_recall_is_not_bought_with_false_positives() -> None:
    scores, labels = np.array([0.2, 0.4, 0.5, 0.6, 0.9]), np.array([0, 0, 0, 0, 1])
    found = choose_threshold(scores, labels, Policy.parse("precision>=0.25"))
    assert (found.precision, found.recall, found.met) == (1, 1, True)


def test_a_bound_that_nothing_keeps_is_missed_by_the_least_with_a_note() -> None:
    scores, labels = np.array([0.9, 0.8, 0.7]), np.array([0, 1, 1])
    policy = Policy.parse("precision>=0.9")
    found = choose_threshold(scores, labels, policy)
    assert not found.met
    assert found.precision == pytest.approx(2 / 3)


def test_few_videos_and_a_bound_that_is_not_kept_are_noted() -> None:
    assert cautions(50, F1, met=True) == []
    (few,) = cautions(49, F1, met=True, where=" in a fold")
    assert few.startswith("chosen on only 49 videos in a fold")
    (missed,) = cautions(50, Policy.parse("precision>=0.9"), met=False)
    assert missed.startswith("no threshold keeps precision>=0.9")


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.2, 0.8], [0, 1], 0.5),  # the middle between the classes
        ([0.2, 0.8], [1, 1], 0.1),  # all are predicted: from 0 to the lowest score
        ([0.0, 0.0], [1, 0], 0.0),  # a plateau of no width
        ([0.0, 1.0], [1, 1], 0.0),  # only at 0 itself both are predicted
        ([1.0, 0.0], [1, 0], 0.5),
        ([0.7, 0.7, 0.7], [0, 1, 1], 0.35),  # constant scores
        # F1 is 2/3 on (0, 0.1] as on (0.3, 0.9]; the wider plateau wins
        ([0.1, 0.3, 0.3, 0.9], [1, 0, 0, 1], 0.6),
        # F1 is 2/3 on [0, 0.25] and on (0.5, 0.75]: equally wide, the middle nearer to 0.5 wins
        ([0.25, 0.5, 0.5, 0.75], [1, 0, 0, 1], 0.625),
    ],
)
def test_ties_favour_the_middle_of_the_widest_plateau(scores: list, labels: list, expected: float) -> None:
    assert best_threshold(np.array(scores), np.array(labels)).threshold == pytest.approx(expected)


def test_neighbouring_floats_are_still_separated() -> None:
    low = 0.5
    high = float(np.nextafter(low, 1))
    found = best_threshold(np.array([low, high]), np.array([0, 1]))
    assert (found.threshold, found.f1) == (high, 1.0)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.2, 0.8], [0, 0], "no harmful"),
        ([], [], "no harmful"),
        ([0.2, float("nan")], [0, 1], r"\[0, 1\]"),
        ([0.2, 1.5], [0, 1], r"\[0, 1\]"),
    ],
)
def test_what_has_no_best_threshold_is_an_error(scores: list, labels: list, message: str) -> None:
    with pytest.raises(TrainError, match=message):
        best_threshold(np.array(scores), np.array(labels))


def test_the_table_is_the_reports_and_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.random(200), rng.integers(0, 2, 200)
    table = threshold_table(scores, labels)
    assert [row.threshold for row in table] == [0.30, 0.35, 0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70]
    for row in table:
        expected = precision_recall_fscore_support(labels, scores >= row.threshold, average="binary")[:3]
        assert (row.precision, row.recall, row.f1) == pytest.approx(expected, abs=1e-12)


def test_the_table_of_low_scores_is_zero() -> None:
    assert all(
        (row.precision, row.recall, row.f1) == (0, 0, 0)
        for row in threshold_table(np.array([0.1, 0.2]), np.array([0, 1]))
    )


@pytest.mark.parametrize(
    ("f1_by_threshold", "expected"), [({0.3: 1}, 0.3), ({0.3: 1, 0.6: 1}, 0.6), ({}, 0.5), ({0.45: 1, 0.55: 1}, 0.45)]
)
def test_the_marked_row_is_the_best_then_nearest_a_half(f1_by_threshold: dict, expected: float) -> None:
    table = [Threshold(threshold=t, f1=f1_by_threshold.get(t, 0), precision=0, recall=0) for t in TABLE_THRESHOLDS]
    assert table[chosen_row(table)].threshold == expected


def test_a_score_that_equals_the_threshold_is_harmful() -> None:
    assert predict(np.array([0.4, 0.5, 0.6]), 0.5).tolist() == [0, 1, 1]


def expected_goodness(policy: str, flagged: np.ndarray, chances: np.ndarray) -> tuple[bool, float, float]:
    """As `goodness`, for videos that are harmful with `chances` (n,), of which some are `flagged` (n,) bool."""
    tp, fp = chances[flagged].sum(), (1 - chances)[flagged].sum()
    fn, num_safe = chances[~flagged].sum(), (1 - chances).sum()
    precision, recall, fpr = tp / max(tp + fp, 1e-300), tp / chances.sum(), fp / num_safe
    name, _, number = policy.replace("=", "").replace(":", "<").replace(">", "<").partition("<")
    if name in ("f1", "fbeta"):
        square = float(number or 1) ** 2
        return True, (1 + square) * tp / ((1 + square) * tp + square * fn + fp), 0.0
    if name == "cost":
        a, b = map(float, number.split(","))
        return True, -a * fp - b * fn, 0.0
    kept, aim = {"precision": (precision, recall), "recall": (recall, precision), "fpr": (-fpr, recall)}[name]
    met = bool(kept >= float(number) * (-1 if name == "fpr" else 1))
    return met, *((aim, kept) if met else (kept, aim))


@pytest.mark.parametrize("policy", POLICIES)
def test_of_chances_the_best_expected_value_is_chosen(policy: str) -> None:
    """With chances that sum to less than one video, too."""
    rng = np.random.default_rng(POLICIES.index(policy))
    for case in range(300):
        n = int(rng.integers(2, 12))
        scores = rng.random(n).round([1, 12][case % 2]).clip(0.01, 0.99)
        chances = rng.uniform(0.01, 0.99, n) * [1.0, 0.1][case % 3 == 0]
        if case % 5 == 0:
            chances = 1 - chances
        labels = (rng.random(n) < 0.5).astype(np.int8)
        found = choose_threshold(scores, labels, Policy.parse(policy), expected=chances)
        edges = np.unique(scores)
        every = [expected_goodness(policy, scores >= edge, chances) for edge in [*edges, 1.0]]
        met = any(each[0] for each in every)
        value = max(each[1] for each in every if each[0] == met)
        assert (found.met, found.value) == (met, pytest.approx(value, abs=1e-12))
        there = expected_goodness(policy, scores >= found.threshold, chances)
        assert there[:2] == (met, pytest.approx(value, abs=1e-12))
        real = precision_recall_fscore_support(labels, scores >= found.threshold, average="binary", zero_division=0)
        assert (found.precision, found.recall, found.f1) == pytest.approx(real[:3], abs=1e-12)


@pytest.mark.parametrize("policy", ["recall>=1", "fpr<=1"])
def test_flagging_all_videos_always_keeps_its_bound(policy: str) -> None:
    """However the sums of their chances are rounded."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        chances, scores = rng.random(30), rng.random(30)
        assert choose_threshold(scores, np.ones(30), Policy.parse(policy), expected=chances).met


@pytest.mark.parametrize("policy", POLICIES)
def test_without_a_weight_nothing_is_shrunk(policy: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        scores, labels = rng.random(25), np.resize([1, 0, 0], 25)
        expected = choose_threshold(scores, labels, Policy.parse(policy))
        assert choose_shrunk_threshold(scores, labels, Policy.parse(policy), pos_weight=None) == expected


@pytest.mark.parametrize("policy", POLICIES)
def test_labels_are_shrunk_towards_calibrated_probabilities(policy: str) -> None:
    rng = np.random.default_rng(4)
    labels = np.resize([1, 0, 0], 30)
    scores = 1 / (1 + np.exp(-2 * labels - rng.normal(size=30)))
    parsed, differ = Policy.parse(policy), 0
    for pos_weight in (0.5, 3.0):
        found = choose_shrunk_threshold(scores, labels, parsed, pos_weight=pos_weight)
        probabilities = Calibration.fit(scores, labels, pos_weight=pos_weight).apply(scores)
        chances = 30 / 230 * labels + 200 / 230 * probabilities
        np.testing.assert_allclose(shrink_labels(labels, probabilities), chances)
        assert found == choose_threshold(scores, labels, parsed, expected=shrink_labels(labels, probabilities))
        differ += found.threshold != choose_threshold(scores, labels, parsed).threshold
    assert differ


@pytest.mark.parametrize("policy", POLICIES)
def test_many_videos_choose_as_their_labels_do(policy: str) -> None:
    """As their number grows, so does the share of the labels."""
    rng = np.random.default_rng(5)
    parsed, differ = Policy.parse(policy), []  # share of the videos that are decided in another way
    for num_videos in (*[40] * 10, 40_000):
        labels = (rng.random(num_videos) < 0.4).astype(np.int8)
        scores = 1 / (1 + np.exp(-((3 * labels - 1.5 + 1.5 * rng.normal(size=num_videos)) ** 3)))  # not logistic
        found = choose_shrunk_threshold(scores, labels, parsed, pos_weight=1.0)
        best = choose_threshold(scores, labels, parsed)
        differ.append(float(((scores >= found.threshold) != (scores >= best.threshold)).mean()))
    assert differ[-1] <= 0.01
    assert np.mean(differ[:-1]) > 0.01
