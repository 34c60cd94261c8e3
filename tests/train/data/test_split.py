import numpy as np
import pytest

from haechi.train.data import split
from haechi.train.data.groups import own_groups
from haechi.train.data.split import INNER_FOLDS, Split, inner_folds, make_folds, make_split, num_folds
from haechi.train.errors import TrainError
from haechi.train.settings import TrainSettings


def draw_split(labels, given=None, groups=None, **settings) -> Split:
    labels = np.array(labels, dtype=np.int8)
    none = [""] * len(labels)
    return make_split(
        labels, np.array(given or none, dtype=object), np.array(groups or none, dtype=object), TrainSettings(**settings)
    )


def test_the_reports_split() -> None:
    labels = np.repeat([1, 0], [2815, 1051])  # 3,286 + 580 videos
    split = draw_split(labels, test_fraction=0.0)
    assert split.counts(labels) == {
        "train": {"harmful": 2393, "safe": 893},
        "val": {"harmful": 422, "safe": 158},
    }
    assert "no test videos" in split.notes[-1]


def test_three_parts_by_default() -> None:
    labels = np.repeat([1, 0], [2815, 1051])
    split = draw_split(labels)
    assert split.counts(labels) == {
        "train": {"harmful": 1971, "safe": 735},
        "val": {"harmful": 422, "safe": 158},
        "test": {"harmful": 422, "safe": 158},
    }
    assert split.notes == [
        "of 3866 videos 580 into test and 580 into val drawn (stratified, seed 0, fraction 0.15 and 0.15)"
    ]


def test_the_seed_decides() -> None:
    labels = [1, 0] * 30
    assert (draw_split(labels, seed=1).names == draw_split(labels, seed=1).names).all()
    assert (draw_split(labels, seed=1).names != draw_split(labels, seed=2).names).any()


@pytest.mark.parametrize("num_each", [2, 3, 5])
def test_a_handful_of_videos_still_gives_both_classes_to_both(num_each: int) -> None:
    labels = np.array([1, 0] * num_each)
    for seed in range(10):
        counts = draw_split(labels, seed=seed).counts(labels)
        assert min(n for part in counts.values() for n in part.values()) >= 1


def test_the_manifests_split_holds() -> None:
    labels = [1, 0, 1, 0, 1, 1]
    given = ["train", "train", "val", "val", "test", "test"]
    split = draw_split(labels, given)
    assert split.names.tolist() == given
    assert split.rows("test").tolist() == [4, 5]
    assert split.notes == ["6 videos assigned by the manifest's split column"]


def test_videos_without_a_part_train_where_val_is_given() -> None:
    split = draw_split([1, 0, 1, 0, 1], ["", "", "val", "val", "test"])
    assert split.names.tolist() == ["train", "train", "val", "val", "test"]
    assert "2 videos without a split assigned to train" in split.notes[1]


def test_val_is_drawn_from_train_where_only_train_and_test_are_given() -> None:
    given = ["train"] * 20 + ["test"] * 4
    split = draw_split([1, 0] * 12, given)
    assert set(split.names[:20]) == {"train", "val"}
    assert set(split.names[20:]) == {"test"}
    assert "into val drawn" in split.notes[1]


def test_val_is_drawn_from_videos_without_a_part_where_only_test_is_given() -> None:
    split = draw_split([1, 0] * 12, ["train"] * 4 + [""] * 16 + ["test"] * 4)
    assert set(split.names[:4]) == {"train"}
    assert set(split.names[4:20]) == {"train", "val"}


def test_drawn_groups_stay_whole_and_balanced() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{n}" for n in rng.integers(0, 30, 200)] + [""] * 20
    labels = rng.integers(0, 2, 220)
    for seed in range(5):
        split = draw_split(labels, groups=groups, seed=seed)
        for group in set(groups) - {""}:
            assert len({name for name, g in zip(split.names, groups, strict=True) if g == group}) == 1
        counts = split.counts(labels)["val"]
        assert counts["harmful"] == pytest.approx(0.15 * (labels == 1).sum(), abs=3)
        assert counts["safe"] == pytest.approx(0.15 * (labels == 0).sum(), abs=3)
        counts = split.counts(labels)["test"]
        assert counts["harmful"] == pytest.approx(0.15 * (labels == 1).sum(), abs=3)


