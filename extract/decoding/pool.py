"""Decoding processes that may crash or hang without harming the run. pebble manages them; frames come back through
shared memory."""

import itertools
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnContext
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from pebble import ProcessExpired, ProcessPool

from haechi.cache.child_process import without_interrupt
from haechi.cache.errors import HaechiError
from haechi.cache.file_state import FileState
from haechi.extract.decoding.container import Header
from haechi.extract.decoding.decode import DecodedFile, sample
from haechi.extract.decoding.limits import Limits
from haechi.extract.decoding.process import begin_decoder
from haechi.extract.decoding.reasons import Reason, UnusableError, defect_message
from haechi.extract.decoding.shared_frames import Output, Slot, open_ring, remove_slots_of_dead_processes
from haechi.extract.decoding.supply import LocalFiles, Rejected, Supplied, Supply
from haechi.extract.sampling import Sampling

# decord's memory grows slowly with the files that it opens: a worker is replaced after this many videos.
VIDEOS_PER_WORKER = 1000

# How often in a row the pool is started again after its workers were killed.
MAX_RESTARTS = 3

# How far finished videos may be ahead of an unfinished one: their features wait in memory to be written in order.
MAX_AHEAD = 4096

# How often deadlines are checked; with `windows`, whose frames come while the video is decoded, how often for frames.
POLL_SECONDS = 0.2
FRAMES_POLL_SECONDS = 0.01

# With `windows`: places in a slot, so that the decoder fills some while the main process takes others.
NUM_PLACES = 3

# When a run is asked to stop: how long it waits for videos that are being decoded.
GRACE_SECONDS = 5.0

# Signals that come from outside, from a service manager or from a kernel that is short of memory. The video is probably
# not the cause, so it is tried once more.
OUTSIDE_SIGNALS = (-signal.SIGTERM, -signal.SIGKILL)


@dataclass(frozen=True, kw_only=True)
class DecodedFrames:
    """The next frames of a video. They are in shared memory, and valid until the next result is requested."""

    attempt: int
    """Number of the attempt at decoding the video; frames of two attempts must not be mixed."""
    frames: list[np.ndarray]
    """One array for each output: (frames, size, size, 3). Copy what must be kept."""


