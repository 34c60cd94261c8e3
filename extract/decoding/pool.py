"""Decoding processes that may crash or hang without harming the run. pebble keeps them; frames come back in memory."""

import itertools
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from pebble import ProcessExpired, ProcessPool

from haechi.cache.errors import HaechiError
from haechi.extract.decoding.container import Header
from haechi.extract.decoding.decode import Sampled, sample
from haechi.extract.decoding.files import FileState
from haechi.extract.decoding.limits import Limits, bind_to_parent
from haechi.extract.decoding.reasons import Reason, UnusableError
from haechi.extract.decoding.shared_frames import Output, Ring, Slot, opened
from haechi.extract.sampling import Sampling, Uniform

# decord's memory grows slowly with the files it opens: a worker is replaced after this many.
VIDEOS_PER_WORKER = 1000

MAX_REBUILDS = 3

# Videos that may be finished while an earlier one is not: their features wait in memory for their place in a shard.
MAX_AHEAD = 4096

# How often the clocks of running videos are looked at; and pieces of those that come in several.
POLL_SECONDS = 0.2
PIECE_POLL_SECONDS = 0.01

# Pieces of one video that are on their way: one is taken while the next is decoded.
PIECES_AHEAD = 3

# When a run is asked to stop: how long it waits for videos that are being decoded.
GRACE_SECONDS = 5.0

# Deaths that come from outside, as from a service manager or the kernel short of memory, and may hit a bystander: the
# video is tried once more.
OUTSIDE_DEATHS = (-signal.SIGTERM, -signal.SIGKILL)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Frames of a video, in their order; they lie in shared memory until the next result is asked for."""

    attempt: int
    """A number of each time that a video is tried: what came of one that failed is no part of the next."""
    frames: list[np.ndarray]
    """One array an output, shaped as `Output.shape` with as many frames as there are. Copy what is to be kept."""


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A video that cannot be used, and why."""

    reason: Reason
    message: str
    state: FileState
    """Of the file before it was tried: tells on a later run whether it changed since."""


