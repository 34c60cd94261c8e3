"""Work in processes that may die or hang. They are forked, so that nothing is imported twice: torch takes seconds."""

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

# How long a process may outlive the one that started it.
ORPHAN_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of work in another process."""

    value: Any = None
    died: str = ""
    """How it ended without a value; empty: it did not."""


def apart(work: Callable[[], Any], *, seconds: float, memory_bytes: int | None = None) -> Outcome:
    """Call `work` in a forked process that may take so many seconds, and so much memory more than this one has."""
    ours, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_tell, args=(theirs, work, memory_bytes))
    child.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            return Outcome(died=f"hung for {seconds:g} s")
        return ours.recv()  # type: ignore[no-any-return]
    except EOFError:
        child.join(ORPHAN_SECONDS)
        return Outcome(died=how_it_ended(child.exitcode))
    finally:
        ours.close()
        end(family(child.pid or 0))
        child.join()


def _tell(theirs: Connection, work: Callable[[], Any], memory_bytes: int | None) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes is not None:
        most = psutil.Process().memory_info().vms + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        outcome = Outcome(value=work())
    except Exception:  # noqa: BLE001 (told to the parent)
        outcome = Outcome(died=traceback.format_exc())
    theirs.send(outcome)


def how_it_ended(exit_code: int | None) -> str:
    return signal.Signals(-exit_code).name if exit_code is not None and exit_code < 0 else f"exit status {exit_code}"


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it; empty where it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process := psutil.Process(pid), *process.children(recursive=True)]
    return []


def decoders() -> list[psutil.Process]:
    """The processes that this one started, but for Python's own that tracks their memory."""
    return [process for process in psutil.Process().children(recursive=True) if not _is_tracker(process)]


def _is_tracker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return "resource_tracker" in " ".join(process.cmdline())
    return True


def survivors(processes: Iterable[psutil.Process], *, seconds: float = ORPHAN_SECONDS) -> list[psutil.Process]:
    """Those that still run after so long; a zombie does not."""
    deadline = time.monotonic() + seconds
    alive = list(processes)
    while (alive := [process for process in alive if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def end(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


class Command:
    """`haechi ARGUMENTS` in a forked process with networks in miniature, as a terminal would run it."""

    def __init__(self, arguments: list[str], folder: Path, *, prepare: Callable[[], None] = lambda: None) -> None:
        self._log, self._rows = folder / "command.log", folder / "rows.log"
        for file in (self._log, self._rows):
            file.write_bytes(b"")
        ours, theirs = FORK.Pipe(duplex=False)
        self._process = FORK.Process(target=self._run, args=(arguments, prepare, theirs))
        self._process.start()
        theirs.close()
        with contextlib.suppress(EOFError):
            ours.recv()  # it is on its way
        ours.close()

    def _run(self, arguments: list[str], prepare: Callable[[], None], ready: Connection) -> None:
        os.setpgid(0, 0)
        log = os.open(self._log, os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        import haechi.cli
        from bench.networks import shrink_slowfast

        shrink_slowfast()
        self._note_rows()
        prepare()
        ready.send(True)
        haechi.cli.main(arguments)

    def _note_rows(self) -> None:
        """Write down each row that the run reports as finished."""
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
        """Whether it has ended, after so long at most."""
        self._process.join(seconds)
        return self._process.exitcode is not None

    def finish(self, seconds: float) -> int | None:
        """Its exit status; None where it hangs, and is killed then."""
        self.wait(seconds)
        status = self._process.exitcode
        if status is None:
            end(family(self.pid))
        self._process.join()
        return status

    @property
    def rows(self) -> list[str]:
        """The ids of the rows that it reported as finished."""
        return self._rows.read_text(encoding="utf-8").split("\n")[:-1]

    @property
    def told(self) -> str:
        """What it wrote to its terminal."""
        return self._log.read_text(encoding="utf-8", errors="replace")
