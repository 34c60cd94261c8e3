import numpy as np
import pytest

from haechi.predict.evaluation.scored import Scored
from haechi.predict.evaluation.slices import Slice, find_slices
from haechi.train.evaluate.subsets import find_subsets
from tests.predict.evaluation.simulated import scored


def with_mistakes(wrong: np.ndarray, groups: np.ndarray | None = None) -> Scored:
    """Videos of alternating labels, of which those of `wrong` (N,) bool are decided wrongly."""
    labels = np.arange(len(wrong)) % 2
    return scored(np.where(wrong, 1 - labels, labels) * 0.8 + 0.1, labels, groups=groups)


def slices(here: Scored, **columns: np.ndarray) -> list[Slice]:
    nan = np.full(len(here), np.nan)
    return find_slices(here, durations_seconds=nan, short_sides=nan, columns=columns)


def test_the_slice_that_fails_is_found() -> None:
    rng = np.random.default_rng(0)
    camera = np.repeat(["gate", "hall", "yard"], 200).astype(object)
    here = with_mistakes(rng.random(600) < np.where(camera == "hall", 0.4, 0.1))
    gate, hall, yard = slices(here, camera=camera)
    assert [each.subset.name for each in (gate, hall, yard)] == ["gate", "hall", "yard"]
    assert [each.is_worse for each in (gate, hall, yard)] == [False, True, False]
    wrong = (here.scores >= 0.5) != here.labels
    assert hall.mistakes == pytest.approx(wrong[200:400].mean(), abs=1e-12)
    assert hall.other_mistakes == pytest.approx(np.delete(wrong, np.s_[200:400]).mean(), abs=1e-12)
    assert hall.difference_interval[0] < hall.mistakes - hall.other_mistakes < hall.difference_interval[1]


def test_slices_are_the_subsets_of_all_kinds() -> None:
    rng = np.random.default_rng(0)
    groups = np.array([f"recording {i}" for i in rng.integers(6, size=90)], dtype=object)
    here = with_mistakes(rng.random(90) < 0.2, groups)
    facts = {
        "durations_seconds": rng.exponential(60, size=90),
        "short_sides": rng.choice([240.0, 720.0, np.nan], size=90),
        "columns": {"weather": rng.choice(["rain", "sun", ""], size=90).astype(object)},
    }
    found = find_slices(here, **facts)
    assert [each.subset for each in found] == find_subsets(
        here.scores, here.labels, here.thresholds, groups=groups, **facts
    )
    assert [each.difference_interval is None for each in found] == [each.subset.by == "group" for each in found]


def test_dependent_videos_count_as_few() -> None:
    """The difference of 20 videos of 4 recordings is less certain than that of 20 of 20; of 2, nothing is certain."""
    column = np.repeat(["new", ""], [20, 180]).astype(object)
    wrong = np.concatenate([np.arange(20) % 20 < 10, np.arange(180) % 10 == 0])
    widths = []
    for per_group in (1, 5, 10):
        groups = np.array([f"new {i // per_group}" for i in range(20)] + [""] * 180, dtype=object)
        found = [each for each in slices(with_mistakes(wrong, groups), camera=column) if each.subset.by == "camera"]
        interval = found[0].difference_interval
        widths.append(np.inf if interval is None else interval[1] - interval[0])
        assert found[0].is_worse == (per_group == 1)
    assert widths[0] < widths[1] < widths[2] == np.inf


def test_a_slice_that_is_the_whole_set() -> None:
    (found,) = slices(with_mistakes(np.arange(40) % 4 == 0), site=np.full(40, "one", dtype=object))
    assert (found.other_mistakes, found.difference_interval, found.is_worse) == (None, None, False)
    assert found.mistakes == 0.25


def test_no_slices() -> None:
    assert slices(with_mistakes(np.zeros(30, dtype=bool))) == []
    assert slices(with_mistakes(np.zeros(0, dtype=bool))) == []
