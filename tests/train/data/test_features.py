import numpy as np
import pytest
import torch

from haechi.train.data.features import Features, build_features, make_batches, split_into_batches, thin_rows
from haechi.train.errors import TrainError


def test_several_windows_are_rows_without_clip_and_their_mean_with_it() -> None:
    windows = np.arange(12, dtype=np.float16).reshape(4, 3)
    clip = np.ones((5, 2), np.float16)
    ids = np.array(["a", "b"], dtype=object)
    one, three = np.array([1, 3]), np.array([2, 3])
    alone = build_features({"slowfast/logits": windows}, {"slowfast/logits": one}, ids=ids, max_rows=9)
    rows, _, mask = alone.batch(torch.tensor([0, 1]))
    assert rows.shape == (2, 3, 3)
    assert mask.tolist() == [[True, False, False], [True, True, True]]
    both = build_features(
        {"clip/features": clip, "slowfast/logits": windows},
        {"clip/features": three, "slowfast/logits": one},
        ids=ids,
        max_rows=9,
    )
    assert both.constant.tolist() == [[0, 1, 2], [6, 7, 8]]


def test_unusable_videos_are_all_named() -> None:
    clip = np.array([[1, 1], [np.nan, 1], [2, 2]], np.float32)
    with pytest.raises(TrainError) as caught:
        build_features(
            {"clip/features": clip, "slowfast/logits": np.ones((2, 3), np.float32)},
            {"clip/features": np.array([1, 1, 1]), "slowfast/logits": np.array([1, 1, 0])},
            ids=np.array(["하나.mp4", "둘.mp4", "셋.mp4"], dtype=object),
            max_rows=9,
        )
    assert "'둘.mp4': NaN or infinite values in /clip/features" in str(caught.value)
    assert "'셋.mp4': no windows in /slowfast/logits" in str(caught.value)
    assert "하나" not in str(caught.value)


def test_rows_of_equal_number_are_not_copied() -> None:
    clip = np.ones((6, 2), np.float16)
    ids = np.array(["a", "b"], dtype=object)
    features = build_features({"clip/features": clip}, {"clip/features": np.array([3, 3])}, ids=ids, max_rows=3)
    assert np.shares_memory(features.rows.numpy(), clip)
    assert features.constant.shape == (2, 0)


def mixed(lengths: list[int], *, max_rows: int = 1 << 20, seed: int = 0) -> tuple[np.ndarray, Features]:
    """Random rows (ΣT, 3) of videos, and the features made of them."""
    clip = np.random.default_rng(seed).normal(size=(sum(lengths), 3)).astype(np.float32)
    ids = np.array([f"v{i}" for i in range(len(lengths))], dtype=object)
    return clip, build_features(
        {"clip/features": clip}, {"clip/features": np.array(lengths)}, ids=ids, max_rows=max_rows
    )


def test_a_batch_is_padded_to_its_own_longest_video() -> None:
    clip, features = mixed([1, 700, 3, 32])
    assert len(features.rows) == 736  # only batches are padded
    for index, longest in (([0, 2], 3), ([3, 0], 32), ([1], 700), ([2, 1, 0, 3], 700)):
        rows, constant, mask = features.batch(torch.tensor(index))
        assert rows.shape == (len(index), longest, 3)
        assert constant.shape == (len(index), 0)
        starts = [0, 1, 701, 704, 736]
        for i, video in enumerate(index):
            own = clip[starts[video] : starts[video + 1]]
            assert torch.equal(rows[i][mask[i]], torch.from_numpy(own))
            assert mask[i].tolist() == [True] * len(own) + [False] * (longest - len(own))
            assert not rows[i][~mask[i]].any()


@pytest.mark.parametrize("lengths", [[3, 3, 3], [3, 1, 2]])
def test_a_batch_is_where_the_features_are_wherever_its_index_is(lengths: list[int]) -> None:
    """The regression uses indices on the CPU, the training loop on the device. "meta" is a device without values."""
    there = Features(
        rows=torch.zeros(sum(lengths), 4, dtype=torch.float16),
        lengths=np.array(lengths),
        constant=torch.zeros(len(lengths), 2),
    ).to(torch.device("meta"))
    rows, constant, mask = there.batch(torch.tensor([0, 2]))
    assert {rows.device.type, constant.device.type, mask.device.type} == {"meta"}
    assert rows.shape == (2, 3, 4)


def test_long_videos_are_thinned() -> None:
    clip, features = mixed([2, 9, 5], max_rows=5)
    assert features.lengths.tolist() == [2, 5, 5]
    assert features.num_rows == 5
    np.testing.assert_array_equal(features.rows, clip[[0, 1, 2, 4, 6, 8, 10, 11, 12, 13, 14, 15]])


@pytest.mark.parametrize(("num_rows", "max_rows"), [(1, 1), (5, 9), (9, 9), (10, 9), (14_400, 512), (7, 1)])
def test_thinned_rows_span_the_video(num_rows: int, max_rows: int) -> None:
    kept = thin_rows(num_rows, max_rows)
    assert len(kept) == min(num_rows, max_rows)
    assert (np.diff(kept) > 0).all()
    assert kept[0] == 0
    if max_rows > 1:
        assert kept[-1] == num_rows - 1
        assert np.diff(kept).max(initial=0) - np.diff(kept).min(initial=1 << 20) <= 1


def test_the_mean_over_windows_is_over_all_of_them() -> None:
    """However few CLIP rows are kept."""
    windows = np.arange(10, dtype=np.float32)[:, None]
    features = build_features(
        {"clip/features": np.ones((20, 2), np.float32), "slowfast/logits": windows},
        {"clip/features": np.array([20]), "slowfast/logits": np.array([10])},
        ids=np.array(["a"], dtype=object),
        max_rows=3,
    )
    assert (len(features.rows), features.constant.tolist()) == (3, [[4.5]])


def test_batches_are_bounded_by_videos_and_by_padded_rows() -> None:
    lengths = np.array([1, 1, 1, 1, 50, 1, 1, 9, 9, 9])
    batches = make_batches(torch.arange(10), lengths, max_videos=3, max_rows=20)
    assert [batch.tolist() for batch in batches] == [[0, 1, 2], [3], [4], [5, 6], [7, 8], [9]]
    even = make_batches(torch.arange(1000), np.full(1000, 32), max_videos=256, max_rows=256 * 32)
    assert [len(batch) for batch in even] == [256, 256, 256, 232]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([20], [(0, 1)]),
        ([4, 4, 4], [(0, 2), (2, 3)]),
        ([1, 1, 1, 9, 1], [(0, 3), (3, 4), (4, 5)]),
        ([5, 1, 1], [(0, 1), (1, 3)]),
        ([0, 0, 8], [(0, 2), (2, 3)]),
    ],
)
def test_batches_count_padding(lengths: list[int], expected: list[tuple[int, int]]) -> None:
    found = [(batch.start, batch.stop) for batch in split_into_batches(np.array(lengths, dtype=int), max_rows=8)]
    assert found == expected
