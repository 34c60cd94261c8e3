"""Videos, and windows cut out of them, as a head judges them.

Of a video with windows of 2 s and 2 CLIP frames a second, each window has these rows:

    seconds              0         1         2         3         4
    clip                 0    1    2    3    4    5    6    7
    slowfast             ├──────── 0 ────────┼──────── 1 ────────┤
    window 0             clip 0 1 2 3, slowfast 0
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch

from haechi.train.data.features import FRAME_STREAM, build_features, split_into_batches
from haechi.train.model.checkpoint import Checkpoint
from haechi.train.model.fit import compute_logits, compute_scores

# Arrays of the cache, as `clip/features` -> rows (T, width), of one video or of a piece of it.
Piece = Mapping[str, np.ndarray]

# When each row is, (T,) and (S,) seconds.
CLIP_TIME, WINDOW_START, WINDOW_END = "clip/time_seconds", "slowfast/start_seconds", "slowfast/end_seconds"
TIMES = (CLIP_TIME, WINDOW_START, WINDOW_END)

# Rows at once: those of a two-hour video's 3,600 windows of 4 CLIP frames, or 512 videos of 32.
BLOCK_ROWS = 1 << 14


def score_pieces(model: Checkpoint, pieces: Sequence[Piece], *, ids: Sequence[str]) -> np.ndarray:
    """The head's scores (n,) float64 of n pieces, each judged alone; `ids` name their videos in errors.

    Memory is bounded by `BLOCK_ROWS`, or by the longest piece. Raises `TrainError` as `build_features` does.
    """
    scores = np.empty(len(pieces))
    longest = np.array([max(len(piece[name]) for name in model.streams) for piece in pieces], dtype=int)
    for block in split_into_batches(longest, max_rows=BLOCK_ROWS):
        arrays = {name: np.concatenate([piece[name] for piece in pieces[block]]) for name in model.streams}
        lengths = {name: np.array([len(piece[name]) for piece in pieces[block]]) for name in model.streams}
        features = build_features(
            arrays, lengths, ids=np.array(ids[block], dtype=object), max_rows=model.settings.max_rows
        )
        scores[block] = compute_scores(compute_logits(model.head, features, torch.arange(len(features))))
    return scores


def cut_windows(video: Piece, streams: Collection[str]) -> list[Piece]:
    """The video's S windows: of the arrays `streams`, the CLIP rows that are shown in it, and its own SlowFast row.

    A window between two CLIP rows has the one that is nearer in time, the earlier of equal ones.
    """
    num_windows = len(video[WINDOW_START])
    bounds = {name: (np.arange(num_windows), np.arange(num_windows) + 1) for name in streams}
    if FRAME_STREAM in streams:
        bounds[FRAME_STREAM] = _clip_bounds(video[CLIP_TIME], video[WINDOW_START], video[WINDOW_END])
    ranges = {name: np.stack(ends, axis=1).tolist() for name, ends in bounds.items()}  # (S, 2) each
    return [{name: video[name][slice(*of_stream[i])] for name, of_stream in ranges.items()} for i in range(num_windows)]


def _clip_bounds(time: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and after-last CLIP row of each window, (S,) int64, at least one: times (T,), starts and ends (S,)."""
    first, last = np.searchsorted(time, start), np.searchsorted(time, end)  # start <= time < end
    before, after = (np.clip(first + step, 0, len(time) - 1) for step in (-1, 0))
    nearest = np.where(start - time[before] <= time[after] - end, before, after)
    is_empty = first >= last
    return np.where(is_empty, nearest, first), np.where(is_empty, nearest + 1, last)
