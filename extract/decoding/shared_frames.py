"""Shared memory through which a decoding process passes frames to the main process: one slot for each running video.

    deadline │ published │ taken │ place 0: counts, arrays │ place 1 │ place 2

A slot is a ring buffer. The decoder fills the places in turn, again and again; it waits while the
main process has not taken the frames of that place. So memory does not grow with the length of a video.
"""

import contextlib
import math
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from haechi.extract.decoding.transforms import FrameTransform

PLACE_POLL_SECONDS = 0.002  # how often a decoder checks whether a place is free

WORD_BYTES = 8
HEAD_BYTES = 3 * WORD_BYTES

FILE_PREFIX = "haechi-frames-"


@dataclass(frozen=True, kw_only=True)
class Output:
    """The frames that a backbone needs of every video."""

    transform: FrameTransform
    num_frames: int
    """Largest number of frames that are passed on at once."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frames, height, width, RGB) of the array in a place."""
        return self.num_frames, self.transform.size, self.transform.size, 3

    @property
    def num_bytes(self) -> int:
        """Size of that array."""
        return math.prod(self.shape) * np.dtype(self.transform.dtype).itemsize


# In the place of a stream without a backbone: no frames are sampled, transformed or passed on for it.
NO_OUTPUT = Output(transform=FrameTransform(size=1, interpolation="bilinear"), num_frames=0)


class Sink(Protocol):
    """Where a decoder puts frames."""

    @property
    def outputs(self) -> Sequence[Output]:
        """What is needed of every video: the frames of CLIP and those of SlowFast, one of which may be `NO_OUTPUT`;
        empty if videos are only checked."""

    def free_arrays(self) -> list[np.ndarray]:
        """Arrays to fill, one for each output, shaped as `Output.shape`; waits until they are free."""

    def publish(self, counts: Sequence[int]) -> None:
        """Pass on the arrays of `free_arrays`: the first `counts` frames of each."""

    @property
    def waited_seconds(self) -> float:
        """How long `free_arrays` waited in total."""


class Ring:
    """The places of a slot, as both processes see them.

    Counters only grow, and each is written by one process: `published` by the decoder, `taken` by the main process.
    """

    def __init__(self, memory: mmap.mmap, outputs: Sequence[Output], num_places: int) -> None:
        self.outputs, self._num_places = tuple(outputs), num_places
        self._deadline = np.frombuffer(memory, np.float64, 1)
        self._counters = np.frombuffer(memory, np.int64, 2, WORD_BYTES)  # published, taken
        self._counts = [
            np.frombuffer(memory, np.int64, len(self.outputs), self._place_start(i)) for i in range(num_places)
        ]
        self._arrays = [self._place_arrays(memory, i) for i in range(num_places)]
        self._order = threading.Lock()
        self._order.acquire()
        self._parent = os.getppid()
        self.waited_seconds = 0.0

    @staticmethod
    def num_bytes(outputs: Sequence[Output], num_places: int) -> int:
        """Size in bytes of the head and all places together."""
        return HEAD_BYTES + num_places * _place_bytes(outputs)

    def _memory_barrier(self) -> None:
        """Keep reads and writes before the call before those after it, also as the other process sees them."""
        # Arm processors reorder reads and writes, and Python has no fence. Releasing and acquiring a lock is one: what
        # comes before stays above the release, what comes after stays below the acquire, and these two keep their order
        # because it is one lock (POSIX.1-2017, 4.12 "Memory Synchronization"). This also holds for shared memory.
        self._order.release()
        self._order.acquire()

    def _place_start(self, place: int) -> int:
        return HEAD_BYTES + place * _place_bytes(self.outputs)

    def _place_arrays(self, memory: mmap.mmap, place: int) -> list[np.ndarray]:
        arrays, offset = [], self._place_start(place) + len(self.outputs) * WORD_BYTES
        for output in self.outputs:
            count = math.prod(output.shape)
            arrays.append(np.frombuffer(memory, output.transform.dtype, count, offset).reshape(output.shape))
            offset += output.num_bytes
        return arrays

    @property
    def deadline(self) -> float:
        """When the video's time is over, by `time.monotonic`, which all processes share; 0 before a worker starts."""
        return float(self._deadline[0])

    @deadline.setter
    def deadline(self, seconds: float) -> None:
        self._deadline[0] = seconds

    @property
    def is_late(self) -> bool:
        return 0 < self.deadline < time.monotonic()

    def free_arrays(self) -> list[np.ndarray]:
        """As `Sink` says. The time in which it waits for the main process does not count against the deadline."""
        published, taken = self._counters
        if published - taken == self._num_places:
            started, left = time.monotonic(), self.deadline - time.monotonic()
            self.deadline = math.inf
            while published - self._counters[1] == self._num_places:
                if os.getppid() != self._parent:  # the main process was killed, and the system does not end this one
                    os._exit(1)
                time.sleep(PLACE_POLL_SECONDS)
            self.deadline = time.monotonic() + left
            self.waited_seconds += time.monotonic() - started
        self._memory_barrier()  # the counter was read before the place is written
        return self._arrays[published % self._num_places]

    def publish(self, counts: Sequence[int]) -> None:
        """As `Sink` says."""
        self._counts[self._counters[0] % self._num_places][:] = counts
        self._memory_barrier()  # the place is written before the counter moves
        self._counters[0] += 1

    @property
    def num_ready(self) -> int:
        """Number of places that are filled and not taken."""
        num_ready = int(self._counters[0] - self._counters[1])
        self._memory_barrier()  # the counter was read before the place is read
        return num_ready

    def oldest(self) -> list[np.ndarray]:
        """The frames in the place that was filled first; valid until `release`."""
        place = self._counters[1] % self._num_places
        return [array[:count] for array, count in zip(self._arrays[place], self._counts[place], strict=True)]

    def release(self) -> None:
        """Let the decoder fill the place of `oldest` again."""
        self._memory_barrier()  # the place was read before the counter moves
        self._counters[1] += 1

    def reset(self) -> None:
        """Prepare for another video; no decoder may be using the slot."""
        self.deadline = 0.0
        self._counters[:] = 0