class _LockKeeper(SpawnContext):
    """Keeps pebble's locks alive: pebble drops them before it stops its workers, and a starting worker would fail."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[object] = []

    def RLock(self) -> Any:  # noqa: N802 (the name in the base class)
        lock = super().RLock()
        self._kept.append(lock)
        return lock


class DecodePool:
    """Decoding processes, from entering this context manager until leaving it.

    Frames come back through a fixed number of shared memory slots, which limits memory. They do not use /dev/shm, which
    is small in containers.
    """

    def __init__(self, *, num_workers: int, sampling: Sampling, limits: Limits) -> None:
        self._sampling, self._limits = sampling, limits
        self.num_workers = num_workers
        self._is_streamed = sampling.is_streamed
        self._num_places = NUM_PLACES if self._is_streamed else 1
        self._poll_seconds = FRAMES_POLL_SECONDS if self._is_streamed else POLL_SECONDS
        self._attempts = itertools.count()

    def __enter__(self) -> "DecodePool":
        self._pool = self._start_pool()
        return self

    def _start_pool(self) -> ProcessPool:
        """A new pool whose workers ignore Ctrl-C, which the main process handles."""
        self._context = _LockKeeper()
        with without_interrupt():
            pool = ProcessPool(
                max_workers=self.num_workers,
                max_tasks=VIDEOS_PER_WORKER,
                initializer=begin_decoder,
                initargs=(os.getpid(), self._limits.memory_bytes, __name__),
                context=self._context,
            )
            assert pool.active  # starts its threads, from which the workers inherit the blocked signal
        return pool

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop_pool()

    def run(
        self,
        files: Sequence[Path] | Supply,
        outputs: Sequence[Output],
        *,
        stopping: Callable[[], bool] = lambda: False,
        on_idle: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[int, DecodedFrames | DecodedFile | Rejected]]:
        """Yield (index into `files`, result) of every file exactly once, in order of completion.

        Before that, frames of the video are yielded if there are `outputs`: once with `uniform`, as often as needed
        with `windows`.

        If a worker crashes on a video, that video is rejected. If a worker is killed between two videos, the pool is
        started again and the running videos are decoded again; raises `HaechiError` if that happens several times in a
        row.

        When `stopping` returns True no new video is started, and running videos may finish within `GRACE_SECONDS`.
        `on_idle` is called from time to time while no video finishes. If the caller stops iterating early, the pool is
        stopped and cannot be used again.
        """
        remove_slots_of_dead_processes()
        supply = LocalFiles(files) if isinstance(files, Sequence) else files
        with ExitStack() as stack:
            slots = [Slot(outputs, self._num_places) for _ in range(2 * self.num_workers + 1)]
            for slot in slots:
                stack.callback(slot.close)
            is_complete = False
            try:
                is_complete = yield from self._run(supply, slots, stopping, on_idle)
            finally:
                if not is_complete:  # a worker must not outlive its slot: the descriptor's number is used again
                    self._stop_pool()

    def _run(
        self, supply: Supply, free: list[Slot], stopping: Callable[[], bool], on_idle: Callable[[], None]
    ) -> Generator[tuple[int, DecodedFrames | DecodedFile | Rejected], None, bool]:
        """As `run`; returns whether it ended without being asked to stop."""
        running: dict[Future[DecodedFile | Rejected], _Task] = {}
        tried_twice: set[int] = set()
        num_restarts = 0
        stop_at = None
        while supply.oldest is not None or running:
            if stop_at is None and stopping():
                stop_at = time.monotonic() + GRACE_SECONDS
                for future in [future for future, task in running.items() if not task.slot.ring.deadline]:
                    future.cancel()
                    del running[future]
            if stop_at is not None and (not running or time.monotonic() > stop_at):
                return False
            waits_for_files = False
            try:
                while stop_at is None and free and (oldest := _oldest(supply, running)) is not None:
                    taken = supply.take(below=oldest + MAX_AHEAD)
                    if taken is None:
                        waits_for_files = True
                        break
                    index, file = taken
                    if isinstance(file, Rejected):
                        yield index, file
                        if stopping():
                            break
                        continue
                    task = _Task(index=index, attempt=next(self._attempts), slot=free[-1], file=file)
                    try:
                        running[self._submit(task)] = task
                    except BrokenProcessPool:
                        supply.put_back(index)
                        raise
                    free.pop()
                expected: list[Future[Any]] = [*running, *(supply.arrivals if waits_for_files else [])]
                done, _ = wait(expected, timeout=self._poll_seconds, return_when=FIRST_COMPLETED)
                finished = done & running.keys()
                ready = running if self._is_streamed else finished
                for future in sorted(ready, key=lambda future: running[future].index):
                    task = running[future]
                    for _ in range(task.slot.ring.num_ready):
                        yield task.index, DecodedFrames(attempt=task.attempt, frames=task.slot.ring.oldest())
                        task.slot.ring.release()
                    if future not in finished:
                        continue
                    result = self._result(future, task)
                    del running[future]
                    if isinstance(result, _Killed) and task.index not in tried_twice:
                        tried_twice.add(task.index)
                        supply.put_back(task.index)
                    else:
                        supply.done(task.index)
                        yield task.index, result.as_rejected(task.state) if isinstance(result, _Killed) else result
                    free.append(task.slot)
                    num_restarts = 0
                if not finished:
                    on_idle()
                for future, task in running.items():
                    if task.slot.ring.is_late:
                        future.cancel()  # kills its worker; the future is done when that has ended
            except BrokenProcessPool as error:
                if num_restarts == MAX_RESTARTS:
                    raise HaechiError(
                        f"decoding processes were killed from outside {num_restarts + 1} times in a row; is memory "
                        "short? Try fewer --workers. Finished videos are kept"
                    ) from error
                num_restarts += 1
                self._stop_pool()
                for index in sorted((task.index for task in running.values()), reverse=True):
                    supply.put_back(index)
                free += [task.slot for task in running.values()]
                running.clear()
                self._pool = self._start_pool()
        return stop_at is None

    def _stop_pool(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def _submit(self, task: "_Task") -> "Future[DecodedFile | Rejected]":
        slot, file = task.slot, task.file
        slot.ring.reset()
        place = slot.name, slot.ring.outputs, slot.num_places
        try:
            future: Future[DecodedFile | Rejected] = self._pool.schedule(
                _sample_into_slot, args=(file.path, place, file.state, self._sampling, self._limits, file.sha256)
            )
        except RuntimeError as error:  # pebble raises it for a pool that broke since the last call
            raise BrokenProcessPool from error
        return future

    def _result(self, future: "Future[DecodedFile | Rejected]", task: "_Task") -> "DecodedFile | Rejected | _Killed":
        try:
            return future.result()
        except CancelledError:
            return Rejected(reason=Reason.TIMEOUT, message=self._limits.timeout_message, state=task.state)
        except ProcessExpired as error:
            killed = _Killed(exit_code=error.exitcode)
            return killed if error.exitcode in OUTSIDE_SIGNALS else killed.as_rejected(task.state)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A video that was handed to the pool."""

    index: int
    attempt: int
    slot: Slot
    file: Supplied

    @property
    def state(self) -> FileState:
        return self.file.state


