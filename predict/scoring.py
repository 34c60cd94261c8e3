"""The head's scores of whole videos, and of windows cut out of them.

In a video with windows of 2 s and 2 CLIP frames per second, each window has these rows:

    seconds              0         1         2         3         4
    clip                 0    1    2    3    4    5    6    7
    slowfast             ├──────── 0 ────────┼──────── 1 ────────┤
    window 0             clip 0 1 2 3, slowfast 0
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch

from haechi.train.data.features import CLIP_FEATURES, build_features, split_into_batches
from haechi.train.model.checkpoint import Checkpoint
from haechi.train.model.scores import compute_logits, compute_scores

# Arrays of one video or window by their names in a cache, such as `clip/features` -> (T, width).
Arrays = Mapping[str, np.ndarray]

# Times of the rows in seconds, (T,) and (S,).
CLIP_TIME, WINDOW_START, WINDOW_END = "clip/time_seconds", "slowfast/start_seconds", "slowfast/end_seconds"
TIMES = (CLIP_TIME, WINDOW_START, WINDOW_END)

# Rows judged at once: 3,600 windows of 4 CLIP frames (a video of two hours), or 512 videos of 32 frames.
BLOCK_ROWS = 1 << 14


def score_each(model: Checkpoint, inputs: Sequence[Arrays], *, ids: Sequence[str]) -> np.ndarray:
    """The head's scores (n,) float64 of n videos or windows, each judged alone; `ids` name the videos in errors.

    Memory is bounded by `BLOCK_ROWS`, or by the longest input. Raises `TrainError` like `build_features`.
    """
    scores = np.empty(len(inputs))
    longest = np.array([max(len(arrays[name]) for name in model.streams) for arrays in inputs], dtype=int)
    for block in split_into_batches(longest, max_rows=BLOCK_ROWS):
        joined = {name: np.concatenate([arrays[name] for arrays in inputs[block]]) for name in model.streams}
        lengths = {name: np.array([len(arrays[name]) for arrays in inputs[block]]) for name in model.streams}
        features = build_features(
            joined, lengths, ids=np.array(ids[block], dtype=object), max_rows=model.settings.max_rows
        )
        scores[block] = compute_scores(compute_logits(model.head, features, torch.arange(len(features))))
    return scores


def cut_windows(video: Arrays, streams: Collection[str]) -> list[Arrays]:
    """The video's S windows. Each has, of the arrays `streams`, the CLIP rows inside it and its own SlowFast row.

    A window without a CLIP row inside has the one that is nearest in time, the earlier one if two are equally near.
    """
    num_windows = len(video[WINDOW_START])
    bounds = {name: (np.arange(num_windows), np.arange(num_windows) + 1) for name in streams}
    if CLIP_FEATURES in streams:
        bounds[CLIP_FEATURES] = _clip_bounds(video[CLIP_TIME], video[WINDOW_START], video[WINDOW_END])
    ranges = {name: np.stack(ends, axis=1).tolist() for name, ends in bounds.items()}  # (S, 2) each
    return [{name: video[name][slice(*rows[i])] for name, rows in ranges.items()} for i in range(num_windows)]


def _clip_bounds(time: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and after-last CLIP row of each window, (S,) int64, at least one row: times (T,), starts and ends (S,)."""
    first, last = np.searchsorted(time, start), np.searchsorted(time, end)  # start <= time < end
    before, after = (np.clip(first + step, 0, len(time) - 1) for step in (-1, 0))
    nearest = np.where(start - time[before] <= time[after] - end, before, after)
    is_empty = first >= last
    return np.where(is_empty, nearest, first), np.where(is_empty, nearest + 1, last)
