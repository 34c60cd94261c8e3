from pathlib import Path

import numpy as np
import pytest
import torch

from cache.reader import Cache
from cache.writer import write_shard
from tests import synthetic
from train.dataset import build_features, load_dataset
from train.errors import TrainError
from train.settings import TrainSettings


def all_rows(dataset) -> tuple[torch.Tensor, torch.Tensor]:
    return dataset.features.batch(torch.arange(len(dataset.ids)))


def test_model_4s_input_is_clip_beside_repeated_logits(tmp_path: Path) -> None:
    cache = Cache.open(synthetic.write_cache(tmp_path, num_harmful=5, num_safe=5, num_unlabelled=3, shard_size=4))
    dataset = load_dataset(cache, TrainSettings())
    assert dataset.num_unlabelled == 3
    assert dataset.streams == {"clip/features": 8, "slowfast/logits": 5}
    x, mask = all_rows(dataset)
    assert (x.shape, x.dtype, mask.all().item()) == ((10, 4, 13), torch.float32, True)
    # Against the cache, read the plain way.
    clip, logits = cache.rows("clip", "features"), cache.rows("slowfast", "logits")
    ids = cache.media["id"].tolist()
    for i, id in enumerate(dataset.ids):
        k = ids.index(id)
        assert cache.media["label"][k] == dataset.labels[i] != -1
        np.testing.assert_array_equal(x[i, :, :8].numpy(), clip[4 * k : 4 * k + 4].astype(np.float32))
        np.testing.assert_array_equal(x[i, :, 8:].numpy(), np.tile(logits[k].astype(np.float32), (4, 1)))


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        (TrainSettings(slowfast="none"), (20, 4, 8)),
        (TrainSettings(slowfast="pooled"), (20, 4, 20)),
        (TrainSettings(clip=False), (20, 1, 5)),
        (TrainSettings(clip=False, slowfast="pooled"), (20, 1, 12)),
    ],
)
def test_streams_can_be_chosen(tmp_path: Path, settings: TrainSettings, shape: tuple) -> None:
    dataset = load_dataset(Cache.open(synthetic.write_cache(tmp_path)), settings)
    x, _ = all_rows(dataset)
    assert x.shape == shape
    assert dataset.features.width == sum(dataset.streams.values()) == shape[2]


def test_videos_of_different_lengths_are_padded(tmp_path: Path) -> None:
    items = [synthetic.item(synthetic.media(f"{n}.mp4", label=n % 2), seed=n, num_frames=n) for n in (3, 1, 4)]
    write_shard(tmp_path / "shard-00000.h5", items, [], synthetic.provenance())
    dataset = load_dataset(Cache.open(tmp_path), TrainSettings())
    x, mask = all_rows(dataset)
    assert mask.sum(dim=1).tolist() == [3, 1, 4]
    for i, item in enumerate(items):
        np.testing.assert_array_equal(x[i, mask[i], :8].numpy(), item.clip_features.astype(np.float32))
        assert not x[i, ~mask[i], :8].any()


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


def test_a_cache_without_labels_is_an_error(tmp_path: Path) -> None:
    cache = Cache.open(synthetic.write_cache(tmp_path, num_harmful=0, num_safe=0, num_unlabelled=4))
    with pytest.raises(TrainError, match="none of its 4 videos is labelled"):
        load_dataset(cache, TrainSettings())