@dataclass(frozen=True, kw_only=True)
class _Killed:
    """The worker ended before the video was decoded."""

    exit_code: int | None

    def as_rejected(self, state: FileState) -> Rejected:
        code = self.exit_code
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        return Rejected(reason=Reason.CRASHED, message=f"the decoder crashed on this file ({how})", state=state)


def _oldest(supply: Supply, running: dict[Future[DecodedFile | Rejected], _Task]) -> int | None:
    """The first index that is not finished; None if all files were taken."""
    if supply.oldest is None:
        return None
    return min([supply.oldest, *(task.index for task in running.values())])


def _sample_into_slot(
    path: Path,
    place: tuple[str, tuple[Output, ...], int],
    state: FileState,
    sampling: Sampling,
    limits: Limits,
    sha256: str = "",
) -> DecodedFile | Rejected:
    """In a worker: decode one video into the slot `place` (its name, outputs and number of places).

    `sha256` is given for a copy, whose state is that of the original. Raises nothing: whatever happens, it is that
    video's result, so that no file can end a run.
    """
    started = time.monotonic()
    try:
        ring = open_ring(*place)
        ring.deadline = started + limits.seconds_to_check(path)

        def extend_deadline(header: Header) -> None:
            ring.deadline = started + limits.seconds_to_decode(header)

        decoded = sample(path, sampling=sampling, limits=limits, sink=ring, on_header=extend_deadline, sha256=sha256)
        return replace(decoded, state=state) if sha256 else decoded
    except UnusableError as error:
        if error.reason is Reason.MISSING and sha256:
            message = "its local copy disappeared before it was decoded"
            return Rejected(reason=Reason.FETCH_FAILED, message=message, state=state)
        if error.reason is Reason.MISSING:
            state = FileState.of(path)  # it may have existed when the task was created
        return Rejected(reason=error.reason, message=error.message, state=state)
    except MemoryError:
        message = f"needs more memory than the limit of {limits.memory_bytes / 1e9:g} GB (--worker-memory-gb)"
        return Rejected(reason=Reason.OUT_OF_MEMORY, message=message, state=state)
    except BaseException as error:  # noqa: BLE001 (a defect of ours, on whatever file it shows)
        return Rejected(reason=Reason.CRASHED, message=defect_message(error), state=state)
