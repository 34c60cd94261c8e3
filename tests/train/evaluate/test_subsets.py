import numpy as np
import pytest

from haechi.train.evaluate.metrics import metrics_at
from haechi.train.evaluate.subsets import MAX_GROUPS, find_subsets


def test_every_band_and_every_large_group_with_its_own_figures() -> None:
    rng = np.random.default_rng(0)
    n = 60
    scores, labels = rng.random(n), rng.integers(0, 2, n)
    groups = np.array(["large"] * 20 + ["small"] * 4 + [""] * 36, dtype=object)
    durations = np.array([5.0] * 30 + [5.1] * 26 + [4000.0] * 4)
    sides = np.array([240] * 10 + [241] * 10 + [1080] * 40)
    found = find_subsets(scores, labels, 0.5, groups=groups, durations_seconds=durations, short_sides=sides)
    assert [(s.by, s.name, s.count) for s in found] == [
        ("group", "large", 20),
        ("duration", "up to 5 s", 30),
        ("duration", "5 s to 15 s", 26),
        ("resolution", "up to 240 pixels", 10),
        ("resolution", "241 to 360 pixels", 10),
        ("resolution", "over 720 pixels", 40),
    ]
    assert found[0].figures == metrics_at(scores[:20], labels[:20], 0.5)
    assert found[0].harmful == labels[:20].sum()


def test_an_unknown_length_is_in_no_band() -> None:
    found = find_subsets(
        np.zeros(6),
        np.zeros(6, dtype=int),
        0.5,
        groups=np.full(6, "", dtype=object),
        durations_seconds=np.full(6, np.nan),
        short_sides=np.full(6, 100),
    )
    assert [s.by for s in found] == ["resolution"]


def test_of_many_groups_the_largest() -> None:
    sizes = range(5, 5 + MAX_GROUPS + 3)
    groups = np.concatenate([[f"g{size}"] * size for size in sizes]).astype(object)
    n = len(groups)
    found = find_subsets(
        np.zeros(n),
        np.zeros(n, dtype=int),
        0.5,
        groups=groups,
        durations_seconds=np.full(n, np.nan),
        short_sides=np.full(n, np.nan),
    )
    assert [s.count for s in found] == pytest.approx(sorted(sizes, reverse=True)[:MAX_GROUPS])


def test_columns_of_the_user_by_frequency() -> None:
    n = 40
    cameras = np.array(["rare"] * 4 + ["few"] * 6 + ["many"] * 20 + [""] * 10, dtype=object)
    weather = np.array(["rain", "sun"] * 20, dtype=object)
    found = find_subsets(
        np.linspace(0, 1, n),
        np.arange(n) % 2,
        0.5,
        groups=np.full(n, "", dtype=object),
        durations_seconds=np.full(n, np.nan),
        short_sides=np.full(n, 100.0),
        columns={"camera": cameras, "weather": weather},
    )
    assert [(s.by, s.name, s.count) for s in found] == [
        ("resolution", "up to 240 pixels", 40),
        ("camera", "many", 20),
        ("camera", "few", 6),
        ("weather", "rain", 20),
        ("weather", "sun", 20),
    ]
