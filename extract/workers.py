"""Decoding processes that may crash or hang without harming the run. pebble keeps them; frames come back in memory."""

import mmap
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from pebble import ProcessExpired, ProcessPool

from extract.decode import Sampled, sample
from extract.reasons import Reason, UnusableError
from extract.transforms import FrameTransform

# decord's memory grows slowly with the files it opens: a worker is replaced after this many.
VIDEOS_PER_WORKER = 1000


@dataclass(frozen=True, kw_only=True)
class Output:
    """Frames that a backbone wants of every video."""

    transform: FrameTransform
    positions: list[int]
    """Which of the T sampled frames, in this order."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frames, height, width, RGB) of the uint8 array a video gives."""
        return len(self.positions), self.transform.size, self.transform.size, 3

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A video whose frames lie in shared memory until the next one is asked for."""

    sampled: Sampled
    frames: list[np.ndarray]
    """One array an output, shaped as `Output.shape`. Copy what is to be kept."""


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A video that cannot be used, and why."""

    reason: Reason
    message: str


class DecodePool:
    """A pool of decoding processes over a fixed number of shared memory slots, which bound memory.

    A context manager. Linux only: slots are anonymous memory files that vanish with this process, however it ends,
    and are no part of /dev/shm, which containers keep small.
    """

    def __init__(
        self, *, num_workers: int, num_samples: int, max_pixels: int, timeout_seconds: float, outputs: Sequence[Output]
    ) -> None:
        self._arguments = (num_samples, max_pixels, tuple(outputs))
        self._outputs = tuple(outputs)
        self._timeout_seconds = timeout_seconds
        self._num_workers = num_workers
        self._stack = ExitStack()

    def __enter__(self) -> "DecodePool":
        num_bytes = max(1, sum(output.num_bytes for output in self._outputs))
        self._free = [_Slot(num_bytes) for _ in range(2 * self._num_workers + 1)]
        for slot in self._free:
            self._stack.callback(slot.close)
        self._pool = ProcessPool(
            max_workers=self._num_workers,
            max_tasks=VIDEOS_PER_WORKER,
            initializer=_start_worker,
            context=multiprocessing.get_context("spawn"),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._pool.close()  # type: ignore[no-untyped-call]
        else:
            self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()
        self._stack.close()

    def run(self, paths: Sequence[Path]) -> Iterator[tuple[int, Decoded | Rejected]]:
        """Yield (index into `paths`, result) of every path exactly once, in order of completion."""
        running: dict[Future[Sampled | Rejected], tuple[int, _Slot]] = {}
        waiting = iter(enumerate(paths))
        exhausted = False
        while True:
            while self._free and not exhausted:
                if (following := next(waiting, None)) is None:
                    exhausted = True
                    break
                index, path = following
                slot = self._free.pop()
                future: Future[Sampled | Rejected] = self._pool.schedule(
                    _sample_into_slot, args=(path, slot.name, *self._arguments), timeout=self._timeout_seconds
                )
                running[future] = (index, slot)
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                index, slot = running.pop(future)
                yield index, self._result(future, slot)
                self._free.append(slot)

    def _result(self, future: Future[Sampled | Rejected], slot: "_Slot") -> Decoded | Rejected:
        try:
            result = future.result()
        except TimeoutError:
            return Rejected(
                reason=Reason.TIMEOUT, message=f"not decoded within {self._timeout_seconds:g} s (--timeout)"
            )
        except ProcessExpired as error:
            return Rejected(reason=Reason.CRASHED, message=f"the decoder died of it ({_death(error.exitcode)})")
        if isinstance(result, Rejected):
            return result
        return Decoded(sampled=result, frames=_views(slot.memory, self._outputs))


class _Slot:
    """Anonymous shared memory, opened by workers through /proc."""

    def __init__(self, num_bytes: int) -> None:
        self._descriptor = os.memfd_create("haechi-frames")
        os.ftruncate(self._descriptor, num_bytes)
        self.name = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        self.memory = mmap.mmap(self._descriptor, num_bytes)

    def close(self) -> None:
        # The mapping itself ends with the last array that shows it.
        os.close(self._descriptor)


def _views(memory: mmap.mmap, outputs: Sequence[Output]) -> list[np.ndarray]:
    """One array an output, one after another in the slot."""
    views, offset = [], 0
    for output in outputs:
        views.append(np.frombuffer(memory, np.uint8, output.num_bytes, offset).reshape(output.shape))
        offset += output.num_bytes
    return views


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle


def _sample_into_slot(
    path: Path, slot_name: str, num_samples: int, max_pixels: int, outputs: tuple[Output, ...]
) -> Sampled | Rejected:
    """In a worker: one video, from file to frames in the slot."""
    with open(slot_name, "r+b") as file:  # noqa: PTH123 (a descriptor's name, not a path of the user's)
        memory = mmap.mmap(file.fileno(), 0)
    arrays = _views(memory, outputs)
    try:
        return sample(
            path,
            num_samples=num_samples,
            max_pixels=max_pixels,
            outputs=[(o.transform, o.positions, array) for o, array in zip(outputs, arrays, strict=True)],
        )
    except UnusableError as error:
        return Rejected(reason=error.reason, message=error.message)


def _death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit status {exit_code}"
