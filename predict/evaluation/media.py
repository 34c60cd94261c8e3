"""The media of a set, with their scores and mean frames, from one pass over a cache."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from haechi.cache.progress import SILENT, Progress
from haechi.cache.reader import Cache
from haechi.cache.text import bullet_list
from haechi.train.data.features import CLIP_FEATURES, build_features, split_into_batches
from haechi.train.data.relabel import NewLabels
from haechi.train.data.scenes import mean_frames
from haechi.train.errors import TrainError
from haechi.train.model.checkpoint import Checkpoint
from haechi.train.model.scores import compute_logits, compute_scores

# Rows read and scored at once: 1,024 videos of 32 frames, 33 MB of CLIP features.
BLOCK_ROWS = 1 << 15


@dataclass(frozen=True, kw_only=True)
class Media:
    """The n usable media of one kind in a set, labelled or not."""

    ids: np.ndarray
    """(n,) str"""
    labels: np.ndarray
    """(n,) int8: 1 harmful, 0 safe, -1 unlabelled."""
    groups: np.ndarray
    """(n,) str of the manifest; empty: none."""
    sha256: np.ndarray
    """(n,) str: the hash of each file."""
    durations_seconds: np.ndarray
    """(n,) float64"""
    short_sides: np.ndarray
    """(n,) int: the shorter of width and height, pixels."""
    fps: np.ndarray
    """(n,) float: frames per second."""
    num_frames: np.ndarray
    """(n,) int"""
    columns: dict[str, np.ndarray]
    """Columns of the user -> (n,) str; empty: no value."""
    scores: np.ndarray
    """(n,) float64 in [0, 1]"""
    means: np.ndarray | None
    """(n, D) float32: the mean CLIP features of each one's frames; None: not asked for."""
    num_unlisted: int
    """Media of this kind that the file of labels does not list: they are left out."""
    num_other_kind: int
    """Usable media of the other kind."""

    def __len__(self) -> int:
        return len(self.ids)


def read_media(
    cache: Cache,
    model: Checkpoint,
    *,
    new_labels: NewLabels | None = None,
    with_means: bool = True,
    progress: Progress = SILENT,
) -> Media:
    """Score the media of the head's kind in a cache, with the labels and groups of the cache or of `new_labels`.

    Holds one block of features in memory at a time. Raises `TrainError` for media that cannot be scored, `CacheError`
    for a damaged cache.
    """
    columns = cache.media if new_labels is None else cache.media | new_labels.media
    is_kind = columns["kind"] == model.settings.media
    is_listed = np.ones(len(is_kind), bool) if new_labels is None else new_labels.is_named
    rows = np.flatnonzero(is_kind & is_listed)
    scores, means = _score(cache, model, rows, with_means=with_means, progress=progress)
    return Media(
        ids=columns["id"][rows],
        labels=columns["label"][rows],
        groups=columns["group"][rows],
        sha256=columns["sha256"][rows],
        durations_seconds=columns["duration_seconds"][rows].astype(np.float64),
        short_sides=np.minimum(columns["width"], columns["height"])[rows],
        fps=columns["fps"][rows],
        num_frames=columns["num_frames"][rows],
        columns={name: values[rows] for name, values in (new_labels.extra if new_labels else {}).items()},
        scores=scores,
        means=means,
        num_unlisted=int((is_kind & ~is_listed).sum()),
        num_other_kind=int((~is_kind).sum()),
    )


def _score(
    cache: Cache, model: Checkpoint, videos: np.ndarray, *, with_means: bool, progress: Progress
) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores (n,) and mean frames (n, D) of the media with indices `videos` (n,), ascending, in the cache."""
    scores = np.empty(len(videos))
    means = np.empty((len(videos), cache.settings["clip"]["widths"]["features"]), np.float32) if with_means else None
    progress.start(len(videos), "score a cache")
    for block, arrays, lengths in _blocks(cache, model, videos, with_means=with_means):
        ids = cache.media["id"][videos[block]]
        streams = {name: arrays[name] for name in model.streams}
        features = build_features(streams, lengths, ids=ids, max_rows=model.settings.max_rows)
        scores[block] = compute_scores(compute_logits(model.head, features, torch.arange(len(features))))
        if means is not None:
            if len(empty := ids[lengths[CLIP_FEATURES] == 0]):
                raise TrainError(f"{cache.name}: no frames in /{CLIP_FEATURES}:\n{bullet_list(list(map(repr, empty)))}")
            means[block] = mean_frames(arrays[CLIP_FEATURES], lengths[CLIP_FEATURES])
        progress.advance(block.stop - block.start)
    return scores, means


def _blocks(
    cache: Cache, model: Checkpoint, videos: np.ndarray, *, with_means: bool
) -> Iterator[tuple[slice, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Runs of neighbours in `videos`: which, their arrays as in the cache, and each one's number of rows in each.

    The next run is read in the background.
    """
    names = list(dict.fromkeys([*model.streams, *([CLIP_FEATURES] if with_means else [])]))
    lengths = {name: np.diff(cache.offset(name.partition("/")[0]))[videos] for name in names}
    longest = np.max(list(lengths.values()), axis=0)
    blocks = split_into_batches(longest, max_rows=BLOCK_ROWS)

    def read(block: slice) -> dict[str, np.ndarray]:
        return {name: cache.rows(*name.split("/"), videos=videos[block]) for name in names}

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read") as reader:
        following = [reader.submit(read, block) for block in blocks[:1]]
        for number, block in enumerate(blocks):
            arrays = following.pop().result()
            following += [reader.submit(read, each) for each in blocks[number + 1 : number + 2]]
            yield block, arrays, {name: each[block] for name, each in lengths.items()}
