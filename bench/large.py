"""Training and scenes with 100,000 videos and with a million: `python -m bench.large`.

The features are made up: a place for each video, noise for each frame, and a direction that the label shifts. With 32
frames a video the cache has 3.3 GB of features; with 4 frames, a million videos have 4.1 GB. It needs 10 GB of disk.
"""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench import measure
from bench.figures import show
from bench.measure import CommandResult, Measurement
from bench.options import repeated, results
from bench.synthetic import CLIP_WIDTH, SETTINGS, clip_arrays, media, provenance
from haechi.cache.reader import Cache
from haechi.cache.schema import Item, Media, without_model
from haechi.cache.writer import shard_path, write_shard
from haechi.train.data.scenes import find_scenes

SIZES, QUICK_SIZES = (100_000, 1_000_000), (240, 300)
NUM_FRAMES, FEW_FRAMES = 32, 4
SHARD_SIZE = 4096
SHARE_HARMFUL, SHIFT, NOISE = 0.3, 0.05, 0.5

# The marks: seconds and MB of memory; for scenes and resuming, by number of videos.
MARK_TRAIN, MARK_TRAIN_MEGABYTES = 360.0, 1000.0
MARK_SCENES = {100_000: 60.0, 1_000_000: 1200.0}
MARK_MILLION_MEGABYTES = 8000.0
MARK_LINEAR, MARK_STREAMED = 1.3, 0.8


@click.command()
@repeated
@results
def main(*, out: Path, rounds: int, quick: bool) -> None:
    """Train on and find scenes in caches of 100,000 videos and of a million."""
    small, large = sizes = QUICK_SIZES if quick else SIZES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        long = write_features(folder / "long", num_videos=small, num_frames=NUM_FRAMES)
        short = {
            size: write_features(folder / f"short-{size}", num_videos=size, num_frames=FEW_FRAMES) for size in sizes
        }
        runs: dict[str, list[CommandResult]] = {}
        scenes: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(rounds):
            trainings: list[tuple[str, Path, list[str]]] = [
                ("all", long, []),
                ("memory", long, ["--no-scenes"]),
                ("streamed", long, ["--no-scenes", "--memory-gb", "0"]),
                *((str(size), short[size], ["--no-scenes", "--memory-gb", "0"]) for size in sizes),
            ]
            for what, cache, flags in trainings:
                command: list[str | Path] = ["haechi", "train", cache, "--out", folder / "run", *flags]
                runs.setdefault(what, []).append(measure.run(command, watch=True))
            for size in sizes:
                opened = Cache.open(short[size])
                scenes[size].append(measure.timed(partial(find_scenes, opened, np.arange(size))))
    features = small * NUM_FRAMES * CLIP_WIDTH * 2 / 1e6
    seconds = {what: [run.seconds for run in found] for what, found in runs.items()}
    beyond = [run.peak_megabytes - features for run in runs["all"]]
    growth = [ratio / (large / small) for ratio in measure.ratios(seconds[str(large)], seconds[str(small)])]
    streamed = measure.ratios(seconds["memory"], seconds["streamed"])
    rows = [
        _seconds(f"train, {small:,} videos of {NUM_FRAMES} frames, all defaults: time", seconds["all"], MARK_TRAIN),
        Measurement(
            what=f"the same: memory beyond the {features:,.0f} MB of features",
            unit="MB",
            values=beyond,
            at_most=MARK_TRAIN_MEGABYTES,
        ),
        _seconds("the same with --no-scenes: time", seconds["memory"]),
        _seconds("the same with --no-scenes, streamed: time", seconds["streamed"]),
        Measurement(what="in memory / streamed, time", unit="x", values=streamed, at_least=MARK_STREAMED),
    ]
    for size in sizes:
        what = f"{size:,} videos of {FEW_FRAMES} frames"
        memory = [run.peak_megabytes for run in runs[str(size)]]
        most = MARK_MILLION_MEGABYTES if size == large else None
        rows += [
            _seconds(f"train, {what}, streamed, --no-scenes: time", seconds[str(size)]),
            Measurement(what=f"train, {what}, streamed, --no-scenes: memory", unit="MB", values=memory, at_most=most),
        ]
    rows.append(Measurement(what="the same: growth of time by video", unit="x", values=growth, at_most=MARK_LINEAR))
    for size in sizes:
        rows.append(_seconds(f"scenes, {size:,} videos: time", scenes[size], MARK_SCENES.get(size)))
    show(measure.write(out, "large", rows, untrained=False))


def _seconds(what: str, values: list[float], at_most: float | None = None) -> Measurement:
    return Measurement(what=what, unit="s", values=values, at_most=at_most)


def write_features(path: Path, *, num_videos: int, num_frames: int) -> Path:
    """Write a cache of made-up CLIP features, without SlowFast."""
    path.mkdir()
    rng = np.random.default_rng(num_videos)
    direction = SHIFT * np.random.default_rng(0).standard_normal(CLIP_WIDTH, dtype=np.float32)
    sampling = {"name": "uniform", "frames": num_frames}
    settings: dict[str, Any] = {**SETTINGS, "slowfast": without_model("slowfast"), "sampling": sampling}
    source = replace(provenance(), settings=settings)
    times = np.linspace(0, 5, num_frames, dtype=np.float32)
    for number, start in enumerate(range(0, num_videos, SHARD_SIZE)):
        size = min(SHARD_SIZE, num_videos - start)
        labels = (rng.random(size) < SHARE_HARMFUL).astype(int)
        places = rng.standard_normal((size, 1, CLIP_WIDTH), dtype=np.float32) + labels[:, None, None] * direction
        rows = places + NOISE * rng.standard_normal((size, num_frames, CLIP_WIDTH), dtype=np.float32)
        items = [
            Item(media=_media(start + i, int(labels[i])), arrays=clip_arrays(rows[i].astype(np.float16), times))
            for i in range(size)
        ]
        write_shard(shard_path(path, number), items, [], source)
    return path


def _media(number: int, label: int) -> Media:
    found = media(f"clips/{number // 1000:04d}/{number:07d}.mp4", split="", label=label)
    return replace(found, duration_seconds=float(1 + number % 90), height=(240, 480, 720)[number % 3])


if __name__ == "__main__":
    main()
