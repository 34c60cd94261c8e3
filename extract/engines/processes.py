"""The engine of one machine: a process for each device."""

import contextlib
import itertools
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Self

import joblib

from haechi.cache.child_process import end_with_parent, without_interrupt
from haechi.cache.text import counted
from haechi.extract.engines.devices import CPU
from haechi.extract.engines.engine import Died, Event, Job, Task
from haechi.extract.engines.worker import Worker

# How often a worker reports how far it is.
REPORT_SECONDS = 0.2

# How long a worker that has nothing to do may take to end.
END_SECONDS = 5.0

STOP = "stop"

MIN_SPOOL_GB = 0.001  # the least value of the setting


@dataclass(frozen=True, kw_only=True)
class _Running:
    """A worker's process, and this end of its pipe."""

    process: SpawnProcess
    pipe: Connection


class Processes:
    """A worker process for each device of this machine; cores, decoding processes and space for copies are shared out.

    A worker ends with this process, and its decoding processes end with it.
    """

    does_copies = False
    work: Callable[..., None]
    """What each process does: `serve`, unless a test or a benchmark changes it."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.devices = devices
        numbers = itertools.count(1)
        self.workers: Sequence[str] = [f"{CPU} ({next(numbers)})" if name == CPU else name for name in devices]
        self.name = counted(len(devices), "device")
        self._running: dict[int, _Running] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for each in self._running.values():
            each.pipe.close()  # the worker ends when it sees this
        for each in self._running.values():
            if kind is None:
                each.process.join(END_SECONDS)
            each.process.kill()
            each.process.join()
        self._running.clear()

    def start(self, worker: int, job: Job) -> None:
        number = len(self.devices)
        settings = job.settings
        shared = replace(
            job,
            settings=settings.changed(
                workers=max(1, settings.workers // number) if settings.workers else 0,
                spool_gb=max(settings.spool_gb / number, MIN_SPOOL_GB),
            ),
        )
        cores = max(1, joblib.cpu_count() // number)
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=Processes.work, args=(theirs, os.getpid(), shared, self.devices[worker], cores)
        )
        with without_interrupt():
            process.start()
        theirs.close()
        self._running[worker] = _Running(process=process, pipe=ours)

    def give(self, worker: int, task: Task) -> None:
        self._send(worker, task)

    def stop(self, worker: int) -> None:
        self._send(worker, STOP)

    def kill(self, worker: int) -> None:
        if worker in self._running:
            self._running[worker].process.kill()

    def events(self, seconds: float) -> list[tuple[int, Event]]:
        workers = {each.pipe: worker for worker, each in self._running.items()}
        found = []
        for pipe in wait(list(workers), timeout=seconds):
            assert isinstance(pipe, Connection)
            found.append((workers[pipe], self._receive(workers[pipe], pipe)))
        return found

    def _send(self, worker: int, message: Task | str) -> None:
        with contextlib.suppress(OSError):  # it died: `events` reports it
            if worker in self._running:
                self._running[worker].pipe.send(message)

    def _receive(self, worker: int, pipe: Connection) -> Event:
        try:
            event: Event = pipe.recv()
        except (EOFError, OSError):
            event = Died(why="")
        if isinstance(event, Died):
            process = self._running.pop(worker).process
            pipe.close()
            process.join(END_SECONDS)
            process.kill()
            process.join()
            return event if event.why else Died(why=_ending(process.exitcode))
        return event


def _ending(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        hint = "; is memory short?" if -exit_code == signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-exit_code).name}{hint}"
    return f"its process ended with exit status {exit_code}"


def serve(pipe: Connection, parent: int, job: Job, device: str, cores: int) -> None:
    """In a worker's process: do the slices that come through the pipe until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent)
    worker = Worker(job, device=device, cores=cores)
    tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    sending, is_busy = threading.Lock(), threading.Event()

    def send(event: Event) -> None:
        with sending, contextlib.suppress(OSError):
            pipe.send(event)

    def listen() -> None:
        while True:
            if pipe.poll(REPORT_SECONDS):
                try:
                    message = pipe.recv()
                except (EOFError, OSError):
                    if is_busy.is_set():
                        os._exit(1)
                    tasks.put(None)
                    return
                if message == STOP:
                    worker.stop()
                else:
                    is_busy.set()
                    tasks.put(message)
            if (report := worker.report()) is not None:
                send(report)

    threading.Thread(target=listen, daemon=True).start()
    with contextlib.closing(worker):
        while (task := tasks.get()) is not None:
            try:
                event = worker.run(task)
            except BaseException as error:
                send(Died(why=died_of(error)))
                raise
            is_busy.clear()
            if (report := worker.report()) is not None:  # the last notices
                send(report)
            send(event)
            if isinstance(event, Died):
                return


def died_of(error: BaseException) -> str:
    """An error that ended a worker, on one line."""
    first = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


Processes.work = staticmethod(serve)
