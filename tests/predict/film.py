"""Caches of random numbers with `windows` sampling: short clips to train on, and films with one bad window."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from haechi.cache.schema import Item, Media, Provenance
from haechi.cache.writer import shard_path, write_shard
from tests import synthetic
from tests.predict.conftest import QUICK, call

WINDOW_SECONDS, CLIP_FPS = 2.0, 2.0
SAMPLING = {"name": "windows", "window_seconds": WINDOW_SECONDS, "stride_seconds": WINDOW_SECONDS, "clip_fps": CLIP_FPS}

# Flags for heads that see both streams, only windows, or only frames.
HEADS = {
    "both": [],
    "windows alone": ["--no-clip", "--slowfast", "pooled"],
    "frames alone": ["--slowfast", "none"],
    "logits": ["--preset", "model4", "--slowfast", "logits", "--feedforward", "16", "--epochs", "8", "--lr", "0.003"],
}


def provenance() -> Provenance:
    shape = synthetic.provenance()
    settings = shape.settings | {"sampling": SAMPLING}
    settings["clip"]["model"], settings["slowfast"]["model"] = "ViT-B-32", "slowfast_r50"
    return replace(shape, settings=settings)


def media(id: str, seconds: float, *, label: int = -1) -> Media:
    return replace(synthetic.media(id, label=label), duration_seconds=seconds)


def film(row: Media, *, seed: int = 0, shift: float = -1.0, bad: tuple[float, float] = (0, 0)) -> Item:
    """Rows with values around `shift`, and around -`shift` in the `bad` seconds; the last window ends with the film."""
    rng = np.random.default_rng(seed)
    seconds = row.duration_seconds
    time = np.arange(0, seconds, 1 / CLIP_FPS, dtype=np.float32)  # (T,)
    start = np.arange(0, max(seconds - WINDOW_SECONDS, 0) + WINDOW_SECONDS, WINDOW_SECONDS, dtype=np.float32)  # (S,)
    start = np.minimum(start, max(seconds - WINDOW_SECONDS, 0)).astype(np.float32)

    def rows(width: int, begin: np.ndarray) -> np.ndarray:
        is_bad = (begin >= bad[0]) & (begin < bad[1])
        level = np.where(is_bad, -shift, shift)
        return (rng.normal(scale=0.3, size=(len(begin), width)) + level[:, None]).astype("float16")

    return Item(
        media=row,
        arrays={
            "clip/features": rows(synthetic.CLIP_WIDTH, time),
            "clip/time_seconds": time,
            "slowfast/features": rows(synthetic.SLOWFAST_WIDTH, start),
            "slowfast/logits": rows(synthetic.NUM_LOGITS, start),
            "slowfast/start_seconds": start,
            "slowfast/end_seconds": np.minimum(start + WINDOW_SECONDS, seconds).astype(np.float32),
        },
    )


def write_cache(path: Path, *shards: list[Item]) -> Path:
    path.mkdir(parents=True)
    for number, items in enumerate(shards):
        write_shard(
            shard_path(path, number), items, [synthetic.failure("broken.mp4")] if number == 0 else [], provenance()
        )
    return path


def train_run(folder: Path, *flags: str) -> Path:
    """Train a run in `folder` on clips as long as a window, whose cache is `folder` / clips."""
    clips = [
        film(media(f"clip-{i:02d}.mp4", WINDOW_SECONDS, label=i % 2), seed=i, shift=1.0 if i % 2 else -1.0)
        for i in range(24)
    ]
    write_cache(folder / "clips", clips)
    done = call("train", folder / "clips", "--out", folder / "run", "--no-scenes", *QUICK, *flags)
    assert done.exit_code == 0, done.output
    return folder / "run"
