"""Features of a cache larger than memory: read window by window, the next one while one is worked on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from haechi.cache.reader import Cache
from haechi.train.data.features import Features, FeaturesError, build_features

CPU = torch.device("cpu")

# Bytes that are read at once where most of them are dropped: rows of long videos, windows of which the mean is kept.
READ_BYTES = 1 << 26


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
        blocks = self._blocks(chosen)
        if len(blocks) == 1:
            return self._build(chosen).to(self.device)
        row_width, constant_width = self.widths
        lengths, problems = self.lengths[chosen], list[str]()
        rows = torch.empty(int(lengths.sum()), row_width, dtype=getattr(torch, self.cache.settings["store"]))
        constant = torch.empty(len(chosen), constant_width)
        video = row = 0
        for block in blocks:
            try:
                built = self._build(block)
            except FeaturesError as error:
                problems += error.problems
                continue
            rows[row : row + len(built.rows)] = built.rows
            constant[video : video + len(built)] = built.constant
            video, row = video + len(built), row + len(built.rows)
        if problems:
            raise FeaturesError(problems)
        return Features(rows=rows, lengths=lengths, constant=constant).to(self.device)

    def _blocks(self, chosen: np.ndarray) -> list[np.ndarray]:
        """`chosen` (n,) in one; where more is read than kept, cut about every `READ_BYTES` bytes."""
        row_width, constant_width = self.widths
        of_streams = zip(self.in_cache.values(), self.widths, strict=False)  # no second stream: V is 0
        num_read = sum(of_all[chosen] * width for of_all, width in of_streams)  # (n,) numbers, as the one below
        if (num_read <= self.lengths[chosen] * row_width + constant_width).all():
            return [chosen]
        total = np.cumsum(num_read) * np.dtype(self.cache.settings["store"]).itemsize
        return np.split(chosen, np.flatnonzero(np.diff((total - 1) // READ_BYTES)) + 1)

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
