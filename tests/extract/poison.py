"""Replaces a worker's task: for some file names it kills, stops or fills up its process."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haechi.extract.decoding import pool
from haechi.extract.decoding.decode import DecodedFile, sample
from haechi.extract.decoding.pool import Rejected, _sample_into_slot

NUM_BEFORE_END = 5

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
    if "exit" in path.name:
        sys.exit(3)
    if "bug" in path.name:
        raise ZeroDivisionError("a defect of ours")
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
