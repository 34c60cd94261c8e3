"""Cache to tensors: every labelled video's features in memory once, in few large reads."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cache.errors import bullet_list
from cache.reader import Cache
from cache.schema import UNLABELLED
from train.errors import TrainError
from train.settings import TrainSettings

FRAME_STREAM = "clip/features"
WINDOW_STREAMS = {"pooled": "slowfast/features", "logits": "slowfast/logits"}


@dataclass(frozen=True, kw_only=True)
class Features:
    """What the head sees of N videos, D = F + V wide.

    What is the same on every row of a video is kept once a video and repeated in the batch only: Model 4's input at the
    report's size takes 222 MB so, instead of 384.
    """

    rows: Tensor
    """(N, T, F) float32: frames, or windows where CLIP is off. Padded with zeros behind a shorter video's last row."""
    mask: Tensor
    """(N, T) bool: True on real rows."""
    constant: Tensor
    """(N, V) float32: repeated on every row of the video. V is 0 where there is nothing to repeat."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """D, the width of the head's input."""
        return self.rows.shape[2] + self.constant.shape[1]

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The videos of `index` (B,) int64: the head's input (B, T, D) and its mask (B, T)."""
        rows, mask = self.rows[index], self.mask[index]  # (B, T, F), (B, T)
        constant = self.constant[index].unsqueeze(1).expand(-1, rows.shape[1], -1)  # (B, V) -> (B, T, V)
        return torch.cat([rows, constant], dim=2), mask  # (B, T, D), (B, T)

    def to(self, device: torch.device) -> "Features":
        """The same features in the device's memory."""
        return Features(rows=self.rows.to(device), mask=self.mask.to(device), constant=self.constant.to(device))


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The N labelled videos of a cache."""

    ids: np.ndarray
    """(N,) str"""
    labels: np.ndarray
    """(N,) int8: 1 harmful, 0 safe."""
    splits: np.ndarray
    """(N,) str as the manifest gave them: train, val, test, or empty."""
    groups: np.ndarray
    """(N,) str; empty: no group."""
    sha256: np.ndarray
    """(N,) str: of each video's file."""
    features: Features
    streams: dict[str, int]
    """Arrays of the cache that the head sees, and their widths, in the order in which they are joined."""
    num_unlabelled: int
    """Videos of the cache that were left out."""


def stream_names(settings: TrainSettings) -> list[str]:
    """The cache's arrays that these settings use, in the order in which they are joined."""
    names = [FRAME_STREAM] if settings.clip else []
    return names + ([WINDOW_STREAMS[settings.slowfast]] if settings.slowfast != "none" else [])


def load_dataset(cache: Cache, settings: TrainSettings) -> Dataset:
    """Read the labelled videos of a cache.

    Raises `TrainError` where no video is labelled, or where a video lacks what the settings ask for.
    """
    media = cache.media
    labelled = media["label"] != UNLABELLED
    if not labelled.any():
        raise TrainError(
            f"{cache.path}: none of its {len(labelled)} videos is labelled; give the manifest a `label` column and run "
            "extract again on the same cache (features are kept)"
        )
    arrays, lengths = {}, {}
    for name in stream_names(settings):
        stream, _, array = name.partition("/")
        all_lengths = np.diff(cache.offset(stream))
        rows = cache.rows(stream, array)
        arrays[name] = rows if labelled.all() else rows[np.repeat(labelled, all_lengths)]
        lengths[name] = all_lengths[labelled]
    ids = media["id"][labelled]
    return Dataset(
        ids=ids,
        labels=media["label"][labelled],
        splits=media["split"][labelled],
        groups=media["group"][labelled],
        sha256=media["sha256"][labelled],
        features=build_features(arrays, lengths, ids=ids),
        streams={name: rows.shape[1] for name, rows in arrays.items()},
        num_unlabelled=int((~labelled).sum()),
    )


def build_features(arrays: Mapping[str, np.ndarray], lengths: Mapping[str, np.ndarray], *, ids: np.ndarray) -> Features:
    """Join the streams of N videos into the head's input.

    `arrays[name]` is (ΣT, width): the videos' rows one after another, `lengths[name]` (N,) of them for each video;
    the names are those of `stream_names`. With CLIP, a row of the input is a frame, and SlowFast is repeated on all of
    them: the mean of the video's windows (`uniform` sampling has one). Without CLIP, a row is a window.

    Raises `TrainError` that lists the videos without frames or windows, and those with NaN or infinite features.
    """
    problems = []
    for name, rows in arrays.items():
        what = "frames" if name == FRAME_STREAM else "windows"
        problems += [f"{id!r}: no {what} in /{name}" for id in ids[lengths[name] == 0]]
        bad_row = ~np.isfinite(rows).all(axis=1)  # (ΣT,)
        owner = np.repeat(np.arange(len(ids)), lengths[name])  # (ΣT,)
        problems += [f"{id!r}: NaN or infinite values in /{name}" for id in ids[np.unique(owner[bad_row])]]
    if problems:
        raise TrainError(
            f"features that cannot be trained on:\n{bullet_list(problems)}\n"
            "leave the stream out (--no-clip, --slowfast none), or extract these files again"
        )
    main, *repeated = arrays
    mask = np.arange(lengths[main].max()) < lengths[main][:, None]  # (N, T)
    rows = np.zeros((*mask.shape, arrays[main].shape[1]), dtype=np.float32)  # (N, T, F)
    rows[mask] = arrays[main]  # both run video by video, row by row
    constant = np.zeros((len(ids), 0), dtype=np.float32)
    for name in repeated:
        start = np.cumsum(lengths[name]) - lengths[name]  # (N,)
        total = np.add.reduceat(arrays[name].astype(np.float32), start)  # (ΣS, V) -> (N, V)
        constant = (total / lengths[name][:, None]).astype(np.float32)
    return Features(rows=torch.from_numpy(rows), mask=torch.from_numpy(mask), constant=torch.from_numpy(constant))
