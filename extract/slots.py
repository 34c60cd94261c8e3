"""Memory that the main process shares with a decoding one, a slot a video."""

import mmap
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from extract.transforms import FrameTransform

DEADLINE_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class Output:
    """Frames that a backbone wants of every video."""

    transform: FrameTransform
    positions: list[int]
    """Which of the T sampled frames, in this order."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frames, height, width, RGB) of the array a video gives."""
        return len(self.positions), self.transform.size, self.transform.size, 3

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.transform.dtype).itemsize


class Slot:
    """Anonymous shared memory for one video, opened by workers through /proc: its deadline, then its outputs."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self.outputs = tuple(outputs)
        num_bytes = DEADLINE_BYTES + sum(output.num_bytes for output in outputs)
        self._descriptor = os.memfd_create("haechi-frames")
        os.ftruncate(self._descriptor, num_bytes)
        self.name = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        self.memory = mmap.mmap(self._descriptor, num_bytes)

    @property
    def deadline(self) -> float:
        """Of the video, on the clock `time.monotonic`, which all processes share; 0 before a worker has begun."""
        return float(deadline_of(self.memory)[0])

    @deadline.setter
    def deadline(self, seconds: float) -> None:
        deadline_of(self.memory)[0] = seconds

    @property
    def is_late(self) -> bool:
        return 0 < self.deadline < time.monotonic()

    def close(self) -> None:
        # The mapping itself ends with the last array that shows it.
        os.close(self._descriptor)


def deadline_of(memory: mmap.mmap) -> np.ndarray:
    """(1,) float64 in the slot."""
    return np.frombuffer(memory, np.float64, 1)


def views(memory: mmap.mmap, outputs: Sequence[Output]) -> list[np.ndarray]:
    """One array an output, one after another in the slot."""
    views, offset = [], DEADLINE_BYTES
    for output in outputs:
        count, dtype = int(np.prod(output.shape)), output.transform.dtype
        views.append(np.frombuffer(memory, dtype, count, offset).reshape(output.shape))
        offset += output.num_bytes
    return views
