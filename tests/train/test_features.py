import numpy as np
import pytest

from train.errors import TrainError
from train.features import build_features


def test_several_windows_are_rows_without_clip_and_their_mean_with_it() -> None:
    windows = np.arange(12, dtype=np.float16).reshape(4, 3)
    clip = np.ones((5, 2), np.float16)
    ids = np.array(["a", "b"], dtype=object)
    one, three = np.array([1, 3]), np.array([2, 3])
    alone = build_features({"slowfast/logits": windows}, {"slowfast/logits": one}, ids=ids)
    assert alone.rows.shape == (2, 3, 3)
    assert alone.mask.tolist() == [[True, False, False], [True, True, True]]
    both = build_features(
        {"clip/features": clip, "slowfast/logits": windows}, {"clip/features": three, "slowfast/logits": one}, ids=ids
    )
    assert both.constant.tolist() == [[0, 1, 2], [6, 7, 8]]


def test_unusable_videos_are_all_named() -> None:
    clip = np.array([[1, 1], [np.nan, 1], [2, 2]], np.float32)
    with pytest.raises(TrainError) as caught:
        build_features(
            {"clip/features": clip, "slowfast/logits": np.ones((2, 3), np.float32)},
            {"clip/features": np.array([1, 1, 1]), "slowfast/logits": np.array([1, 1, 0])},
            ids=np.array(["하나.mp4", "둘.mp4", "셋.mp4"], dtype=object),
        )
    assert "'둘.mp4': NaN or infinite values in /clip/features" in str(caught.value)
    assert "'셋.mp4': no windows in /slowfast/logits" in str(caught.value)
    assert "하나" not in str(caught.value)


def test_rows_of_equal_number_are_not_copied() -> None:
    clip = np.ones((6, 2), np.float16)
    ids = np.array(["a", "b"], dtype=object)
    features = build_features({"clip/features": clip}, {"clip/features": np.array([3, 3])}, ids=ids)
    assert np.shares_memory(features.rows.numpy(), clip)
    assert features.constant.shape == (2, 0)
