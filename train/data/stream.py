"""Features of a cache larger than memory: read buffer by buffer, the next one in the background."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from haechi.cache.reader import Cache
from haechi.train.data.features import Features, FeaturesError, build_features

CPU = torch.device("cpu")

# Bytes per read when most of what is read is not kept: rows of long videos, and windows that are averaged.
READ_BYTES = 1 << 26


@dataclass(kw_only=True)
class Stream:
    """The head's input for N videos, with at most two buffers of them in memory; used like `Features`.

    Its batches are equal to those of `Features` to the last bit.
    """

    cache: Cache
    ids: np.ndarray
    """(N,) str"""
    videos: np.ndarray
    """(N,) int64, ascending: the index of each video in the cache's `media`."""
    in_cache: dict[str, np.ndarray]
    """Name of an array such as `clip/features` -> (N,): the number of rows of each video in it."""
    max_rows: int
    """The head sees at most this many rows of a video."""
    widths: tuple[int, int]
    """F and V, as in `Features`."""
    device: torch.device = CPU
    _part: Tensor = field(init=False)
    """(n,) int64: the videos in the buffer."""
    _buffer: Features = field(init=False)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(N,) int64: the number of rows of each video that the head sees."""
        lengths: np.ndarray = np.minimum(next(iter(self.in_cache.values())), self.max_rows)
        return lengths

    @property
    def num_rows(self) -> int:
        """T: the number of rows of the longest video."""
        return int(self.lengths.max())

    @property
    def num_bytes(self) -> int:
        """Bytes of memory that `load` needs for all videos."""
        row_width, constant_width = self.widths
        row_bytes: int = row_width * np.dtype(self.cache.settings["store"]).itemsize
        return int(self.lengths.sum()) * row_bytes + len(self) * constant_width * 4

    def load(self, part: Tensor | None = None) -> Features:
        """Features of the videos of `part`, ascending int64 indices, or of all. Raises the errors of `buffers`."""
        chosen = np.arange(len(self)) if part is None else part.cpu().numpy()
        reads = self._split_reads(chosen)
        if len(reads) == 1:
            return self._build(chosen).to(self.device)
        row_width, constant_width = self.widths
        lengths, problems = self.lengths[chosen], list[str]()
        rows = torch.empty(int(lengths.sum()), row_width, dtype=getattr(torch, self.cache.settings["store"]))
        constant = torch.empty(len(chosen), constant_width)
        video = row = 0
        for videos in reads:
            try:
                built = self._build(videos)
            except FeaturesError as error:
                problems += error.problems
                continue
            rows[row : row + len(built.rows)] = built.rows
            constant[video : video + len(built)] = built.constant
            video, row = video + len(built), row + len(built.rows)
        if problems:
            raise FeaturesError(problems)
        return Features(rows=rows, lengths=lengths, constant=constant).to(self.device)

    def _split_reads(self, chosen: np.ndarray) -> list[np.ndarray]:
        """`chosen` (n,) undivided; or, if more is read than kept, in parts of about `READ_BYTES` bytes."""
        row_width, constant_width = self.widths
        streams = zip(self.in_cache.values(), self.widths, strict=False)  # without a second array V is 0
        num_read = sum(lengths[chosen] * width for lengths, width in streams)  # (n,) numbers, not bytes
        if (num_read <= self.lengths[chosen] * row_width + constant_width).all():
            return [chosen]
        total = np.cumsum(num_read) * np.dtype(self.cache.settings["store"]).itemsize
        return np.split(chosen, np.flatnonzero(np.diff((total - 1) // READ_BYTES)) + 1)

    def _build(self, chosen: np.ndarray) -> Features:
        arrays = {name: self.cache.rows(*name.split("/"), videos=self.videos[chosen]) for name in self.in_cache}
        lengths = {name: in_array[chosen] for name, in_array in self.in_cache.items()}
        return build_features(arrays, lengths, ids=self.ids[chosen], max_rows=self.max_rows)

    def buffers(self, parts: list[Tensor]) -> Iterator[Tensor]:
        """Yield each of `parts`, ascending int64 indices of videos, once its features are in memory.

        `batch` can then use these videos, until the next part is asked for. Raises `CacheError` if the cache is
        damaged, `FeaturesError` for videos that cannot be trained on.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read") as reader:
            loading = reader.submit(self.load, parts[0])
            for i, part in enumerate(parts):
                self._part, self._buffer = part, loading.result()  # frees the buffer before
                if i + 1 < len(parts):
                    loading = reader.submit(self.load, parts[i + 1])
                yield part

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Features.batch`, for videos of the part that `buffers` yielded last."""
        return self._buffer.batch(torch.searchsorted(self._part, index))

    def to(self, device: torch.device) -> "Stream":
        """The same stream, with its buffers on `device`."""
        return replace(self, device=device)
