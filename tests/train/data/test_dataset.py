from pathlib import Path

import numpy as np
import pytest
import torch

from haechi.cache.reader import Cache
from haechi.cache.writer import write_shard
from haechi.train.data.dataset import Dataset, load_dataset
from haechi.train.data.features import Features
from haechi.train.data.stream import Stream
from haechi.train.errors import TrainError
from haechi.train.settings import TrainSettings
from tests import synthetic


def all_rows(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return dataset.features.batch(torch.arange(len(dataset.ids)))


def test_model_4s_input_is_clip_and_constant_logits(tmp_path: Path) -> None:
    cache = Cache.open(synthetic.write_cache(tmp_path, num_harmful=5, num_safe=5, num_unlabelled=3, shard_size=4))
    dataset = load_dataset(cache, TrainSettings())
    assert dataset.num_unlabelled == 3
    assert dataset.streams == {"clip/features": 8, "slowfast/logits": 5}
    rows, constant, mask = all_rows(dataset)
    assert (rows.shape, rows.dtype, mask.shape, mask.all().item()) == ((10, 4, 8), torch.float32, (10, 4), True)
    assert (constant.shape, constant.dtype) == ((10, 5), torch.float32)
    assert dataset.features.rows.dtype == torch.float16  # as the cache stores it
    # Compared with the cache, read directly.
    clip, logits = cache.rows("clip", "features"), cache.rows("slowfast", "logits")
    ids = cache.media["id"].tolist()
    for i, id in enumerate(dataset.ids):
        k = ids.index(id)
        assert cache.media["label"][k] == dataset.labels[i] != -1
        np.testing.assert_array_equal(rows[i].numpy(), clip[4 * k : 4 * k + 4].astype(np.float32))
        np.testing.assert_array_equal(constant[i].numpy(), logits[k].astype(np.float32))


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        (TrainSettings(slowfast="none"), (20, 4, 8, 0)),
        (TrainSettings(slowfast="pooled"), (20, 4, 8, 12)),
        (TrainSettings(clip=False), (20, 1, 5, 0)),
        (TrainSettings(clip=False, slowfast="pooled"), (20, 1, 12, 0)),
    ],
)
def test_streams_can_be_chosen(tmp_path: Path, settings: TrainSettings, shape: tuple) -> None:
    dataset = load_dataset(Cache.open(synthetic.write_cache(tmp_path)), settings)
    rows, constant, _ = all_rows(dataset)
    assert (*rows.shape, constant.shape[1]) == shape
    assert dataset.features.widths == shape[2:]
    assert sum(dataset.streams.values()) == sum(shape[2:])


def test_videos_of_different_lengths_are_padded(tmp_path: Path) -> None:
    items = [synthetic.item(synthetic.media(f"{n}.mp4", label=n % 2), seed=n, num_frames=n) for n in (3, 1, 4)]
    write_shard(tmp_path / "shard-00000.h5", items, [], synthetic.provenance())
    dataset = load_dataset(Cache.open(tmp_path), TrainSettings())
    rows, _, mask = all_rows(dataset)
    assert mask.sum(dim=1).tolist() == [3, 1, 4]
    for i, item in enumerate(items):
        np.testing.assert_array_equal(rows[i, mask[i]].numpy(), item.arrays["clip/features"].astype(np.float32))
        assert not rows[i, ~mask[i]].any()


def test_superseded_and_unlabelled_videos_are_left_out(tmp_path: Path) -> None:
    for number, seeds in enumerate(({"a": 1, "b": 2, "c": 3}, {"d": 4, "a": 5})):
        items = [
            synthetic.item(synthetic.media(id, label=-1 if id == "c" else seed % 2), seed=seed)
            for id, seed in seeds.items()
        ]
        write_shard(tmp_path / f"shard-{number:05d}.h5", items, [], synthetic.provenance())
    dataset = load_dataset(Cache.open(tmp_path), TrainSettings())
    assert dataset.ids.tolist() == ["b", "d", "a"]
    rows, _, _ = all_rows(dataset)
    for i, seed in enumerate((2, 4, 5)):
        expected = synthetic.item(synthetic.media("x"), seed=seed).arrays["clip/features"].astype(np.float32)
        np.testing.assert_array_equal(rows[i].numpy(), expected)


def test_what_does_not_fit_is_streamed(tmp_path: Path) -> None:
    cache = Cache.open(synthetic.write_cache(tmp_path))
    in_memory = load_dataset(cache, TrainSettings()).features
    needed = 20 * (4 * 8 * 2 + 5 * 4)
    assert isinstance(in_memory, Features)
    assert sum(t.numel() * t.element_size() for t in (in_memory.rows, in_memory.constant)) == needed
    assert isinstance(load_dataset(cache, TrainSettings(), memory_bytes=needed).features, Features)
    assert isinstance(load_dataset(cache, TrainSettings(), memory_bytes=needed - 1).features, Stream)


def test_a_cache_without_labels_is_an_error(tmp_path: Path) -> None:
    cache = Cache.open(synthetic.write_cache(tmp_path, num_harmful=0, num_safe=0, num_unlabelled=4))
    with pytest.raises(TrainError, match="none of its 4 videos is labelled"):
        load_dataset(cache, TrainSettings())
