"""Runs on videos of very different lengths: from one row, as for an image, to 14,400 rows for two hours."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import haechi.cli
from haechi.cache.reader import Cache
from haechi.cache.schema import Item
from haechi.cache.writer import shard_path, write_shard
from haechi.train.data import stream
from haechi.train.data.dataset import load_dataset
from haechi.train.data.features import Features
from haechi.train.data.scenes import find_scenes
from haechi.train.model import checkpoint, fit
from haechi.train.model.head import build_head
from haechi.train.model.scores import compute_logits
from haechi.train.settings import PRESETS, TrainSettings
from tests import synthetic
from tests.train import runs

SAMPLING = {"name": "windows", "window_seconds": 2.0, "stride_seconds": 2.0, "clip_fps": 2.0}

# T and S of a video of two hours, and of some that last up to a minute.
FILM = (14_400, 3600)
SHORT = [(1, 1), (3, 1), (32, 8), (120, 30)]


def run(*args: object) -> Result:
    result = CliRunner().invoke(haechi.cli.main, [*map(str, args)])
    assert result.exit_code == 0, result.output
    return result


def item(number: int, num_frames: int, num_windows: int, *, label: int) -> Item:
    """Two CLIP rows per second and a window every two seconds, with values from which the label can be learned."""
    rng = np.random.default_rng(number)
    shift = 0.3 if label else -0.3
    media = synthetic.media(f"{number:03d}.mp4", label=label)
    starts = 2 * np.arange(num_windows, dtype=np.float32)

    def rows(count: int, width: int) -> np.ndarray:
        return (rng.normal(size=(count, width)) + shift).astype(np.float16)

    return replace(
        synthetic.item(media, seed=0),
        media=replace(media, duration_seconds=num_frames / 2),
        arrays={
            "clip/features": rows(num_frames, synthetic.CLIP_WIDTH),
            "clip/time_seconds": np.arange(num_frames, dtype=np.float32) / 2,
            "slowfast/features": rows(num_windows, synthetic.SLOWFAST_WIDTH),
            "slowfast/logits": rows(num_windows, synthetic.NUM_LOGITS),
            "slowfast/start_seconds": starts,
            "slowfast/end_seconds": starts + 2,
        },
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 short videos with a film of two hours among them, in three shards."""
    path = tmp_path_factory.mktemp("lengths")
    source = synthetic.provenance()
    models = {"clip": "ViT-B-32", "slowfast": "slowfast_r50"}  # `predict` takes no others
    named = {stream: {**source.settings[stream], "model": model} for stream, model in models.items()}
    source = replace(source, settings={**source.settings, **named, "sampling": SAMPLING})
    lengths = [SHORT[i // 2 % len(SHORT)] for i in range(40)]
    lengths.insert(17, FILM)
    items = [item(i, *length, label=i % 2) for i, length in enumerate(lengths)]
    for number in range(3):
        write_shard(shard_path(path, number), items[number * 14 : number * 14 + 14], [], source)
    return path


@pytest.mark.parametrize(
    "args", [[], ["--no-clip", "--slowfast", "pooled"], ["--preset", "network"], ["--preset", "model4"]]
)
def test_a_film_among_clips_trains_the_same_streamed_and_is_judged_the_same(
    cache: Path, tmp_path: Path, args: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "READ_BYTES", 20_000)
    monkeypatch.setattr(fit, "BLOCK_VIDEOS", 4)
    monkeypatch.setattr(fit, "BUFFER_ROWS", 200)  # several shuffle buffers per epoch
    quick = ["--epochs", 2, "--feedforward", 16, "--folds", 0, "--device", "cpu", "--max-rows", 40, *args]
    for name, memory in (("memory", []), ("streamed", ["--memory-gb", 0])):
        done = run("train", cache, "--out", tmp_path / name, *quick, *memory)
        num_thinned = 1 if "--no-clip" in args else 11
        text = " ".join(done.output.split())
        assert f"{num_thinned} of 41 videos have more than 40 rows: the head sees that many of them" in text
        assert "input (B, up to 40, " in text
        assert ("streamed from the cache" in text) == bool(memory)
    for name in ("metrics.json", "predictions.csv"):
        assert (tmp_path / "memory" / name).read_bytes() == (tmp_path / "streamed" / name).read_bytes()
    with (tmp_path / "memory" / "predictions.csv").open(encoding="utf-8") as file:
        trained = {row["id"]: float(row["score"]) for row in csv.DictReader(file)}
    done = run("predict", tmp_path / "memory", "--cache", cache, "--json")
    judged = {line["id"]: line["score"] for line in map(json.loads, done.stdout.splitlines())}
    assert judged == pytest.approx(trained, abs=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_video_is_judged_alone_as_beside_others(cache: Path, preset: str) -> None:
    settings = TrainSettings.from_preset(preset, media="video")
    features = load_dataset(Cache.open(cache), settings).features
    head = runs.with_random_weights(build_head(features.widths, settings))
    every = torch.arange(len(features))
    together = compute_logits(head, features, every)
    alone = torch.cat([compute_logits(head, features, video) for video in every.split(1)])
    assert together.std() > 0.01
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_each_point_of_a_grid_sees_its_own_number_of_rows(cache: Path, tmp_path: Path) -> None:
    quick = ["--epochs", 2, "--feedforward", 16, "--folds", 0, "--device", "cpu"]
    run("train", cache, "--out", tmp_path / "grid", *quick, "--grid", "max_rows=2,30")
    run("train", cache, "--out", tmp_path / "alone", *quick, "--max-rows", 30)
    point = tmp_path / "grid" / "max_rows=30" / "seed-0"
    assert (point / "metrics.json").read_bytes() == (tmp_path / "alone" / "metrics.json").read_bytes()


@pytest.mark.parametrize(("args", "longest"), [(["--folds", 0], 2.0), (["--folds", 2], 600.0)])
def test_a_head_knows_the_videos_that_it_was_trained_on(tmp_path: Path, args: list[object], longest: float) -> None:
    """Without those of validation and test; but after folds, the last head is trained on all videos."""
    items = []
    for i in range(36):
        row = item(i, *((4, 1) if i < 24 else (1200, 300)), label=i % 2)
        split = "" if longest == 600 else ["train", "val", "test"][max(0, i - 18) // 6]
        items.append(replace(row, media=replace(row.media, split=split)))
    write_shard(shard_path(tmp_path, 0), items, [], synthetic.provenance())
    run("train", tmp_path, "--out", tmp_path / "run", "--epochs", 2, "--no-scenes", "--device", "cpu", *args)
    assert checkpoint.load(tmp_path / "run" / "model.pt").longest_seconds == longest


def test_no_more_is_read_at_once_than_bytes_allow(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are not kept, and windows that are averaged, are never all in memory together."""
    read = []

    def counting(arrays: dict[str, np.ndarray], *args: object, **options: object) -> Features:
        read.append(sum(array.nbytes for array in arrays.values()))
        return build(arrays, *args, **options)  # type: ignore[arg-type]

    build = stream.build_features
    monkeypatch.setattr(stream, "build_features", counting)
    film = FILM[0] * synthetic.CLIP_WIDTH * 2 + FILM[1] * synthetic.SLOWFAST_WIDTH * 2
    for max_rows in (10, FILM[0]):
        settings = TrainSettings(slowfast="pooled", max_rows=max_rows)
        whole = load_dataset(Cache.open(cache), settings).features
        monkeypatch.setattr(stream, "READ_BYTES", 10_000)
        read.clear()
        in_parts = load_dataset(Cache.open(cache), settings).features
        assert len(read) > 3
        assert film <= max(read) < film + 10_000
        assert sorted(read)[-2] < 20_000
        assert isinstance(whole, Features)
        assert isinstance(in_parts, Features)
        assert torch.equal(whole.rows, in_parts.rows)
        assert torch.equal(whole.constant, in_parts.constant)
        assert whole.lengths.tolist() == in_parts.lengths.tolist()
        monkeypatch.undo()
        monkeypatch.setattr(stream, "build_features", counting)


def test_a_film_is_not_a_scene_of_the_clips(cache: Path) -> None:
    found = find_scenes(Cache.open(cache), np.arange(41))
    assert found.scene.tolist() == list(range(41))
