import itertools
from dataclasses import replace

import numpy as np
import pytest

from haechi.predict.evaluation.prevalence import (
    at_prevalences,
    budget_curve,
    curve_prevalences,
    review,
)
from tests.predict.evaluation.simulated import drawn, scored


def test_the_reports_own_figures_at_real_prevalence() -> None:
    """Precision 0.967 and recall 0.974 where 73 % are harmful are 0.37 where 5 % are and 0.10 where 1 % are."""
    harmful, found = 730, 711
    wrong = round(found / 0.967 - found)
    scores = np.repeat([0.9, 0.1, 0.9, 0.1], [found, harmful - found, wrong, 270 - wrong])
    side = scored(scores, np.repeat([1, 0], [harmful, 270]))
    five, one = at_prevalences(side, [0.05, 0.01])
    assert five.precision == pytest.approx(0.37, abs=0.01)
    assert one.precision == pytest.approx(0.10, abs=0.01)
    assert one.alerts == pytest.approx(10_000 * (0.01 * found / harmful + 0.99 * wrong / 270))
    assert one.misses == pytest.approx(10_000 * 0.01 * (1 - found / harmful))
    for at in (five, one):
        for value, (low, high) in (
            (at.precision, at.precision_interval),
            (at.alerts, at.alerts_interval),
            (at.misses, at.misses_interval),
        ):
            assert low < value < high


def test_at_the_prevalence_of_the_set_precision_is_the_sets() -> None:
    side = drawn(400)
    (at,) = at_prevalences(side, [side.share_harmful])
    flagged = side.scores >= 0.5
    assert at.precision == pytest.approx(side.labels[flagged].mean(), abs=1e-12)
    assert at.alerts == pytest.approx(10_000 * flagged.mean(), abs=1e-9)


def test_a_set_without_mistakes_keeps_its_uncertainty() -> None:
    perfect = scored([0.9] * 20 + [0.1] * 20, [1] * 20 + [0] * 20)
    (at,) = at_prevalences(perfect, [0.01])
    assert (at.precision, at.misses) == (1, 0)
    assert at.precision_interval[0] < 0.5
    assert at.alerts_interval[1] > 500
    assert at.misses_interval[1] > 5
    (more,) = at_prevalences(scored([0.9] * 2000 + [0.1] * 2000, [1] * 2000 + [0] * 2000), [0.01])
    assert more.precision_interval[0] > 0.8


@pytest.mark.parametrize("is_perfect", [True, False])
def test_groups_widen_the_intervals(is_perfect: bool) -> None:
    """Videos of a group have the same label and the same score: only the number of groups counts."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    scores = np.where(labels, 0.9, 0.1) if is_perfect else rng.random(60)
    alone = scored(scores, labels)
    groups = np.repeat([f"recording {i}" for i in range(60)], 5).astype(object)
    copies, apart = (
        scored(np.repeat(scores, 5), np.repeat(labels, 5), groups=each) for each in (groups, np.full(300, "", object))
    )
    widths = [np.diff(at_prevalences(side, [0.1])[0].precision_interval)[0] for side in (alone, copies, apart)]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
    assert widths[2] < 0.75 * widths[0]


def test_nothing_is_flagged() -> None:
    (at,) = at_prevalences(scored([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1]), [0.1])
    assert (at.precision, at.precision_interval, at.alerts, at.misses) == (None, None, 0, 1000)
    assert at.alerts_interval[1] > 0
    assert at_prevalences(scored([0.1, 0.9], [0, 0]), [0.1]) == []
    assert at_prevalences(scored([], []), [0.1]) == []


def test_the_curve_of_prevalences() -> None:
    found = curve_prevalences()
    assert found[[0, -1]] == pytest.approx([0.001, 0.5])
    assert len(found) == 61
    assert np.ptp(np.diff(np.log(found / (1 - found)))) == pytest.approx(0, abs=1e-12)
    side = drawn(200)
    assert len(at_prevalences(side, found)) == 61


def test_a_budget_reviews_the_highest_scores() -> None:
    side = scored([0.9, 0.8, 0.7, 0.6, 0.2, 0.1] * 10, [1, 0, 1, 1, 0, 0] * 10)
    for reviewed, found in ((10, 10), (20, 10), (30, 20), (40, 30), (60, 30), (100, 30)):
        (budget,) = review(side, [reviewed], num_draws=100)
        assert (budget.reviewed, budget.of_videos) == (min(reviewed, 60), 60)
        assert budget.found == found
        assert budget.share_found == pytest.approx(found / 30)
        assert budget.precision == pytest.approx(found / budget.reviewed)
    assert review(scored([], []), [10]) == []


def test_equal_scores_give_the_expected_number() -> None:
    scores, labels = np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0, 1])
    budgets = [1, 2, 3, 4, 5]
    found = [each.found for each in review(scored(scores, labels), budgets, num_draws=100)]
    orders = [[0, *middle, 4] for middle in itertools.permutations([1, 2, 3])]
    expected = [np.mean([labels[order[:budget]].sum() for order in orders]) for budget in budgets]
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [300, 6000])
def test_budgets_have_intervals(size: int) -> None:
    side = drawn(size, share=0.3, distance=1.5)
    some, everything = review(side, [size // 5, size], num_draws=200)
    assert some.share_found_interval[0] < some.share_found < some.share_found_interval[1]
    assert some.precision_interval[0] < some.precision < some.precision_interval[1]
    assert np.diff(some.share_found_interval)[0] < 4 / np.sqrt(side.num_harmful)
    assert everything.share_found_interval is None  # always 1
    assert everything.precision_interval is not None
    assert review(side.select(side.labels == 0), [10], num_draws=50)[0].share_found is None


@pytest.mark.filterwarnings("error")
def test_the_videos_of_one_group_have_no_interval() -> None:
    (found,) = review(replace(drawn(40, seed=1), groups=np.full(40, "one camera", dtype=object)), [10])
    assert found.reviewed == 10
    assert (found.share_found_interval, found.precision_interval) == (None, None)


def test_the_budget_curve_is_exact_at_each_point() -> None:
    side = drawn(500)
    curve = budget_curve(side, max_points=60)
    assert curve[0] == (0, 0)
    assert curve[-1] == (500, side.num_harmful)
    assert 40 < len(curve) <= 60
    best_first = np.cumsum(side.labels[np.argsort(-side.scores)])
    assert all(found == best_first[reviewed - 1] for reviewed, found in curve[1:])
    assert len(budget_curve(side)) <= 200
    assert budget_curve(scored([0.5], [1])) == [(0, 0), (1, 1)]
    assert budget_curve(scored([], [])) == []
