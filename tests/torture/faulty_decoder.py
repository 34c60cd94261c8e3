"""Replaces the decoder in worker processes: the file's name selects a fault, such as a crash or an endless wait."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haechi.extract.decoding import pool
from haechi.extract.decoding.decode import sample

MEGABYTES_PER_STEP = 16


def _use_all_memory() -> None:
    blocks = []
    while True:
        blocks.append(os.urandom(1024) * (1024 * MEGABYTES_PER_STEP))


def _send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(3600)


# Part of the file's name -> what the decoder does, and the reason that the file's row must have.
FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "sleep": (lambda: time.sleep(3600), "timeout"),
    "stop": (lambda: _send(signal.SIGSTOP), "timeout"),
    "memory": (_use_all_memory, "out_of_memory"),
    "segfault": (lambda: _send(signal.SIGSEGV), "crashed"),
    "abort": (os.abort, "crashed"),
    "exit": (lambda: os._exit(3), "crashed"),
    "kill": (lambda: _send(signal.SIGKILL), "crashed"),
}

original = pool._sample_into_slot


def sample_into_slot(path: Path, *arguments: Any) -> Any:
    """Takes the place of `pool._sample_into_slot`; for files without a fault in their name, does the same."""

    def sample_or_fail(path: Path, **options: Any) -> Any:
        name = path.name.split("-")[1].split(".")[0]
        if name in FAULTS:
            FAULTS[name][0]()
        return sample(path, **options)

    pool.sample = sample_or_fail
    return original(path, *arguments)
