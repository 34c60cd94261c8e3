"""A cache of random numbers in the report's size, for benchmarks that need neither videos nor backbones."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from haechi.cache.schema import DATASETS, Item, Media, Provenance
from haechi.cache.writer import shard_path, write_shard

# Harmful and safe videos: of the report's training part, and in the same proportion of its 580 validation videos.
TRAIN, VAL = (2393, 893), (422, 158)
NUM_FRAMES, CLIP_WIDTH, SLOWFAST_WIDTH, NUM_LOGITS = 32, 512, 2304, 400
SHARD_SIZE = 256

SETTINGS: dict[str, Any] = {
    "store": "float16",
    "clip": {"model": "numbers", "weights_sha256": "0" * 64, "trained": False, "widths": {"features": CLIP_WIDTH}},
    "slowfast": {
        "model": "numbers",
        "weights_sha256": "0" * 64,
        "trained": False,
        "widths": {"features": SLOWFAST_WIDTH, "logits": NUM_LOGITS},
    },
}


def write_cache(path: Path, *, share: float = 1.0) -> Path:
    """Write the report's 3,866 videos, or a share of them, as random features that depend a little on the label."""
    path.mkdir()
    source = provenance()
    rng = np.random.default_rng(0)
    rows = [
        (split, label)
        for split, counts in (("train", TRAIN), ("val", VAL))
        for label, count in zip((1, 0), counts, strict=True)
        for _ in range(round(share * count))
    ]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    items = (item(f"{i:05d}", split=split, label=label, rng=rng) for i, (split, label) in enumerate(rows))
    for number, start in enumerate(range(0, len(rows), SHARD_SIZE)):
        size = min(SHARD_SIZE, len(rows) - start)
        write_shard(shard_path(path, number), [next(items) for _ in range(size)], [], source)
    return path


def write_table(path: Path, *, num_videos: int) -> Path:
    """Write a cache of many videos with one frame each and few features: its tables are as large as those of any."""
    path.mkdir()
    widths = {"clip": {"features": 8}, "slowfast": {"features": 8, "logits": 8}}
    settings = SETTINGS | {stream: {**SETTINGS[stream], "widths": found} for stream, found in widths.items()}
    source = replace(provenance(), settings=settings)
    wide = np.ones((1, 8), np.float16)
    arrays = {name: wide if num_axes == 2 else np.zeros(1, np.float32) for name, num_axes in DATASETS.items()}
    for number, start in enumerate(range(0, num_videos, SHARD_SIZE)):
        items = [
            Item(
                media=media(f"clips/{i % 1000:03d}/{i:08d}.mp4", split=("train", "val")[i % 5 > 3], label=i % 3 - 1),
                arrays=arrays,
            )
            for i in range(start, min(start + SHARD_SIZE, num_videos))
        ]
        write_shard(shard_path(path, number), items, [], source)
    return path


def provenance() -> Provenance:
    """That of a shard of random numbers."""
    return Provenance(
        settings=SETTINGS,
        weights={"clip": "random:0", "slowfast": "random:0"},
        device="none",
        precision="fp32",
        producer="haechi bench",
        versions={},
    )


def item(id: str, *, split: str, label: int, rng: np.random.Generator) -> Item:
    """A video with random features that depend a little on the label."""
    times = np.linspace(0, 9.96, NUM_FRAMES, dtype=np.float32)

    def numbers(num_rows: int, width: int) -> np.ndarray:
        return (rng.standard_normal((num_rows, width), dtype=np.float32) + 0.01 * label).astype(np.float16)

    return Item(
        media=media(id, split=split, label=label),
        arrays={
            "clip/features": numbers(NUM_FRAMES, CLIP_WIDTH),
            "clip/time_seconds": times,
            "slowfast/features": numbers(1, SLOWFAST_WIDTH),
            "slowfast/logits": numbers(1, NUM_LOGITS),
            "slowfast/start_seconds": times[:1],
            "slowfast/end_seconds": times[-1:] + np.float32(0.04),
        },
    )


def clip_arrays(rows: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    """The datasets of a video with CLIP features `rows` (T, D) alone."""
    nothing = {1: np.zeros(0, np.float32), 2: np.zeros((0, 0), rows.dtype)}
    return {name: nothing[num_axes] for name, num_axes in DATASETS.items()} | {
        "clip/features": rows,
        "clip/time_seconds": times,
    }


def media(id: str, *, split: str, label: int) -> Media:
    """The columns of a video of ten seconds."""
    return Media(
        id=id,
        kind="video",
        sha256=hashlib.sha256(id.encode()).hexdigest(),
        size_bytes=1,
        mtime_ns=1,
        label=label,
        split=split,
        group="",
        duration_seconds=10.0,
        fps=25.0,
        num_frames=250,
        width=640,
        height=360,
    )