def test_a_video_without_a_part_follows_its_group() -> None:
    split = draw_split([1, 0, 1, 0, 1, 0], ["train", "train", "val", "val", "test", ""], ["", "", "", "", "a", "a"])
    assert split.names.tolist()[-1] == "test"
    assert any("1 video without a split assigned to the part of the group" in note for note in split.notes)


@pytest.mark.parametrize(
    ("labels", "given", "groups", "message"),
    [
        ([1, 1, 1], None, None, "3 harmful, 0 safe"),
        ([0, 0, 0], None, None, "0 harmful, 3 safe"),
        ([1, 1, 1, 0], None, None, "at least 2 of each class"),
        ([1, 0, 1, 1], ["train", "train", "val", "val"], None, "the val split: 2 harmful, 0 safe"),
        ([1, 0, 0, 0, 1], ["val", "val", "train", "train", "test"], None, "the train split: 0 harmful, 2 safe"),
        ([1, 0], ["val", "val"], None, "the train split: 0 harmful, 0 safe"),
        ([1, 1, 0, 0], None, ["a", "a", "a", "a"], "the group 'a'"),
        ([1, 1, 0, 0], None, ["a", "a", "b", "b"], "the train split"),
    ],
)
def test_what_cannot_be_split_says_why(labels: list, given: list | None, groups: list | None, message: str) -> None:
    with pytest.raises(TrainError, match=message):
        draw_split(labels, given, groups)


def test_a_rare_class_stands_on_both_sides() -> None:
    labels = np.array([0] * 100 + [1] * 3, dtype=np.int8)
    nothing = np.array([""] * 103, dtype=object)
    split = make_split(labels, nothing, nothing, TrainSettings())
    assert split.counts(labels) == {
        "train": {"harmful": 1, "safe": 70},
        "val": {"harmful": 1, "safe": 15},
        "test": {"harmful": 1, "safe": 15},
    }


def count_folds(labels, given=None, groups=None, **settings) -> int:
    none = [""] * len(labels)
    return num_folds(
        np.array(labels),
        np.array(given or none, dtype=object),
        np.array(groups or none, dtype=object),
        TrainSettings(**settings),
    )


@pytest.mark.parametrize(
    ("num_each", "settings", "expected"),
    [
        (67, {}, 0),  # 0.15 of 67 are ten
        (66, {}, 5),
        (4, {}, 4),
        (2, {}, 0),
        (66, {"test_fraction": 0.0}, 0),
        (66, {"folds": 0}, 0),
        (66, {"folds": 7}, 7),
        (500, {"folds": 3}, 3),
    ],
)
def test_cross_validation_where_a_test_part_would_be_too_small(num_each: int, settings: dict, expected: int) -> None:
    assert count_folds([1, 0] * num_each, **settings) == expected


def test_a_manifests_split_is_not_a_reason_for_folds() -> None:
    assert count_folds([1, 0] * 10, ["train"] * 14 + ["val"] * 6) == 0


def test_too_few_groups_for_the_folds_asked_for() -> None:
    with pytest.raises(TrainError, match="got 4 of the rarer class"):
        count_folds([1, 0] * 10, None, ["a", "b", "c", "d", "e", "f", "g", "h"] + ["a", "b"] * 6, folds=5)


def test_each_video_is_in_one_folds_test_with_its_group() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 100)
    groups = np.array([f"g{n}" for n in rng.integers(0, 25, 70)] + [""] * 30, dtype=object)
    given = make_folds(labels, groups, TrainSettings(), num_folds=5)
    tested = np.array([names == "test" for names in given])
    assert (tested.sum(axis=0) == 1).all()
    for fold in tested:
        for group in set(groups) - {""}:
            assert len(set(fold[groups == group])) == 1
        assert 0 < labels[fold].sum() < fold.sum()
    again = make_folds(labels, groups, TrainSettings(), num_folds=5)
    assert all((a == b).all() for a, b in zip(given, again, strict=True))
    other = make_folds(labels, groups, TrainSettings(seed=1), num_folds=5)
    assert any((a != b).any() for a, b in zip(given, other, strict=True))


def no_groups(num_videos: int) -> np.ndarray:
    return np.full(num_videos, "", dtype=object)


