"""Streamed features give the same run as features in memory, to the last byte, with at most two buffers in memory."""

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from haechi.cache.reader import Cache
from haechi.cache.writer import shard_path, write_shard
from haechi.train.data import batches, stream
from haechi.train.data.dataset import load_dataset
from haechi.train.data.features import Features
from haechi.train.data.stream import Stream
from haechi.train.errors import TrainError
from haechi.train.model import fit
from haechi.train.output.metrics_json import metrics_record, write_metrics
from haechi.train.settings import PRESETS, TrainSettings
from tests import synthetic
from tests.train import runs


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "BLOCK_VIDEOS", 4)
    monkeypatch.setattr(fit, "BUFFER_BLOCKS", 3)
    monkeypatch.setattr(batches, "MAX_VIDEOS", 5)
    monkeypatch.setattr(batches, "SMALL_VALUES", 64)


def write(path: Path) -> Cache:
    """Four shards with unlabelled, superseded and failed videos, of one to four frames."""
    rng = np.random.default_rng(0)
    for number in range(4):
        ids = [f"v{i:03d}" for i in range(16 * number, 16 * number + 16)]
        ids += ["v001", "v005", "v018"] if number == 3 else []
        items = []
        for id in ids:
            label, seed = int(rng.integers(-1, 2)), int(rng.integers(1 << 30))
            row = synthetic.media(id, label=label, split="" if rng.random() < 0.9 else "test")
            items.append(synthetic.item(row, seed=seed, num_frames=int(rng.integers(1, 5)), shift=0.3 * label))
        failures = [synthetic.failure("v007"), synthetic.failure("v033")] if number == 3 else []
        write_shard(shard_path(path, number), items, failures, synthetic.provenance())
    return Cache.open(path)


def streamed(cache: Cache, settings: TrainSettings) -> Stream:
    features = load_dataset(cache, settings, memory_bytes=0).features
    assert isinstance(features, Stream)
    return features


@pytest.mark.parametrize("preset", PRESETS)
def test_a_streamed_run_is_the_run_in_memory(tmp_path: Path, preset: str) -> None:
    cache = write(tmp_path)
    settings = TrainSettings.from_preset(
        preset,
        media="video",
        batch_size=4,
        epochs=3,
        feedforward=16,
        projection=16 if preset == "network" else None,
        device="cpu",
    )
    states = []
    for memory_bytes in (None, 0):
        dataset = load_dataset(cache, settings, memory_bytes=memory_bytes)
        assert isinstance(dataset.features, Features if memory_bytes is None else Stream)
        assert len(dataset.ids) < 4 * 16 - 2  # without unlabelled and failed ones
        result = runs.carry_on(dataset, settings)
        assert len(result.split.rows("train")) > 2 * 3 * 4  # three buffers
        assert "test" in result.metrics
        write_metrics(tmp_path / f"{memory_bytes}.json", metrics_record(result))
        states.append(result.head.state_dict())
    assert (tmp_path / "None.json").read_bytes() == (tmp_path / "0.json").read_bytes()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_two_buffers_are_in_memory_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = weakref.WeakSet[torch.Tensor](), 0
    build = stream.build_features

    def counting(*args: object, **options: object) -> Features:
        nonlocal most
        features = build(*args, **options)  # type: ignore[arg-type]
        alive.add(features.rows)
        most = max(most, len(alive))
        return features

    monkeypatch.setattr(stream, "build_features", counting)
    features = streamed(write(tmp_path), TrainSettings())
    parts = list(torch.arange(len(features.ids)).split(4))
    assert len(parts) > 5
    for part in features.buffers(parts):
        rows, _, _ = features.batch(part)
        assert len(rows) == len(part)
        gc.collect()
    assert most == 2


def test_a_buffer_serves_its_videos_in_any_order(tmp_path: Path) -> None:
    cache = write(tmp_path)
    features, all_in_memory = streamed(cache, TrainSettings()), load_dataset(cache, TrainSettings()).features
    parts = [torch.tensor([1, 5, 6, 20]), torch.tensor([0, 30, 31])]
    for part in features.buffers(parts):
        index = part.flip(0)
        for ours, theirs in zip(features.batch(index), all_in_memory.batch(index), strict=True):
            assert torch.equal(ours, theirs)


def test_videos_that_cannot_be_trained_on_are_named_when_read(tmp_path: Path) -> None:
    items = [synthetic.item(synthetic.media(f"v{i}", label=i % 2), seed=i) for i in range(12)]
    items[7].arrays["clip/features"][1, 2] = np.inf
    write_shard(shard_path(tmp_path, 0), items, [], synthetic.provenance())
    features = streamed(Cache.open(tmp_path), TrainSettings())
    parts = features.buffers(list(torch.arange(12).split(4)))
    assert next(parts).tolist() == [0, 1, 2, 3]
    with pytest.raises(TrainError, match="'v7': NaN or infinite values in /clip/features"):
        next(parts)


@pytest.mark.parametrize("preset", ["fast", "network"])
def test_videos_of_very_different_lengths_stream_to_the_last_bit(
    tmp_path: Path, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long videos are thinned, read in several parts, and padded only to the longest of their batch."""
    monkeypatch.setattr(stream, "READ_BYTES", 300 * 8 * 2)
    lengths = [1, 3, 32, 700] * 10
    items = [
        synthetic.item(
            synthetic.media(f"v{i:02d}", label=i // 2 % 2), seed=i, num_frames=length, shift=0.2 * (i // 2 % 2)
        )
        for i, length in enumerate(lengths)
    ]
    write_shard(shard_path(tmp_path, 0), items, [], synthetic.provenance())
    cache = Cache.open(tmp_path)
    settings = TrainSettings.from_preset(preset, batch_size=4, epochs=2, feedforward=16, projection=16, max_rows=100)
    states = []
    for memory_bytes in (None, 0):
        dataset = load_dataset(cache, settings, memory_bytes=memory_bytes)
        assert dataset.features.lengths.tolist() == [1, 3, 32, 100] * 10
        assert isinstance(dataset.features, Features if memory_bytes is None else Stream)
        result = runs.carry_on(dataset, settings)
        write_metrics(tmp_path / f"{memory_bytes}.json", metrics_record(result))
        states.append(result.head.state_dict())
    assert (tmp_path / "None.json").read_bytes() == (tmp_path / "0.json").read_bytes()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert load_dataset(cache, settings, memory_bytes=0).features.num_bytes == 10 * 136 * 8 * 2 + 40 * 5 * 4


def test_videos_that_cannot_be_trained_on_are_all_named_with_all_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "READ_BYTES", 50 * 8 * 2)
    items = [synthetic.item(synthetic.media(f"v{i}", label=i % 2), seed=i, num_frames=40) for i in range(6)]
    items[1].arrays["clip/features"][30, 2] = np.inf
    items[5].arrays["clip/features"][0, 0] = np.nan
    write_shard(shard_path(tmp_path, 0), items, [], synthetic.provenance())
    with pytest.raises(TrainError, match=r"'v1': NaN or infinite(.|\n)*'v5': NaN or infinite"):
        load_dataset(Cache.open(tmp_path), TrainSettings(max_rows=10))