class _LockKeeper(SpawnContext):
    """pebble lets go of its locks before it stops its workers; one that is just starting would miss them, loudly."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[object] = []

    def RLock(self) -> Any:  # noqa: N802 (its own name)
        lock = super().RLock()
        self._kept.append(lock)
        return lock


class DecodePool:
    """Decoding processes, from entering this context manager until leaving it.

    Frames come back through a fixed number of shared memory slots, which bound memory. Linux only: slots are anonymous
    memory files that vanish with this process, however it ends, and are no part of /dev/shm, which containers keep
    small.
    """

    def __init__(self, *, num_workers: int, sampling: Sampling, limits: Limits) -> None:
        self._sampling, self._limits = sampling, limits
        self.num_workers = num_workers
        self._in_pieces = not isinstance(sampling, Uniform)
        self._num_places = PIECES_AHEAD if self._in_pieces else 1
        self._poll_seconds = PIECE_POLL_SECONDS if self._in_pieces else POLL_SECONDS
        self._attempts = itertools.count()

    def __enter__(self) -> "DecodePool":
        self._pool = self._start_pool()
        return self

    def _start_pool(self) -> ProcessPool:
        """A new pool whose workers never see Ctrl-C: that is the main process's to handle."""
        self._context = _LockKeeper()
        resource_tracker.ensure_running()  # where it starts later, it lifts the mask
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pool = ProcessPool(
                max_workers=self.num_workers,
                max_tasks=VIDEOS_PER_WORKER,
                initializer=_ready,  # loads this module, and so the decoders, before the first video comes
                initargs=(os.getpid(), self._limits.memory_bytes),
                context=self._context,
            )
            assert pool.active  # starts its threads; they pass the mask on to the workers
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return pool

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop_pool()

    def run(
        self,
        paths: Sequence[Path],
        outputs: Sequence[Output],
        *,
        stopping: Callable[[], bool] = lambda: False,
        on_idle: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[int, Piece | Sampled | Rejected]]:
        """Yield (index into `paths`, result) of every path exactly once, in order of completion; and before that, of a
        video whose frames are asked for, pieces: one with `uniform`, with `windows` as many as it takes.

        A worker that dies of its video is that video's failure. One that is killed while it waits takes the pool down
        with it: the pool is made anew, and what was on its way is done again. Raises `HaechiError` where that happens
        time after time.

        Once `stopping` says so no video is begun; those that are being decoded may finish within `GRACE_SECONDS`.
        `on_idle` is called now and then while nothing finishes. A pool whose run was left before its end is at its own.
        """
        with ExitStack() as stack:
            slots = [Slot(outputs, self._num_places) for _ in range(2 * self.num_workers + 1)]
            for slot in slots:
                stack.callback(slot.close)
            is_whole = False
            try:
                is_whole = yield from self._run(paths, slots, stopping, on_idle)
            finally:
                if not is_whole:  # a worker that outlives a slot would write into the file that gets its number next
                    self._stop_pool()

    def _run(
        self, paths: Sequence[Path], free: list[Slot], stopping: Callable[[], bool], on_idle: Callable[[], None]
    ) -> Generator[tuple[int, Piece | Sampled | Rejected], None, bool]:
        """As `run`; whether it was never asked to stop."""
        waiting = deque(range(len(paths)))
        running: dict[Future[Sampled | Rejected], _Task] = {}
        tried_twice: set[int] = set()
        num_rebuilt = 0
        stop_at = None
        while waiting or running:
            if stop_at is None and stopping():
                stop_at = time.monotonic() + GRACE_SECONDS
                for future in [future for future, task in running.items() if not task.slot.ring.deadline]:
                    future.cancel()
                    del running[future]
            if stop_at is not None and (not running or time.monotonic() > stop_at):
                return False
            try:
                oldest = min((task.index for task in running.values()), default=0)
                while stop_at is None and free and waiting and (not running or waiting[0] < oldest + MAX_AHEAD):
                    state = FileState.of(paths[waiting[0]])
                    task = _Task(index=waiting[0], attempt=next(self._attempts), slot=free[-1], state=state)
                    running[self._submit(paths[task.index], task)] = task
                    waiting.popleft()
                    free.pop()
                finished, _ = wait(running, timeout=self._poll_seconds, return_when=FIRST_COMPLETED)
                ready = running if self._in_pieces else finished
                for future in sorted(ready, key=lambda future: running[future].index):
                    task = running[future]
                    for _ in range(task.slot.ring.num_ready):
                        yield task.index, Piece(attempt=task.attempt, frames=task.slot.ring.oldest())
                        task.slot.ring.release()
                    if future not in finished:
                        continue
                    result = self._result(future, task)
                    del running[future]
                    if isinstance(result, _Killed) and task.index not in tried_twice:
                        tried_twice.add(task.index)
                        waiting.appendleft(task.index)
                    else:
                        yield task.index, result.as_rejected(task.state) if isinstance(result, _Killed) else result
                    free.append(task.slot)
                    num_rebuilt = 0
                if not finished:
                    on_idle()
                for future, task in running.items():
                    if task.slot.ring.is_late:
                        future.cancel()  # kills its worker; the future is done once that is dead
            except BrokenProcessPool as error:
                if num_rebuilt == MAX_REBUILDS:
                    raise HaechiError(
                        f"decoding processes were killed from outside {num_rebuilt + 1} times in a row; "
                        "is memory short? Try fewer --workers; what is finished is kept"
                    ) from error
                num_rebuilt += 1
                self._stop_pool()
                waiting.extendleft(sorted((task.index for task in running.values()), reverse=True))
                free += [task.slot for task in running.values()]
                running.clear()
                self._pool = self._start_pool()
        return stop_at is None

    def _stop_pool(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def _submit(self, path: Path, task: "_Task") -> "Future[Sampled | Rejected]":
        slot = task.slot
        slot.ring.reset()
        place = slot.name, slot.ring.outputs, slot.num_places
        try:
            future: Future[Sampled | Rejected] = self._pool.schedule(
                _sample_into_slot, args=(path, place, task.state, self._sampling, self._limits)
            )
        except RuntimeError as error:  # pebble's word for a pool that broke since the last call
            raise BrokenProcessPool from error
        return future

    def _result(self, future: "Future[Sampled | Rejected]", task: "_Task") -> "Sampled | Rejected | _Killed":
        try:
            return future.result()
        except CancelledError:
            return Rejected(reason=Reason.TIMEOUT, message=self._limits.late_message, state=task.state)
        except ProcessExpired as error:
            died = _Killed(exit_code=error.exitcode)
            return died if error.exitcode in OUTSIDE_DEATHS else died.as_rejected(task.state)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A video on its way through a worker."""

    index: int
    attempt: int
    slot: Slot
    state: FileState


@dataclass(frozen=True, kw_only=True)
class _Killed:
    """The worker's death."""

    exit_code: int | None

    def as_rejected(self, state: FileState) -> Rejected:
        code = self.exit_code
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"
        return Rejected(reason=Reason.CRASHED, message=f"the decoder died of it ({how})", state=state)


def _ready(parent: int, memory_bytes: int) -> None:
    """In a worker, as it starts."""
    bind_to_parent(parent, memory_bytes)


def _sample_into_slot(
    path: Path,
    place: tuple[str, tuple[Output, ...], int],
    state: FileState,
    sampling: Sampling,
    limits: Limits,
) -> Sampled | Rejected:
    """In a worker: one video, from file to frames in the slot (its name, outputs and number of places)."""
    started = time.monotonic()
    ring: Ring = opened(*place)
    ring.deadline = started + limits.seconds_to_check(path)

    def allow(header: Header) -> None:
        ring.deadline = started + limits.seconds_to_decode(header)

    try:
        return sample(path, sampling=sampling, limits=limits, sink=ring, on_header=allow)
    except UnusableError as error:
        if error.reason is Reason.MISSING:
            state = FileState.of(path)  # it may have been there when it was handed to us
        return Rejected(reason=error.reason, message=error.message, state=state)
    except MemoryError:
        message = f"needs more than the {limits.memory_bytes / 1e9:g} GB that a decoder may have (--worker-memory-gb)"
        return Rejected(reason=Reason.OUT_OF_MEMORY, message=message, state=state)