def test_inner_folds_are_stratified_and_hold_each_video_out_once() -> None:
    labels = np.repeat([1, 0], [50, 25])[np.random.default_rng(0).permutation(75)]
    folds = inner_folds(labels, no_groups(75), seed=0)
    assert len(folds) == INNER_FOLDS == 5
    for fitted, held_out in folds:
        assert (labels[held_out].sum(), len(held_out)) == (10, 15)
        assert (np.diff(fitted) > 0).all()
        assert (np.diff(held_out) > 0).all()
        assert sorted([*fitted, *held_out]) == list(range(75))
    assert sorted(np.concatenate([held_out for _, held_out in folds])) == list(range(75))


def test_the_seed_draws_the_inner_folds() -> None:
    labels = np.resize([1, 0], 40)
    one, same, other = ([held.tolist() for _, held in inner_folds(labels, no_groups(40), seed=s)] for s in (1, 1, 2))
    assert one == same
    assert one != other


def test_inner_folds_of_any_groups() -> None:
    """Groups stay whole, no fold is empty, and every fold is fitted on both classes, for groups of any size."""
    rng = np.random.default_rng(0)
    numbers = set()
    for seed in range(300):
        num_videos = int(rng.integers(4, 60))
        labels = (rng.random(num_videos) < rng.choice([0.1, 0.3, 0.5])).astype(np.int8)
        share = rng.dirichlet(np.full(int(rng.integers(1, 12)), rng.choice([0.2, 1.0, 5.0])))
        groups = np.array([f"g{i}" for i in rng.choice(len(share), num_videos, p=share)], dtype=object)
        groups[rng.random(num_videos) < rng.choice([0.0, 0.3])] = ""
        folds = inner_folds(labels, groups, seed=seed)
        numbers.add(len(folds))
        own = own_groups(groups)
        fewest = min(len(set(own[labels == label])) for label in (0, 1))
        assert len(folds) <= min(fewest, 5)
        assert len(folds) != 1
        for fitted, held_out in folds:
            assert len(held_out)
            assert set(labels[fitted]) == {0, 1}
            assert not set(own[fitted]) & set(own[held_out])
        if folds:
            assert sorted(np.concatenate([held_out for _, held_out in folds])) == list(range(num_videos))
    assert numbers == {0, 2, 3, 4, 5}


@pytest.mark.parametrize(("num_groups", "expected"), [(1, 0), (2, 2), (3, 3), (5, 5), (9, 5)])
def test_few_groups_of_a_class_give_few_inner_folds(num_groups: int, expected: int) -> None:
    labels = np.repeat([1, 0], [27, 30])
    groups = np.array([f"g{i % num_groups}" for i in range(27)] + [""] * 30, dtype=object)
    assert len(inner_folds(labels, groups, seed=0)) == expected


def test_many_videos_without_a_group_are_dealt_out_in_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "MOST_BUNDLES", 40)
    rng = np.random.default_rng(0)
    labels = (np.arange(1000) % 100 < 30).astype(np.int8)
    labels[labels == 1] = np.arange(300) < 7  # a rare class stays in videos of its own
    groups = no_groups(1000)
    groups[500:] = rng.choice([f"camera {i}" for i in range(60)], 500)
    folds = inner_folds(labels, groups, seed=0)
    assert len(folds) == INNER_FOLDS
    assert sorted(np.concatenate([held_out for _, held_out in folds]).tolist()) == list(range(1000))
    for fitted, held_out in folds:
        assert (np.diff(held_out) > 0).all()
        assert set(groups[fitted]) & set(groups[held_out]) <= {""}
        assert 1 <= labels[held_out].sum() <= 2
        assert abs(len(held_out) - 200) <= 40
    again = inner_folds(labels, groups, seed=0)
    other = inner_folds(labels, groups, seed=1)
    assert all((one[1] == two[1]).all() for one, two in zip(folds, again, strict=True))
    assert any(len(one[1]) != len(two[1]) or (one[1] != two[1]).any() for one, two in zip(folds, other, strict=True))


def test_one_group_of_all_videos_has_no_inner_folds() -> None:
    assert inner_folds(np.resize([1, 0], 20), np.full(20, "camera", dtype=object), seed=0) == []
    assert inner_folds(np.ones(20, dtype=np.int8), no_groups(20), seed=0) == []
