"""Features of a cache larger than memory: read window by window, the next one while one is worked on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from cache.reader import Cache
from train.features import Features, build_features

CPU = torch.device("cpu")


@dataclass(kw_only=True)
class Stream:
    """Stands where `Features` of N videos would, with at most two windows of them in memory.

    Batches are equal to the last bit to those of `Features`: videos are padded to the longest of all N.
    """

    cache: Cache
    ids: np.ndarray
    """(N,) str"""
    videos: np.ndarray
    """(N,) int64, ascending: where each video stands in the cache's `media`."""
    lengths: dict[str, np.ndarray]
    """Name of a stream, as `clip/features`, -> (N,): how many rows each video has in it."""
    widths: tuple[int, int]
    """F and V, as of `Features`."""
    device: torch.device = CPU
    _part: Tensor = field(init=False)
    _window: Features = field(init=False)

    @property
    def num_rows(self) -> int:
        """T, the rows of the longest video."""
        return int(next(iter(self.lengths.values())).max())

    @property
    def num_bytes(self) -> int:
        """What `load` would take."""
        row_width, constant_width = self.widths
        row_bytes: int = row_width * np.dtype(self.cache.settings["store"]).itemsize + 1  # the byte of the mask
        return len(self.ids) * (self.num_rows * row_bytes + constant_width * 4)

    def load(self, part: Tensor | None = None) -> Features:
        """The videos of `part`, ascending int64 indices, or all. Raises as `windows` does."""
        rows = np.arange(len(self.ids)) if part is None else part.cpu().numpy()
        arrays = {name: self.cache.rows(*name.split("/"), videos=self.videos[rows]) for name in self.lengths}
        lengths = {name: of_all[rows] for name, of_all in self.lengths.items()}
        features = build_features(arrays, lengths, ids=self.ids[rows], num_rows=self.num_rows)
        return features.to(self.device)

    def windows(self, parts: list[Tensor]) -> Iterator[Tensor]:
        """Each of `parts`, ascending int64 indices of videos, when `batch` can serve it: until the next is asked for.

        Raises `CacheError` where the cache is damaged, `TrainError` for videos that cannot be trained on.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read") as reader:
            loading = reader.submit(self.load, parts[0])
            for i, part in enumerate(parts):
                self._part, self._window = part, loading.result()  # lets go of the window before
                if i + 1 < len(parts):
                    loading = reader.submit(self.load, parts[i + 1])
                yield part

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Features.batch`, for videos of the part that `windows` gave last."""
        return self._window.batch(torch.searchsorted(self._part, index))

    def to(self, device: torch.device) -> "Stream":
        """The same stream, its windows in the device's memory."""
        return replace(self, device=device)
