"""Caches of random features, for tests that need no video and no backbone."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from haechi.cache.schema import STREAMS, Failure, Item, Media, Provenance, without_model
from haechi.cache.writer import shard_path, write_shard

CLIP_WIDTH, SLOWFAST_WIDTH, NUM_LOGITS = 8, 12, 5


def settings(
    *,
    store: str = "float16",
    clip_width: int = CLIP_WIDTH,
    slowfast_width: int = SLOWFAST_WIDTH,
    num_logits: int = NUM_LOGITS,
    trained: bool = False,
    clip_trained: bool = False,
) -> dict:
    """Those of an extraction; a stream whose features have the width 0 has no model."""
    settings: dict = {
        "store": store,
        "clip": {
            "model": "tiny",
            "weights_sha256": "0" * 64,
            "trained": trained or clip_trained,
            "widths": {"features": clip_width},
        },
        "slowfast": {
            "model": "tiny",
            "weights_sha256": "1" * 64,
            "trained": trained,
            "widths": {"features": slowfast_width, "logits": num_logits},
        },
    }
    return settings | {
        stream: without_model(stream) for stream in STREAMS if not settings[stream]["widths"]["features"]
    }


def provenance(**changes: object) -> Provenance:
    return Provenance(
        settings=settings(**changes),  # type: ignore[arg-type]
        weights={"clip": "random:0", "slowfast": "random:0"},
        device="cpu",
        precision="fp32",
        producer="haechi test",
        versions={"torch": "0"},
    )


def media(id: str, *, label: int = 1, split: str = "", group: str = "") -> Media:
    return Media(
        id=id,
        kind="video",
        sha256=hashlib.sha256(id.encode()).hexdigest(),
        size_bytes=1000,
        mtime_ns=1,
        label=label,
        split=split,
        group=group,
        duration_seconds=2.0,
        fps=20.0,
        num_frames=40,
        width=320,
        height=240,
    )


def item(row: Media, *, seed: int, num_frames: int = 4, shift: float = 0.0, source: Provenance | None = None) -> Item:
    """An item of random features with mean `shift`, so that labels can be learned."""
    rng = np.random.default_rng(seed)
    shape = (source or provenance()).settings
    clip, slowfast, store = shape["clip"]["widths"], shape["slowfast"]["widths"], shape["store"]
    times = np.linspace(0, 1.9, num_frames, dtype=np.float32)
    return Item(
        media=row,
        arrays={
            "clip/features": (rng.normal(size=(num_frames, clip["features"])) + shift).astype(store),
            "clip/time_seconds": times,
            "slowfast/features": (rng.normal(size=(1, slowfast["features"])) + shift).astype(store),
            "slowfast/logits": (rng.normal(size=(1, slowfast["logits"])) + shift).astype(store),
            "slowfast/start_seconds": times[:1],
            "slowfast/end_seconds": times[-1:],
        },
    )


def with_arrays(item: Item, arrays: dict[str, np.ndarray]) -> Item:
    """A copy of the item in which `arrays` replace those of the same name."""
    return replace(item, arrays=item.arrays | arrays)


def failure(id: str, *, reason: str = "damaged") -> Failure:
    return Failure(id=id, stage="decode", reason=reason, message=f"{id} is {reason}", size_bytes=1, mtime_ns=1)


def write_cache(
    path: Path,
    *,
    num_harmful: int = 12,
    num_safe: int = 8,
    num_unlabelled: int = 0,
    num_failures: int = 0,
    shard_size: int = 8,
    num_frames: int = 4,
    shift: float = 1.0,
    splits: dict[str, str] | None = None,
    groups: dict[str, str] | None = None,
    source: Provenance | None = None,
    version: int | None = None,
) -> Path:
    """Write a cache; its features have mean `shift` for harmful videos, `-shift` for safe ones, 0 for others."""
    source = source or provenance()
    options = {} if version is None else {"version": version}
    path.mkdir(parents=True, exist_ok=True)
    labels = [1] * num_harmful + [0] * num_safe + [-1] * num_unlabelled
    order = np.random.default_rng(0).permutation(len(labels))
    items = []
    for i in order.tolist():
        id = f"video-{i:04d}.mp4"
        row = media(id, label=labels[i], split=(splits or {}).get(id, ""), group=(groups or {}).get(id, ""))
        sign = {1: 1.0, 0: -1.0, -1: 0.0}[labels[i]]
        items.append(item(row, seed=i, num_frames=num_frames, shift=sign * shift, source=source))
    failures = [failure(f"broken-{i:04d}.mp4") for i in range(num_failures)]
    for number, start in enumerate(range(0, max(len(items), 1), shard_size)):
        write_shard(
            shard_path(path, number),
            items[start : start + shard_size],
            failures if number == 0 else [],
            source,
            **options,
        )
    return path
