"""Processes that this one starts: they leave Ctrl-C to it, and end with it."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker

PR_SET_PDEATHSIG = 1  # from Linux's sys/prctl.h


@contextlib.contextmanager
def without_interrupt() -> Iterator[None]:
    """Processes that are started in this context ignore Ctrl-C, which this process handles."""
    resource_tracker.ensure_running()  # if it started later, it would unblock the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def end_with_parent(parent: int) -> None:
    """In a process, as it starts: make Linux kill it when its parent dies, which has the process id `parent`."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before this
        os._exit(1)
