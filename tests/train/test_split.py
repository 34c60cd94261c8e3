import numpy as np
import pytest

from train.errors import TrainError
from train.settings import TrainSettings
from train.split import Split, make_split, same_bytes


def split_of(labels, given=None, groups=None, **settings) -> Split:
    labels = np.array(labels, dtype=np.int8)
    none = [""] * len(labels)
    return make_split(
        labels, np.array(given or none, dtype=object), np.array(groups or none, dtype=object), TrainSettings(**settings)
    )


def test_the_reports_split() -> None:
    labels = np.repeat([1, 0], [2815, 1051])  # 3,286 + 580 videos
    split = split_of(labels)
    assert split.counts(labels) == {
        "train": {"harmful": 2393, "safe": 893},
        "val": {"harmful": 422, "safe": 158},
    }
    assert split.warnings == []


def test_the_seed_decides() -> None:
    labels = [1, 0] * 30
    assert (split_of(labels, seed=1).names == split_of(labels, seed=1).names).all()
    assert (split_of(labels, seed=1).names != split_of(labels, seed=2).names).any()


@pytest.mark.parametrize("num_each", [2, 3, 5])
def test_a_handful_of_videos_still_gives_both_classes_to_both(num_each: int) -> None:
    labels = np.array([1, 0] * num_each)
    for seed in range(10):
        counts = split_of(labels, seed=seed).counts(labels)
        assert min(n for of_label in counts.values() for n in of_label.values()) >= 1


def test_the_manifests_split_holds() -> None:
    labels = [1, 0, 1, 0, 1, 1]
    given = ["train", "train", "val", "val", "test", "test"]
    split = split_of(labels, given)
    assert split.names.tolist() == given
    assert split.rows("test").tolist() == [4, 5]
    assert split.notes == ["6 videos stand where the manifest's split column says"]


def test_unsaid_videos_train_where_val_is_said() -> None:
    split = split_of([1, 0, 1, 0, 1], ["", "", "val", "val", "test"])
    assert split.names.tolist() == ["train", "train", "val", "val", "test"]
    assert "2 videos without a split train" in split.notes[1]


def test_val_is_drawn_from_train_where_only_train_and_test_are_said() -> None:
    given = ["train"] * 20 + ["test"] * 4
    split = split_of([1, 0] * 12, given)
    assert set(split.names[:20]) == {"train", "val"}
    assert set(split.names[20:]) == {"test"}
    assert "drawn for validation" in split.notes[1]


def test_val_is_drawn_from_the_unsaid_where_only_test_is_said() -> None:
    split = split_of([1, 0] * 12, ["train"] * 4 + [""] * 16 + ["test"] * 4)
    assert set(split.names[:4]) == {"train"}
    assert set(split.names[4:20]) == {"train", "val"}


def test_drawn_groups_stay_whole_and_balanced() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{n}" for n in rng.integers(0, 30, 200)] + [""] * 20
    labels = rng.integers(0, 2, 220)
    for seed in range(5):
        split = split_of(labels, groups=groups, seed=seed)
        for group in set(groups) - {""}:
            assert len({name for name, g in zip(split.names, groups, strict=True) if g == group}) == 1
        counts = split.counts(labels)["val"]
        assert counts["harmful"] == pytest.approx(0.15 * (labels == 1).sum(), abs=3)
        assert counts["safe"] == pytest.approx(0.15 * (labels == 0).sum(), abs=3)
        assert split.warnings == []


def test_an_unsaid_video_follows_its_group() -> None:
    split = split_of([1, 0, 1, 0, 1, 0], ["train", "train", "val", "val", "test", ""], ["", "", "", "", "a", "a"])
    assert split.names.tolist()[-1] == "test"
    assert any("follow their group" in note for note in split.notes)


def test_a_given_split_that_breaks_a_group_is_warned_of() -> None:
    split = split_of([1, 0, 1, 0], ["train", "train", "val", "val"], ["a", "b", "a", ""])
    assert len(split.warnings) == 1
    assert "'a' in train, val" in split.warnings[0]
    assert "'b'" not in split.warnings[0]


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
        split_of(labels, given, groups)


def test_the_same_file_on_both_sides_is_told() -> None:
    names = np.array(["train", "val", "train", "val"], dtype=object)
    ids = np.array(["a.mp4", "b.mp4", "copy of b.mp4", "d.mp4"], dtype=object)
    assert same_bytes(names, np.array(["1", "2", "3", "4"]), ids) == []
    (warning,) = same_bytes(names, np.array(["1", "2", "2", "4"]), ids)
    assert "'b.mp4' in val, 'copy of b.mp4' in train" in warning
    assert same_bytes(names, np.array(["1", "2", "1", "4"]), ids) == []  # both train


def test_a_rare_class_stands_on_both_sides() -> None:
    labels = np.array([0] * 100 + [1] * 3, dtype=np.int8)
    nothing = np.array([""] * 103, dtype=object)
    split = make_split(labels, nothing, nothing, TrainSettings())
    assert split.counts(labels) == {"train": {"harmful": 2, "safe": 85}, "val": {"harmful": 1, "safe": 15}}
