"""What the head sees of each video, and how a batch of it is made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cache.errors import bullet_list
from train.errors import TrainError

FRAME_STREAM = "clip/features"


@dataclass(frozen=True, kw_only=True)
class Features:
    """What the head sees of N videos, in memory.

    What is the same on every row of a video is kept once a video. Rows stay in the cache's storage type until they are
    put in a batch: the input of Model 4 at the report's size takes 133 MB so, instead of 384.
    """

    rows: Tensor
    """(N, T, F) float16 or float32: frames, or windows where CLIP is off. Padded with zeros behind a shorter video's
    last row."""
    mask: Tensor
    """(N, T) bool: True on real rows."""
    constant: Tensor
    """(N, V) float32: the same on every row of the video. V is 0 where there is no such part."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_rows(self) -> int:
        """T, the rows of the longest video."""
        return self.rows.shape[1]

    @property
    def widths(self) -> tuple[int, int]:
        """F and V."""
        return self.rows.shape[2], self.constant.shape[1]

    def windows(self, parts: list[Tensor]) -> Iterator[Tensor]:
        """Each of `parts`, int64 indices of videos, when `batch` can serve it: here at once (see `Stream`)."""
        return iter(parts)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The videos of `index` (B,) int64: rows (B, T, F) float32, constant (B, V) float32, mask (B, T) bool."""
        return self.rows[index].float(), self.constant[index], self.mask[index]

    def to(self, device: torch.device) -> "Features":
        """The same features in the device's memory."""
        return Features(rows=self.rows.to(device), mask=self.mask.to(device), constant=self.constant.to(device))


def build_features(
    arrays: Mapping[str, np.ndarray], lengths: Mapping[str, np.ndarray], *, ids: np.ndarray, num_rows: int | None = None
) -> Features:
    """Join the streams of N videos into the head's input.

    `arrays[name]` is (ΣT, width): the videos' rows one after another, `lengths[name]` (N,) of them for each video;
    the names are those of `stream_names`. With CLIP, a row of the input is a frame, and SlowFast is constant: the mean
    of the video's windows (`uniform` sampling has one). Without CLIP, a row is a window. Videos are padded to
    `num_rows`; None: to the longest. Where all have as many, the rows are not copied.

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
    longest = num_rows or int(lengths[main].max())
    mask = np.arange(longest) < lengths[main][:, None]  # (N, T)
    if mask.all():
        rows = arrays[main].reshape(*mask.shape, -1)  # (N, T, F)
    else:
        rows = np.zeros((*mask.shape, arrays[main].shape[1]), dtype=arrays[main].dtype)
        rows[mask] = arrays[main]  # both run video by video, row by row
    constant = np.zeros((len(ids), 0), dtype=np.float32)
    for name in repeated:
        start = np.cumsum(lengths[name]) - lengths[name]  # (N,)
        total = np.add.reduceat(arrays[name].astype(np.float32), start)  # (ΣS, V) -> (N, V)
        constant = (total / lengths[name][:, None]).astype(np.float32)
    return Features(rows=torch.from_numpy(rows), mask=torch.from_numpy(mask), constant=torch.from_numpy(constant))
