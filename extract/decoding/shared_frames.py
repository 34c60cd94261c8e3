"""Memory that the main process shares with a decoding one, a slot a video: its frames come through it in pieces.

    deadline │ published │ taken │ place 0: counts, arrays │ place 1 │ place 2

The decoder fills one place after the other and begins again with the first; it waits where the main process has not
taken what stands there. So memory does not grow with the length of a video.
"""

import math
import mmap
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from haechi.extract.decoding.transforms import FrameTransform

POLL_SECONDS = 0.002  # how often a decoder looks whether a place is free

WORD_BYTES = 8
HEAD_BYTES = 3 * WORD_BYTES


@dataclass(frozen=True, kw_only=True)
class Output:
    """Frames that a backbone wants of every video."""

    transform: FrameTransform
    num_frames: int
    """That are handed on at once, at most."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frames, height, width, RGB) of the array in a place."""
        return self.num_frames, self.transform.size, self.transform.size, 3

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.transform.dtype).itemsize


class Sink(Protocol):
    """Where a decoder puts frames."""

    @property
    def outputs(self) -> Sequence[Output]:
        """What it wants of every video."""

    def room(self) -> list[np.ndarray]:
        """Arrays to fill, one an output, shaped as `Output.shape`; waits until they are free."""

    def publish(self, counts: Sequence[int]) -> None:
        """Hand on what `room` gave: so many frames of each array, from its first on."""

    @property
    def waited_seconds(self) -> float:
        """For room."""


class Ring:
    """The places of a slot, as both processes see them.

    Counters only grow, and each has one writer. A place is filled before its counter moves: x86, the one architecture
    that decord has builds for, shows stores in their order.
    """

    def __init__(self, memory: mmap.mmap, outputs: Sequence[Output], num_places: int) -> None:
        self.outputs, self._num_places = tuple(outputs), num_places
        self._deadline = np.frombuffer(memory, np.float64, 1)
        self._counters = np.frombuffer(memory, np.int64, 2, WORD_BYTES)  # published, taken
        self._counts = [
            np.frombuffer(memory, np.int64, len(self.outputs), self._start_of(i)) for i in range(num_places)
        ]
        self._arrays = [self._arrays_at(memory, i) for i in range(num_places)]
        self.waited_seconds = 0.0

    @staticmethod
    def num_bytes(outputs: Sequence[Output], num_places: int) -> int:
        """Of all."""
        return HEAD_BYTES + num_places * _place_bytes(outputs)

    def _start_of(self, place: int) -> int:
        return HEAD_BYTES + place * _place_bytes(self.outputs)

    def _arrays_at(self, memory: mmap.mmap, place: int) -> list[np.ndarray]:
        arrays, offset = [], self._start_of(place) + len(self.outputs) * WORD_BYTES
        for output in self.outputs:
            count = math.prod(output.shape)
            arrays.append(np.frombuffer(memory, output.transform.dtype, count, offset).reshape(output.shape))
            offset += output.num_bytes
        return arrays

    @property
    def deadline(self) -> float:
        """Of the video, on the clock `time.monotonic`, which all processes share; 0 before a worker has begun."""
        return float(self._deadline[0])

    @deadline.setter
    def deadline(self, seconds: float) -> None:
        self._deadline[0] = seconds

    @property
    def is_late(self) -> bool:
        return 0 < self.deadline < time.monotonic()

    def room(self) -> list[np.ndarray]:
        """See `Sink`. While it waits for the main process, the video's clock stands."""
        published, taken = self._counters
        if published - taken == self._num_places:
            started, left = time.monotonic(), self.deadline - time.monotonic()
            self.deadline = math.inf
            while published - self._counters[1] == self._num_places:
                time.sleep(POLL_SECONDS)
            self.deadline = time.monotonic() + left
            self.waited_seconds += time.monotonic() - started
        return self._arrays[published % self._num_places]

    def publish(self, counts: Sequence[int]) -> None:
        """See `Sink`."""
        self._counts[self._counters[0] % self._num_places][:] = counts
        self._counters[0] += 1

    @property
    def num_ready(self) -> int:
        """Places that are filled and not taken."""
        return int(self._counters[0] - self._counters[1])

    def oldest(self) -> list[np.ndarray]:
        """The frames in the place that was filled first, until `release`."""
        place = self._counters[1] % self._num_places
        return [array[:count] for array, count in zip(self._arrays[place], self._counts[place], strict=True)]

    def release(self) -> None:
        """Let the decoder fill that place anew."""
        self._counters[1] += 1

    def reset(self) -> None:
        """For another video, the decoder of the one before being done or dead."""
        self.deadline = 0.0
        self._counters[:] = 0


class Slot:
    """Anonymous shared memory for the video that one worker has, opened by it through /proc."""

    def __init__(self, outputs: Sequence[Output], num_places: int) -> None:
        num_bytes = Ring.num_bytes(outputs, num_places)
        self._descriptor = os.memfd_create("haechi-frames")
        os.ftruncate(self._descriptor, num_bytes)
        self.name = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        self.num_places = num_places
        self.ring = Ring(mmap.mmap(self._descriptor, num_bytes), outputs, num_places)

    def close(self) -> None:
        # The mapping itself ends with the last array that shows it.
        os.close(self._descriptor)


def opened(name: str, outputs: Sequence[Output], num_places: int) -> Ring:
    """In a worker: the ring of the slot of that name."""
    with open(name, "r+b") as file:  # noqa: PTH123 (a descriptor's name, not a path of the user's)
        return Ring(mmap.mmap(file.fileno(), 0), outputs, num_places)


def _place_bytes(outputs: Sequence[Output]) -> int:
    """Whole words, so that counts stay aligned."""
    num_bytes = sum(output.num_bytes for output in outputs)
    return len(outputs) * WORD_BYTES + -(-num_bytes // WORD_BYTES) * WORD_BYTES
