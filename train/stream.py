"""Features of a cache larger than memory: read window by window, the next one while one is worked on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from cache.reader import Cache
from train.features import Features, FeaturesError, build_features, joined

CPU = torch.device("cpu")

# Rows of long videos that are read at once, most of them to be dropped: of ViT-B-32 in float16, 0.5 GB.
READ_ROWS = 1 << 19


@dataclass(kw_only=True)
class Stream:
    """Stands where `Features` of N videos would, with at most two windows of them in memory.

    Batches are equal to the last bit to those of `Features`.
    """

    cache: Cache
    ids: np.ndarray
    """(N,) str"""
    videos: np.ndarray
    """(N,) int64, ascending: where each video stands in the cache's `media`."""
    in_cache: dict[str, np.ndarray]
    """Name of a stream, as `clip/features`, -> (N,): how many rows each video has in it."""
    max_rows: int
    """The head sees no more of a video."""
    widths: tuple[int, int]
    """F and V, as of `Features`."""
    device: torch.device = CPU
    _part: Tensor = field(init=False)
    _window: Features = field(init=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64, as of `Features`."""
        lengths: np.ndarray = np.minimum(next(iter(self.in_cache.values())), self.max_rows)
        return lengths

    @property
    def num_rows(self) -> int:
        """T, the rows of the longest video."""
        return int(self.lengths.max())

    @property
    def num_bytes(self) -> int:
        """What `load` would take."""
        row_width, constant_width = self.widths
        row_bytes: int = row_width * np.dtype(self.cache.settings["store"]).itemsize
        return int(self.lengths.sum()) * row_bytes + len(self) * constant_width * 4

    def load(self, part: Tensor | None = None) -> Features:
        """The videos of `part`, ascending int64 indices, or all. Raises as `windows` does."""
        chosen = np.arange(len(self)) if part is None else part.cpu().numpy()
        parts, problems = [], []
        for block in self._blocks(chosen):
            try:
                parts.append(self._build(block))
            except FeaturesError as error:
                problems += error.problems
        if problems:
            raise FeaturesError(problems)
        return joined(parts).to(self.device)

    def _blocks(self, chosen: np.ndarray) -> list[np.ndarray]:
        """`chosen` (n,) in one; where some have rows that the head does not see, cut about every `READ_ROWS` rows."""
        longest = np.max([of_all[chosen] for of_all in self.in_cache.values()], axis=0)  # (n,)
        if longest.max() <= self.max_rows:
            return [chosen]
        total = np.cumsum(longest)
        return np.split(chosen, np.flatnonzero(np.diff((total - 1) // READ_ROWS)) + 1)

    def _build(self, chosen: np.ndarray) -> Features:
        arrays = {name: self.cache.rows(*name.split("/"), videos=self.videos[chosen]) for name in self.in_cache}
        lengths = {name: of_all[chosen] for name, of_all in self.in_cache.items()}
        return build_features(arrays, lengths, ids=self.ids[chosen], max_rows=self.max_rows)

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
