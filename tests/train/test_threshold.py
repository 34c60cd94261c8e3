import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from train.errors import TrainError
from train.threshold import TABLE_THRESHOLDS, Threshold, best_threshold, chosen_row, predict, threshold_table


def brute_force(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Best F1 and its threshold by the documented rule, interval by interval, in plain Python."""

    def f1(threshold: float) -> float:
        tp = sum(s >= threshold and y == 1 for s, y in zip(scores, labels, strict=True))
        predicted = sum(s >= threshold for s in scores)
        return 2 * tp / (predicted + sum(y == 1 for y in labels))

    edges = sorted(set(scores.tolist()))
    pieces = [(low, high, f1(high)) for low, high in zip([0.0, *edges[:-1]], edges, strict=True)]
    best = max(piece[2] for piece in pieces)
    plateaus: list[tuple[float, float]] = []
    for low, high, value in pieces:
        if value == best and plateaus and plateaus[-1][1] == low:
            plateaus[-1] = (plateaus[-1][0], high)
        elif value == best:
            plateaus.append((low, high))
    low, high = min(plateaus, key=lambda p: (-(p[1] - p[0]), abs((p[0] + p[1]) / 2 - 0.5), p[0]))
    return best, (low + high) / 2


@pytest.mark.parametrize("digits", [1, 2, 12])
def test_it_agrees_with_brute_force(digits: int) -> None:
    rng = np.random.default_rng(digits)
    for _ in range(300):
        n = int(rng.integers(1, 30))
        scores = rng.random(n).round(digits).clip(0.01, 1)
        labels = (rng.random(n) < rng.uniform(0.1, 0.9)).astype(np.int8)
        labels[rng.integers(n)] = 1
        found = best_threshold(scores, labels)
        f1, threshold = brute_force(scores, labels)
        assert found.f1 == f1
        assert found.threshold == pytest.approx(threshold, abs=1e-12)
        precision, recall, f1, _ = precision_recall_fscore_support(
            labels, predict(scores, found.threshold), average="binary"
        )
        assert (found.precision, found.recall, found.f1) == pytest.approx((precision, recall, f1), abs=1e-12)


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


def test_neighbouring_floats_are_still_told_apart() -> None:
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
    ("f1_of_row", "expected"), [({0.3: 1}, 0.3), ({0.3: 1, 0.6: 1}, 0.6), ({}, 0.5), ({0.45: 1, 0.55: 1}, 0.45)]
)
def test_the_marked_row_is_the_best_then_nearest_a_half(f1_of_row: dict, expected: float) -> None:
    table = [Threshold(threshold=t, f1=f1_of_row.get(t, 0), precision=0, recall=0) for t in TABLE_THRESHOLDS]
    assert table[chosen_row(table)].threshold == expected


def test_a_score_that_equals_the_threshold_is_harmful() -> None:
    assert predict(np.array([0.4, 0.5, 0.6]), 0.5).tolist() == [0, 1, 1]