class Slot:
    """Shared memory for the video of one worker, which opens it by `name`.

    On Linux it is anonymous memory, opened through /proc; it disappears with this process, however that ends. Elsewhere
    it is a temporary file, which `close` deletes, or `remove_slots_of_dead_processes` if this process is killed.
    """

    def __init__(self, outputs: Sequence[Output], num_places: int) -> None:
        num_bytes = Ring.num_bytes(outputs, num_places)
        if hasattr(os, "memfd_create"):
            self._file: IO[bytes] = os.fdopen(os.memfd_create(FILE_PREFIX), "r+b")
            self.name = f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
        else:
            self._file = tempfile.NamedTemporaryFile(prefix=f"{FILE_PREFIX}{os.getpid()}-")  # noqa: SIM115 (closed by `close`)
            self.name = self._file.name
        self._file.truncate(num_bytes)
        self.num_places = num_places
        self.ring = Ring(mmap.mmap(self._file.fileno(), num_bytes), outputs, num_places)

    def close(self) -> None:
        # The memory mapping itself ends with the last array that refers to it.
        self._file.close()


def remove_slots_of_dead_processes() -> None:
    """Delete the temporary files of slots whose process was killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{FILE_PREFIX}*"):
        number = path.name.removeprefix(FILE_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            if number.isdecimal() and not _is_running(int(number)):
                path.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        pass
    return True


def open_ring(name: str, outputs: Sequence[Output], num_places: int) -> Ring:
    """In a worker: the ring of the slot with that name."""
    with open(name, "r+b") as file:  # noqa: PTH123 (a descriptor's name on Linux, not a path of the user's)
        return Ring(mmap.mmap(file.fileno(), 0), outputs, num_places)


def _place_bytes(outputs: Sequence[Output]) -> int:
    """Size of a place, rounded up to whole words so that counts stay aligned."""
    num_bytes = sum(output.num_bytes for output in outputs)
    return len(outputs) * WORD_BYTES + -(-num_bytes // WORD_BYTES) * WORD_BYTES
