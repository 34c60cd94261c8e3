"""Replaces a worker's task: for some file names it kills, stops or fills up its process."""

import asyncio
import os
import signal
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haechi.extract.decoding import pool
from haechi.extract.decoding.decode import DecodedFile, sample
from haechi.extract.decoding.pool import _sample_into_slot
from haechi.extract.decoding.supply import Rejected

NUM_BEFORE_END = 5


class SilentError(Exception):
    """Cannot be pickled, and has no text."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no text")


class OwnBaseError(BaseException):
    """Not an `Exception`."""


ERRORS: dict[str, BaseException] = {
    type(error).__name__: error
    for error in (
        *(ArithmeticError("x"), AssertionError(), AttributeError("no attribute"), BufferError("x"), EOFError("x")),
        *(FloatingPointError("x"), ImportError("x"), IndexError("x"), KeyError("tag"), LookupError("x")),
        *(NotImplementedError(), OverflowError("x"), PermissionError(13, "denied"), RecursionError("x")),
        *(ReferenceError("x"), RuntimeError("x"), StopIteration(), StopAsyncIteration(), SyntaxError("x")),
        *(TypeError("x"), ValueError("x"), ZeroDivisionError("x"), struct.error("x"), GeneratorExit()),
        *(KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError(), ExceptionGroup("two", [ValueError("x")])),
        *(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), UserWarning("x"), SilentError(), OwnBaseError("x")),
    )
}
"""File name without ending -> the error that the decoder raises."""

SIGNALS = {"segfault": signal.SIGSEGV, "stop": signal.SIGSTOP, "abort": signal.SIGABRT}


def sample_into_slot(path: Path, *arguments: object) -> DecodedFile | Rejected:
    """The worker's real task, with a decoder that misbehaves."""
    pool.sample = poisoned  # type: ignore[assignment]
    return _sample_into_slot(path, *arguments)  # type: ignore[arg-type]


def poisoned(path: Path, *, on_header: Callable[[Any], None], **arguments: Any) -> DecodedFile:
    for name, number in SIGNALS.items():
        if name in path.name:
            os.kill(os.getpid(), number)
    if "terminated_once" in path.name and not path.with_suffix(".tried").exists():
        path.with_suffix(".tried").touch()
        os.kill(os.getpid(), signal.SIGTERM)
    if "terminated_midway" in path.name and not path.with_suffix(".tried").exists():
        path.with_suffix(".tried").touch()
        arguments["sink"] = Deadly(arguments["sink"])
    if "killed" in path.name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "hang" in path.name:
        time.sleep(3600)
    if "bloat" in path.name:
        hoard = []
        while True:
            hoard.append(bytearray(64 << 20))
    if path.stem in ERRORS:
        raise ERRORS[path.stem]
    return sample(path, on_header=on_header, **arguments)


class Deadly:
    """A sink that ends its process after it has published some frames."""

    def __init__(self, sink: Any) -> None:
        self._sink, self._num_left = sink, NUM_BEFORE_END

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def publish(self, counts: Any) -> None:
        self._sink.publish(counts)
        self._num_left -= 1
        if not self._num_left:
            time.sleep(1)  # the main process takes them meanwhile
            os.kill(os.getpid(), signal.SIGTERM)
