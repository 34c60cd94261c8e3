"""Child processes that may crash or hang. They are forked: importing torch again would take seconds."""

import contextlib
import multiprocessing
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

FORK = multiprocessing.get_context("fork")

# How long a process may go on after the one that started it has ended.
ORPHAN_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How work in another process ended."""

    value: Any = None
    error: str = ""
    """Signal, exit status, time limit or traceback; empty if `value` was returned."""


def run_forked(work: Callable[[], Any], *, seconds: float, memory_bytes: int | None = None) -> Outcome:
    """Call `work` in a forked process and wait for its value or its end.

    After that, or after `seconds`, the process and its descendants are killed. With `memory_bytes`, its address space
    may be larger than this process's by that much.
    """
    ours, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_run_and_send, args=(theirs, work, memory_bytes))
    child.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            return Outcome(error=f"hung for {seconds:g} s")
        return ours.recv()  # type: ignore[no-any-return]
    except EOFError:
        child.join(ORPHAN_SECONDS)
        return Outcome(error=describe_exit(child.exitcode))
    finally:
        ours.close()
        kill_all(process_tree(child.pid or 0))
        child.join()


def _run_and_send(theirs: Connection, work: Callable[[], Any], memory_bytes: int | None) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes is not None:
        limit = psutil.Process().memory_info().vms + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        outcome = Outcome(value=work())
    except Exception:  # noqa: BLE001 (sent to the parent)
        outcome = Outcome(error=traceback.format_exc())
    theirs.send(outcome)


def describe_exit(exit_code: int | None) -> str:
    """The signal's name, such as `SIGKILL`, or `exit status 3`."""
    return signal.Signals(-exit_code).name if exit_code is not None and exit_code < 0 else f"exit status {exit_code}"


def process_tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants; empty if it no longer exists."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process := psutil.Process(pid), *process.children(recursive=True)]
    return []


def descendants() -> list[psutil.Process]:
    """All descendants of this process, without Python's resource tracker."""
    return [process for process in psutil.Process().children(recursive=True) if not _is_tracker(process)]


def _is_tracker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return "resource_tracker" in " ".join(process.cmdline())
    return True


def still_running(processes: Iterable[psutil.Process], *, seconds: float = ORPHAN_SECONDS) -> list[psutil.Process]:
    """The processes that still run after `seconds`. Zombies do not count."""
    deadline = time.monotonic() + seconds
    alive = list(processes)
    while (alive := [process for process in alive if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def kill_all(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


class Command:
    """`haechi ARGUMENTS` with tiny networks, in a forked process with its own process group, as in a terminal.

    `prepare` is called in the child before the command starts. stdout and stderr go to a file in `folder`.
    """

    def __init__(self, arguments: list[str], folder: Path, *, prepare: Callable[[], None] = lambda: None) -> None:
        self._log, self._rows = folder / "command.log", folder / "rows.log"
        for file in (self._log, self._rows):
            file.write_bytes(b"")
        ours, theirs = FORK.Pipe(duplex=False)
        self._process = FORK.Process(target=self._run, args=(arguments, prepare, theirs))
        self._process.start()
        theirs.close()
        with contextlib.suppress(EOFError):
            ours.recv()  # blocks until the child is about to start the command
        ours.close()

    def _run(self, arguments: list[str], prepare: Callable[[], None], ready: Connection) -> None:
        os.setpgid(0, 0)
        log = os.open(self._log, os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        import haechi.cli
        from bench.networks import shrink_slowfast

        shrink_slowfast()
        self._log_rows()
        prepare()
        ready.send(True)
        haechi.cli.main(arguments)

    def _log_rows(self) -> None:
        """Write the id of each row that the run reports as finished to a file."""
        from haechi.cache.schema import Item
        from haechi.extract.shard_queue import ShardQueue

        real, rows = ShardQueue.add, self._rows.open("a", buffering=1)

        def add(queue: ShardQueue, index: int, row: Any) -> None:
            rows.write(f"{row.media.id if isinstance(row, Item) else row.id}\n")
            real(queue, index, row)

        ShardQueue.add = add  # type: ignore[method-assign]

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`; True if the command has ended."""
        self._process.join(seconds)
        return self._process.exitcode is not None

    def finish(self, seconds: float) -> int | None:
        """Wait up to `seconds`; the exit status, or None if it was still running and has been killed."""
        self.wait(seconds)
        status = self._process.exitcode
        if status is None:
            kill_all(process_tree(self.pid))
        self._process.join()
        return status

    @property
    def finished_ids(self) -> list[str]:
        """Ids of the rows that the command has reported as finished."""
        return self._rows.read_text(encoding="utf-8").split("\n")[:-1]

    @property
    def output(self) -> str:
        """Everything that the command has written to stdout and stderr."""
        return self._log.read_text(encoding="utf-8", errors="replace")
