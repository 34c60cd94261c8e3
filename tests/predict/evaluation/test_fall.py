import numpy as np
import pytest

from haechi.predict.evaluation.fall import find_changes
from haechi.predict.evaluation.scored import Scored
from haechi.train.evaluate.bootstrap import intervals
from haechi.train.evaluate.metrics import METRICS, metrics_at
from tests.predict.evaluation.simulated import drawn, scored

OWN = drawn(300, seed=1, per_group=3)


@pytest.mark.parametrize("size", [400, 5000])
def test_figures_and_intervals_of_each_side(size: int) -> None:
    here = drawn(size, distance=0.5)
    changes = find_changes(OWN, here)
    assert [change.metric for change in changes] == list(METRICS)
    own_figures, figures = (metrics_at(side.scores, side.labels, side.thresholds) for side in (OWN, here))
    own_intervals = intervals(OWN.scores, OWN.labels, OWN.thresholds, OWN.groups)
    here_intervals = intervals(here.scores, here.labels, here.thresholds, here.groups)
    for change in changes:
        name = change.metric.name
        assert (change.own, change.here) == (own_figures[name], figures[name])
        assert change.own_interval == own_intervals[name]
        width = here_intervals[name][1] - here_intervals[name][0]
        assert change.here_interval == pytest.approx(here_intervals[name], abs=0.1 * width)  # other draws
        low, high = change.difference_interval
        assert low < change.difference < high < 0  # all figures fell, by more than chance
        assert max(width, np.diff(change.own_interval)[0]) < high - low
        assert high - low < width + np.diff(change.own_interval)[0]


def test_without_figures_of_its_own() -> None:
    here = drawn(200)
    for nothing in (None, OWN.select(np.arange(0))):
        for change, alone in zip(find_changes(nothing, here), find_changes(OWN, here), strict=True):
            assert (change.own, change.own_interval, change.difference, change.difference_interval) == (None,) * 4
            assert (change.here, change.here_interval) == (alone.here, alone.here_interval)
    assert find_changes(OWN, here.select(np.arange(0))) == []


def test_a_set_is_compared_with_itself_as_with_another() -> None:
    for change in find_changes(OWN, OWN):
        low, high = change.difference_interval
        assert low < 0 < high
        assert change.difference == 0
        assert high - low > 1.2 * np.diff(change.own_interval)[0]  # about the square root of 2


def by_name(own: Scored, here: Scored) -> dict[str, object]:
    return {change.metric.name: change for change in find_changes(own, here, num_draws=200)}


def test_undefined_figures_have_no_difference() -> None:
    safe = scored(np.linspace(0, 0.4, 50), np.zeros(50))
    found = by_name(OWN, safe)
    assert found["precision"].here is None
    assert found["precision"].difference_interval is None
    assert found["roc_auc"].difference_interval is None


def test_without_mistakes_no_interval_is_promised() -> None:
    perfect = scored(np.linspace(0, 1, 50), np.arange(50) >= 25)
    assert by_name(OWN, perfect)["f1"].difference_interval is None


def test_one_group_has_no_interval() -> None:
    one = scored(OWN.scores, OWN.labels, groups=np.full(300, "recording", dtype=object))
    found = by_name(OWN, one)["f1"]
    assert found.here_interval is None
    assert found.difference_interval is None
    assert found.own_interval is not None
