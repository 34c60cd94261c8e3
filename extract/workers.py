"""Decoding processes that may crash or hang without harming the run. pebble keeps them; frames come back in memory."""

import mmap
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from types import TracebackType

import numpy as np
from pebble import ProcessExpired, ProcessPool

from cache.errors import HaechiError
from extract.decode import Sampled, sample
from extract.reasons import Reason, UnusableError
from extract.transforms import FrameTransform
from extract.validate import FileState

# decord's memory grows slowly with the files it opens: a worker is replaced after this many.
VIDEOS_PER_WORKER = 1000

MAX_REBUILDS = 3

# Videos that may be finished while an earlier one is not: their features wait in memory for their place in a shard.
MAX_AHEAD = 4096


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
    state: FileState
    """Of the file before it was tried: tells on a later run whether it changed since."""


class DecodePool:
    """Decoding processes, from entering this context manager until leaving it.

    Frames come back through a fixed number of shared memory slots, which bound memory. Linux only: slots are anonymous
    memory files that vanish with this process, however it ends, and are no part of /dev/shm, which containers keep
    small.
    """

    def __init__(self, *, num_workers: int, num_samples: int, max_pixels: int, timeout_seconds: float) -> None:
        self._limits = (num_samples, max_pixels)
        self._timeout_seconds = timeout_seconds
        self._num_workers = num_workers

    def __enter__(self) -> "DecodePool":
        self._pool = self._start_pool()
        return self

    def _start_pool(self) -> ProcessPool:
        """A new pool whose workers never see Ctrl-C: that is the main process's to handle."""
        resource_tracker.ensure_running()  # where it starts later, it lifts the mask
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pool = ProcessPool(
                max_workers=self._num_workers,
                max_tasks=VIDEOS_PER_WORKER,
                initializer=_ready,  # loads this module, and so the decoders, before the first video comes
                context=multiprocessing.get_context("spawn"),
            )
            assert pool.active  # starts its threads; they pass the mask on to the workers
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return pool

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop_pool()

    def run(self, paths: Sequence[Path], outputs: Sequence[Output]) -> Iterator[tuple[int, Decoded | Rejected]]:
        """Yield (index into `paths`, result) of every path exactly once, in order of completion.

        A worker that dies of its video is that video's failure. One that is killed while it waits takes the pool down
        with it: the pool is made anew, and what was on its way is done again. Raises `HaechiError` where that happens
        time after time.
        """
        with ExitStack() as stack:
            slots = [_Slot(outputs) for _ in range(2 * self._num_workers + 1)]
            for slot in slots:
                stack.callback(slot.close)
            yield from self._run(paths, slots)

    def _run(self, paths: Sequence[Path], free: list["_Slot"]) -> Iterator[tuple[int, Decoded | Rejected]]:
        waiting = deque(range(len(paths)))
        running: dict[Future[Sampled | Rejected], tuple[int, _Slot, FileState]] = {}
        num_rebuilt = 0
        while waiting or running:
            try:
                oldest = min((index for index, _, _ in running.values()), default=0)
                while free and waiting and (not running or waiting[0] < oldest + MAX_AHEAD):
                    index, slot = waiting[0], free[-1]
                    state = FileState.of(paths[index])
                    future = self._submit(paths[index], slot, state)
                    running[future] = (index, slot, state)
                    waiting.popleft()
                    free.pop()
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(finished, key=lambda future: running[future][0]):
                    index, slot, state = running[future]
                    result = self._result(future, slot, state)
                    del running[future]
                    yield index, result
                    free.append(slot)
                    num_rebuilt = 0
            except BrokenProcessPool as error:
                if num_rebuilt == MAX_REBUILDS:
                    raise HaechiError(
                        f"decoding processes were killed from outside {num_rebuilt + 1} times in a row; "
                        "is memory short? Try fewer --workers; what is finished is kept"
                    ) from error
                num_rebuilt += 1
                self._stop_pool()
                waiting.extendleft(sorted((index for index, _, _ in running.values()), reverse=True))
                free += [slot for _, slot, _ in running.values()]
                running.clear()
                self._pool = self._start_pool()

    def _stop_pool(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def _submit(self, path: Path, slot: "_Slot", state: FileState) -> "Future[Sampled | Rejected]":
        try:
            future: Future[Sampled | Rejected] = self._pool.schedule(
                _sample_into_slot,
                args=(path, slot.name, state, *self._limits, slot.outputs),
                timeout=self._timeout_seconds,
            )
        except RuntimeError as error:  # pebble's word for a pool that broke since the last call
            raise BrokenProcessPool from error
        return future

    def _result(self, future: "Future[Sampled | Rejected]", slot: "_Slot", state: FileState) -> Decoded | Rejected:
        try:
            result = future.result()
        except TimeoutError:
            message = f"not decoded within {self._timeout_seconds:g} s (--timeout)"
            return Rejected(reason=Reason.TIMEOUT, message=message, state=state)
        except ProcessExpired as error:
            message = f"the decoder died of it ({_death(error.exitcode)})"
            return Rejected(reason=Reason.CRASHED, message=message, state=state)
        if isinstance(result, Rejected):
            return result
        return Decoded(sampled=result, frames=_views(slot.memory, slot.outputs))


class _Slot:
    """Anonymous shared memory for one video's outputs, opened by workers through /proc."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self.outputs = tuple(outputs)
        num_bytes = max(1, sum(output.num_bytes for output in outputs))
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
        count, dtype = int(np.prod(output.shape)), output.transform.dtype
        views.append(np.frombuffer(memory, dtype, count, offset).reshape(output.shape))
        offset += output.num_bytes
    return views


def _ready() -> None:
    """In a worker, as it starts."""


def _sample_into_slot(
    path: Path, slot_name: str, state: FileState, num_samples: int, max_pixels: int, outputs: tuple[Output, ...]
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
        return Rejected(reason=error.reason, message=error.message, state=state)


def _death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit status {exit_code}"
