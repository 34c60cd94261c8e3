"""Pieces of videos become batches: one is filled while others run. The queue's memory is fixed."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from haechi.cache.progress import SILENT, Progress
from haechi.cache.schema import STREAMS

if TYPE_CHECKING:
    import torch

    from haechi.extract.backbones.pair import Backbones, RunningBatch

# Names a piece: the index of its video, and the number of the attempt at that video.
Key = tuple[int, int]


class BatchQueue:
    """Batches on their way through the backbones."""

    def __init__(self, backbones: "Backbones", *, progress: Progress = SILENT, num_running: int | None = None) -> None:
        """`num_running`: batches that may run while the next one is filled; None: chosen for the device.

        `progress` gets the notice that batches were made smaller.
        """
        self._backbones, self._progress = backbones, progress
        self._num_running = backbones.max_running if num_running is None else num_running
        self._free: list[dict[str, torch.Tensor]] = []  # made when the first piece comes
        self._keys: list[Key] = []  # of the batch that is being filled
        self._counts = self._no_counts()  # frames and windows of each of its pieces
        self._running: deque[tuple[dict[str, torch.Tensor], list[Key], RunningBatch]] = deque()
        self.seconds = dict.fromkeys(STREAMS, 0.0)
        """The device's seconds for all finished batches, by stream."""

    def add(self, key: Key, frames: Sequence[np.ndarray]) -> list[tuple[Key, dict[str, np.ndarray]]]:
        """Take the frames of a piece, in the order of the streams: (T, h, w, 3), and one window (num_frames, H, W, 3).

        Without a window, the second array is (0, H, W, 3); a stream without a network is ignored. Returns the pieces
        that are finished, in the order in which they were added: dataset -> rows, float32.
        """
        if not self._free and not self._running:
            self._free = [self._backbones.new_buffers() for _ in range(self._num_running + 1)]
        images, window = frames
        given = dict(zip(STREAMS, (images, window[None] if len(window) else window), strict=True))
        new = {stream: given[stream] for stream in self._backbones.streams}
        counts = {stream: len(array) for stream, array in new.items()}
        finished = []
        if not self._fits(counts):
            self._start()
            finished += self._finish(self._num_running)
        filled = self._filled
        for stream, buffer in self._free[-1].items():
            if counts[stream]:
                buffer.numpy()[filled[stream] : filled[stream] + counts[stream]] = new[stream]
            self._counts[stream].append(counts[stream])
        self._keys.append(key)
        if not self._fits(dict.fromkeys(new, 1)):
            self._start()
            finished += self._finish(self._num_running)
        return finished

    def drain(self) -> list[tuple[Key, dict[str, np.ndarray]]]:
        """Run the pieces that wait, and return all that are not finished yet, as `add` does."""
        if self._keys:
            self._start()
        return self._finish(0)

    @property
    def _filled(self) -> dict[str, int]:
        """Stream -> frames or windows in the batch that is being filled."""
        return {stream: sum(counts) for stream, counts in self._counts.items()}

    def _fits(self, counts: Mapping[str, int]) -> bool:
        filled, buffers = self._filled, self._free[-1]
        return all(filled[stream] + count <= len(buffers[stream]) for stream, count in counts.items())

    def _start(self) -> None:
        buffers, filled = self._free.pop(), self._filled
        frames = {stream: buffer[: filled[stream]] for stream, buffer in buffers.items()}
        batch = self._backbones.start(frames, self._counts, progress=self._progress)
        self._running.append((buffers, self._keys, batch))
        self._keys, self._counts = [], self._no_counts()

    def _finish(self, num_left: int) -> list[tuple[Key, dict[str, np.ndarray]]]:
        """Wait for the oldest batches until only `num_left` run."""
        finished: list[tuple[Key, dict[str, np.ndarray]]] = []
        while len(self._running) > num_left:
            buffers, keys, batch = self._running.popleft()
            pieces, seconds = batch.result()
            self._free.append(buffers)
            self.seconds = {stream: total + seconds[stream] for stream, total in self.seconds.items()}
            finished += zip(keys, pieces, strict=True)
        return finished

    def _no_counts(self) -> dict[str, list[int]]:
        return {stream: [] for stream in self._backbones.streams}
