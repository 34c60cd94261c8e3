"""The head's input: the features of each video, and batches of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from haechi.cache.text import bullet_list
from haechi.train.errors import TrainError

CLIP_FEATURES = "clip/features"

CHECKED_ROWS = 1 << 16  # at once: limits memory


class FeaturesError(TrainError):
    """Some videos cannot be trained on: `problems` has a line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(
            f"features that cannot be trained on:\n{bullet_list(problems)}\n"
            "leave the stream out (--no-clip, --slowfast none), or extract these files again"
        )
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class Features:
    """The head's input for N videos, in memory.

    Values that are the same on every row of a video are stored once per video. Rows keep the cache's storage type until
    they are put in a batch: at the report's size, Model 4's input takes 133 MB instead of 384. The videos' rows are
    stored one after another without padding; a batch is padded to its longest video.
    """

    rows: Tensor
    """(ΣT, F) float16 or float32: frames, or windows when CLIP is off."""
    lengths: np.ndarray
    """(N,) int64: the number of rows of each video."""
    constant: Tensor
    """(N, V) float32: the same on every row of the video. V is 0 when there is no such part."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self.rows.device

    @property
    def num_rows(self) -> int:
        """T: the number of rows of the longest video."""
        return int(self.lengths.max())

    @property
    def widths(self) -> tuple[int, int]:
        """F and V."""
        return self.rows.shape[1], self.constant.shape[1]

    def buffers(self, parts: list[Tensor]) -> Iterator[Tensor]:
        """Yield each of `parts`, int64 indices of videos, as `Stream.buffers` does; here nothing needs to be read."""
        return iter(parts)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The videos of `index` (B,) int64: rows (B, T, F) float32, constant (B, V) float32, mask (B, T) bool.

        T is the number of rows of the longest video in the batch; shorter videos are padded with zeros, where the mask
        is False. The batch is on the features' device; `index` may be on another one.
        """
        if self._stacked is not None:
            rows = self._stacked[index].float()
            return rows, self.constant[index], rows.new_ones(rows.shape[:2], dtype=torch.bool)
        longest = int(self.lengths[index.cpu().numpy()].max())
        index = index.to(self.rows.device)
        starts, lengths = (values[index].unsqueeze(1) for values in self._spans)  # (B, 1) each
        steps = torch.arange(longest, device=index.device)  # (T,)
        mask = steps < lengths
        places = torch.where(mask, starts + steps, 0)  # (B, T)
        rows = self.rows[places].float().masked_fill_(~mask.unsqueeze(2), 0)
        return rows, self.constant[index], mask

    @cached_property
    def _stacked(self) -> Tensor | None:
        """(N, T, F), not copied, when all videos have the same number of rows."""
        is_even = len(self) > 0 and bool((self.lengths == self.lengths[0]).all())
        return self.rows.view(len(self), -1, self.rows.shape[1]) if is_even else None

    @cached_property
    def _spans(self) -> tuple[Tensor, Tensor]:
        """The first row and the number of rows of each video, (N,) int64 each, on the device of the rows."""
        starts = np.cumsum(self.lengths) - self.lengths
        return torch.from_numpy(starts).to(self.rows.device), torch.from_numpy(self.lengths).to(self.rows.device)

    def to(self, device: torch.device) -> "Features":
        """The same features on `device`."""
        return Features(rows=self.rows.to(device), lengths=self.lengths, constant=self.constant.to(device))


def build_features(
    arrays: Mapping[str, np.ndarray], lengths: Mapping[str, np.ndarray], *, ids: np.ndarray, max_rows: int
) -> Features:
    """Join the streams of N videos into the head's input.

    `arrays[name]` is (ΣT, width): the videos' rows one after another; `lengths[name]` (N,) is their number for each
    video. The names are those of `stream_names`. With CLIP, a row of the input is a frame and SlowFast is constant: the
    mean over the video's windows (`uniform` sampling has one). Without CLIP, a row is a window. Of a video with more
    than `max_rows` rows, `max_rows` evenly spaced ones are used. If no video has more, rows are not copied.

    Raises `FeaturesError` that lists the videos without frames or windows, and those with NaN or infinite features.
    """
    if problems := _problems(arrays, lengths, ids):
        raise FeaturesError(problems)
    main, *repeated = arrays
    rows, kept = arrays[main], np.minimum(lengths[main], max_rows)
    if (lengths[main] > max_rows).any():
        starts = np.cumsum(lengths[main]) - lengths[main]  # (N,)
        chosen = [start + thin_rows(length, max_rows) for start, length in zip(starts, lengths[main], strict=True)]
        rows = rows[np.concatenate(chosen)]
    constant = np.zeros((len(ids), 0), dtype=np.float32)
    for name in repeated:
        start = np.cumsum(lengths[name]) - lengths[name]  # (N,)
        total = np.add.reduceat(arrays[name].astype(np.float32), start)  # (ΣS, V) -> (N, V)
        constant = (total / lengths[name][:, None]).astype(np.float32)
    return Features(rows=torch.from_numpy(rows), lengths=kept.astype(np.int64), constant=torch.from_numpy(constant))


def thin_rows(num_rows: int, max_rows: int) -> np.ndarray:
    """Indices of a video's rows that the head sees: all, or `max_rows` evenly spaced, from first to last."""
    if num_rows <= max_rows:
        return np.arange(num_rows)
    return np.arange(max_rows) * (num_rows - 1) // max(max_rows - 1, 1)


def _problems(arrays: Mapping[str, np.ndarray], lengths: Mapping[str, np.ndarray], ids: np.ndarray) -> list[str]:
    """A line for each video that cannot be trained on."""
    problems = []
    for name, rows in arrays.items():
        what = "frames" if name == CLIP_FEATURES else "windows"
        problems += [f"{id!r}: no {what} in /{name}" for id in ids[lengths[name] == 0]]
        owner = np.repeat(np.arange(len(ids)), lengths[name])  # (ΣT,)
        blocks = [slice(start, start + CHECKED_ROWS) for start in range(0, len(rows), CHECKED_ROWS)]
        bad = [owner[block][~np.isfinite(rows[block]).all(axis=1)] for block in blocks]
        problems += [
            f"{id!r}: NaN or infinite values in /{name}" for id in ids[np.unique(np.concatenate([owner[:0], *bad]))]
        ]
    return problems


def split_into_batches(lengths: np.ndarray, *, max_rows: int, max_videos: int | None = None) -> list[slice]:
    """Split n videos with `lengths` (n,) rows into runs of neighbours, each small enough for one padded batch.

    A batch has at most `max_videos` videos, and at most `max_rows` rows when all are padded to the longest; a single
    longer video is a separate batch.
    """
    batches, start, longest = [], 0, 0
    for i, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        number = i + 1 - start
        if i > start and (number * longest > max_rows or (max_videos is not None and number > max_videos)):
            batches.append(slice(start, i))
            start, longest = i, length
    return [*batches, slice(start, len(lengths))] if len(lengths) else []


def make_batches(index: Tensor, lengths: np.ndarray, *, max_videos: int, max_rows: int) -> list[Tensor]:
    """`index` (n,) int64 of videos, split in its order by `split_into_batches`; `lengths` (N,) is for all videos."""
    batches = split_into_batches(lengths[index.cpu().numpy()], max_rows=max_rows, max_videos=max_videos)
    return [index[batch] for batch in batches]
