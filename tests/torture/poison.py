"""Stands where a decoder would be, in its process: a file's name says what the decoder does to it."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haechi.extract.decoding import pool
from haechi.extract.decoding.decode import sample

MEGABYTES_A_STEP = 16


def _eat() -> None:
    held = []
    while True:
        held.append(os.urandom(1024) * (1024 * MEGABYTES_A_STEP))


def _send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(3600)


# What a file is called -> what its decoder does, and the reason that its row must have.
BOMBS: dict[str, tuple[Callable[[], object], str]] = {
    "sleep": (lambda: time.sleep(3600), "timeout"),
    "stop": (lambda: _send(signal.SIGSTOP), "timeout"),
    "memory": (_eat, "out_of_memory"),
    "segfault": (lambda: _send(signal.SIGSEGV), "crashed"),
    "abort": (os.abort, "crashed"),
    "exit": (lambda: os._exit(3), "crashed"),
    "kill": (lambda: _send(signal.SIGKILL), "crashed"),
}

real = pool._sample_into_slot


def sample_into_slot(path: Path, *arguments: Any) -> Any:
    """What the pool schedules, instead of the real one."""

    def sample_or_die(path: Path, **options: Any) -> Any:
        name = path.name.split("-")[1].split(".")[0]
        if name in BOMBS:
            BOMBS[name][0]()
        return sample(path, **options)

    pool.sample = sample_or_die
    return real(path, *arguments)
